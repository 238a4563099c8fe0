"""No engine: what the architecture needs, to the byte. Prompts are taken in chunks, as serving engines do."""

from kvplan.core.cache import Cache
from kvplan.core.engines.engine import Engine
from kvplan.core.errors import InputError
from kvplan.core.mixers import Mixer


def _reserve(cache: Cache, mixer: Mixer) -> Cache:
    return cache


# 8192 is what vLLM's server takes per pass on GPUs of 70 GiB and more (vllm/engine/arg_utils.py, 0.33).
EXACT = Engine(name="exact", version=None, date=None, reserve=_reserve, max_pass_tokens=8192)


def profile(version: str | None) -> Engine:
    """The architecture's need has no versions."""
    if version is not None:
        raise InputError(f"`exact@{version[:40]}` is not a version that kvplan knows", hint="`exact` has no versions")
    return EXACT
