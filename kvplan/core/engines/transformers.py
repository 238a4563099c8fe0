"""Hugging Face transformers: the tensors that its caches hold after a prefill of n tokens.

`DynamicCache` unless another is named: `StaticCache` as long as the sequence, `QuantizedCache` of any backend.

Source: transformers 5.23, cache_utils.py.
"""

from dataclasses import replace
from functools import partial

from kvplan.core.cache import Cache
from kvplan.core.engines.engine import Engine
from kvplan.core.engines.versions import chosen
from kvplan.core.errors import InputError
from kvplan.core.mixers import (
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    SlidingAttention,
)
from kvplan.core.units import ceil_div


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


def _static(cache: Cache, mixer: Mixer) -> Cache:
    """`StaticCache` with room for the sequence: min(n, W) tokens of a sliding or chunked layer, one more than dynamic.

    Raises InputError for compressed attention, which it has no layer for.

    Source: `StaticLayer`, `StaticSlidingWindowLayer`, `StaticIndexedLayer`, STATIC_LAYER_TYPE_MAPPING
    """
    if isinstance(mixer, CompressedAttention):
        raise InputError("transformers has no static cache for compressed attention", hint="its dynamic cache")
    if cache.max_tokens is not None and not (isinstance(mixer, SlidingAttention) and mixer.transformers_keeps_all):
        return cache
    return _reserve(cache, mixer)


_GROUP = 64
"""`q_group_size`: elements that share a scale and a zero point, 2 bytes each in bf16 and fp16."""
_RESIDUAL = 128
"""`residual_length`: when so many newest tokens wait in full, they are quantised; a prefill is at once."""


def _quantized(cache: Cache, mixer: Mixer, bits: int) -> Cache:
    """`QuantizedCache` with quanto or HQQ, at most: 127 tokens in full, all others in groups of 64.

        bytes(n) = n · (elements · bits / 8 + elements / 64 · 4) + 127 · (elements · 2 − the same)

    After a prefill all of them are quantised. Raises InputError for any layer but full attention, as transformers does.

    Source: `QuantizedLayer.update`; measured with optimum-quanto 0.2.7 and hqq 0.2.8: 102,400 bytes of keys and values
    in bf16 (51,200 elements) take 28,800 in 4 bits and 16,000 in 2
    """
    full = _only_full(cache, mixer).bytes_per_token
    elements = full // 2
    packed = ceil_div(elements * bits, 8) + ceil_div(elements, _GROUP) * 4
    return replace(cache, bytes_per_token=packed, fixed_bytes=(_RESIDUAL - 1) * (full - packed))


def _fp8(cache: Cache, mixer: Mixer) -> Cache:
    """`QuantizedCache` with its fp8 backend: a byte an element, and one fp32 scale for all keys, one for all values.

    Source: `Fp8QuantizedLayer`
    """
    return replace(cache, bytes_per_token=_only_full(cache, mixer).bytes_per_token // 2, fixed_bytes=8)


def _only_full(cache: Cache, mixer: Mixer) -> Cache:
    """The cache that is quantised: keys and values of every token, or latents, which transformers holds as such."""
    plain = isinstance(mixer, FullAttention | LatentAttention) and not mixer.index_dim and cache.max_tokens is None
    if not plain or cache.over_encoder:
        message = f"transformers quantises the cache of full attention only, not of {mixer.kind} layers"
        raise InputError(message, hint="its dynamic cache")
    return _reserve(cache, mixer)


TRANSFORMERS = Engine(
    name="transformers",
    version="5.23",
    date="2026-11-22",
    reserve=_reserve,
    during_prefill=_during_prefill,
    max_pass_tokens=None,
    kv_dtypes=("fp32", "bf16", "fp16"),
)


# A quantised cache is made of one in 16 bits: its elements are counted from that.
_HALVES = ("bf16", "fp16")
CACHES = {
    "dynamic": TRANSFORMERS,
    "static": replace(TRANSFORMERS, reserve=_static, during_prefill=None),
    "quantized": replace(TRANSFORMERS, reserve=partial(_quantized, bits=4), during_prefill=None, kv_dtypes=_HALVES),
    "quantized_2bit": replace(
        TRANSFORMERS, reserve=partial(_quantized, bits=2), during_prefill=None, kv_dtypes=_HALVES
    ),
    "quantized_fp8": replace(TRANSFORMERS, reserve=_fp8, during_prefill=None, kv_dtypes=_HALVES),
}
"""By the name of the option `cache`."""


def profile(version: str | None, cache: str | None = None) -> Engine:
    """The one that kvplan knows, with the cache of that name, by default the dynamic one.

    Raises InputError for another name.
    """
    _, newer = chosen("transformers", version, ("5.23",))
    found = CACHES.get(cache or "dynamic")
    if found is None:
        raise InputError(f"`{cache}` is not a cache of transformers", hint=f"one of {', '.join(CACHES)}")
    return replace(found, newer=newer) if newer else found
