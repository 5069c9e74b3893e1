#!/usr/bin/env python3
"""Makes unicode_tables.hpp, word_piece_tables.cpp and word_piece_bare.cpp beside itself: make_unicode_tables.py

Needs the packages `unicodedata2` of Unicode 16 and `tokenizers` of PyPI. Letters and numbers are those of Unicode 16, which
tiktoken and tokenizers use as well. What BERT's normalizer and pre-tokenizer do with a character is asked of tokenizers
itself, whose tables of some properties are of older versions of Unicode.
"""
import os
import subprocess

import unicodedata2
from tokenizers import normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xAC00 + 11172)  # decomposed by computation
HEAD = """// Made by make_unicode_tables.py; {what}.
// Constants only.
#include "{header}"

namespace dtrain::io {{

"""


def runs(points):
    """[first, last] of each run of neighbours."""
    found = []
    for c in points:
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def mapped(pairs):
    """[first, last, step, what is added] of runs of characters that become one other each."""
    found = []
    for c, to in pairs:
        last = found[-1] if found else None
        if last and last[3] == to - c and (last[2] == 0 or c - last[1] == last[2]) and c - last[1] <= 2:
            last[2] = c - last[1]
            last[1] = c
        else:
            found.append([c, c, 0, to - c])
    return [[a, b, step or 1, add] for a, b, step, add in found]


def number(n):
    return f"{n:#x}" if n > 9 else str(n)


def span(kind, name, rows):
    body = ", ".join("{" + ", ".join(number(n) for n in row) + "}" for row in rows)
    return f"constexpr {kind} {name}_rows[] = {{{body}}};\n"


def write(path, text):
    style = subprocess.run(["clang-format-14", "--style=file", f"--assume-filename={path}"], input=text, text=True,
                           stdout=subprocess.PIPE, check=True).stdout
    with open(path, "w") as file:
        file.write(style)


def main():
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    assert unicodedata2.unidata_version.startswith("16."), unicodedata2.unidata_version
    category = {c: unicodedata2.category(chr(c)) for c in POINTS}
    names = {"letters": "L", "numbers": "N"}
    body = ["// Made by make_unicode_tables.py: the letters and numbers of Unicode 16, as ranges of characters.",
            "// Constants only.", "#pragma once", "", "#include <cstdint>", "", "namespace dtrain::io {", "",
            "struct CharacterRange {", "  std::uint32_t first, last;", "};", ""]
    body = "\n".join(body) + "\n"
    for name, kind in names.items():
        body += span("inline CharacterRange", name, runs([c for c in POINTS if category[c][0] == kind]))
    body = body.replace("constexpr inline", "inline constexpr")
    write("unicode_tables.hpp", body + "\n}  // namespace dtrain::io\n")

    plain = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)

    def ask(**options):
        normalizer = normalizers.BertNormalizer(**{**plain, **options})
        lines = normalizer.normalize_str("".join("a" + chr(c) + "\U0010FFFDb" for c in POINTS if c not in (0x10FFFD,)))
        parts = dict(zip([c for c in POINTS if c != 0x10FFFD], [p[1:] for p in lines.split("\U0010FFFDb")]))
        return parts

    lower, bare = ask(lowercase=True), ask(strip_accents=True)
    removed = [c for c in POINTS if normalizers.BertNormalizer(**{**plain, "clean_text": True}).normalize_str(chr(c)) == ""]
    pre = pre_tokenizers.BertPreTokenizer()
    alone = [c for c in POINTS if [p for p, _ in pre.pre_tokenize_str("a" + chr(c) + "b")] == ["a", chr(c), "b"]]
    single = lambda table: [(c, ord(t)) for c, t in table.items() if len(t) == 1 and ord(t) != c]
    several = lambda table: [(c, *map(ord, t)) for c, t in table.items() if len(t) > 1 and c not in HANGUL]
    assert all(len(row) <= 4 for row in several(bare) + several(lower))
    text = HEAD.format(what="what BERT's normalizer makes of a character", header="io/text/word_piece_tables.hpp")
    text += "namespace {\n\n"
    tables = {
        "punctuation": ("CharacterRange", runs(alone)),
        "removed": ("CharacterRange", runs(removed)),
        "marks": ("CharacterRange", runs([c for c, t in bare.items() if t == ""])),
        "bare_several": ("CharacterSequence", several(bare)),
        "lower": ("CharacterMapping", mapped(single(lower))),
        "lower_several": ("CharacterSequence", several(lower)),
    }
    for name, (kind, rows) in tables.items():
        text += span(kind, name, rows)
    text += "\n}  // namespace\n\n"
    text += "const WordPieceTables& word_piece_tables() noexcept {\n  static constexpr WordPieceTables tables{"
    text += ", ".join(f"{name}_rows" for name in tables) + "};\n  return tables;\n}\n\n}  // namespace dtrain::io\n"
    write("word_piece_tables.cpp", text)
    pairs = [(c, to) for c, to in single(bare) if c not in HANGUL]
    text = HEAD.format(what="characters that are one other without their accents", header="io/text/word_piece_tables.hpp")
    text += "namespace {\n\n" + span("CharacterPair", "bare", pairs) + "\n}  // namespace\n\n"
    text += "std::span<const CharacterPair> word_piece_bare() noexcept {\n  return bare_rows;\n}\n\n}  // namespace dtrain::io\n"
    write("word_piece_bare.cpp", text)


if __name__ == "__main__":
    main()
