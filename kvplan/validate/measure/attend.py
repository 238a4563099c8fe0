"""Attention over a case's cache by our own kernels: one step of prompt or decode, a whole decode step as a graph.

Queries are random numbers; what is computed is looked at by `correctness`, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from triton.errors import TritonError

from kvplan.validate.case import Case
from kvplan.validate.kernels import linear
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.decode import plan_decode
from kvplan.validate.kernels.launch import Launch, Unsupported, run_all
from kvplan.validate.kernels.mla_decode import plan_mla_decode
from kvplan.validate.kernels.prefill import prefill
from kvplan.validate.kernels.prefill_call import Pattern, Ragged
from kvplan.validate.kernels.state import StatePool
from kvplan.validate.measure.meter import transient_bytes
from kvplan.validate.measure.pools import DTYPES, LayerCache, Write, allocate, append_numbers


def steps_of(case: Case) -> Write:
    """What a step of the case does: tokens into their slots, then a chunk's prefill or the decode of one token each.

    What no kernel takes is only written; a chunk is seen as a window of its size. From where a kernel of ours fails on,
    that phase's tokens are only written: memory is measured all the same, and what failed is told by `checks`.
    """
    failed: set[str] = set()

    def step(cache: PagedCache, slots: Tensor) -> None:
        append_numbers(cache, slots)
        count = len(slots) // case.batch
        phase = "decode" if count == 1 else "prefill"
        # a cross-attention's keys are the encoder's; a latent's prompt is computed on expanded heads, not on the cache
        if case.kernel is None or case.kind == "cross" or phase in failed:
            return
        if case.is_latent and phase == "prefill":
            return
        try:
            if phase == "decode":
                run_all(decode_of(case, cache, queries(case, slots.device))[1])
            else:
                _prefill(case, cache, count)
        except (Unsupported, TritonError):
            failed.add(phase)

    return step


def queries(case: Case, device: torch.device) -> Tensor:
    """One new token's queries of every sequence; against a latent, absorbed into its space."""
    return torch.randn(case.batch, case.num_heads, case.token_dim, dtype=DTYPES[case.dtype], device=device)


def decode_of(case: Case, cache: PagedCache, q_BHD: Tensor) -> tuple[Tensor, list[Launch]]:
    """(output, launches) of one decode step of a layer."""
    scale = case.key_dim**-0.5
    if case.is_latent:
        return plan_mla_decode(q_BHD, cache, scale=scale)
    sinks = torch.zeros(case.num_heads, device=q_BHD.device) if case.sinks else None
    return plan_decode(q_BHD, cache, scale=scale, window=case.window, sinks_H=sinks)


def _prefill(case: Case, cache: PagedCache, count: int) -> None:
    device = cache.keys.device
    shape = (count * case.batch, case.num_heads, case.key_dim)
    q_THD = torch.randn(shape, dtype=DTYPES[case.dtype], device=device)
    lengths = [cache.length(sequence) for sequence in range(case.batch)]
    batch = Ragged.pack([count] * case.batch, lengths, device)
    pattern = Pattern.window(case.window) if case.window else Pattern.causal()
    prefill(q_THD, cache, batch, scale=case.key_dim**-0.5, pattern=pattern)


def state_inputs(case: Case, device: torch.device) -> tuple[Tensor, ...]:
    """Slots, and one token's inputs of a gated delta step: queries, keys, values, log decay, step size."""
    dtype, heads = DTYPES[case.dtype], (case.batch, case.num_kv_heads)
    slots_B = torch.arange(case.batch, dtype=torch.int32, device=device)
    keys = (case.batch, case.num_heads, case.key_dim)
    q, k = (torch.randn(keys, dtype=dtype, device=device) for _ in range(2))
    v = torch.randn(*heads, case.value_dim, dtype=dtype, device=device)
    return slots_B, q, k, v, -torch.rand(*heads, device=device), torch.rand(*heads, device=device)


def state_step(case: Case, pool: StatePool) -> None:
    """One step of a recurrent layer, where a kernel takes it."""
    if pool.recurrent is not None and case.kernel == "delta":
        run_all(linear.plan_delta_step(pool.recurrent, *state_inputs(case, pool.recurrent.device))[1])


def warm_up(cases: Sequence[Case], device: torch.device) -> None:
    """What a process does once, whatever it serves: a matrix product's workspace, kernels built and loaded."""
    square = torch.ones(256, 256, dtype=torch.bfloat16, device=device)
    torch.mm(square, square)
    for case in cases:
        small = replace(case, batch=1, seq_len=4 * case.page_size, decode_steps=1, chunk=2 * case.page_size)
        cache = allocate(small, device)
        if cache is not None:
            run(small, cache, steps_of(small))


def run(case: Case, cache: LayerCache, step: Write) -> None:
    """Prompt and decode of one layer: tokens appended by the kernel, attention computed at each step."""
    cache.grow(case, step, append_numbers)
    if cache.states is not None and case.keeps_states:
        state_step(case, cache.states)


def capture_step(layers: Sequence[tuple[Case, Sequence[LayerCache]]], device: torch.device) -> tuple[Any, list[Tensor]]:
    """(a CUDA graph of one decode step through all layers that a kernel takes, its inputs, which must live as long).

    Raises what a capture raises, with the main stream current again.
    """
    calls: list[Callable[[], None]] = []
    inputs: list[Tensor] = []
    for case, caches in layers:
        if case.kernel is None:
            continue
        given = state_inputs(case, device) if case.kind == "linear" else (queries(case, device),)
        inputs += given
        calls += [_layer_call(case, cache, given) for cache in caches]
    for call in calls:  # a graph cannot be captured while kernels are built
        call()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    main = torch.cuda.current_stream(device)
    try:
        with torch.cuda.graph(graph):
            for call in calls:
                call()
    finally:
        torch.cuda.set_stream(main)
    return graph, inputs


def _layer_call(case: Case, cache: LayerCache, given: tuple[Tensor, ...]) -> Callable[[], None]:
    tokens = cache.tokens
    if tokens is not None:
        return lambda: run_all(decode_of(case, tokens, *given)[1])
    state = None if cache.states is None else cache.states.recurrent
    if state is None:
        return lambda: None
    return lambda: run_all(linear.plan_delta_step(state, *given)[1])


def workspace(case: Case, cache: LayerCache) -> dict[str, Any] | None:
    """What one decode call of a layer holds beside cache and queries, and into how many splits it cut the keys.

    None where no kernel runs, or what it works in is its states.
    """
    tokens = cache.tokens
    if tokens is None or case.kernel is None:
        return None
    q_BHD = queries(case, tokens.keys.device)
    try:
        first = decode_of(case, tokens, q_BHD)[1][0]
        taken = transient_bytes(lambda: run_all(decode_of(case, tokens, q_BHD)[1]), q_BHD.device)
    except (Unsupported, TritonError):
        return None
    return {"case": case.name, "splits": int(first.args["num_splits"]), "bytes": taken}
