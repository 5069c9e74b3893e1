#!/usr/bin/env python3
"""Runs the cases of a GoogleTest program in one process, and in another after a case that crashed or hung, so that each case
has a result of its own. Usage: cases.py [--timeout SECONDS] [--shard I/N] PROGRAM REPORT.xml; 0: all passed, 1: some did not.

The report is JUnit's, which tests/house/summary.py counts. What a failed case printed comes out, too.
"""
import argparse
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

BEGINS = re.compile(r"^.*?\[ RUN      \] (\S+)$")
REPORT = re.compile(r"WARNING: ThreadSanitizer|ERROR: (Address|Leak)Sanitizer")  # the thread sanitizer goes on after one
ENDS = re.compile(r"^.*?\[ ( {6}OK| FAILED | SKIPPED) \] ([^\s,]+)(?:, where .*)? \(\d+ ms\)$")


def cases_of(program):
    listed = subprocess.run([program, "--gtest_list_tests"], stdout=subprocess.PIPE, text=True, check=True).stdout
    suite = ""
    for line in listed.splitlines():
        name = line.split("#")[0].rstrip()
        if name and not name.startswith(" ") and name.endswith("."):
            suite = name
        elif suite and name.startswith("  "):
            yield suite + name.strip()


def disabled(name):
    return any(part.startswith("DISABLED_") for part in re.split(r"[./]", name))


class Results:
    def __init__(self):
        self.rows = []  # (name, verdict, seconds, output); verdict: OK, FAILED, SKIPPED, DISABLED

    def add(self, name, verdict, seconds, output):
        if REPORT.search(output):
            verdict = "FAILED"  # where it happened, not at the end of the process
        self.rows.append((name, verdict, seconds, output))
        if verdict == "FAILED":
            print(output, flush=True)

    def write(self, path):
        suite = ElementTree.Element("testsuite", tests=str(len(self.rows)))
        for name, verdict, seconds, output in self.rows:
            case = ElementTree.SubElement(suite, "testcase", name=name, time=f"{seconds:.3f}", status="run")
            if verdict == "FAILED":
                ElementTree.SubElement(case, "failure", message="failed")
            elif verdict == "SKIPPED":
                ElementTree.SubElement(case, "skipped", message="")
            elif verdict == "DISABLED":
                case.set("status", "disabled")
            if verdict != "OK":
                text = "".join(c for c in output if c in "\n\t" or c >= " ")
                ElementTree.SubElement(case, "system-out").text = text
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def lines_of(process, timeout):
    """The lines of its output; None where nothing came for so many seconds. What it starts may keep the pipe open."""
    descriptor, pending = process.stdout.fileno(), b""
    last = time.monotonic()
    while True:
        ready = select.select([descriptor], [], [], 0.2)[0]
        if ready:
            chunk = os.read(descriptor, 65536)
            *lines, pending = (pending + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            last = time.monotonic()
            if not chunk:
                break
        elif process.poll() is not None:
            break
        elif time.monotonic() - last > timeout:
            yield None
            return
    if pending:
        yield pending.decode(errors="replace")


def run(program, names, timeout, results):
    """One process; returns the cases that it did not come to."""
    with tempfile.NamedTemporaryFile("w", prefix="dtrain-cases-") as flags:
        flags.write(f"--gtest_filter={':'.join(names)}\n--gtest_color=no\n")
        flags.flush()
        process = subprocess.Popen([program, f"--gtest_flagfile={flags.name}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        remaining, current, output, begun, hung = dict.fromkeys(names), None, [], 0.0, False
        try:
            for line in lines_of(process, timeout):
                if line is None:
                    hung = True
                    break
                if match := BEGINS.match(line):
                    current, output, begun = match[1], [], time.monotonic()
                elif (match := ENDS.match(line)) and match[2] == current:
                    results.add(current, match[1].strip(), time.monotonic() - begun, "\n".join([*output, line]))
                    remaining.pop(current, None)
                    current, output = None, []
                    continue
                output.append(line)
        finally:
            if process.poll() is None and (hung or sys.exc_info()[0]):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
    if current:
        end = f"no line for {timeout} s: killed" if hung else f"the process ended with status {status}"
        results.add(current, "FAILED", time.monotonic() - begun, "\n".join([*output, f"[  FAILED  ] {current}: {end}"]))
        remaining.pop(current, None)
    elif remaining:
        lost = next(iter(remaining))  # before the first, or between two
        results.add(lost, "FAILED", 0, "\n".join([*output, f"[  FAILED  ] {lost}: it was not reached (status {status})"]))
        remaining.pop(lost)
    elif hung or (status != 0 and not any(row[1] == "FAILED" for row in results.rows)):
        results.add("the_end_of_the_process", "FAILED", 0, "\n".join([*output, f"[  FAILED  ] all cases passed, then: status {status}"]))
    return list(remaining)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--timeout", type=float, default=120, help="seconds that a case may say nothing")
    parser.add_argument("--shard", default="0/1", help="each N-th case, from the I-th")
    parser.add_argument("program")
    parser.add_argument("report", type=pathlib.Path)
    arguments = parser.parse_args()
    shard, shards = map(int, arguments.shard.split("/"))
    results = Results()
    names = []
    for name in list(cases_of(arguments.program))[shard::shards]:
        if disabled(name):
            results.add(name, "DISABLED", 0, "")
        else:
            names.append(name)
    while names:
        names = run(arguments.program, names, arguments.timeout, results)
    results.write(arguments.report)
    verdicts = [row[1] for row in results.rows]
    print(f"{len(verdicts)} cases: {verdicts.count('OK')} passed, {verdicts.count('FAILED')} failed, {verdicts.count('SKIPPED')} skipped")
    return 1 if "FAILED" in verdicts or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
