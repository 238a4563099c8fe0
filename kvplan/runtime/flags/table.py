"""All dialects, by engine. To add one: a module with `DIALECT`, and its line here."""

from importlib import import_module

from kvplan.core.errors import InputError
from kvplan.runtime.flags.argument import Dialect

_DIALECTS = {
    "vllm": "kvplan.runtime.flags.vllm",
    "sglang": "kvplan.runtime.flags.sglang",
    "trtllm": "kvplan.runtime.flags.trtllm",
    "llamacpp": "kvplan.runtime.flags.llamacpp",
}


def find_dialect(engine: str) -> Dialect:
    """The table of an engine's arguments; InputError for an engine that has no command line."""
    if engine not in _DIALECTS:
        hint = f"one of {', '.join(_DIALECTS)}"
        raise InputError(f"`{engine[:40]}` is not an engine whose arguments kvplan knows", hint=hint)
    dialect: Dialect = import_module(_DIALECTS[engine]).DIALECT
    return dialect
