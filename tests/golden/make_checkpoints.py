#!/usr/bin/env python3
"""Makes the sample checkpoints in tests/golden/checkpoints: two ranks, 40 steps on the shipped digits.

They stand for what users have on their disks: a change of the program must go on reading them, so they are not made anew.
DTRAIN_PROGRAM names the program. No program writes format 1 any more: its sample is one of format 2 as io/FORMAT.md
describes the older one, without the settings that came with or after format 2.
"""
import hashlib
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402

FOLDER = os.path.join(harness.ROOT, "tests", "golden", "checkpoints")
LATER = {"train": ("loss_scale",), "cuda": ("share_gpus", "mixed_models", "affinity"),
         "communication": ("least_buckets", "probe_seconds", "transport")}
THEN = {"communication.bucket_mib": "25", "communication.last_bucket_mib": "1"}


def older(manifest):
    """The manifest as the last program before format 2 would have written it."""
    later = {f"{section}.{key}" for section, keys in LATER.items() for key in keys}
    manifest["fields"] = [[path, THEN.get(path, value)] for path, value in manifest["fields"] if path not in later]
    lines, section = [], ""
    for line in manifest["configuration"].splitlines():
        key, _, _ = line.strip().partition(":")
        section = section if line.startswith(" ") else key
        path = f"{section}.{key}"
        if path not in later:
            lines.append(f"  {key}: {THEN[path]}" if path in THEN else line)
    manifest["configuration"] = "\n".join(lines) + "\n"
    del manifest["good_steps"]
    manifest["format"] = 1
    return manifest


def sign(manifest):
    manifest.pop("sha256")
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)[:-len("\n}")]
    return f'{text},\n "sha256": "{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n'


def main():
    case = harness.Case()
    case.setUp()
    try:
        case.make_digits()
        for number in (1, 2):
            name = f"format-{number}"
            case.ok(os.path.join(FOLDER, name + ".yaml"), ranks=2)
            step, = case.checkpoints()
            manifest = os.path.join("run", "checkpoints", step, "MANIFEST.json")
            if number == 1:
                case.write(manifest, sign(older(case.json(manifest))))
            shutil.rmtree(os.path.join(FOLDER, name), ignore_errors=True)
            shutil.copytree(case.path("run", "checkpoints", step), os.path.join(FOLDER, name, step))
            shutil.rmtree(case.path("run"))
    finally:
        case.doCleanups()


if __name__ == "__main__":
    main()
