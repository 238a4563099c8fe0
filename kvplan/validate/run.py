"""The whole of `kvplan validate` on one machine: what is tried of a model, job by job, and the document of it.

The document, `kvplan/validate/1`, keeps the cases and the raw readings, so that its rows can be made again by whatever
predicts later (`record.recompute`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kvplan._version import __version__
from kvplan.core.errors import InputError
from kvplan.core.mixers import window_of
from kvplan.core.model import ModelSpec
from kvplan.core.units import GIB, format_bytes
from kvplan.validate import isolate, predict
from kvplan.validate.case import Case
from kvplan.validate.cases import Load, cases_of
from kvplan.validate.levels import Level
from kvplan.validate.record import SCHEMA, judged

MIN_TOKENS = 64
SHORTEST_JOB, GRACE = 20.0, 60.0
"""Seconds that a job has at least, and that it may take beyond its time to end what it has begun."""
Say = Callable[[str], None]
Readings = dict[str, Any]


def _in_a_process(job: Mapping[str, Any], *, timeout_seconds: float) -> Any:
    return isolate.run_job(job, timeout_seconds=timeout_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is tried: a model's layers, or some by hand."""

    name: str
    cases: Sequence[Case]
    model: Mapping[str, Any] | None = None
    """Its identity, for the record."""
    framework_config: Mapping[str, Any] | None = None
    """The raw config, where the framework's own cache is to be built from it."""
    encoder_seq_len: int | None = None
    """What the encoder makes of any input, where the architecture fixes that."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """A device, how much is tried on it, and until when; `jobs` runs one job."""

    device: Mapping[str, Any]
    free_bytes: int | None
    level: Level
    deadline: float
    say: Say = print
    jobs: Callable[..., Any] = _in_a_process
    expected_context: tuple[int, str] | None = None
    """(bytes, where from) of this device's context, by an earlier record."""
    clock: Callable[[], float] = time.monotonic
    ceilings: Any = field(default=None)
    """Measured once for all targets."""

    @property
    def on_gpu(self) -> bool:
        return bool(self.device["kind"] != "cpu")

    @property
    def torch_device(self) -> str:
        return "cuda" if self.on_gpu else "cpu"

    @property
    def batch(self) -> int:
        """Sequences at once, unless told otherwise."""
        return 8 if self.on_gpu else 1

    @property
    def chunk(self) -> int:
        """Tokens of one prefill step: few where they are written by the CPU, so that windows slide early."""
        return 2048 if self.on_gpu else 512

    def budget(self) -> int:
        """Bytes of caches that may be allocated: a share of a GPU's free memory, of main memory a little."""
        free = self.free_bytes if self.free_bytes is not None else 4 * GIB
        return int(free * self.level.device_share) if self.on_gpu else min(self.level.host_bytes, free // 3)

    def run(self, name: str, **job: Any) -> Any:
        """One job's reading, or why there is none."""
        left = self.deadline - self.clock()
        if left <= 0:
            return isolate.failed("not run", "the time was up")
        self.say(name)
        given = {"job": job.pop("job", name), "device": self.torch_device, **job}
        seconds = min(self.level.job_seconds, max(left, SHORTEST_JOB))
        found = self.jobs(given | {"seconds": seconds}, timeout_seconds=seconds + GRACE)
        if seconds < self.level.job_seconds and isolate.is_failure(found) and found["failure"]["kind"] == "timeout":
            return isolate.failed("not run", "the time was up")  # it was the run's end that cut it short
        return found


def validate(target: Target, bench: Bench) -> dict[str, Any]:
    """Measure a target and set it against its prediction: the document."""
    started = bench.clock()
    cases = shrunk(target.cases, bench.budget())
    readings = measure(target, cases, bench)
    document = {
        "schema": SCHEMA,
        "kvplan_version": __version__,
        "device": dict(bench.device),
        "model": target.model,
        "name": target.name,
        "inputs": {"level": bench.level.name, "layers_tried": _tried(target.cases, cases)},
        "cases": [case.to_json() for case in cases],
        "readings": readings,
    }
    return document | judged(cases, readings) | {"total_seconds": round(bench.clock() - started, 1)}


def measure(target: Target, cases: Sequence[Case], bench: Bench) -> Readings:
    """All readings of a target, one process each."""
    sent = [case.to_json() for case in cases]
    readings: Readings = {"memory": bench.run("memory", cases=sent)}
    if bench.expected_context and not isolate.is_failure(readings["memory"]):
        readings["memory"]["expected_context_bytes"], readings["memory"]["expected_context_note"] = (
            bench.expected_context
        )
    readings["correctness"] = bench.run("correctness", cases=sent)
    shapes = bench.level.shapes if bench.on_gpu else bench.level.host_shapes
    softmax = [case for case in cases if case.kind != "sparse" and case.seq_len and not case.keeps_states]
    readings["transient"] = bench.run(
        "transient", cases=[case.to_json() for case in softmax], shapes=[list(one) for one in shapes]
    )
    if bench.on_gpu:
        readings |= _timed(cases, bench)
    if target.framework_config is not None:
        readings["framework"] = _framework(target, bench)
    return readings


def _timed(cases: Sequence[Case], bench: Bench) -> Readings:
    """Ceilings, then every kind of layer in a process of its own: a kernel that loses the device loses one kind."""
    if bench.ceilings is None or isolate.is_failure(bench.ceilings):
        bench.ceilings = bench.run("ceilings", effort=dict(bench.level.effort))
    rows: list[Any] = []
    for case in cases:
        loads = {phase: [list(load) for load in loads] for phase, loads in bench.level.loads(case).items()}
        if not loads:
            continue
        found = bench.run(
            f"throughput, {case.name}", job="throughput", cases=[case.to_json()], loads={case.name: loads},
            effort=dict(bench.level.effort),
        )  # fmt: skip
        rows += [{"case": case.name, "phase": "all", **found}] if isolate.is_failure(found) else found
    return {"ceilings": bench.ceilings, "throughput": rows}


def _framework(target: Target, bench: Bench) -> Any:
    """transformers' own cache: two sequences, long enough that windows slide, as far as memory allows."""
    windows = [case.window for case in target.cases if case.window]
    encodes = any(case.kind == "cross" for case in target.cases)
    longest = min(max(windows, default=64) + 64, 4096)
    batch, tokens = next(
        (load for load in ((2, longest), (1, longest), (1, longest // 4)) if _held(target, *load) <= bench.budget()),
        (1, MIN_TOKENS),
    )
    encoded = (target.encoder_seq_len or 96) if encodes else None
    load = {"batch": batch, "seq_len": tokens, "encoder_seq_len": encoded}
    dtype = target.cases[0].dtype if target.cases else "bf16"
    found = bench.run(
        "framework", config=dict(target.framework_config or {}), dtype=dtype, max_bytes=3 * bench.budget(), **load
    )
    return found | load


def _held(target: Target, batch: int, tokens: int) -> int:
    cases = [replace(case, batch=batch, seq_len=tokens, kv_dtype=case.dtype) for case in target.cases]
    return sum(predict.framework_storage_bytes(cases, decoding=False).values())


def require_room(target: Target, bench: Bench) -> None:
    """Raises InputError where not even one layer of each kind fits into half of what is free."""
    needed = sum(predict.pool_bytes(case) for case in target.cases)
    room = None if bench.free_bytes is None else bench.free_bytes // 2
    if room is not None and needed > room:
        raise InputError(
            f"one layer of each kind of `{target.name}` takes {format_bytes(needed)}, more than the "
            f"{format_bytes(room)} that may be used here",
            hint="a smaller `--seq` or `--batch`",
        )


def shrunk(cases: Sequence[Case], budget: int) -> list[Case]:
    """As many of each kind's layers as fit into the budget, in proportion, and at least one."""
    total = _total_bytes(cases)
    if total <= budget:
        return list(cases)
    return [
        replace(case, num_layers=max(1, case.num_layers * budget // total), model_layers=case.num_layers)
        for case in cases
    ]


def num_jobs(target: Target, bench: Bench) -> int:
    """How many jobs a target is."""
    timed = (
        sum(bool(bench.level.loads(case)) for case in target.cases) + (bench.ceilings is None) if bench.on_gpu else 0
    )
    return 3 + timed + (target.framework_config is not None)


def chosen_load(model: ModelSpec, bench: Bench, *, seq_len: int | None, batch: int | None) -> dict[str, int]:
    """Length, batch and chunk where the user left them open.

    Long enough that every window slides and that prompts come in several chunks, halved until all layers fit.
    """
    batch, chunk = batch or bench.batch, bench.chunk
    if seq_len is not None:
        return {"seq_len": seq_len, "batch": batch, "chunk": chunk}
    windows = [window for layer in model.layers for mixer in layer.mixers if (window := window_of(mixer))]
    tokens = max(8192 if bench.on_gpu else 256, max(windows, default=0) + 2 * chunk)
    tokens = min(tokens, model.max_seq_len or tokens)
    while tokens > MIN_TOKENS and _total_bytes(cases_of(model, Load(seq_len=tokens, batch=batch))) > bench.budget():
        tokens = max(tokens // 2, MIN_TOKENS)
    return {"seq_len": tokens, "batch": batch, "chunk": chunk}


def _total_bytes(cases: Sequence[Case]) -> int:
    return sum(case.num_layers * predict.pool_bytes(case) for case in cases)


def _tried(all_cases: Sequence[Case], cases: Sequence[Case]) -> list[int]:
    """(layers tried, layers of the model)."""
    return [sum(case.num_layers for case in group) for group in (cases, all_cases)]
