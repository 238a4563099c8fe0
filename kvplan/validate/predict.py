"""What a case should take, by the calculator: bytes of its caches, of single calls, of torch's allocator; seconds.

The other hand is `measure`; this one never sees a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvplan.core import speed
from kvplan.core.allocator import CachingAllocator
from kvplan.core.attention import AttentionCall, transient_bytes
from kvplan.core.cache import Cache, caches_of
from kvplan.core.dtypes import DType, parse_dtype, parse_kv_dtype
from kvplan.core.engines.paged import peak_pages
from kvplan.core.engines.transformers import TRANSFORMERS
from kvplan.core.mixers import CrossAttention, FullAttention, LatentAttention, LinearAttention, Mixer, SlidingAttention
from kvplan.core.model import Layer
from kvplan.core.units import ceil_div
from kvplan.validate.case import Case


def mixer_of(case: Case) -> Mixer:
    """The calculator's word for a case's layer."""
    heads = {"num_heads": case.num_heads, "num_kv_heads": case.num_kv_heads}
    dims: dict[str, Any] = {"key_dim": case.key_dim, "value_dim": case.value_dim}
    if case.kind == "latent":
        return LatentAttention(num_heads=case.num_heads, latent_dim=case.latent_dim, rope_dim=case.rope_dim, **dims)
    if case.kind == "linear":
        return LinearAttention(
            num_heads=case.num_kv_heads,
            num_key_heads=case.num_heads,
            conv_channels=case.conv_channels,
            conv_columns=case.conv_columns,
            state_bits=case.state_bits,
            **dims,
        )
    if case.kind == "sliding" and case.window is not None:
        return SlidingAttention(window=case.window, **heads, **dims)
    if case.kind == "cross":
        return CrossAttention(**heads, **dims)
    copied = case.transformers_kv_heads
    return FullAttention(cached=case.kind == "full", transformers_kv_heads=copied, **heads, **dims)


def cache_of(case: Case, tp: int = 1) -> Cache | None:
    """The cache of one layer of one sequence on one of `tp` GPUs; None for a layer that keeps nothing."""
    layer = Layer(mixers=(mixer_of(case),), weights=())
    caches = caches_of(layer, parse_kv_dtype(case.kv_dtype), tp, _dtype(case))
    return caches[0][1] if caches else None


def pages(case: Case) -> int:
    """Pages of one layer's pool: the most that its sequences hold on the way through prompt and decode."""
    return case.batch * peak_pages(case.seq_len, case.prompt_len, case.chunk, case.window, case.page_size)


def pool_bytes(case: Case) -> int:
    """One layer's pool: pages · page size · bytes per token, and states, which do not come in pages."""
    cache = cache_of(case)
    if cache is None:
        return 0
    grown = pages(case) * case.page_size * cache.bytes_per_token if cache.bytes_per_token else 0
    return grown + case.batch * cache.fixed_bytes


def table_requests(case: Case) -> list[int]:
    """What one layer's pool is found by: 4 bytes per page that a sequence can have, and its length."""
    cache = cache_of(case)
    if cache is None or not cache.bytes_per_token:
        return []
    return [4 * case.batch * ceil_div(case.seq_len, case.page_size), 4 * case.batch]


def pool_requests(cases: Sequence[Case]) -> list[int]:
    """Every request for memory of the pools of all layers, in order."""
    return [
        size
        for case in cases
        for _ in range(case.num_layers)
        for size in (pool_bytes(case), *table_requests(case))
        if size
    ]


