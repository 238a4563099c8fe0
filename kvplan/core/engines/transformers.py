"""Hugging Face transformers: the tensors that its `DynamicCache` holds after a prefill of n tokens.

Source: transformers 5.23, cache_utils.py.
"""

from dataclasses import replace

from kvplan.core.cache import Cache
from kvplan.core.engines.engine import Engine
from kvplan.core.engines.versions import chosen
from kvplan.core.mixers import (
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    SlidingAttention,
)


def _reserve(cache: Cache, mixer: Mixer) -> Cache:
    """A sliding or chunked layer keeps min(n, W − 1) tokens: the query's own arrives with the next step.

    A class that copies K and V out to more heads before it caches them holds the copies. A recurrent layer is held
    as it is needed: all columns of its convolution, in the model's dtype, and its states in fp32; but MiniMax keeps
    its states in `linear_cache`, beside the cache's layers, and they are counted with the prefill. GPT-Neo's cache does
    not know of its windows, the first GPT's class keeps nothing. Qwen4-Exp's first indexed layer keeps every token's
    three positions as well.

    Source: `DynamicSlidingWindowLayer.update`, which slices the last `sliding_window - 1` tokens;
    models/falcon/modeling_falcon.py `_split_heads`, which broadcasts grouped heads;
    `LinearAttentionLayer`, and models/qwen3_next/modeling_qwen3_next.py `torch_chunk_gated_delta_rule`
    """
    if isinstance(mixer, CompressedAttention):
        cache = _compressed(cache, mixer)
    if isinstance(mixer, SlidingAttention) and mixer.transformers_keeps_all:
        return replace(cache, max_tokens=None)
    if cache.max_tokens is not None:
        # A window of 1 would slice the last 0 tokens, which Python reads as all of them.
        return replace(cache, max_tokens=cache.max_tokens - 1 or None)
    if isinstance(mixer, LatentAttention):
        return _latent(cache, mixer)
    if isinstance(mixer, LinearAttention | FullAttention) and not mixer.in_transformers_cache:
        return replace(cache, bytes_per_token=0, fixed_bytes=0)
    if isinstance(mixer, FullAttention) and mixer.transformers_position_bytes:
        return replace(cache, bytes_per_token=cache.bytes_per_token + mixer.transformers_position_bytes)
    if isinstance(mixer, FullAttention) and mixer.transformers_kv_heads is not None:
        per_head = cache.bytes_per_token // mixer.num_kv_heads
        return replace(cache, bytes_per_token=per_head * mixer.transformers_kv_heads)
    return cache


def _during_prefill(cache: Cache, mixer: Mixer) -> Cache:
    """A sliding layer's slice is a view: until the next step it keeps the whole prompt's storage alive.

    Measured on torch's CPU allocator: 6000 tokens at a window of 4096 hold 6000 tokens' bytes. States that a class
    keeps beside the cache's layers are there as well.
    """
    if isinstance(mixer, LinearAttention) and not mixer.in_transformers_cache:
        return cache
    if isinstance(mixer, CompressedAttention):
        held = _compressed(cache, mixer)
        whole = held.bytes_per_token if cache.max_tokens is not None else held.waiting_bytes_per_token
        return replace(held, max_tokens=None, bytes_per_token=whole, waiting_bytes_per_token=0)
    if cache.max_tokens is not None:
        return replace(cache, max_tokens=None)
    return _reserve(cache, mixer)


def _latent(cache: Cache, mixer: LatentAttention) -> Cache:
    """Some classes hold expanded heads; an indexer's key may be wider than the cache's dtype.

    GLM-5.3's indexer pools anew in each step: it holds each token's key and gate, and whether the token is padding.

    Source: models/glm5_next/modeling_glm5_next.py `Glm5NextTextIndexer`; models/dots3_note/modeling_dots3_note.py
    """
    if mixer.transformers_expands:
        expanded = mixer.num_heads * (mixer.key_dim + mixer.value_dim)
        return replace(cache, bytes_per_token=cache.bytes_per_token * expanded // (mixer.latent_dim + mixer.rope_dim))
    if cache.entry_bytes:
        element = cache.entry_bytes // mixer.index_dim
        return Cache(kind=cache.kind, bytes_per_token=(2 * mixer.index_dim + 1) * element)
    if mixer.transformers_index_bits is not None:
        element = cache.bytes_per_token // (mixer.latent_dim + mixer.rope_dim + mixer.index_dim)
        wider = mixer.index_dim * (mixer.transformers_index_bits // 8 - element)
        return replace(cache, bytes_per_token=cache.bytes_per_token + wider)
    return cache


def _compressed(cache: Cache, mixer: CompressedAttention) -> Cache:
    """What DeepSeek V4's layers hold: tokens that wait for an entry are held as projected, each with its gate.

    Where entries overlap, those of the last whole entry are held as well, as far as the next one reads them. The
    window's vectors stand in the cache as keys and as values and are counted as both; in layers with entries the two
    are one storage, so that W − 1 vectors are counted there and take no memory.

    Source: models/deepseek_v4/modeling_deepseek_v4.py `DeepseekV4HCACache`, `DeepseekV4CSACache`
    """
    if not mixer.ratio or cache.max_tokens is not None:
        return replace(cache, bytes_per_token=2 * cache.bytes_per_token)
    element = cache.entry_bytes // (mixer.head_dim + mixer.index_dim)
    projected = 2 * element * (mixer.head_dim + mixer.index_dim)
    return replace(
        cache,
        fixed_bytes=0,
        waiting_bytes_per_token=projected * (2 if mixer.overlaps else 1),
        first_entry_bytes=mixer.ratio * projected if mixer.overlaps else 0,
    )


TRANSFORMERS = Engine(
    name="transformers",
    version="5.23",
    date="2026-11-22",
    reserve=_reserve,
    during_prefill=_during_prefill,
    max_pass_tokens=None,
    kv_dtypes=("fp32", "bf16", "fp16"),
)


def profile(version: str | None) -> Engine:
    """The one that kvplan knows."""
    _, newer = chosen("transformers", version, ("5.23",))
    return replace(TRANSFORMERS, newer=newer) if newer else TRANSFORMERS
