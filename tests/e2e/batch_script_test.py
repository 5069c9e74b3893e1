"""What launch/slurm/train.sbatch does at each end of a job: queued again, or not, and why. srun and scontrol are scripts
here, and the program is one that ends as it is told; tests/e2e/slurm has a real Slurm."""
import os
import signal
import stat
import subprocess
import time

import harness

SCRIPT = os.path.join(harness.ROOT, "launch", "slurm", "train.sbatch")
# Saves checkpoint $SAVES, if any, and then exits with $CODE, or waits for the signal that it is to exit after.
PROGRAM = """#!/usr/bin/env python3
import os, signal, sys, time
if sys.argv[1] == "config":
    os.execv("{program}", ["{program}", *sys.argv[1:]])
def end(*_):
    # As ranks that save. (bash 5.2 loses the status of what ends in the instant in which a trap cuts its wait short.)
    time.sleep(0.2)
    os._exit(int(os.environ["CODE"]))
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, end)
if os.environ["SAVES"]:
    os.makedirs("run/checkpoints/" + os.environ["SAVES"])
    open("run/checkpoints/" + os.environ["SAVES"] + "/MANIFEST.json", "w").close()
open("started", "w").close()
while os.environ["WAITS"]:
    time.sleep(0.02)
sys.exit(int(os.environ["CODE"]))
"""


class BatchScript(harness.Case):
    def setUp(self):
        super().setUp()
        self.write("config.yaml", harness.MLP)
        os.mkdir(self.path("bin"))
        self.script("srun", '#!/bin/bash\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n')
        self.script("scontrol", '#!/bin/bash\necho "$@" >>requeued\n')
        self.script("program", PROGRAM.format(program=harness.PROGRAM))
        os.makedirs(self.path("run", "checkpoints", "step-000000100"))
        self.write("run/checkpoints/step-000000100/MANIFEST.json", "")

    def script(self, name, text):
        self.write(f"bin/{name}", text)
        os.chmod(self.path("bin", name), stat.S_IRWXU)

    def job(self, code, saves="", signals=(), **environment):
        """Its output, and whether it was queued again."""
        for name in ("started", "requeued"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
        env = dict(os.environ, PATH=self.path("bin") + ":" + os.environ["PATH"], DTRAIN=self.path("bin", "program"), SLURM_JOB_ID="7",
                   CODE=str(code), SAVES=saves, WAITS="1" if signals else "", **environment)
        process = subprocess.Popen(["bash", SCRIPT, "config.yaml"], cwd=self.folder, env=env, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.addCleanup(process.kill)
        end = time.monotonic() + 20
        while signals and not os.path.exists(self.path("started")) and time.monotonic() < end:
            time.sleep(0.01)
        for number in signals:
            if number == signal.SIGTERM:  # Slurm's to the script and the step
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        out, _ = process.communicate(timeout=20)
        self.assertEqual(process.returncode, code, out)
        queued = os.path.exists(self.path("requeued"))
        if queued:
            self.assertEqual(self.read("requeued"), "requeue 7\n")
        return out, queued

    def check(self, out_and_queued, queued, says):
        out, was = out_and_queued
        self.assertEqual(was, queued, out)
        self.assertIn(says, out)

    def test_a_stopped_run_is_queued_again(self):
        self.check(self.job(75, signals=[signal.SIGUSR1]), True, "stopped by a signal: queued again as job 7 (restart 1 of at most 50)")
        self.check(self.job(75), True, "stopped by a signal: queued again as job 7 (restart 1 of at most 50)")
        self.check(self.job(143, signals=[signal.SIGUSR1]), True, "stopped before the time limit: queued again")

    def test_a_lost_node_is_queued_again_where_there_is_a_new_checkpoint(self):
        self.check(self.job(5, saves="step-000000200"), True,
                   "a rank or a node was lost after a new checkpoint, step-000000200: queued again as job 7 (restart 1 of at most 50)")
        self.check(self.job(5), False, "a rank or a node was lost before a new checkpoint: not queued again")

    def test_a_job_is_not_queued_again_for_ever(self):
        bound = "(DTRAIN_REQUEUES=3); submit it again to go on"
        self.check(self.job(75, SLURM_RESTART_COUNT="2", DTRAIN_REQUEUES="3"), True, "(restart 3 of at most 3)")
        self.check(self.job(75, SLURM_RESTART_COUNT="3", DTRAIN_REQUEUES="3"), False, "not queued again, as it has been started again 3 times " + bound)
        self.check(self.job(5, saves="step-000000300", SLURM_RESTART_COUNT="3", DTRAIN_REQUEUES="3"), False, bound)

    def test_other_ends_are_ends(self):
        for code in (0, 2, 3, 7, 137):
            self.assertEqual(self.job(code, saves=f"step-{code + 1000:09}"), ("", False))
        self.check(self.job(75, saves="step-000009000", signals=[signal.SIGTERM]), False, "cancelled: not queued again")


if __name__ == "__main__":
    harness.main()
