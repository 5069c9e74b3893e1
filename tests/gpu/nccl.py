"""Several ranks: the Collective suite, training and faults over NCCL and over `staged`, and what of the sums is hidden.

On one GPU the ranks share it and are hosts of their own to NCCL (NCCL_HOSTID), which then talks over loopback sockets; that
is slow, and says nothing of speed. Where several GPUs can be seen, the same runs on them, with the scaling benchmark.
"""
import os
import pathlib
import re
import signal
import time

from correctness import data_of, step_reached
from host import (COMMUNICATION, FIXED_ORDER, GRAPHS_OFF, GRAPHS_ON, OK, SHARDED, SHARE_GPUS, TF32_OFF, TIMEOUT, TRANSPORT, Failure, Skip, need)
from speed import resnet50_settings

# Relative difference of losses over numbers of ranks in float32, as tests/e2e has it for the CPU.
LOSS_OVER_RANKS = 1e-4
# Behind batch norms such differences grow from step to step: of five, as against the CPU in `correctness`.
LOSS_OF_RESNET18 = 1e-3
GONE_WITHIN, TOLD_WITHIN = 5, 10  # seconds
HIDDEN = 0.9
SOCKETS = {"NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1", "NCCL_MNNVL_ENABLE": "0", "NCCL_DEBUG": "WARN"}


def world(host, ranks, apart=False):
    """Settings and environment of so many ranks: on a GPU each where there are enough of them."""
    if not apart and host.device == "cuda" and len(host.gpu_names) >= ranks:
        return [], {}, False
    return [SHARE_GPUS], SOCKETS, True


def suite(transport, ranks):
    def check(host):
        if not host.comm_tests or not os.access(host.comm_tests, os.X_OK):
            raise Skip("comm_suite_program is not here")
        _, environment, apart = world(host, ranks)
        done = host.run(*host.on_ranks(ranks, str(host.comm_tests), "device", host.device, transport, apart=apart), environment=environment)
        need(done.code == OK, str(done))
        return f"{ranks} ranks: sums, moves, fixed order and reducers against what MPI's and the documented tree give"

    return check


def train_on(host, ranks, transport, recipe, run, *options, like=None, **how):
    settings, environment, _ = world(host, ranks, **how)
    sums = [*settings, TRANSPORT.format(transport)] if ranks > 1 else []
    return host.train(recipe, run, *options, *sums, like=like, ranks=ranks, environment=environment)


def worst(host, run, other):
    here, there = host.losses(run), host.losses(other)
    need(len(here) == len(there) > 0, f"{len(here)} and {len(there)} losses in {run} and {other}")
    return max(abs(a - b) / abs(b) for a, b in zip(here, there))


def training(recipe, tolerance, micro, *more):
    """1, 2 and 4 ranks over NCCL and 2 over staged, the same micro batches on each; the CNN on the CPU's ranks, too."""

    def check(host):
        data, said = data_of(host, recipe), []
        options = [*data, *more, TF32_OFF, f"batch={{global: 128, micro: {micro}}}", "train.eval_every_steps=1000000", "--fresh"]
        train_on(host, 1, None, recipe, f"{recipe}-1", *options)
        runs = [(2, "nccl"), (4, "nccl"), (2, "staged")]
        for ranks, transport in runs:
            run = f"{recipe}-{transport}-{ranks}"
            summary = train_on(host, ranks, transport, recipe, run, *options, like=f"{recipe}-1")
            need(summary["ranks"] == ranks and summary["device"] == host.device, f"{run}: {summary['ranks']} ranks on {summary['device']}")
            found = worst(host, run, f"{recipe}-1")
            need(found <= tolerance, f"{ranks} ranks over {transport}: losses differ by {found:.1e} from those of one rank, more than {tolerance:g}")
            said.append(f"{ranks} over {transport} {found:.0e}")
        if recipe == "mnist-cnn":  # the sums of MPI
            host.train(recipe, f"{recipe}-cpu", *options, "device=cpu", "threads=1", ranks=2)
            found = worst(host, f"{recipe}-nccl-2", f"{recipe}-cpu")
            need(found <= 1e-3, f"losses differ by {found:.1e} from those of 2 CPU ranks, more than 1e-3")
            said.append(f"beside 2 CPU ranks over MPI {found:.0e}")
        return f"losses of one rank and of {', '.join(said)} apart (bound {tolerance:g})"

    return check


