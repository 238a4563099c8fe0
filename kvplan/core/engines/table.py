"""All engines, by name. To add one: a module with a function `profile(version)`, and its line here."""

from importlib import import_module

from kvplan.core.engines.engine import Engine
from kvplan.core.errors import InputError

ENGINES = {
    "exact": "kvplan.core.engines.exact",
    "transformers": "kvplan.core.engines.transformers",
    "vllm": "kvplan.core.engines.vllm",
    "sglang": "kvplan.core.engines.sglang",
    "trtllm": "kvplan.core.engines.trtllm",
    "llamacpp": "kvplan.core.engines.llamacpp",
}
"""Modules, imported when an engine is asked for."""

_ALIASES = {"llama.cpp": "llamacpp", "llama-server": "llamacpp", "tensorrt-llm": "trtllm", "hf": "transformers"}


def find_engine(text: str, cache: str | None = None) -> Engine:
    """The engine that `NAME[@VERSION]` names; without a version the newest that kvplan knows.

    A version that the profile was not checked against has it all the same, and the profile says so (`Engine.newer`).
    `cache` chooses among transformers' caches; of others there is one.
    """
    name, _, version = text.strip().lower().partition("@")
    home = ENGINES.get(_ALIASES.get(name, name))
    if home is None:
        raise InputError(f"`{text[:40]}` is not an engine that kvplan knows", hint=f"one of {', '.join(ENGINES)}")
    if cache is not None and home != ENGINES["transformers"]:
        raise InputError(f"engine `{name}` has no option `cache`", hint="`--engine transformers` has")
    chosen = {} if cache is None else {"cache": cache}
    engine: Engine = import_module(home).profile(version or None, **chosen)
    return engine
