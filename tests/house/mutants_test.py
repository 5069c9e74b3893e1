#!/usr/bin/env python3
"""What `tests/campaign mutants` changes: the promises are where their table says, and a drawn change is a change of code."""
import os
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support", "mutants"))
import drawing  # noqa: E402
import explained  # noqa: E402
import promises  # noqa: E402

SOURCE = '''
// a < b, f(a, b);
int f(int a, int b) {
  std::vector<int> sums(3, 0);  // 5
  if (a < b) throw BugError("1 < 2");
  count += a - 1;
  if (a == b)
    swap(a, b);
  return scale * 0.5;
}'''


class Mutants(unittest.TestCase):
    def test_promises_are_where_they_were(self):
        self.assertGreater(len(promises.ALL), 15)
        for promise in promises.ALL:
            with open(os.path.join(ROOT, promise.file), encoding="utf-8") as source:
                text = source.read()
            try:
                self.assertNotEqual(promises.apply(text, promise.old, promise.new), text, promise.what)
            except ValueError as why:
                self.fail(f"{promise.file}, {promise.what}: {why}; put the new text into tests/support/mutants/promises.py")

    def test_what_is_explained_is_there(self):
        for (file, old, _), why in explained.EXPLAINED.items():
            with open(os.path.join(ROOT, file), encoding="utf-8") as source:
                self.assertIn(old, [line.strip() for line in source], f"{file}: {why}")

    def test_code_changes_and_words_do_not(self):
        lines = SOURCE.split("\n")
        found = set()
        for number, clean in enumerate(drawing.code_of(SOURCE)):
            for kind, begin, end, new in drawing.changes_of(clean.rstrip(), drawing.code_of(SOURCE)[number - 1], False):
                found.add((kind, (lines[number][:begin] + new + lines[number][end:]).strip()))
        self.assertEqual(found, {
            ("constant", "std::vector<int> sums(4, 0);  // 5"), ("constant", "std::vector<int> sums(3, 1);  // 5"),
            ("arguments", "std::vector<int> sums(0, 3);  // 5"),
            ("comparison", 'if (a >= b) throw BugError("1 < 2");'), ("bound", 'if (a <= b) throw BugError("1 < 2");'),
            ("bound", "count += a;"), ("constant", "count += a - 2;"), ("statement", ";"),
            ("comparison", "if (a != b)"), ("arguments", "swap(b, a);"), ("constant", "return scale * 1.0;")})

    def test_every_kind_is_in_the_sources(self):
        files = list(drawing.sources(ROOT))
        self.assertGreater(len(files), 200)
        self.assertFalse([file for file in files if file.startswith("runtime/cuda/")])
        kinds = {mutant.kind for file in files if file.startswith("io/checkpoint/") for mutant in drawing.mutants_of(ROOT, file)}
        self.assertEqual(kinds, {"comparison", "bound", "constant", "statement", "arguments"})


if __name__ == "__main__":
    unittest.main()
