"""The shape of an engine's profile: how it turns the cache that a layer needs into the one that it holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvplan.core.cache import Cache
from kvplan.core.dtypes import DType
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.pool import Budget, KVPool
from kvplan.core.hardware import Gpu
from kvplan.core.mixers import Mixer

if TYPE_CHECKING:
    from kvplan.core.model import ModelSpec, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """An engine that reserves its cache for all requests when it starts."""

    pool: "Callable[[ModelSpec, Deployment, int | None], KVPool]"
    """(model, deployment, bytes of one GPU for the cache) → the pool; None = as much as the deployment asks for."""
    budget: "Callable[[ModelSpec, Deployment, tuple[int, ...]], tuple[Budget, ...]]"
    """(model, deployment, bytes of weights on the fullest rank of each stage) → one account a stage."""
    held: "Callable[[ModelSpec, Deployment, int, int], tuple[int, ...]]"
    """(model, deployment, tokens of a request, requests) → bytes of one GPU of each stage that they hold at most.

    Tokens and requests may be int64 arrays (`core.sweep`): use `ceil_div`, `round_up`, `smaller` and `larger`.
    """
    check: "Callable[[ModelSpec, Deployment], None]"
    """Raises InputError for what the engine refuses: heads or a vocabulary that do not divide, a format it lacks."""
    kinds: "Callable[[ModelSpec, Deployment, int, int], dict[str, int]] | None" = None
    """The same on a single GPU by kind of layer, `padding` among them; None where only the sum is known."""
    default_share: float | None
    """Of the device's memory, where the user says nothing."""
    switches: frozenset[str]
    """The names of `Switches` that the engine has."""
    auto_dtype: "Callable[[ModelSpec, Gpu | None], DType] | None" = None
    """What it computes in where nobody says; None = as the checkpoint states."""
    auto_kv_dtype: "Callable[[ModelSpec, Gpu | None, Switches], str | None] | None" = None
    """The format that it takes for the cache where nobody says, be it the checkpoint's or its own; None = `dtype`."""
    runs_at_once: "Callable[[Deployment], int] | None" = None
    """Requests that run at once by the engine's limit; None where `KVPool.max_concurrency` counts that already."""
    stages: "Callable[[ModelSpec, Deployment], list[tuple[int, int]]] | None" = None
    """[start, stop) of the layers of each pipeline stage, where the engine deals them out in a way of its own."""
    splits_layers: bool = False
    """Several GPUs share a model by whole layers where nothing else is said, and the token table stays with the CPU."""
    reads_draft: frozenset[str] = frozenset()
    """Methods whose draft, a model apart, is planned from its own config: `Deployment.draft`."""
    assumes_draft: frozenset[str] = frozenset()
    """Those of them for which the engine's profile assumes something where that config cannot be read."""
    draft_class: "Callable[[ModelSpec, str], str | None] | None" = None
    """(a draft, the method) → the class that the engine runs it as, where its config names another; None elsewhere.

    Raises UnsupportedError for a class that is not known.
    """
    leaves_out: "Callable[[ModelSpec, Switches], frozenset[Part]] | None" = None
    """Parts of a model's weights that are not loaded with such switches: towers of images that nobody may send."""
    caps_pool: bool = False
    """A size of the pool that is given is a cap of what the account leaves (TensorRT-LLM `max_gpu_total_bytes`)."""
    shares_length: bool = False
    """`max_model_len` is the context of all requests together (llama.cpp `-c`), not that of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine at one version."""

    name: str
    version: str | None
    date: str | None
    """When the profile was checked against the engine's source."""
    reserve: Callable[[Cache, Mixer], Cache]
    """The cache that the engine holds for one that a layer's mixer needs; a pooled engine holds whole blocks of it."""
    during_prefill: Callable[[Cache, Mixer], Cache] | None = None
    """The cache that it holds while a prompt is read in, where that is more."""
    max_pass_tokens: int | None
    """Tokens of one forward pass at most (chunked prefill); None = the whole prompt at once."""
    kv_dtypes: tuple[str, ...] | None = None
    """The cache formats that it can hold; None = all."""
    pooled: Pooled | None = None
    newer: str | None = None
    """The version that was asked for, where the profile was checked against another one only."""
