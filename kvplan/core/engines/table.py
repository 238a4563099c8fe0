"""All engines, by name. To add one: a module like `transformers.py`, and its line here."""

from kvplan.core.engines.engine import Engine
from kvplan.core.engines.exact import EXACT
from kvplan.core.engines.transformers import TRANSFORMERS
from kvplan.core.errors import InputError

ENGINES = {engine.name: engine for engine in (EXACT, TRANSFORMERS)}


def find_engine(text: str) -> Engine:
    """The engine that `NAME[@VERSION]` names; a version other than the profile's is refused, never guessed."""
    name, _, version = text.strip().lower().partition("@")
    engine = ENGINES.get(name)
    if engine is None:
        raise InputError(f"`{text[:40]}` is not an engine that kvplan knows", hint=f"one of {', '.join(ENGINES)}")
    if version and (engine.version is None or not f"{version}.".startswith(f"{engine.version}.")):
        known = f"`{name}@{engine.version}`" if engine.version else f"`{name}`, which has no versions"
        raise InputError(f"`{text[:40]}` is not a version that kvplan knows", hint=f"use {known}")
    return engine