def reserved_growth(requests: Sequence[int], free_blocks: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    """(allocated, reserved) bytes that these requests add, on top of the free blocks that torch holds already."""
    allocator = CachingAllocator(free_small=free_blocks.get("small", ()), free_large=free_blocks.get("large", ()))
    before = allocator.reserved_bytes
    for size in requests:
        allocator.allocate(size)
    return allocator.allocated_bytes, allocator.reserved_bytes - before


def workspace_bytes(case: Case, splits: int) -> int:
    """What one decode call holds beside cache and queries: its output, and per split a sum, a top score and a total.

    batch · heads · (value_dim · dtype + splits · (value_dim + 2) · 4 where splits > 1)
    """
    value_dim = case.latent_dim if case.kind == "latent" else case.value_dim
    partial = splits * (value_dim + 2) * 4 if splits > 1 else 0
    sinks = 4 * case.num_heads if case.sinks else 0
    return case.batch * case.num_heads * (value_dim * _dtype(case).bits // 8 + partial) + sinks


def call_bytes(case: Case, backend: str, *, batch: int, queries: int, keys: int) -> int:
    """Transient bytes of one attention call under a backend."""
    call = AttentionCall(
        batch_size=batch,
        num_heads=case.num_heads,
        num_kv_heads=case.num_kv_heads,
        query_tokens=queries,
        key_tokens=keys,
        total_query_tokens=batch * queries,
        total_key_tokens=batch * keys,
        key_dim=case.key_dim,
        value_dim=case.value_dim,
        dtype=_dtype(case),
        causal=queries > 1 and case.causal,
        eager_softmax="sinks" if case.sinks else "fp32",
    )
    return transient_bytes(call)[backend]


def work(case: Case, phase: str, *, batch: int, seq_len: int) -> tuple[int, int]:
    """(bytes that must be moved, operations) of one layer's decode step, or of its whole prompt."""
    if phase == "prefill":
        return _prefill_work(case, batch, seq_len)
    cache = cache_of(case)
    if cache is None:
        return 0, 0
    if case.kind == "linear":
        states = case.num_kv_heads * case.key_dim * case.value_dim
        # two products with the state and one outer product
        return speed.state_step_bytes(states * case.state_bits // 8, batch), 6 * batch * states
    latent = case.kind == "latent"
    key_dim, value_dim = case.key_dim, case.value_dim
    if latent:
        key_dim, value_dim = case.latent_dim + case.rope_dim, case.latent_dim
    moved = speed.decode_bytes(seq_len, bytes_per_token=cache.bytes_per_token, window=case.window, batch=batch)
    shape = {"num_heads": case.num_heads, "key_dim": key_dim, "value_dim": value_dim}
    return moved, speed.decode_flops(seq_len, window=case.window, batch=batch, **shape)


def _prefill_work(case: Case, batch: int, seq_len: int) -> tuple[int, int]:
    """Of keys and values as prefill computes with them: expanded, in the model's dtype."""
    element = _dtype(case).bits // 8
    shape = {"num_heads": case.num_heads, "key_dim": case.key_dim, "value_dim": case.value_dim}
    per_token = case.num_kv_heads * (case.key_dim + case.value_dim) * element
    moved = speed.prefill_bytes(seq_len, element_bytes=element, bytes_per_token=per_token, batch=batch, **shape)
    pairs = _pairs(case, seq_len)
    return moved, speed.attention_flops(pairs, batch=batch, **shape)


def _pairs(case: Case, seq_len: int) -> int:
    """Visible pairs; a band looks to both sides, its first token sees all and is seen by all."""
    one_sided = speed.visible_pairs(seq_len, case.window)
    if case.kind == "sparse":
        outside = seq_len - speed.visible_tokens(seq_len, case.window)
        return 2 * one_sided - seq_len + 2 * outside
    return seq_len * seq_len if case.kind in ("encoder", "cross") else one_sided


def framework_bytes(cases: Sequence[Case]) -> dict[str, int]:
    """What transformers' cache holds of these layers after a prompt of `seq_len` tokens, by kind."""
    return _by_kind(cases, TRANSFORMERS.reserve)


def framework_storage_bytes(cases: Sequence[Case], *, decoding: bool) -> dict[str, int]:
    """What that cache keeps alive: a sliding layer's slice is a view of all that it was cut from.

    After the prompt that is the prompt; decoding, the window with its newest token.
    """
    if decoding:
        return _by_kind(cases, lambda cache, mixer: cache if cache.kind == "sliding" else _reserved(cache, mixer))
    return _by_kind(cases, TRANSFORMERS.during_prefill or _reserved)


def _reserved(cache: Cache, mixer: Mixer) -> Cache:
    return TRANSFORMERS.reserve(cache, mixer)


def _by_kind(cases: Sequence[Case], hold: Callable[[Cache, Mixer], Cache]) -> dict[str, int]:
    held: dict[str, int] = {}
    for case in cases:
        cache = cache_of(case)
        if cache is not None:
            one = hold(cache, mixer_of(case)).bytes_for(case.seq_len)
            held[case.kind] = held.get(case.kind, 0) + case.num_layers * case.batch * one
    return held


def _dtype(case: Case) -> DType:
    return parse_dtype(case.dtype)
