"""How a layer mixes tokens: one class for each kind of attention, state or convolution, with what its cache depends on.

To add a kind: `core.model` says at its top which places must learn it.
"""

from dataclasses import dataclass
from typing import Literal

Recurrence = Literal["mamba1", "mamba2", "gated_delta", "kda", "lightning", "rg_lru", "rwkv", "xlstm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FullAttention:
    """Softmax attention over every earlier token: MHA, GQA (num_kv_heads < num_heads) or MQA (1).

    Source: Shazeer 2019, https://arxiv.org/abs/1911.02150; Ainslie et al. 2023, https://arxiv.org/abs/2305.13245
    """

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    cached: bool = True
    """False for an encoder's self-attention, which runs once and keeps nothing."""
    transformers_kv_heads: int | None = None
    """How many heads of K and V transformers holds, where it copies them out to more than there are."""
    transformers_position_bytes: int = 0
    """Bytes of positions that transformers keeps for every token beside its keys."""
    prefix_tokens: int = 0
    """Learnt tokens that stand before every sequence, and in its cache."""
    in_transformers_cache: bool = True
    """False where the class of transformers keeps nothing, and computes every key and value anew for each token."""
    index_dim: int = 0
    """Width of the key of an indexer, by which a layer chooses the tokens that it attends to; 0 = no indexer."""

    @property
    def kind(self) -> str:
        """The field's word for it; an encoder's attention looks both ways."""
        if not self.cached:
            return "encoder"
        return "full_indexed" if self.index_dim else "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingAttention:
    """Softmax attention over the last `window` tokens, the query's own included.

    Source: Beltagy et al. 2020, https://arxiv.org/abs/2004.05150; Mistral 7B, https://arxiv.org/abs/2310.06825
    """

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    window: int
    transformers_keeps_all: bool = False
    """transformers masks what lies before the window but caches it: the class does not tell its cache of the window."""

    kind = "sliding"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedAttention:
    """Softmax attention over the earlier tokens of the query's own chunk of `window` tokens.

    Source: transformers 5.23, models/llama4/, masking_utils.py `chunked_overlay`
    """

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    window: int
    """Tokens of a chunk: as many are seen at most."""

    kind = "chunked"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedAttention:
    """Softmax attention over keys and values that an earlier layer keeps: queries of its own, no cache.

    Source: YOCO, https://arxiv.org/abs/2405.05254; CLA, https://arxiv.org/abs/2405.12981; transformers 5.23,
    models/gemma3n/ `num_kv_shared_layers`
    """

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None

    kind = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: all heads read one compressed vector and one rotary key per token.

    `key_dim` and `value_dim` are those of the expanded heads, which prefill computes with. With an indexer (DSA) a
    layer also keeps one small key per token, by which it chooses the tokens that it attends to.

    Source: DeepSeek-V2, §2.1, https://arxiv.org/abs/2405.04434; DeepSeek-V3.2, https://arxiv.org/abs/2512.02556
    """

    num_heads: int
    latent_dim: int
    """Width of the latent; 0 = another layer keeps it, and the rotary key."""
    rope_dim: int
    key_dim: int
    value_dim: int
    window: int | None = None
    """Tokens that are seen at most; None = all."""
    index_dim: int = 0
    """Width of the indexer's key; 0 = no indexer, or one that another layer keeps."""
    index_bits: int | None = None
    """Bits of an element of the indexer's key; None = the KV cache's."""
    index_pool: int = 0
    """Tokens that a gate folds into one key of the indexer; 0 = each token has its own."""
    transformers_expands: bool = False
    """transformers keeps the expanded keys and values of every head instead of the latent."""
    transformers_index_bits: int | None = None
    """Bits of an element of the indexer's key in transformers, where its class computes it in another dtype."""

    @property
    def kind(self) -> str:
        """The field's word for it."""
        return "latent_indexed" if self.index_dim else "latent"

    @property
    def num_kv_heads(self) -> int:
        """Expanded, every head has its own key and value."""
        return self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedAttention:
    """Softmax attention of all heads over one vector per token, which is key and value at once.

    The last `window` tokens are seen as they are; all of them also in entries, one for each `ratio` tokens, that a
    gate folds them into. With an indexer an entry has a small key besides, by which entries are chosen.

    Source: DeepSeek-V4, §2.3; transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py
    """

    num_heads: int
    head_dim: int
    window: int
    ratio: int = 0
    """Tokens of an entry; 0 = there are no entries."""
    overlaps: bool = False
    """An entry also folds in the `ratio` tokens before its own."""
    index_dim: int = 0
    """Width of an entry's key for the indexer; 0 = no indexer."""

    @property
    def kind(self) -> str:
        """The field's word for it; without entries it slides."""
        return "compressed" if self.ratio else "sliding"

    @property
    def num_kv_heads(self) -> int:
        """All heads read the same vector."""
        return 1

    @property
    def key_dim(self) -> int:
        """The vector is the key."""
        return self.head_dim

    @property
    def value_dim(self) -> int:
        """The vector is the value too."""
        return self.head_dim

    def entries_of(self, num_tokens: int) -> int:
        """Whole entries among so many tokens."""
        return num_tokens // self.ratio if self.ratio else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttention:
    """A decoder layer's attention over the encoder's output; its keys and values never grow.

    Source: Vaswani et al. 2017, §3.2.3, https://arxiv.org/abs/1706.03762
    """

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    over: Literal["encoder", "images"] = "encoder"
    """`images`: what a vision tower makes of the request's images, nothing without one."""

    kind = "cross"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttention:
    """A recurrent mixer: every head folds all earlier tokens into one state S of value_dim × key_dim.

        S ← decay · S · (I − β · k · kᵀ) + β · v · kᵀ      the gated delta rule; others differ in what they take away

    Before that, a short convolution may run over `conv_columns` tokens, the newest included. Nothing here grows with
    the sequence. Mamba-2: key_dim is its state size, a key head its group. Mamba-1: one head for each channel, of
    value_dim 1.

    Source: Gated Delta Networks, §3.1, https://arxiv.org/abs/2412.06464; Mamba-2, https://arxiv.org/abs/2405.21060;
    transformers 5.23, cache_utils.py `LinearAttentionLayer`
    """

    num_heads: int
    """Value heads: as many states."""
    num_key_heads: int
    """Heads of queries and keys, each shared by num_heads / num_key_heads states."""
    key_dim: int
    value_dim: int
    conv_channels: int = 0
    """Channels that a convolution runs over, e.g. queries, keys and values side by side; 0 = none."""
    conv_columns: int = 0
    state_bits: int | None = 32
    """Bits of one element of a state, whatever the formats of weights and KV cache; None = the model's dtype."""
    vector_elements: int = 0
    """Elements that one sequence keeps beside the matrices, at `state_bits` too: normalisers, a token to shift in."""
    in_transformers_cache: bool = True
    """Whether the layers of transformers' cache hold the state; False where a class keeps it somewhere beside them."""
    recurrence: Recurrence | None = None
    """Which of them it is, where engines treat them apart; None = none that an engine knows."""

    kind = "linear"

    @property
    def num_kv_heads(self) -> int:
        """What ranks share out is states: one a head."""
        return self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvolution:
    """A gated convolution over `columns` tokens, the newest included: it keeps their activations and nothing else.

    Source: transformers 5.23, models/lfm2/; Poli et al. 2023, https://arxiv.org/abs/2302.10866
    """

    channels: int
    columns: int
    bits: int | None = None
    """Bits of one kept activation; None = the model's dtype."""

    kind = "conv"

    @property
    def num_heads(self) -> int:
        """What ranks share out is channels."""
        return self.channels

    @property
    def num_kv_heads(self) -> int:
        """What ranks share out is channels."""
        return self.channels


WindowedMixer = SlidingAttention | ChunkedAttention
SoftmaxMixer = (
    FullAttention
    | SlidingAttention
    | ChunkedAttention
    | SharedAttention
    | LatentAttention
    | CompressedAttention
    | CrossAttention
)
"""The mixers that compare a query with keys, and so have scores."""
StateMixer = LinearAttention | ShortConvolution
"""The mixers whose cache does not grow."""
Mixer = SoftmaxMixer | StateMixer


def window_of(mixer: Mixer) -> int | None:
    """The most tokens that the mixer looks at; None = all of them."""
    return getattr(mixer, "window", None)
