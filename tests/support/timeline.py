"""Checks a trace.json by itself: the structure that viewers want, and the order of things that every step obeys."""
PHASES = ["data", "forward", "backward", "update"]
NAMES = {"X": {"step", *PHASES, "checkpoint", "evaluation", "exposed", "queued", "sum"}, "i": {"ready"},
         "M": {"process_name", "process_sort_index", "thread_name", "thread_sort_index"}}
KEYS = {"X": {"name", "ph", "pid", "tid", "ts", "dur", "args"}, "i": {"name", "ph", "s", "pid", "tid", "ts", "args"},
        "M": {"name", "ph", "pid", "tid", "args"}}
ROUNDING = 0.0021  # microseconds: begin and length are written to the nanosecond


def require(condition, *what):
    if not condition:
        raise AssertionError(" ".join(map(str, what)))


def check_structure(trace):
    require(set(trace) == {"displayTimeUnit", "traceEvents", "otherData"}, set(trace))
    ranks = trace["otherData"]["ranks"]
    require([r["rank"] for r in ranks] == list(range(len(ranks))), ranks)
    for r in ranks:
        require(r["clock_error_seconds"] >= 0 and r["spans_dropped"] == 0, r)
    for e in trace["traceEvents"]:
        require(e.get("ph") in KEYS and set(e) == KEYS[e["ph"]] and e["name"] in NAMES[e["ph"]], e)
        require(isinstance(e["pid"], int) and 0 <= e["pid"] < len(ranks) and isinstance(e["tid"], int), e)
        if e["ph"] != "M":
            require(isinstance(e["ts"], (int, float)) and e["ts"] >= 0 and isinstance(e["args"]["step"], int), e)
        if e["ph"] == "X":
            require(isinstance(e["dur"], (int, float)) and e["dur"] >= 0, "a negative duration", e)


def end(e):
    return e["ts"] + e["dur"]


def inside(e, outer):
    require(e["ts"] >= outer["ts"] - ROUNDING and end(e) <= end(outer) + ROUNDING, e, "is not inside", outer)


def one(events, **what):
    found = [e for e in events if all((e["args"] | e).get(k) == v for k, v in what.items())]
    require(len(found) == 1, len(found), "events of", what)
    return found[0]


def check_rank(events, steps, buckets, accumulation):
    """One rank: its phases in order inside its steps, and each bucket's life."""
    before = 0
    for s in steps:
        of_step = [e for e in events if e["args"].get("step") == s]
        step = one(of_step, name="step")
        require(step["ts"] >= before - ROUNDING, "steps overlap", step)
        before = end(step)
        phases = sorted((e for e in of_step if e["name"] in PHASES), key=lambda e: e["ts"])
        require([e["name"] for e in phases] == PHASES[:3] * accumulation + ["update"], [e["name"] for e in phases])
        for first, second in zip(phases, phases[1:]):
            require(end(first) <= second["ts"] + ROUNDING, first, "overlaps", second)
        for e in phases:
            inside(e, step)
        last_backward, update, sum_before = phases[-2], phases[-1], 0
        for b in range(buckets):
            ready, queued = one(of_step, name="ready", bucket=b), one(of_step, name="queued", bucket=b)
            total, exposed = one(of_step, name="sum", bucket=b), one(of_step, name="exposed", bucket=b)
            require({ready["tid"], queued["tid"], total["tid"]} == {b + 1} and exposed["tid"] == 0, "rows of bucket", b)
            require(ready["ts"] == queued["ts"] and abs(end(queued) - total["ts"]) <= ROUNDING, queued, total)
            require(last_backward["ts"] - ROUNDING <= ready["ts"] <= end(last_backward) + ROUNDING, ready, last_backward)
            require(total["ts"] >= sum_before - ROUNDING, "sums of buckets overlap", total)
            sum_before = end(total)
            inside(exposed, update)
            require(end(total) <= end(exposed) + ROUNDING, "the step went on before the sum was there", total, exposed)


def check_clocks(trace, by_rank, steps, buckets):
    """A sum ends nowhere before it has begun everywhere, up to the error of the clocks."""
    errors = [r["clock_error_seconds"] * 1e6 for r in trace["otherData"]["ranks"]]
    for s in steps:
        for b in range(buckets):
            sums = [one(events, name="sum", bucket=b, step=s) for events in by_rank]
            for r, first in enumerate(sums):
                for q, second in enumerate(sums):
                    require(end(first) + errors[r] + errors[q] + ROUNDING >= second["ts"], first, second)


def check(trace, steps, buckets, accumulation=1):
    """`steps`: those that the timeline holds; `buckets`: rows of buckets (0 with one rank)."""
    check_structure(trace)
    ranks = len(trace["otherData"]["ranks"])
    by_rank = [[e for e in trace["traceEvents"] if e["pid"] == r and e["ph"] != "M"] for r in range(ranks)]
    for r, events in enumerate(by_rank):
        require({e["args"]["step"] for e in events} == set(steps), "steps of rank", r)
        check_rank(events, steps, buckets, accumulation)
    check_clocks(trace, by_rank, steps, buckets)
