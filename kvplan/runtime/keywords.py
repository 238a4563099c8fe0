"""Arguments of Python's face as an engine spells them: `kv_cache_dtype`, `tensor_parallel_size` …"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.table import find_engine
from kvplan.core.errors import InputError
from kvplan.core.text import printable

P = ParamSpec("P")
R = TypeVar("R")


def in_engines_words_too(default_engine: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that also takes what its engine calls otherwise: `enable_prefix_caching` for `prefix_caching`.

    It raises InputError for a name that neither knows, and where one thing is said twice.
    """

    def decorate(call: Callable[P, R]) -> Callable[P, R]:
        code = call.__code__
        own = {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], *Switches.__dataclass_fields__}

        @wraps(call)
        def translated(*args: P.args, **given: P.kwargs) -> R:
            foreign = {name: value for name, value in given.items() if name not in own}
            if not foreign:
                return call(*args, **given)
            read: dict[str, Any] = _read(str(given.get("engine", default_engine)), foreign, sorted(own))
            said: dict[str, Any] = {name: value for name, value in given.items() if name in own}
            if twice := sorted(name for name in read if said.get(name) is not None):
                raise InputError(f"`{twice[0]}` is given twice, once under the engine's name", hint="leave one out")
            return call(*args, **(said | read))

        return translated

    return decorate


def _read(engine: str, foreign: Mapping[str, object], own: list[str]) -> dict[str, object]:
    """An engine's arguments under kvplan's names. Raises InputError for one that is not known, or not understood."""
    from kvplan.runtime.flags.read import options_from_args
    from kvplan.runtime.flags.table import find_dialect

    profile = find_engine(engine)
    known: set[str] = set()
    if profile.pooled is not None:
        dialect = find_dialect(profile.name)
        known = {name for argument in dialect.arguments for name in (argument.key, *argument.older)}
        known |= dialect.silent | dialect.silent_bare
    if unknown := sorted(foreign.keys() - known):
        message = f"`{printable(unknown[0], max_length=40)}` is no option of {profile.name}"
        raise InputError(message, hint=f"kvplan has {', '.join(own)}")
    options, unread = options_from_args(profile.name, foreign)
    if unread:
        raise InputError(f"`{unread[0]}` is not understood, and may bear on memory", hint="leave it out")
    return options
