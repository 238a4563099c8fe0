"""What a layer's cache needs for n tokens, for every kind of mixer.

A cache is two numbers and a limit: bytes per token, tokens kept at most, bytes that do not grow. A mixer may keep
several. Engines (`core.engines`) turn a needed cache into the one that they reserve. Every count is on one GPU of `tp`.
To add a kind: a function below with its formula and source, and its line in `_CACHES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kvplan.core.dtypes import BF16, DType
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
    StateMixer,
    WindowedMixer,
)
from kvplan.core.model import Layer
from kvplan.core.units import ceil_div, round_up, smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The cache of one layer of one sequence.

        bytes(n) = fixed_bytes + ⌈min(n, max_tokens) / block_size⌉ · block_size · bytes_per_token
                 + ⌊n / tokens_per_entry⌋ · entry_bytes + min(⌊n / tokens_per_entry⌋, 1) · first_entry_bytes
                 + (n mod tokens_per_entry) · waiting_bytes_per_token

    n is the sequence's length, or the encoder's where `over_encoder`.
    """

    kind: str
    bytes_per_token: int
    max_tokens: int | None = None
    fixed_bytes: int = 0
    over_encoder: bool = False
    block_size: int = 1
    """Held tokens are rounded up to whole blocks of so many."""
    tokens_per_entry: int = 1
    """Tokens that are folded into one entry of `entry_bytes`; the last ones wait until an entry is full."""
    entry_bytes: int = 0
    waiting_bytes_per_token: int = 0
    first_entry_bytes: int = 0
    """What comes with the first entry and stays."""

    @property
    def spread_bytes_per_token(self) -> int:
        """What a token adds while no window is full, an entry's bytes spread over its tokens."""
        return self.bytes_per_token + self.entry_bytes // self.tokens_per_entry

    def last_token_bytes(self, num_tokens: int) -> int:
        """What the last of `num_tokens` tokens added; where tokens share entries, the mean of the last entry's."""
        span = min(self.tokens_per_entry if self.entry_bytes else 1, num_tokens)
        return (self.bytes_for(num_tokens) - self.bytes_for(num_tokens - span)) // span

    def bytes_for(self, num_tokens: int) -> int:
        """Bytes that one sequence of `num_tokens` holds."""
        held = num_tokens if self.max_tokens is None else smaller(num_tokens, self.max_tokens)
        grown = round_up(held, self.block_size) * self.bytes_per_token + self.fixed_bytes
        if not self.entry_bytes:
            return grown
        entries = num_tokens // self.tokens_per_entry
        folded = entries * self.entry_bytes + smaller(entries, 1) * self.first_entry_bytes
        return grown + folded + num_tokens % self.tokens_per_entry * self.waiting_bytes_per_token


class Formats(NamedTuple):
    """What keys and values are held in; a vector that is both, and an indexer's key, have the keys' format."""

    key: DType
    value: DType


def caches_of(
    layer: Layer, dtype: DType, tp: int = 1, model_dtype: DType = BF16, value_dtype: DType | None = None
) -> list[tuple[Mixer, Cache]]:
    """The caches that one layer needs on one of `tp` GPUs, each with its mixer; none for an encoder's layer.

    `dtype` is that of keys, and of values where `value_dtype` names no other. What a recurrent layer keeps does not
    follow them, but `model_dtype`.
    """
    attention, states = Formats(dtype, value_dtype or dtype), Formats(model_dtype, model_dtype)
    return [
        (mixer, cache)
        for mixer in layer.mixers
        for cache in _CACHES[type(mixer)](mixer, states if isinstance(mixer, StateMixer) else attention, tp)
    ]


def _full(mixer: FullAttention, dtype: Formats, tp: int) -> tuple[Cache, ...]:
    """Keys and values of every token, and of `prefix_tokens` that stand before each sequence.

        bytes per token = kv_heads · (vector(key_dim) + vector(value_dim)) + vector(index_dim)

    An indexer's key is one for all heads, so that every rank holds it.

    Source: Pope et al. 2022, §2.1, https://arxiv.org/abs/2211.05102
    """
    if not mixer.cached:
        return ()
    per_token = _kv_bytes(mixer, dtype, tp)
    if mixer.index_dim:
        per_token += dtype.key.vector_bytes(mixer.index_dim)
    return (Cache(kind=mixer.kind, bytes_per_token=per_token, fixed_bytes=mixer.prefix_tokens * per_token),)


def _windowed(mixer: WindowedMixer, dtype: Formats, tp: int) -> tuple[Cache, ...]:
    """Keys and values of the last `window` tokens, or of a chunk of so many: min(n, window) of them.

    Source: Mistral 7B, §2 "rolling buffer cache", https://arxiv.org/abs/2310.06825
    """
    return (Cache(kind=mixer.kind, bytes_per_token=_kv_bytes(mixer, dtype, tp), max_tokens=mixer.window),)


def _shared(mixer: SharedAttention, dtype: Formats, tp: int) -> tuple[Cache, ...]:
    """Nothing: the keys and values stand in another layer's cache."""
    return ()


