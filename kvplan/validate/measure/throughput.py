"""How long one layer's attention takes at several loads, and how many bytes and operations any program needs for it.

Calls are replayed from a graph over input sets that outgrow the cache (`suite.timing`); the answer of each is checked
first. Bytes are counted on the tensors that are there, operations on the visible pairs. Types of 16 bits are timed as
bf16: they are as many bytes, and as fast.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from kvplan.validate.case import Case
from kvplan.validate.kernels import linear, select
from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.measure.pools import stored_type
from kvplan.validate.suite import bench
from kvplan.validate.suite.problems import DecodeCase, PrefillCase, StateCase
from kvplan.validate.suite.timing import Effort, Failure, Guard, num_sets, stopwatch_for

MEMORY_SHARE = 0.7
"""Of the free memory that the input sets of one load may take."""
LARGEST_TILE = 256
"""Of keys, in any kernel."""
Load = tuple[int, int]
"""Sequences, tokens of each."""


def measure_throughput(
    case: Case,
    phase: str,
    loads: Sequence[Load],
    device: torch.device,
    effort: Effort | None = None,
    deadline: float = math.inf,
) -> list[dict[str, Any]]:
    """A row per load, in order; one that does not fit, fails, or comes after the deadline says so.

    deadline: of the monotonic clock; what was timed until then is not lost with what was not.
    """
    guard = Guard(stopwatch_for(device))
    return [
        _row(case, phase, load, device, guard, effort)
        if time.monotonic() < deadline
        else _head(case, phase, load) | {"failure": asdict(Failure("not run", "the time was up"))}
        for load in loads
    ]


def problem(case: Case, phase: str, load: Load) -> bench.Case:
    """The layer under one load, as the suite times it; prefill of a latent layer on its expanded heads.

    Raises `Unsupported` for what is timed in no such type.
    """
    if "fp32" in (case.dtype, case.kv_dtype) or (case.kind == "linear" and case.state_bits != 32):
        raise Unsupported("calls are timed in 16 bits or 8, steps of a state in 32")
    batch, tokens = load
    if phase == "prefill":
        return PrefillCase(
            case.name,
            batch,
            tokens,
            case.num_heads,
            case.num_kv_heads,
            case.key_dim,
            causal=case.causal,
            window=case.window,
            page_size=0 if case.is_latent or case.keeps_nothing else case.page_size,
            values=case.value_dim,
        )
    if case.kind == "linear":
        return StateCase(case.name, batch, case.num_heads, case.num_kv_heads, case.key_dim, case.value_dim)
    latent = case.is_latent
    stored = stored_type(case.kv_dtype)
    return DecodeCase(
        case.name,
        batch,
        _kept(case, tokens),
        case.num_heads,
        1 if latent else case.num_kv_heads,
        case.token_dim,
        case.latent_dim if latent else case.value_dim,
        stored=torch.bfloat16 if stored == torch.float16 else stored,
        page_size=case.page_size,
        window=case.window,
        sinks=case.sinks,
        latent=latent,
    )


def _kept(case: Case, tokens: int) -> int:
    """Tokens whose pages have not left the window: the others are not there, and no kernel looks for them.

    As many go as leave the window where it was in pages and tiles.
    """
    if case.window is None:
        return tokens
    whole = math.lcm(case.page_size, LARGEST_TILE)
    return tokens - max(tokens - case.window, 0) // whole * whole


def _head(case: Case, phase: str, load: Load) -> dict[str, Any]:
    return {"case": case.name, "phase": phase, "batch": load[0], "seq_len": load[1]}


def _row(
    case: Case, phase: str, load: Load, device: torch.device, guard: Guard, effort: Effort | None
) -> dict[str, Any]:
    outcome = guard.attempt(case.name, lambda: _timed(problem(case, phase, load), device, guard, effort))
    if device.type == "cuda" and guard.lost is None:  # a lost device answers every call with an error
        torch.cuda.empty_cache()
    if isinstance(outcome, Failure) and outcome.kind == "OutOfMemoryError":  # torch's word for what did not fit
        outcome = replace(outcome, kind="MemoryError")
    return _head(case, phase, load) | ({"failure": asdict(outcome)} if isinstance(outcome, Failure) else outcome)


def _timed(tried: bench.Case, device: torch.device, guard: Guard, effort: Effort | None) -> dict[str, Any] | Failure:
    """Bytes, operations, seconds; or what failed. Raises MemoryError for a load whose inputs do not fit."""
    l2_bytes = 0
    if device.type == "cuda":
        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size or 64 << 20
        free = MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
        one_set = tried.make(torch.device("meta"), 0)
        sets = num_sets(one_set.required_bytes, l2_bytes)
        if sets * _set_bytes(one_set) > free:
            raise MemoryError(f"{sets} × {_set_bytes(one_set):,} bytes of inputs do not fit")
    inputs = bench.make_inputs(tried, device, l2_bytes)
    choice = _choice(tried, device)
    candidate = bench.Candidate(bench.ours(tried, inputs, choice), choice)
    (found,) = bench.benchmark(tried, {choice.kernel: candidate}, inputs, guard, None, effort)
    timing = found.timing
    if timing is None:
        return found.failure or Failure("Wrong", "nothing was timed")
    return {
        "kernel": choice.kernel,
        "basis": choice.basis,
        "bytes": inputs[0].required_bytes,
        "flops": tried.flops,
        "seconds": timing.median_seconds,
        "low_seconds": timing.low_seconds,
        "high_seconds": timing.high_seconds,
        "repeats": timing.repeats,
        "input_sets": timing.input_sets,
        "graph": timing.graph,
        "error": found.error,
    }


def _set_bytes(one_set: bench.Input) -> int:
    """Of everything that an input set allocates: with a window, more than is read."""
    cache = getattr(one_set, "cache", None)
    return int(cache.storage_bytes) if cache is not None else 2 * one_set.required_bytes


def _choice(tried: bench.Case, device: torch.device) -> select.Choice:
    if isinstance(tried, StateCase):
        return select.Choice("delta_step", linear.HEAD_TILE, select.STATIC)
    machine = select.machine_of(torch.empty(0, device=device))
    if isinstance(tried, PrefillCase) and tried.window is not None and not tried.causal:
        return select.Choice("prefill", select.configure("prefill", tried.problem, machine), select.STATIC)
    return select.choose(tried.problem, machine)
