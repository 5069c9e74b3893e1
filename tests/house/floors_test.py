#!/usr/bin/env python3
"""Proves that the floors check bites: each planted violation is found, and a clean tree passes."""
import pathlib
import tempfile
import unittest

from floors import Check

CLEAN = {
    "runtime/a.hpp": "#pragma once\n#include <vector>\n",
    "runtime/cpu/b.cpp": '#include <oneapi/dnnl/dnnl.hpp>\n#include "runtime/a.hpp"\n#include "runtime/cpu/vendor.hpp"\n',
    "runtime/cpu/vendor.hpp": "#pragma once\n#include <dnnl.hpp>\n",
    "comm/c.hpp": '#pragma once\n#include "runtime/a.hpp"\n',
    "comm/c.cpp": '#include <mpi.h>\n#include "comm/c.hpp"\n#if defined(__AVX2__)\n#endif\n',
    "io/d.hpp": "#pragma once\n",
    "launch/e.cpp": '#include <yaml-cpp/yaml.h>\n#include "io/d.hpp"\n#include "comm/c.hpp"\n',
    "tests/comm/c_test.cpp": '#include <gtest/gtest.h>\n#include "comm/c.hpp"\n#include "tests/support/s.hpp"\n',
    "tests/support/s.hpp": "#pragma once\n",
}
VIOLATIONS = {
    "an upward arrow": ("runtime/a.hpp", '#include "comm/c.hpp"', "runtime includes comm/c.hpp"),
    "an arrow across": ("io/d.hpp", '#include "comm/c.hpp"', "io includes comm/c.hpp"),
    "an upward arrow of a test": ("tests/comm/c_test.cpp", '#include "io/d.hpp"', "comm includes io/d.hpp"),
    "an arrow into the tests": ("comm/c.cpp", '#include "tests/support/s.hpp"', "belongs to the tests"),
    "a vendor in another floor": ("launch/e.cpp", "#include <hdf5.h>", "hdf5.h belongs to io alone"),
    "a vendor in a shared header": ("comm/c.hpp", "#include <mpi.h>", "comm/c.hpp brings mpi.h into launch"),
    "a vendor behind a header": ("runtime/a.hpp", '#include "runtime/cpu/vendor.hpp"', "brings dnnl.hpp into comm"),
    "a relative name": ("comm/c.cpp", '#include "c.hpp"', "not named from the root"),
    "angle brackets": ("comm/c.cpp", "#include <comm/c.hpp>", 'included as "comm/c.hpp"'),
    "a header that is not there": ("comm/c.cpp", '#include "comm/none.hpp"', "does not exist"),
    "a feature asked of the preprocessor": ("comm/c.cpp", "#ifdef HAVE_NCCL", "HAVE_NCCL"),
    "a negated feature": ("comm/c.cpp", "#if !defined(USE_CUDA)", "USE_CUDA"),
}


class Floors(unittest.TestCase):
    def problems(self, extra=None):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in CLEAN.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text + (extra[1] + "\n" if extra and extra[0] == name else ""))
            return Check(root).problems

    def test_a_clean_tree_passes(self):
        self.assertEqual(self.problems(), [])

    def test_each_violation_is_found(self):
        for what, (path, line, expected) in VIOLATIONS.items():
            with self.subTest(what):
                found = self.problems((path, line))
                self.assertTrue(any(expected in problem for problem in found), found)

    def test_a_header_without_its_guard_is_found(self):
        CLEAN["io/naked.hpp"] = "#include <vector>\n"
        self.addCleanup(CLEAN.pop, "io/naked.hpp")
        self.assertTrue(any("#pragma once" in problem for problem in self.problems()))


if __name__ == "__main__":
    unittest.main()