def sharded(host):
    """ZeRO-1 in fixed order: the same bits as unsharded, on 2 and 4 ranks."""
    data, said = data_of(host, "mnist-cnn"), []
    options = [*data, FIXED_ORDER, "train.steps=30", "batch={global: 128, micro: 32}", "train.eval_every_steps=1000000", "--fresh"]
    for transport, ranks in (("nccl", 2), ("nccl", 4), ("staged", 2)):
        whole = train_on(host, ranks, transport, "mnist-cnn", "whole", *options, like="mnist-cnn-1")["parameter_hash"]
        parts = train_on(host, ranks, transport, "mnist-cnn", "parts", *options, SHARDED, like="mnist-cnn-1")["parameter_hash"]
        need(whole == parts, f"{ranks} ranks over {transport}: parameters {whole}, sharded {parts}")
        said.append(f"{ranks} ranks over {transport} {whole}")
    return f"equal parameters: {', '.join(said)}"


def graphs(host):
    """A step with NCCL in its graph has the bits of one without."""
    data, found = data_of(host, "mnist-cnn"), {}
    for name, option in (("with", GRAPHS_ON), ("without", GRAPHS_OFF)):
        found[name] = train_on(host, 2, "nccl", "mnist-cnn", f"graphs-{name}", *data, option, "train.steps=60", "train.eval_every_steps=1000000",
                               "--fresh", like="mnist-cnn-1" if name == "with" else "graphs-with")["parameter_hash"]
    need(found["with"] == found["without"], f"parameters {found['with']} with graphs, {found['without']} without")
    return f"parameters {found['with']} with and without"


