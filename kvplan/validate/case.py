"""What is tried: one kind of layer under one load, in numbers that both hands read and neither owns.

`cases` makes them of a model, `predict` says what they take, `measure` runs them. A case crosses process borders and
stands in records as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Kind = Literal[
    "full", "full_indexed", "sliding", "chunked", "shared", "latent", "latent_indexed", "compressed", "cross",
    "encoder", "sparse", "linear", "conv",
]  # fmt: skip
Kernel = Literal["softmax", "latent", "delta"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`num_layers` equal layers of one model on one GPU, and the sequences that they serve.

    latent: what is cached is one head of `latent_dim` + `rope_dim`; `num_kv_heads`, `key_dim` and `value_dim` are
    those of the expanded heads that prefill computes with. compressed: key and value are one vector of `key_dim`.
    linear: `num_kv_heads` states of key_dim × value_dim, `vector_elements` beside them, and `conv_channels` ×
    `conv_columns`. conv: those columns alone. encoder, sparse (a band of `window` to either side), shared (another
    layer's keys and values): compute, keep nothing.
    """

    name: str
    kind: Kind
    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    num_layers: int = 1
    model_layers: int | None = None
    """How many the model has, where fewer are tried."""
    window: int | None = None
    sinks: bool = False
    latent_dim: int = 0
    rope_dim: int = 0
    index_dim: int = 0
    """Width of an indexer's key, of every token or of every entry; 0 = no indexer."""
    index_bits: int | None = None
    """Bits of an element of it; None = the cache's type."""
    index_pool: int = 0
    """Tokens that share one key of the indexer; 0 = each has its own."""
    ratio: int = 0
    """compressed: tokens that are folded into one entry; 0 = there are no entries."""
    overlaps: bool = False
    """compressed: an entry also folds in the tokens of the one before."""
    prefix_tokens: int = 0
    """Learnt tokens that stand before every sequence, in its pages."""
    over_images: bool = False
    """cross: over a request's images, of which there may be none."""
    state_bits: int | None = 32
    """None = the model's type."""
    vector_elements: int = 0
    conv_channels: int = 0
    conv_columns: int = 0
    conv_bits: int | None = None
    """Bits of a kept activation; None = the model's type."""
    transformers_kv_heads: int | None = None
    """How many heads transformers caches, where it copies them out to more than there are (Falcon)."""
    transformers_position_bytes: int = 0
    transformers_keeps_all: bool = False
    transformers_expands: bool = False
    transformers_index_bits: int | None = None
    in_transformers_cache: bool = True
    """This and the four before it: where transformers' class keeps other than what the layer needs (`core.mixers`)."""
    batch: int = 1
    seq_len: int = 4096
    """Tokens that each sequence holds when it is done; a cross-attention's are the encoder's."""
    decode_steps: int = 16
    """How many of them came one by one, after the prompt."""
    chunk: int = 2048
    """Tokens of one prefill step at most."""
    page_size: int = 16
    dtype: str = "bf16"
    kv_dtype: str = "bf16"

    @property
    def causal(self) -> bool:
        """Whether a query sees no key after its own."""
        return self.kind not in ("encoder", "cross", "sparse")

    @property
    def is_latent(self) -> bool:
        """Whether one latent a token stands for all heads' keys and values."""
        return self.kind in ("latent", "latent_indexed")

    @property
    def one_vector(self) -> bool:
        """Whether a token's value is part of its key, so that one vector is held."""
        return self.is_latent or self.kind == "compressed"

    @property
    def token_dim(self) -> int:
        """Numbers of one head's key, as they are held."""
        return self.latent_dim + self.rope_dim if self.is_latent else self.key_dim

    @property
    def tokens_per_entry(self) -> int:
        """Tokens that are folded into one entry of a pool beside the tokens' own; 0 = there is none."""
        if self.kind == "compressed":
            return self.ratio
        return self.index_pool if self.index_dim else 0

    @property
    def keeps_nothing(self) -> bool:
        """Whether the layer has no cache: it runs once, reads another's, or there is nothing to keep."""
        if self.kind in ("encoder", "sparse", "shared") or not self.seq_len:
            return True
        return self.is_latent and not self.token_dim and not self.index_dim

    @property
    def keeps_states(self) -> bool:
        """Whether what it keeps does not grow with the tokens."""
        return self.kind in ("linear", "conv")

    @property
    def paged(self) -> bool:
        """Whether it keeps something of every token, page by page."""
        if self.keeps_nothing or self.keeps_states:
            return False
        return bool(self.token_dim or (self.index_dim and not self.index_pool))

    @property
    def kernel(self) -> Kernel | None:
        """Which of our kernels computes the layer; None = none takes this kind.

        latent: no window, and a rotary part. delta: the gated delta rule stands for every recurrence whose states are
        matrices, and nothing else. A layer with an indexer computes over all tokens, as if all were chosen.
        """
        if self.kind in ("compressed", "conv") or not self.seq_len:
            return None
        if self.is_latent:
            return "latent" if self.latent_dim and self.rope_dim and self.window is None else None
        if self.kind == "linear":
            matrices = min(self.key_dim, self.value_dim) > 1 and not self.num_kv_heads % self.num_heads
            return "delta" if matrices and not self.vector_elements else None
        return "softmax"

    @property
    def held_len(self) -> int:
        """Tokens that a sequence has pages for when it is done."""
        return self.prefix_tokens + self.seq_len

    @property
    def prompt_len(self) -> int:
        """Tokens of the prompt, and of what stands before it; what is not decoded."""
        return self.held_len - self.decode_steps

    def to_json(self) -> dict[str, Any]:
        """Every field, so that a record stands alone."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Case:
        """The case that `to_json` wrote. Raises TypeError for a field that is missing or unknown."""
        unknown = sorted(found.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise TypeError(f"a case has no `{unknown[0]}`")
        return cls(**found)
