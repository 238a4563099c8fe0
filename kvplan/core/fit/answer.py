"""What is asked of a fit, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kvplan.core.boot import Boot
from kvplan.core.evidence import PlanWarning
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving

Bound = Literal["cache", "memory", "model", "max_num_seqs", "engine"]
"""What keeps an answer from being larger: the cache that is left, what is taken before it, the model's own length,
the limit of requests at once, or what the engine refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is given is held; what is None is searched."""

    max_model_len: int | None = None
    """Tokens of one request. None: the model's own limit if that fits, else the longest that does."""
    longest: bool = False
    """The longest that fits, whatever the model's limit would need (`--max-model-len -1`)."""
    concurrency: int | None = None
    """Requests of that length at once. None: as many as there can be."""
    search_layout: bool = False
    """tp and pp are searched: for `num_gpus`, or the fewest GPUs."""
    num_gpus: int | None = None
    hold_limit: bool = False
    """The limit of requests at once stays as it is, the engine's own included, as where a command is judged."""
    best_kv_dtype: bool = False
    """The widest format of the cache that fits, from the model's own down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """How many requests of one length the answer's settings hold at once."""

    max_model_len: int
    max_concurrency: float
    concurrency: int
    """Whole requests, at most those that the engine runs at once; 0 where it does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change, or some together, that would make it fit."""

    code: str
    """`share`, `kv_dtype`, `shorter` …"""
    options: Mapping[str, object]
    """What to set, under kvplan's names; None leaves out what is set."""
    cost: str
    """What it costs, in words."""
    max_model_len: int
    concurrency: int
    """What it yields: so many requests of that length."""
    serving: Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The share of the device's memory: what is enough, and what is safe."""

    least: float | None
    """The least, in steps of 0.01, with which the answer's settings hold its length and the requests that were asked
    for (else one); None where none does."""
    safe: float
    """The most that leaves room for what lies outside the share, at the far end of its spread."""
    used: float
    """The answer's."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Fit:
    """The answer: how the engine is started, and what that holds."""

    model: ModelSpec
    want: Wanted
    fits: bool
    """Whether what was asked for is there; where nothing was, whether the engine starts at all."""
    serving: Serving
    """With everything that was searched put in; where it does not fit, what was asked for."""
    boot: Boot
    max_model_len: int
    """Tokens of one request."""
    concurrency: int
    """Requests of that length at once; 0 where the engine does not start."""
    max_concurrency: float
    """The same with its fraction, as the engine prints it."""
    concurrency_range: tuple[float, float]
    """At either end of the account's spread."""
    sure_max_model_len: int | None
    """The longest at the low end of the spread, where the length was searched and memory bounds it."""
    bound: Bound
    reason: str
    """The same as a sentence."""
    share: Share | None
    """None for an engine that has none, and where the size of the pool was given."""
    curve: tuple[CurvePoint, ...]
    changes: tuple[Change, ...] = ()
    """What would make it fit, the cheapest first; where GPUs were counted, what fewer would hold."""
    kv_memory_bytes: int | None = None
    """The size of the pool, where it was given."""
    gpu_is_named: bool = True
    """False where the serving's GPU stands for the limits alone that an engine sets by it."""
    notes: tuple[str, ...] = field(default=())
    """What is tight, or beyond the model."""
    warnings: tuple[PlanWarning, ...] = ()
    """What the reader should know of the facts that it rests on, as of a plan."""

    @property
    def is_certain(self) -> bool:
        """Whether it starts, or does not, at either end of the spread; with an open length, with some length."""
        at_both_ends = self.want.longest and self.fits and bool(self.sure_max_model_len)
        return self.boot.certain or at_both_ends

    def __repr__(self) -> str:
        shape = f"max_model_len={self.max_model_len}, concurrency={self.concurrency}"
        return f"{type(self).__name__}({self.model.id!r}, {shape}, num_gpus={self.serving.num_gpus}, fits={self.fits})"
