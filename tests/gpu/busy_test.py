#!/usr/bin/env python3
"""Does busy.cpp add up what CUPTI records? With fake_cupti.cpp in its place. Usage: busy_test.py LIBRARY FOLDER-OF-FAKE"""
import json
import os
import subprocess
import sys
import tempfile

library, fake = sys.argv[1:]
CODE = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).InitializeInjection()"


def busy(folder, libraries):
    out = os.path.join(folder, "busy.json")
    subprocess.run([sys.executable, "-c", CODE, library], check=True, env={**os.environ, "LD_LIBRARY_PATH": libraries, "DTRAIN_BUSY_FILE": out})
    with open(out) as file:
        return json.load(file)


with tempfile.TemporaryDirectory() as work:
    seen = busy(work, fake)
    # The last record ends after 2.995 s: from 1.495 to 2.695 s, 90 + 5 of each 100 ms.
    assert abs(seen["busy"] - 0.95) < 1e-6 and abs(seen["window_seconds"] - 1.2) < 1e-9, seen
    assert abs(seen["longest_gap_seconds"] - 0.005) < 1e-9 and seen["error"] == "", seen
    if not os.path.exists("/usr/local/cuda/lib64/libcupti.so.13"):
        seen = busy(work, work)
        assert seen["records"] == 0 and ("libcupti" in seen["error"] or "CUPTI" in seen["error"]), seen
print("ok")
