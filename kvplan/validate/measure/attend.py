"""Attention over a case's cache by our own kernels: one step of prompt or decode, a whole decode step as a graph.

Queries are random numbers; what is computed is looked at by `correctness`, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kvplan.validate.case import Case
from kvplan.validate.kernels import linear
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.decode import plan_decode
from kvplan.validate.kernels.launch import Launch, run_all
from kvplan.validate.kernels.mla_decode import plan_mla_decode
from kvplan.validate.kernels.prefill import prefill
from kvplan.validate.kernels.prefill_call import Pattern, Ragged
from kvplan.validate.kernels.state import StatePool
from kvplan.validate.measure.meter import transient_bytes
from kvplan.validate.measure.pools import DTYPES, Write, allocate, append_numbers, grow

Pool = PagedCache | StatePool


def step(case: Case, cache: PagedCache, slots: Tensor, write: Write) -> None:
    """New tokens into their slots, then their attention: prefill of a chunk, or decode of one token each."""
    write(cache, slots)
    count = len(slots) // case.batch
    if case.kind == "cross":
        return  # the encoder's keys: decoder tokens read them, none belongs to them
    if count == 1:
        run_all(decode_of(case, cache, queries(case, slots.device))[1])
    elif case.kind != "latent":  # a latent's prompt is computed on expanded heads, not on what is cached
        _prefill(case, cache, count)


def queries(case: Case, device: torch.device) -> Tensor:
    """One new token's queries of every sequence; against a latent, absorbed into its space."""
    dim = case.latent_dim + case.rope_dim if case.kind == "latent" else case.key_dim
    return torch.randn(case.batch, case.num_heads, dim, device=device).to(DTYPES[case.dtype])


def decode_of(case: Case, cache: PagedCache, q_BHD: Tensor) -> tuple[Tensor, list[Launch]]:
    """(output, launches) of one decode step of a layer."""
    scale = case.key_dim**-0.5
    if case.kind == "latent":
        return plan_mla_decode(q_BHD, cache, scale=scale)
    sinks = torch.zeros(case.num_heads, device=q_BHD.device) if case.sinks else None
    return plan_decode(q_BHD, cache, scale=scale, window=case.window, sinks_H=sinks)


def _prefill(case: Case, cache: PagedCache, count: int) -> None:
    device = cache.keys.device
    q_THD = torch.randn(count * case.batch, case.num_heads, case.key_dim, device=device).to(DTYPES[case.dtype])
    lengths = [cache.length(sequence) for sequence in range(case.batch)]
    batch = Ragged.pack([count] * case.batch, lengths, device)
    pattern = Pattern.window(case.window) if case.window else Pattern.causal()
    prefill(q_THD, cache, batch, scale=case.key_dim**-0.5, pattern=pattern)


def state_inputs(case: Case, device: torch.device) -> tuple[Tensor, ...]:
    """Slots, and one token's inputs of a gated delta step: queries, keys, values, log decay, step size."""
    dtype, heads = DTYPES[case.dtype], (case.batch, case.num_kv_heads)
    slots_B = torch.arange(case.batch, dtype=torch.int32, device=device)
    q, k = (torch.randn(case.batch, case.num_heads, case.key_dim, device=device).to(dtype) for _ in range(2))
    v = torch.randn(*heads, case.value_dim, device=device).to(dtype)
    return slots_B, q, k, v, -torch.rand(*heads, device=device), torch.rand(*heads, device=device)


def state_step(case: Case, pool: StatePool) -> None:
    """One step of a recurrent layer."""
    if pool.recurrent is not None:
        run_all(linear.plan_delta_step(pool.recurrent, *state_inputs(case, pool.recurrent.device))[1])


def warm_up(cases: Sequence[Case], device: torch.device) -> None:
    """What a process does once, whatever it serves: a matrix product's workspace, kernels built and loaded."""
    square = torch.ones(256, 256, dtype=torch.bfloat16, device=device)
    torch.mm(square, square)
    for case in cases:
        small = replace(case, batch=1, seq_len=4 * case.page_size, decode_steps=1, chunk=2 * case.page_size)
        pool = allocate(small, device)
        if isinstance(pool, PagedCache):
            grow(pool, small, lambda cache, slots, small=small: step(small, cache, slots, append_numbers))  # type: ignore[misc]
        elif pool is not None:
            state_step(small, pool)


def capture_step(layers: Sequence[tuple[Case, Sequence[Pool]]], device: torch.device) -> tuple[Any, list[Tensor]]:
    """(a CUDA graph of one decode step through all layers, its inputs, which must live as long)."""
    calls: list[Callable[[], None]] = []
    inputs: list[Tensor] = []
    for case, pools in layers:
        given = state_inputs(case, device) if case.kind == "linear" else (queries(case, device),)
        inputs += given
        calls += [_layer_call(case, pool, given) for pool in pools]
    for call in calls:
        call()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph, inputs


def _layer_call(case: Case, pool: Pool, given: tuple[Tensor, ...]) -> Callable[[], None]:
    if isinstance(pool, PagedCache):
        return lambda: run_all(decode_of(case, pool, *given)[1])
    state = pool.recurrent
    if state is None:
        return lambda: None
    return lambda: run_all(linear.plan_delta_step(state, *given)[1])


def workspace(case: Case, pool: Pool) -> dict[str, Any]:
    """What one decode call of a layer holds beside cache and queries, and into how many splits it cut the keys."""
    if not isinstance(pool, PagedCache):
        return {"case": case.name, "splits": 1, "bytes": None}
    q_BHD = queries(case, pool.keys.device)
    first = decode_of(case, pool, q_BHD)[1][0]
    taken = transient_bytes(lambda: run_all(decode_of(case, pool, q_BHD)[1]), q_BHD.device)
    return {"case": case.name, "splits": int(first.args["num_splits"]), "bytes": taken}
