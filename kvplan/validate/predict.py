"""What a case should take, by the calculator: bytes of its caches, of single calls, of torch's allocator; seconds.

The other hand is `measure`; this one never sees a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from kvplan.core import speed
from kvplan.core.allocator import CachingAllocator
from kvplan.core.attention import AttentionCall, transient_bytes
from kvplan.core.cache import Cache, caches_of
from kvplan.core.dtypes import DType, parse_dtype, parse_kv_dtype
from kvplan.core.engines.paged import peak_pages
from kvplan.core.engines.transformers import TRANSFORMERS
from kvplan.core.mixers import (
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    SharedAttention,
    ShortConvolution,
    SlidingAttention,
)
from kvplan.core.model import Layer
from kvplan.core.units import ceil_div
from kvplan.validate.case import Case, Kind

_MIXERS: dict[str, type] = {
    "full": FullAttention,
    "full_indexed": FullAttention,
    "encoder": FullAttention,
    "sparse": FullAttention,
    "sliding": SlidingAttention,
    "chunked": ChunkedAttention,
    "shared": SharedAttention,
    "latent": LatentAttention,
    "latent_indexed": LatentAttention,
    "compressed": CompressedAttention,
    "cross": CrossAttention,
    "linear": LinearAttention,
    "conv": ShortConvolution,
}


def mixer_of(case: Case) -> Mixer:
    """The calculator's word for a case's layer: mostly the same facts under the same names."""
    kind = _MIXERS[case.kind]
    facts: dict[str, Any] = {
        field.name: getattr(case, field.name) for field in fields(kind) if hasattr(case, field.name)
    }
    if kind is FullAttention:
        facts["cached"] = case.kind not in ("encoder", "sparse")
    elif kind is LinearAttention:
        facts |= {"num_heads": case.num_kv_heads, "num_key_heads": case.num_heads}
    elif kind is ShortConvolution:
        facts |= {"channels": case.conv_channels, "columns": case.conv_columns, "bits": case.conv_bits}
    elif kind is CompressedAttention:
        facts["head_dim"] = case.key_dim
    elif kind is CrossAttention:
        facts["over"] = "images" if case.over_images else "encoder"
    mixer: Mixer = kind(**facts)
    return mixer


def case_caches(case: Case, tp: int = 1) -> list[Cache]:
    """The caches of one layer of one sequence on one of `tp` GPUs; none for a layer that keeps nothing."""
    layer = Layer(mixers=(mixer_of(case),), weights=())
    return [cache for _, cache in caches_of(layer, parse_kv_dtype(case.kv_dtype), tp, _dtype(case))]


def pages(case: Case) -> int:
    """Pages of one layer's pool: the most that its sequences hold on the way through prompt and decode."""
    return case.batch * peak_pages(case.held_len, case.prompt_len, case.chunk, case.window, case.page_size)


