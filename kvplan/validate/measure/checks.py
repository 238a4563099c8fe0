"""Whether the kernels compute a case's layers right: decode and prefill against float64, before any of it is timed.

On a CPU the kernels are interpreted, so that heads and lengths shrink; group, dimensions, types and patterns stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kvplan.validate.case import Case
from kvplan.validate.kernels.launch import padded
from kvplan.validate.measure.pools import stored_type
from kvplan.validate.suite.correctness import (
    Check,
    Verdict,
    check_all,
    run_decode,
    run_delta,
    run_mla,
    run_prefill,
)
from kvplan.validate.suite.timing import Failure, Guard, stopwatch_for

SHORT_WINDOW = 40
"""A window that ends within the sequences that are tried."""
NO_KERNEL = "no kernel of ours takes this kind"


def measure_correctness(cases: Sequence[Case], device: torch.device) -> list[dict[str, Any]]:
    """A row per case and phase: the largest error against the oracle, and the most that rounding explains."""
    guard = Guard(stopwatch_for(device))
    rows = []
    for case in cases:
        if case.kernel is None and case.seq_len:
            rows.append({"case": case.name, "phase": "decode", "skipped": NO_KERNEL})
        for phase, check in checks(case, device):
            found = check_all(device, guard, [check])
            if not found:
                rows.append({"case": case.name, "phase": phase, "skipped": "this device has no such type"})
            rows += [{"case": case.name, "phase": phase, **asdict(_told(verdict))} for verdict in found]
    return rows


def _told(verdict: Verdict) -> Verdict:
    """The verdict as JSON can tell it, which knows no NaN: an error that is none is a failure."""
    if verdict.error is None or math.isfinite(verdict.error):
        return verdict
    return replace(verdict, error=None, failure=Failure("Wrong", "what the kernel gave is not all numbers"))


def checks(case: Case, device: torch.device) -> list[tuple[str, Check]]:
    """(phase, check) of everything that the case's layers do; nothing where no kernel takes them."""
    if case.kernel is None:
        return []
    stored = stored_type(case.kv_dtype)
    queries = torch.float16 if case.dtype == "fp16" else torch.bfloat16
    capability = (8, 9) if stored == torch.float8_e4m3fn else (8, 0)
    check = partial(Check, case.name, compute_capability=capability)
    interpreted = device.type == "cpu"
    if case.kernel == "delta":
        return [("decode", Check(case.name, _delta(case, interpreted)))]
    if case.kernel == "latent":
        return [("decode", check(_mla(case, queries, interpreted), queries))]
    kv_heads = min(case.num_kv_heads, 2) if interpreted else case.num_kv_heads
    shape = {
        "num_kv_heads": kv_heads,
        "key_dim": case.key_dim,
        "value_dim": case.value_dim,
        "dtype": stored,
        "page_size": case.page_size,
    }
    same: dict[str, Any] = {"group": case.num_heads // case.num_kv_heads, "shape": shape}
    if not case.causal:
        pattern = {"encoder": "full", "cross": "full", "sparse": "sparse"}[case.kind]
        new = "cross" if case.kind == "cross" else "all"
        return [("prefill", check(partial(run_prefill, pattern=pattern, reach=SHORT_WINDOW, new=new, **same)))]
    reach = min(case.window, SHORT_WINDOW) if case.window else 0
    # decoding within a chunk is decoding over a sequence that is no longer
    chunked = case.kind == "chunked"
    window: dict[str, Any] = {"window": reach} if reach and not chunked else {}
    pattern = "chunked" if chunked else "window" if reach else "causal"
    prefill: dict[str, Any] = {"pattern": pattern, "reach": reach}
    decode = partial(run_decode, dtype=queries, sinks=case.sinks, evict=bool(window), **window, **same)
    found = [("decode", check(decode, queries))]
    if min(case.key_dim, case.value_dim) >= 16 and padded(same["group"]) <= 128:
        found.append(("prefill", check(partial(run_prefill, paged=True, **prefill, **same))))
    return found


def _mla(case: Case, queries: torch.dtype, interpreted: bool) -> Callable[[torch.device], tuple[Tensor, Tensor]]:
    """An absorbed decode over latents."""
    return partial(
        run_mla,
        heads=min(case.num_heads, 16) if interpreted else case.num_heads,
        dtype=queries,
        stored=stored_type(case.kv_dtype),
        latent_dim=case.latent_dim,
        rope_dim=case.rope_dim,
        page_size=max(case.page_size, 16),
    )


def _delta(case: Case, interpreted: bool) -> Callable[[torch.device], tuple[Tensor, Tensor]]:
    """A recurrent layer's step; interpreted, with the states of one key head."""
    shrinks = interpreted and case.num_kv_heads % case.num_heads == 0
    key_heads, num_heads = (1, case.num_kv_heads // case.num_heads) if shrinks else (case.num_heads, case.num_kv_heads)
    return partial(run_delta, key_heads=key_heads, num_heads=num_heads, key_dim=case.key_dim, value_dim=case.value_dim)
