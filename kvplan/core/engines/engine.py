"""The shape of an engine's profile: how it turns the cache that a layer needs into the one that it holds."""

from collections.abc import Callable
from dataclasses import dataclass

from kvplan.core.cache import Cache
from kvplan.core.mixers import Mixer


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine at one version."""

    name: str
    version: str | None
    date: str | None
    """When the profile was checked against the engine's source."""
    reserve: Callable[[Cache, Mixer], Cache]
    """The cache that the engine holds for one that a layer's mixer needs."""
    during_prefill: Callable[[Cache, Mixer], Cache] | None = None
    """The cache that it holds while a prompt is read in, where that is more."""
    max_pass_tokens: int | None
    """Tokens of one forward pass at most (chunked prefill); None = the whole prompt at once."""
    kv_dtypes: tuple[str, ...] | None = None
    """The cache formats that it can hold; None = all."""
