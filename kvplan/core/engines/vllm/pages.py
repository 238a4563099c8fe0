"""What one cache of one layer is to vLLM: bytes of a page, tokens of a block, and what a request holds at most.

Source: vLLM 0.33, v1/kv_cache_interface.py
"""

from dataclasses import dataclass, field, replace

from kvplan.core.units import ceil_div, smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What one cache of one layer is, on one GPU. Equal ones may share a group."""

    kind: str
    block_size: int
    """Tokens of a block; of a state, tokens between checkpoints."""
    token_bytes: int = 0
    """Bytes of one token; 0 for a state."""
    state_bytes: int = 0
    shape: tuple[object, ...] = ()
    """Heads, widths and formats: what must be equal besides the bytes."""
    window: int | None = None
    padded_bytes: int | None = None
    """The page's size, where it is padded to another layer's, or to a multiple that a kernel wants."""
    checkpoints: int = 0
    """Further blocks of states that a request keeps in align mode."""
    chunk: int = 1
    """Tokens that the recurrence's kernel works in: checkpoints stand at multiples of it."""
    recurrent: bool = False
    row: str = field(default="", compare=False)
    """The layer's kind in a plan, where that is another: an indexer's keys are part of `latent_indexed`."""

    @property
    def page_bytes(self) -> int:
        """One block of one layer."""
        if self.padded_bytes is not None:
            return self.padded_bytes
        return self.state_bytes or self.block_size * self.token_bytes

    @property
    def is_latent(self) -> bool:
        """Whether its rows are latents, which are never padded to a foreign size."""
        return self.kind.startswith("latent") or self.kind == "indexer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What decides how many blocks a request holds: lengths, tokens in flight, and how states are kept."""

    in_flight_tokens: int
    """max_num_batched_tokens times the steps that are scheduled ahead."""
    extra_tokens: int
    """Tokens that a window keeps for several draft modules."""
    encoder_tokens: int
    dcp: int
    aligned: bool
    """States are kept at block boundaries, for prefix caching."""
    num_speculative_tokens: int


def blocks_for(spec: Spec, num_tokens: int, holding: Holding) -> int:
    """The most blocks that one request of `num_tokens` holds of one group.

        full, latent     ⌈⌈n / dcp⌉ / block⌉
        sliding          ⌈min(W − 1 + extra + in flight, n) / block⌉ + 1
        chunked          ⌈min(c + in flight, n) / block⌉
        states           1 + s; aligned: 2 + s + checkpoints        s speculative tokens
        cross            ⌈encoder tokens / block⌉

    Source: vLLM 0.33, v1/kv_cache_interface.py 643-1143
    """
    if spec.recurrent:
        kept = 2 + spec.checkpoints if holding.aligned else 1
        return kept + holding.num_speculative_tokens
    if spec.kind == "cross":
        return ceil_div(holding.encoder_tokens, spec.block_size)
    if spec.kind == "chunked" and spec.window is not None:
        return ceil_div(smaller(spec.window + holding.in_flight_tokens, num_tokens), spec.block_size)
    if spec.kind in ("sliding", "latent_sliding", "waiting") and spec.window is not None:
        held = smaller(spec.window - 1 + holding.extra_tokens + holding.in_flight_tokens, num_tokens)
        return ceil_div(held, spec.block_size) + 1
    return ceil_div(ceil_div(num_tokens, holding.dcp), spec.block_size)


def padded(spec: Spec, page_bytes: int) -> Spec:
    """The spec with its page padded."""
    return replace(spec, padded_bytes=page_bytes)