def ranks_of(process):
    """{rank: pid} of what this mpirun has started, on this host."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = re.search(r"^PPid:\s*(\d+)", (entry / "status").read_text(), re.MULTILINE)
            rank = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)\0", (entry / "environ").read_bytes())
        except OSError:
            continue
        if parent and rank and int(parent[1]) == process.pid:
            found[int(rank[1])] = int(entry.name)
    return found


def endless(host, run, *more, transport="nccl"):
    """A run on two ranks that is in full swing."""
    data = data_of(host, "mnist-cnn")
    host.fresh(run, like="mnist-cnn-1")
    settings, environment, apart = world(host, 2)
    command = [host.program, *host.settings("mnist-cnn", run, data[0], "data.eval=[]", "train.steps=10000000", TRANSPORT.format(transport), *settings, *more)]
    process = host.start(*host.on_ranks(2, *command, apart=apart), environment=environment)
    if not step_reached(host, run, 50, process):
        raise Failure(f"it ended by itself: {host.wait(process)}")
    return process, ranks_of(process)


def killed(transport):
    def check(host):
        process, pids = endless(host, "killed", transport=transport)
        need(1 in pids, f"rank 1 was not found among {pids}")
        begin = time.monotonic()
        os.kill(pids[1], signal.SIGKILL)
        while any(os.path.exists(f"/proc/{pid}/exe") for pid in pids.values()) and time.monotonic() - begin < 20:
            time.sleep(0.02)
        done = host.wait(process, 20)
        seconds = time.monotonic() - begin
        need(seconds < GONE_WITHIN, f"all were gone after {seconds:.1f} s, not {GONE_WITHIN}: {done}")
        need(done.code != OK and re.search(r"rank 1 ", done.text), f"nobody names rank 1: {done}")
        return f"all gone after {seconds:.1f} s: {(done.errors() or ['mpirun names it'])[0]}"

    return check


def stopped(transport):
    def check(host):
        process, pids = endless(host, "stopped", TIMEOUT.format(4), transport=transport)
        need(1 in pids, f"rank 1 was not found among {pids}")
        begin = time.monotonic()
        os.kill(pids[1], signal.SIGSTOP)
        told = None
        while process.poll() is None and time.monotonic() - begin < 30:
            if told is None and re.search(r"^error: ", read_so_far(process), re.MULTILINE):
                told = time.monotonic() - begin
            time.sleep(0.05)
        done = host.wait(process, 5)
        told = told or time.monotonic() - begin
        need(done.code == COMMUNICATION and len(done.errors()) == 1, str(done))
        need(told < TOLD_WITHIN, f"it was told after {told:.1f} s: {done}")
        need(re.search(r"rank 1 .*phase '[^']+'", done.errors()[0]), f"it names no rank or phase: {done}")
        report = done.text[done.text.index(done.errors()[0]):]
        need(re.search(r"bucket|all_reduce|reduce_scatter", report), f"it names neither bucket nor call: {report[:600]}")
        return f"told after {told:.1f} s: {done.errors()[0]}"

    return check


def read_so_far(process):
    return os.pread(process.out.fileno(), 1 << 20, 0).decode(errors="replace")


def overlap(host):
    """ResNet-50 on two ranks over sockets; the batch grows until computing takes as long as the sums, or longer."""
    settings, environment, apart = world(host, 2, apart=True)
    said, batch = [], 64
    for _ in range(3):
        host.fresh("overlap", like="resnet50")
        command = [host.program, *host.settings("cifar10-resnet18", "overlap", *resnet50_settings(host), f"batch.global={batch}", "train.steps=40",
                                                "train.eval_every_steps=1000000", "--fresh", TRANSPORT.format("nccl"), *settings)]
        done = host.run(*host.on_ranks(2, *command, apart=apart), environment=environment)
        need(done.code == OK, str(done))
        rows = [m for m in host.metrics("overlap") if m["step"] > 16 and "seconds" in m and m.get("communication", {}).get("sums", 0) > 0]
        need(rows, "metrics.jsonl says nothing of sums over ranks")
        mean = lambda values: sum(values) / len(rows)
        sums = mean([m["communication"]["sums"] for m in rows])
        exposed = mean([sum(m["communication"]["exposed"]) for m in rows])
        compute = mean([m["seconds"]["forward"] + m["seconds"]["backward"] for m in rows])
        hidden = max(0.0, 1 - exposed / sums)
        said.append(f"batch {batch}: sums {1e3 * sums:.0f} ms beside {1e3 * compute:.0f} ms of computing, {100 * hidden:.0f} % hidden")
        if sums <= 1.1 * compute or batch >= 512 or host.left() < 2 * done.seconds:
            break
        batch = min(512, int(batch * min(4.0, sums / compute) / 2 + 1) * 2)
    need(hidden >= HIDDEN, f"{'; '.join(said)}; less than {100 * HIDDEN:.0f} %")
    return "; ".join(said)


def several_gpus(host):
    """ResNet-50 on 1, 2, 4, ... GPUs, the same batch on each: samples/s and efficiency."""
    count = len(host.gpu_names)
    if count < 2:
        raise Skip(f"{count} GPU can be seen here")
    ranks = [n for n in (1, 2, 4, 8, 16) if n <= count]
    done = host.dtrain("bench", "scaling", host.settings("cifar10-resnet18", "scaling")[0], *resnet50_settings(host), f"device={host.device}",
                       f"batch.global={128 * ranks[-1]}", "--ranks", *map(str, ranks), "--kind", "weak", "--repeats", 3, "--steps", 30, "--json")
    points = done.json()["scaling"]["weak"]
    return "measured", "; ".join(f"{p['ranks']} GPUs {p['samples_per_second']['value']:.0f} samples/s, efficiency {p['efficiency']['value']:.3f}"
                                 for p in points)


CHECKS = [
    ("Collective suite, nccl, 2 ranks", 60, suite("nccl", 2)),
    ("mnist-cnn on 1, 2 and 4 ranks", 60, training("mnist-cnn", LOSS_OVER_RANKS, 32, "train.steps=20")),
    ("ZeRO-1 beside unsharded", 60, sharded),
    ("graphs with NCCL in them", 40, graphs),
    ("a rank is killed", 40, killed("nccl")),
    ("a rank is stopped", 50, stopped("nccl")),
    ("overlap of ResNet-50", 90, overlap),
    ("resnet18 on 1, 2 and 4 ranks", 90, training("cifar10-resnet18", LOSS_OF_RESNET18, 32, "train.steps=5", "data.augment=[]")),
    ("Collective suite, nccl, 4 ranks", 60, suite("nccl", 4)),
    ("Collective suite, staged, 2 ranks", 60, suite("staged", 2)),
    ("Collective suite, staged, 4 ranks", 60, suite("staged", 4)),
    ("several GPUs", 90, several_gpus),
    ("a rank is killed, staged", 40, killed("staged")),
    ("a rank is stopped, staged", 50, stopped("staged")),
]
TINY = set()
