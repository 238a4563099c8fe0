"""kvplan: what serving a language model takes, in exact bytes.

Names are handed on when they are first used, so that `import kvplan` costs nothing.
"""

from typing import TYPE_CHECKING, Any

from kvplan._version import __version__

if TYPE_CHECKING:
    from kvplan.api import MemoryPlan, curve, estimate, explain, kv_pool, load_model
    from kvplan.core.engines.pool import KVPool
    from kvplan.core.errors import HubError, InputError, KvplanError, UnsupportedError
    from kvplan.core.hardware import Gpu
    from kvplan.core.model import ModelSpec
    from kvplan.inverse import FitPlan, ServeCheck, fit, serve_check
    from kvplan.runtime.explain import Explanation

_HOMES = {
    "FitPlan": "kvplan.inverse",
    "MemoryPlan": "kvplan.api",
    "curve": "kvplan.api",
    "estimate": "kvplan.api",
    "explain": "kvplan.api",
    "fit": "kvplan.inverse",
    "serve_check": "kvplan.inverse",
    "ServeCheck": "kvplan.inverse",
    "kv_pool": "kvplan.api",
    "load_model": "kvplan.api",
    "Explanation": "kvplan.runtime.explain",
    "Gpu": "kvplan.core.hardware",
    "HubError": "kvplan.core.errors",
    "InputError": "kvplan.core.errors",
    "KVPool": "kvplan.core.engines.pool",
    "KvplanError": "kvplan.core.errors",
    "ModelSpec": "kvplan.core.model",
    "UnsupportedError": "kvplan.core.errors",
}

__all__ = [
    "Explanation",
    "FitPlan",
    "Gpu",
    "HubError",
    "InputError",
    "KVPool",
    "KvplanError",
    "MemoryPlan",
    "ModelSpec",
    "ServeCheck",
    "UnsupportedError",
    "__version__",
    "curve",
    "estimate",
    "explain",
    "fit",
    "kv_pool",
    "load_model",
    "serve_check",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kvplan' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
