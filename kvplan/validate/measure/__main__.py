"""`python -m kvplan.validate.measure OUT < JOB`: one job in a process of its own, so that none poisons the next.

A job is {"job": name, "device": …, …} on standard input; its reading, or {"failure": {"kind", "message"}}, is written
to OUT. What a job takes stands at its function in `JOBS`; to add one: a function there.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

Job = Mapping[str, Any]


def main(arguments: list[str]) -> int:
    """Run the job that standard input says."""
    job = json.load(sys.stdin)
    if job["device"] == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    try:
        reading = JOBS[job["job"]](job)
    except Exception as error:  # the parent tells it, and goes on with the next job
        reading = {"failure": _failure(error)}
    from kvplan.validate.suite.record import plain

    Path(arguments[0]).write_text(json.dumps(plain(reading), allow_nan=False), encoding="utf-8")
    return 0


def _failure(error: Exception) -> dict[str, str]:
    lines = str(error).strip().splitlines()
    kind = getattr(error, "kind", type(error).__name__)
    message = lines[0] if lines else ""
    # torch's CPU allocator raises a RuntimeError
    if kind in ("OutOfMemoryError", "MemoryError") or "DefaultCPUAllocator: can't allocate memory" in message:
        kind = "out of memory"
    hint = getattr(error, "hint", "")
    return {"kind": kind, "message": f"{message} ({hint})" if hint else message}


def _device(job: Job) -> Any:
    import torch

    return torch.device("cuda:0" if job["device"] == "cuda" else job["device"])  # torch.cuda.set_device takes no other


def _cases(job: Job) -> list[Any]:
    from kvplan.validate.case import Case

    return [Case.from_json(found) for found in job["cases"]]


def probe(job: Job) -> dict[str, Any]:
    """What there is to measure on: {"device": …, "free_bytes": …}; device "auto" is a GPU if torch sees one."""
    import torch

    name = job["device"]
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    elif name == "cuda" and not torch.cuda.is_available():
        return {"device": None}
    from kvplan.validate.measure.meter import free_bytes
    from kvplan.validate.suite.device import describe

    device = torch.device(name)
    return {"device": asdict(describe(device)), "free_bytes": free_bytes(device)}


def memory(job: Job) -> dict[str, Any]:
    """cases: whose layers are allocated, filled and read."""
    from kvplan.validate.measure.memory import measure_memory

    return measure_memory(_cases(job), _device(job))


def transient(job: Job) -> list[dict[str, Any]]:
    """cases, shapes [[batch, queries, keys], …]: what single attention calls hold."""
    from kvplan.validate.measure.transient import Shape, measure_transient

    shapes = [Shape(*shape) for shape in job["shapes"]]
    return [row for case in _cases(job) for row in measure_transient(case, shapes, _device(job))]


def correctness(job: Job) -> list[dict[str, Any]]:
    """cases: whose kernels are held to the oracle."""
    from kvplan.validate.measure.checks import measure_correctness

    return measure_correctness(_cases(job), _device(job))


def ceilings(job: Job) -> dict[str, Any]:
    """The device's read, copy and matrix rates."""
    from kvplan.validate.suite.ceilings import measure_ceilings
    from kvplan.validate.suite.timing import Effort

    return asdict(measure_ceilings(_device(job), effort=Effort(**job.get("effort", {}))))


def throughput(job: Job) -> list[dict[str, Any]]:
    """cases, loads {phase: [[batch, tokens], …]}, effort: timed one after another, for so many seconds."""
    from kvplan.validate.measure.throughput import measure_throughput
    from kvplan.validate.suite.timing import Effort

    effort, rows = Effort(**job.get("effort", {})), []
    deadline = time.monotonic() + job.get("seconds", math.inf)
    for case in _cases(job):
        for phase, loads in job["loads"][case.name].items():
            pairs = [tuple(load) for load in loads]
            rows += measure_throughput(case, phase, pairs, _device(job), effort, deadline)
    return rows


def framework(job: Job) -> dict[str, Any]:
    """config, batch, seq_len, encoder_seq_len, dtype, max_bytes: the cache that transformers itself builds."""
    from kvplan.validate.measure.framework import measure_framework

    return measure_framework(job)


JOBS: dict[str, Callable[[Job], Any]] = {
    job.__name__: job for job in (probe, memory, transient, correctness, ceilings, throughput, framework)
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
