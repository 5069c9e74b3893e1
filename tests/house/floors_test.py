#!/usr/bin/env python3
"""Proves that the floors check bites: each planted violation is found, and a clean tree passes."""
import pathlib
import tempfile
import unittest

from floors import MOST_LINES, MOST_UNITS, Check

CLEAN = {
    "runtime/tensor/a.hpp": "#pragma once\n#include <vector>\n",
    "runtime/ops/a.hpp": '#pragma once\n#include "runtime/tensor/a.hpp"\n',
    "runtime/graph/a.hpp": '#pragma once\n#include "runtime/ops/a.hpp"\n',
    "runtime/cpu/b.cpp": '#include <oneapi/dnnl/dnnl.hpp>\n#include "runtime/tensor/a.hpp"\n#include "runtime/cpu/vendor.hpp"\n',
    "runtime/cpu/vendor.hpp": "#pragma once\n#include <dnnl.hpp>\n",
    "runtime/cpu/ops/b.cpp": '#include "runtime/cpu/vendor.hpp"\n',
    "comm/mpi/c.hpp": '#pragma once\n#include "runtime/tensor/a.hpp"\n',
    "comm/mpi/c.cpp": '#include <mpi.h>\n#include "comm/mpi/c.hpp"\n#if defined(__AVX2__)\n#endif\n',
    "io/hdf5/d.hpp": "#pragma once\n",
    "io/hdf5/libraries.cpp": "#include <zlib.h>\n",
    "io/dataset/f.hpp": '#pragma once\n#include "io/hdf5/d.hpp"\n',
    "launch/config/e.cpp": '#include <yaml-cpp/yaml.h>\n#include "io/hdf5/d.hpp"\n#include "comm/mpi/c.hpp"\n',
    "launch/bench/g.hpp": '#pragma once\n#include "io/hdf5/d.hpp"\n',
    "launch/bench/g.cpp": '#include "launch/bench/g.hpp"\n',
    "launch/main.cpp": '#include "launch/bench/g.hpp"\n',
    "tests/comm/c_test.cpp": '#include <gtest/gtest.h>\n#include "comm/mpi/c.hpp"\n#include "tests/support/s.hpp"\n',
    "tests/io/dataset/f_test.cpp": '#include <hdf5.h>\n#include "io/dataset/f.hpp"\n',
    "tests/launch/bench/g_test.cpp": '#include "launch/bench/g.hpp"\n',
    "tests/support/s.hpp": "#pragma once\n",
    "tests/support/s.py": "pass\n" * MOST_LINES,
    **{f"runtime/plan/u{i}.{kind}": "#pragma once\n" for i in range(MOST_UNITS) for kind in ("hpp", "cpp")},
    **{f"runtime/ops/o{i}.cpp": "" for i in range(MOST_UNITS + 1)},
}
# What it is: (file, what is added to it, a part of the problem that must be found).
VIOLATIONS = {
    "an upward arrow": ("runtime/tensor/a.hpp", '#include "comm/mpi/c.hpp"', "runtime includes comm/mpi/c.hpp"),
    "an arrow across": ("io/hdf5/d.hpp", '#include "comm/mpi/c.hpp"', "io includes comm/mpi/c.hpp"),
    "an upward arrow of a test": ("tests/comm/c_test.cpp", '#include "io/hdf5/d.hpp"', "comm includes io/hdf5/d.hpp"),
    "an arrow into the tests": ("comm/mpi/c.cpp", '#include "tests/support/s.hpp"', "belongs to the tests"),
    "a circle of two rooms": ("io/hdf5/d.hpp", '#include "io/dataset/f.hpp"', "io/hdf5 -> io/dataset -> io/hdf5"),
    "a circle of three rooms": ("runtime/tensor/a.hpp", '#include "runtime/graph/a.hpp"',
                                "runtime/tensor -> runtime/graph -> runtime/ops -> runtime/tensor"),
    "an arrow to a leaf": ("launch/config/e.cpp", '#include "launch/bench/g.hpp"', "launch/main.cpp alone includes"),
    "a room of too many units": ("runtime/plan/one_more.cpp", "", "16 units"),
    "a file that is too long": ("io/hdf5/d.hpp", "\n" * (MOST_LINES - 1), "501 lines"),
    "a script that is too long": ("tests/support/s.py", "pass", "501 lines"),
    "a vendor in another floor": ("launch/config/e.cpp", "#include <hdf5.h>", "hdf5.h belongs to io/hdf5 alone"),
    "a vendor in another room": ("io/dataset/f.hpp", "#include <hdf5.h>", "hdf5.h belongs to io/hdf5 alone"),
    "a vendor in another file": ("io/hdf5/d.hpp", "#include <zlib.h>", "belongs to io/hdf5/libraries.cpp and io/import"),
    "a vendor without a room": ("runtime/cpu/b.cpp", "#include <thrust/sort.h>", "belongs to no room yet"),
    "a vendor of another floor in a test": ("tests/comm/c_test.cpp", "#include <hdf5.h>", "hdf5.h belongs to io/hdf5"),
    "a vendor in a shared header": ("comm/mpi/c.hpp", "#include <mpi.h>", "comm/mpi/c.hpp brings mpi.h into launch/config"),
    "a vendor in a header of the floor": ("io/hdf5/d.hpp", "#include <hdf5.h>", "brings hdf5.h into io/dataset"),
    "a vendor behind a header": ("runtime/tensor/a.hpp", '#include "runtime/cpu/vendor.hpp"', "brings dnnl.hpp into comm"),
    "a relative name": ("comm/mpi/c.cpp", '#include "c.hpp"', "not named from the root"),
    "angle brackets": ("comm/mpi/c.cpp", "#include <comm/mpi/c.hpp>", 'included as "comm/mpi/c.hpp"'),
    "a header that is not there": ("comm/mpi/c.cpp", '#include "comm/mpi/none.hpp"', "does not exist"),
    "a header without its guard": ("io/hdf5/naked.hpp", "#include <vector>", "#pragma once"),
    "a feature asked of the preprocessor": ("comm/mpi/c.cpp", "#ifdef HAVE_NCCL", "HAVE_NCCL"),
    "a negated feature": ("comm/mpi/c.cpp", "#if !defined(USE_CUDA)", "USE_CUDA"),
}


class Floors(unittest.TestCase):
    def problems(self, changed="", added=""):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name in {changed, *CLEAN} - {""}:
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(CLEAN.get(name, "") + (added + "\n" if name == changed else ""))
            return Check(root).problems

    def test_a_clean_tree_passes(self):
        self.assertEqual(self.problems(), [])

    def test_each_violation_is_found(self):
        for what, (path, line, expected) in VIOLATIONS.items():
            with self.subTest(what):
                found = self.problems(path, line)
                self.assertTrue(any(expected in problem for problem in found), found)


if __name__ == "__main__":
    unittest.main()
