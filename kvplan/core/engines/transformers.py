"""Hugging Face transformers: the tensors that its `DynamicCache` holds after a prefill of n tokens.

Source: transformers 5.23, cache_utils.py.
"""

from dataclasses import replace

from kvplan.core.cache import Cache
from kvplan.core.engines.engine import Engine
from kvplan.core.mixers import FullAttention, LatentAttention, Mixer


def _reserve(cache: Cache, mixer: Mixer) -> Cache:
    """A sliding or chunked layer keeps min(n, W − 1) tokens: the query's own arrives with the next step.

    A class that copies K and V out to more heads before it caches them holds the copies. A recurrent layer is held
    as it is needed: all columns of its convolution, in the model's dtype, and its states in fp32.

    Source: `DynamicSlidingWindowLayer.update`, which slices the last `sliding_window - 1` tokens;
    models/falcon/modeling_falcon.py `_split_heads`, which broadcasts grouped heads;
    `LinearAttentionLayer`, and models/qwen3_next/modeling_qwen3_next.py `torch_chunk_gated_delta_rule`
    """
    if cache.max_tokens is not None:
        # A window of 1 would slice the last 0 tokens, which Python reads as all of them.
        return replace(cache, max_tokens=cache.max_tokens - 1 or None)
    if isinstance(mixer, LatentAttention) and mixer.transformers_expands:
        expanded = mixer.num_heads * (mixer.key_dim + mixer.value_dim)
        return replace(cache, bytes_per_token=cache.bytes_per_token * expanded // (mixer.latent_dim + mixer.rope_dim))
    if isinstance(mixer, FullAttention) and mixer.transformers_kv_heads is not None:
        per_head = cache.bytes_per_token // mixer.num_kv_heads
        return replace(cache, bytes_per_token=per_head * mixer.transformers_kv_heads)
    return cache


def _during_prefill(cache: Cache, mixer: Mixer) -> Cache:
    """A sliding layer's slice is a view: until the next step it keeps the whole prompt's storage alive.

    Measured on torch's CPU allocator: 6000 tokens at a window of 4096 hold 6000 tokens' bytes.
    """
    if cache.max_tokens is not None:
        return replace(cache, max_tokens=None)
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