def _latent(mixer: LatentAttention, dtype: Formats, tp: int) -> tuple[Cache, ...]:
    """One compressed latent and one rotary key per token, shared by all heads.

        bytes per token = vector(latent_dim) + vector(rope_dim) + vector(index_dim)

    Tensor parallelism does not shrink it: every rank holds the whole latent, and the whole of the indexer's key.
    Keys that stand for `index_pool` tokens are entries of a cache beside it.

    Source: DeepSeek-V2, §2.1.2 and table 1, https://arxiv.org/abs/2405.04434; DeepSeek-V3.2, §2.1
    """
    per_token = sum(
        size(dim)
        for dim, size in ((mixer.latent_dim, dtype.key.vector_bytes), (mixer.rope_dim, dtype.key.rope_bytes))
        if dim
    )
    index = 0
    if mixer.index_bits is not None:
        index = ceil_div(mixer.index_dim * mixer.index_bits, 8)
    elif mixer.index_dim:
        index = dtype.key.vector_bytes(mixer.index_dim)
    if mixer.index_pool and index:
        pooled = _folded("indexed", mixer.index_pool, index, mixer.index_dim, overlaps=False)
        return Cache(kind="latent", bytes_per_token=per_token, max_tokens=mixer.window), pooled
    return (Cache(kind=mixer.kind, bytes_per_token=per_token + index, max_tokens=mixer.window),)


def _compressed(mixer: CompressedAttention, dtype: Formats, tp: int) -> tuple[Cache, ...]:
    """One vector per token of the window, and one entry for each `ratio` tokens, with its key for an indexer.

        bytes(n) = min(n, window) · vector(head_dim) + ⌊n / ratio⌋ · (vector(head_dim) + vector(index_dim)) + open

    An entry is a weighted mean, so what is open is a sum and its weights, in fp32: 2 · 4 bytes · (head_dim +
    index_dim), twice where entries overlap. Every rank holds it all: the vector is not cut by heads.

    Source: DeepSeek-V4, §2.3; transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py
    """
    vector = dtype.key.vector_bytes(mixer.head_dim)
    window = Cache(kind="sliding", bytes_per_token=vector, max_tokens=mixer.window)
    if not mixer.ratio:
        return (window,)
    index = dtype.key.vector_bytes(mixer.index_dim) if mixer.index_dim else 0
    kind = "compressed_indexed" if mixer.index_dim else "compressed"
    width = mixer.head_dim + mixer.index_dim
    return window, _folded(kind, mixer.ratio, vector + index, width, overlaps=mixer.overlaps)


def _folded(kind: str, ratio: int, entry_bytes: int, width: int, *, overlaps: bool) -> Cache:
    """Entries of `ratio` tokens each, `width` elements wide, and what is open: a weighted sum and its weights, fp32."""
    return Cache(
        kind=kind,
        bytes_per_token=0,
        fixed_bytes=2 * 4 * width * (2 if overlaps else 1),
        tokens_per_entry=ratio,
        entry_bytes=entry_bytes,
    )


def _cross(mixer: CrossAttention, dtype: Formats, tp: int) -> tuple[Cache, ...]:
    """Keys and values of the encoder's output, computed once and kept while the decoder runs."""
    return (Cache(kind="cross", bytes_per_token=_kv_bytes(mixer, dtype, tp), over_encoder=True),)


def _linear(mixer: LinearAttention, dtype: Formats, tp: int) -> tuple[Cache, ...]:
    """One state a head, and the columns that a token's convolution reads, its own included; neither grows.

        fixed bytes = (heads · key_dim · value_dim + vector_elements) · state_bits / 8
                    + conv_channels · conv_columns · dtype

    The columns hold activations, so they have the model's dtype. Ranks share heads, vectors and channels out.

    Source: transformers 5.23, cache_utils.py `LinearAttentionLayer`; vLLM 0.33, mamba/mamba_utils.py
    `gated_delta_net_state_shape`, which divides both by tp
    """
    heads = max(1, ceil_div(mixer.num_heads, tp))
    elements = heads * mixer.key_dim * mixer.value_dim + ceil_div(mixer.vector_elements, tp)
    bits = dtype.key.bits if mixer.state_bits is None else mixer.state_bits
    columns = ceil_div(ceil_div(mixer.conv_channels, tp) * mixer.conv_columns * dtype.key.bits, 8)
    return (Cache(kind="linear", bytes_per_token=0, fixed_bytes=ceil_div(elements * bits, 8) + columns),)


def _convolution(mixer: ShortConvolution, dtype: Formats, tp: int) -> tuple[Cache, ...]:
    """The columns that the next token's convolution reads, its own included.

        fixed bytes = channels · columns · bits / 8

    Source: transformers 5.23, cache_utils.py `LinearAttentionLayer.update_conv_state`
    """
    bits = dtype.key.bits if mixer.bits is None else mixer.bits
    kept = ceil_div(ceil_div(mixer.channels, tp) * mixer.columns * bits, 8)
    return (Cache(kind="conv", bytes_per_token=0, fixed_bytes=kept),)


_CACHES: dict[type, Callable[[Any, Formats, int], tuple[Cache, ...]]] = {
    FullAttention: _full,
    SlidingAttention: _windowed,
    ChunkedAttention: _windowed,
    SharedAttention: _shared,
    LatentAttention: _latent,
    CompressedAttention: _compressed,
    CrossAttention: _cross,
    LinearAttention: _linear,
    ShortConvolution: _convolution,
}


def kv_heads_per_rank(mixer: Mixer, tp: int) -> int:
    """⌈num_kv_heads / tp⌉, at least one: past `num_kv_heads` GPUs every further one holds a replica."""
    return max(1, ceil_div(mixer.num_kv_heads, tp))


def _kv_bytes(mixer: FullAttention | WindowedMixer | CrossAttention, dtype: Formats, tp: int) -> int:
    head = dtype.key.vector_bytes(mixer.key_dim) + dtype.value.vector_bytes(mixer.value_dim)
    return kv_heads_per_rank(mixer, tp) * head
