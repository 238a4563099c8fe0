"""What is tried: one kind of layer under one load, in numbers that both hands read and neither owns.

`cases` makes them of a model, `predict` says what they take, `measure` runs them. A case crosses process borders and
stands in records as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Kind = Literal["full", "sliding", "latent", "cross", "encoder", "sparse", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`num_layers` equal layers of one model on one GPU, and the sequences that they serve.

    latent: what is cached is one head of `latent_dim` + `rope_dim`; `num_kv_heads`, `key_dim` and `value_dim` are
    those of the expanded heads that prefill computes with. linear: `num_kv_heads` states of key_dim × value_dim, and
    `conv_channels` × `conv_columns`. encoder, sparse (a band of `window` to either side): compute, keep nothing.
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
    state_bits: int = 32
    conv_channels: int = 0
    conv_columns: int = 0
    transformers_kv_heads: int | None = None
    """How many heads transformers caches, where it copies them out to more than there are (Falcon)."""
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
    def keeps_nothing(self) -> bool:
        """Whether the layer runs once and has no cache."""
        return self.kind in ("encoder", "sparse")

    @property
    def paged(self) -> bool:
        """Whether its cache grows with the tokens, page by page."""
        return self.kind in ("full", "sliding", "latent", "cross")

    @property
    def prompt_len(self) -> int:
        """Tokens of the prompt; what is not decoded."""
        return self.seq_len - self.decode_steps

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