def entry_pages(case: Case, cache: Cache) -> int:
    """Pages of the pool of a layer's entries, of which none goes."""
    return case.batch * ceil_div(case.seq_len // cache.tokens_per_entry, case.page_size)


def pool_bytes(case: Case) -> int:
    """One layer's pools: pages · page size · bytes per token or entry, and what does not come in pages."""
    return sum(size for cache in case_caches(case) for size in _parts(case, cache))


def _parts(case: Case, cache: Cache) -> tuple[int, int, int]:
    """(pages of tokens, pages of entries, what does not grow) of one cache of one layer.

    What stands before every sequence is held as any token is, in its pages.
    """
    tokens = pages(case) * case.page_size * cache.bytes_per_token if cache.bytes_per_token else 0
    entries = entry_pages(case, cache) * case.page_size * cache.entry_bytes if cache.entry_bytes else 0
    return tokens, entries, 0 if cache.bytes_per_token else case.batch * cache.fixed_bytes


def table_requests(case: Case, num_rows: int) -> list[int]:
    """What a pool of pages is found by: 4 bytes per page that `num_rows` tokens or entries can have, and a length."""
    return [4 * case.batch * ceil_div(num_rows, case.page_size), 4 * case.batch]


def layer_requests(case: Case) -> list[int]:
    """Every request for memory of one layer's pools, in order."""
    requests = []
    for cache in case_caches(case):
        tokens, entries, fixed = _parts(case, cache)
        if cache.bytes_per_token and case.seq_len:
            requests += [tokens, *table_requests(case, case.held_len)]
        if cache.entry_bytes:
            requests += [entries, *table_requests(case, case.seq_len // cache.tokens_per_entry)]
        requests.append(fixed)
    return [size for size in requests if size]


def pool_requests(cases: Sequence[Case]) -> list[int]:
    """Every request for memory of the pools of all layers, in order."""
    return [size for case in cases for size in case.num_layers * layer_requests(case)]


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
    value_dim = case.latent_dim if case.is_latent else case.value_dim
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
    if case.kind == "linear":
        states = case.num_kv_heads * case.key_dim * case.value_dim
        bits = _dtype(case).bits if case.state_bits is None else case.state_bits
        # two products with the state and one outer product
        return speed.state_step_bytes(states * bits // 8, batch), 6 * batch * states
    key_dim, value_dim = case.key_dim, case.value_dim
    if case.is_latent:
        key_dim, value_dim = case.token_dim, case.latent_dim
    moved = speed.decode_bytes(seq_len, bytes_per_token=_read_bytes(case), window=case.window, batch=batch)
    shape = {"num_heads": case.num_heads, "key_dim": key_dim, "value_dim": value_dim}
    return moved, speed.decode_flops(seq_len, window=case.window, batch=batch, **shape)


def _read_bytes(case: Case) -> int:
    """What attention reads of a token: of a shared layer another's keys and values, of an indexed one not the index."""
    words: dict[Kind, Kind] = {"shared": "full", "full_indexed": "full", "latent_indexed": "latent"}
    plain = replace(case, kind=words.get(case.kind, case.kind), index_dim=0)
    return sum(cache.bytes_per_token for cache in case_caches(plain))


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
    """What transformers' cache holds of these layers after a prompt of `seq_len` tokens, by its own kinds."""
    return _by_kind(cases, TRANSFORMERS.reserve)


def framework_storage_bytes(cases: Sequence[Case], *, decoding: bool) -> dict[str, int]:
    """What that cache keeps alive: a sliding layer's slice is a view of all that it was cut from.

    After the prompt that is the prompt; decoding, the window with its newest token.
    """
    hold = _joined if decoding else _during_prefill
    return _by_kind(cases, lambda cache, mixer: _stored_once(hold(cache, mixer), cache, mixer))


def _during_prefill(cache: Cache, mixer: Mixer) -> Cache:
    """What the plan counts beside the cache's layers is not in them."""
    beside = not getattr(mixer, "in_transformers_cache", True)
    during = None if beside else TRANSFORMERS.during_prefill
    return (during or TRANSFORMERS.reserve)(cache, mixer)


def _joined(cache: Cache, mixer: Mixer) -> Cache:
    """A window's next token is joined to what is kept of it, in a tensor of its own."""
    held = TRANSFORMERS.reserve(cache, mixer)
    if held.max_tokens is None or cache.max_tokens is None:
        return held
    return replace(held, max_tokens=cache.max_tokens)


def _stored_once(held: Cache, needed: Cache, mixer: Mixer) -> Cache:
    """Where a window stands beside entries, its vectors are keys and values in one storage (DeepSeek V4)."""
    once = isinstance(mixer, CompressedAttention) and mixer.ratio and needed.max_tokens is not None
    return replace(held, bytes_per_token=needed.bytes_per_token) if once else held


_FRAMEWORK_KINDS: dict[str, str] = {
    "chunked": "sliding",
    "full_indexed": "full",
    "latent_indexed": "latent",
    "compressed": "sliding",
    "conv": "linear",
}
"""By which class of layer transformers keeps a kind, where its word is another."""


def _by_kind(cases: Sequence[Case], hold: Callable[[Cache, Mixer], Cache]) -> dict[str, int]:
    held: dict[str, int] = {}
    for case in cases:
        kind, mixer = _FRAMEWORK_KINDS.get(case.kind, case.kind), mixer_of(case)
        for cache in case_caches(case):
            one = hold(cache, mixer).bytes_for(case.seq_len)
            held[kind] = held.get(kind, 0) + case.num_layers * case.batch * one
    return held


def _dtype(case: Case) -> DType:
    return parse_dtype(case.dtype)
