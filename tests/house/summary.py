#!/usr/bin/env python3
"""Adds up ctest's JUnit files and says why tests were skipped. Usage: summary.py NAME=FILE...; the last line is the count.
A file that is not there counts as one failure: the build that should have led to it failed, or ctest did.

A test cases.X of ctest stands for the cases in cases/cases.X.xml beside the file, which tests/house/cases.py left there.
"""
import collections
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree


def reason_of(case):
    output = case.findtext("system-out") or ""
    # GoogleTest prints the reason after "file:line: Skipped"; a script prints it after "[  SKIPPED ] ".
    match = re.search(r": Skipped\n(.+)", output) or re.search(r"^\[  SKIPPED \] (.+)", output, re.MULTILINE)
    return match[1].strip() if match else case.find("skipped").get("message", "no reason given")


def cases_of(path):
    """(name, case): ctest's own, and those of GoogleTest's programs in their place."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = case.get("name")
        report = pathlib.Path(path).parent / "cases" / f"{name}.xml"
        if not name.startswith("cases.") or not report.exists():  # without one it did not start, or was killed
            yield name, case
            continue
        inner = list(ElementTree.parse(report).getroot().iter("testcase"))
        yield from ((f"{name.split('.')[1]}: {one.get('name')}", one) for one in inner)
        if case.find("failure") is not None and all(one.find("failure") is None for one in inner):
            yield name, case


def main(arguments):
    passed = failed = 0
    skipped = collections.defaultdict(list)
    for argument in arguments:
        name, path = argument.split("=", 1)
        if not pathlib.Path(path).exists():
            failed += 1
            print(f"failed in {name}: none of its tests ran; the messages of its build say why")
            continue
        for test, case in cases_of(path):
            if case.find("skipped") is not None or case.get("status") in ("disabled", "notrun"):
                skipped[f"{name}: {reason_of(case) if case.find('skipped') is not None else 'disabled'}"].append(test)
            elif case.find("failure") is not None:
                failed += 1
                print(f"failed in {name}: {test}")
            else:
                passed += 1
    for reason, names in sorted(skipped.items()):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        print(f"skipped {len(names)} in {reason} ({shown})")
    print(f"{passed} passed, {failed} failed, {sum(map(len, skipped.values()))} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
