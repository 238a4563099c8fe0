"""What an engine makes of the memory that it has for its cache: blocks, tokens, requests; and where memory goes."""

from dataclasses import dataclass
from math import isqrt

from kvplan.core.measured import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolGroup:
    """Layers that share block tables: a request holds blocks of each group."""

    kind: str
    """The field's word for the layers: full, sliding, chunked, latent, linear, cross …"""
    num_layers: int
    block_size: int
    """Tokens of one block."""
    page_bytes: int
    """One layer's part of one block, on one GPU."""
    blocks_per_request: int
    """Blocks of this group that one request of `max_model_len` tokens holds at most."""
    window: int | None = None
    padding_layers: int = 0
    """Layers that are not there, but whose memory is reserved, because another group is wider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVPool:
    """The pool of one GPU; with pipeline stages, of the tightest."""

    engine: str
    version: str | None
    kv_memory_bytes: int
    """What there is."""
    allocated_bytes: int
    """What the engine allocates of it."""
    block_size: int
    """Tokens of a block of the first group with attention over all tokens, else of the first."""
    bytes_per_block: int
    num_blocks: int
    num_tokens: int
    """As this version of the engine prints it; versions differ in what they mean."""
    max_concurrency: float
    """Requests of `max_model_len` tokens that the pool holds at once."""
    max_model_len: int
    blocks_per_request: int
    fits_one: bool
    """Whether the engine starts: one request of `max_model_len` tokens can be held."""
    longest_request: int
    """The most tokens that one request can have, by the engine's own check; at most `max_model_len`."""
    groups: tuple[PoolGroup, ...]
    notes: tuple[str, ...] = ()
    """What a reader of the engine's log should know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One GPU's account before the engine sizes its pool: device · share − what is taken = the pool."""

    stage: int
    device_bytes: int
    """What the engine's framework sees: less than the driver lists."""
    usable_bytes: int
    """What the engine allows itself: the device's bytes times its share."""
    taken: tuple[Measured, ...]
    """Weights, activations, graphs and the rest: what the engine takes off before the pool."""
    untaken: tuple[Measured, ...] = ()
    """What comes on top, outside `usable_bytes`: graphs that are captured after the pool is sized, contexts."""

    before: tuple[Measured, ...] = ()
    """Of `untaken`, what is there before the engine looks at how much is free: it refuses a share that is more."""

    @property
    def kv_memory_bytes(self) -> int:
        """What is left for the pool; negative where the weights alone do not fit."""
        return self.usable_bytes - sum(item.num_bytes for item in self.taken)

    @property
    def spread_bytes(self) -> int:
        """How far the pool may be off: the spreads of what is taken, as independent errors add (root of squares)."""
        return isqrt(sum(item.spread_bytes**2 for item in self.taken))
