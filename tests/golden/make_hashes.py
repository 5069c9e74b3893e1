#!/usr/bin/env python3
"""Makes the lines of tests/golden/hashes for the processor that it runs on, and keeps those of other kinds.

DTRAIN_PROGRAM names the program (default: build/release/dtrain): one of a commit whose bits are known to be right.
"""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import hashes  # noqa: E402


def main():
    case = hashes.Hashes()
    try:
        case.setUp()
        case.prepare_for(hashes.ALL)
        kind = case.kind()
        print(f"processor {kind}", flush=True)
        found = {line: case.hash_of(*line) for line in hashes.ALL}
    except unittest.SkipTest as why:
        sys.exit(f"error: {why}")
    finally:
        case.doCleanups()
    for recipe, steps, mode, ranks in found:
        if mode == "elastic" and found[recipe, steps, mode, ranks] != found.get((recipe, steps, mode, 2)):
            sys.exit(f"error: {recipe}: elastic runs differ on 1 and 2 ranks; tests/golden/hashes is left as it was")
    hashes.write({**(hashes.read() if os.path.exists(hashes.FILE) else {}), kind: found})


if __name__ == "__main__":
    main()
