"""The words of a command line → an engine's arguments by name, as its own parser would take them apart."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.runtime.flags.argument import Argument, key_of
from kvplan.runtime.flags.table import find_dialect

_NUMBER = re.compile(r"-\d[\d.,]*")
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class _Form:
    """What one spelling of a flag is followed by, and the argument that it sets."""

    name: str
    bare: bool | None = None
    """The value of a flag that stands alone."""
    many: bool = False
    maybe: frozenset[str] = frozenset()


@cache
def _forms(engine: str) -> dict[str, _Form]:
    dialect = find_dialect(engine)
    forms: dict[str, _Form] = {}
    for name in dialect.silent:
        forms[name] = _Form(name, many=name in dialect.silent_many)
    for name in dialect.silent_bare:
        forms |= {name: _Form(name, bare=True), f"no_{name}": _Form(name, bare=False)}
    for argument in dialect.arguments:
        forms |= dict(_spellings(argument))
    return forms


def _spellings(argument: Argument) -> Iterator[tuple[str, _Form]]:
    value = argument.value
    for flag in argument.flags:
        yield key_of(flag), _Form(argument.key, bare=True if value.bare else None, many=value.many, maybe=value.maybe)
    for flag in argument.off:
        yield key_of(flag), _Form(argument.key, bare=False)


def args_from_words(engine: str, words: list[str]) -> tuple[dict[str, object], list[str]]:
    """(arguments by name, words that belong to no flag).

    `--a.b c` is a part of a tree. Raises InputError for a flag whose value is missing.
    """
    expand = find_dialect(engine).expand
    rest = [part for word in words for part in expand(word)]
    args: dict[str, object] = {}
    loose: list[str] = []
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            loose.append(word)
        elif word != "--":
            _take(engine, word, rest, args)
    return args, loose


def nearly(engine: str, name: str) -> str | None:
    """The flag that an argument which kvplan does not know may be a slip of the pen for; None where none is near."""
    forms = _forms(engine)
    if name in forms or name.startswith("-") or "." in name:
        return None
    near = get_close_matches(name, forms, n=1, cutoff=0.85)
    return f"--{near[0].replace('_', '-')}" if near else None


def _is_flag(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not _NUMBER.fullmatch(word)


def _take(engine: str, word: str, rest: list[str], args: dict[str, object]) -> None:
    flag, equals, joined = word.partition("=")
    top, dot, path = flag.partition(".")
    form = _find(engine, top)
    if form is None or (dot and f"{key_of(top)}.{path}" in _forms(engine)):
        whole = _forms(engine).get(key_of(flag))
        if whole is None:
            args[_unknown(flag)] = _unknown_value(joined if equals else None, rest)
            return
        form, dot = whole, ""
    value = _value(form, flag, joined if equals else None, rest)
    if dot:
        _graft(args, form.name, path.removesuffix("+").split("."), value)
    else:
        args[form.name] = value


def _find(engine: str, flag: str) -> _Form | None:
    """The flag of that spelling, or the one argument that it is the beginning of."""
    forms, key = _forms(engine), key_of(flag)
    if key in forms or not (find_dialect(engine).abbreviates and flag.startswith("--") and key):
        return forms.get(key)
    begun = {form.name: form for name, form in forms.items() if name.startswith(key)}
    return next(iter(begun.values())) if len(begun) == 1 else None


def _unknown(flag: str) -> str:
    return flag if not flag.startswith("--") else key_of(flag)


def _unknown_value(joined: str | None, rest: list[str]) -> object:
    if joined is not None:
        return joined
    words = _following(rest)
    return " ".join(words) if words else True


def _following(rest: list[str]) -> list[str]:
    words: list[str] = []
    while rest and not _is_flag(rest[0]):
        words.append(rest.pop(0))
    return words


def _value(form: _Form, flag: str, joined: str | None, rest: list[str]) -> object:
    if form.bare is not None:
        word = joined if joined is not None else rest[0] if rest else ""
        if word.lower() not in _TRUTH:
            return form.bare
        if joined is None:
            rest.pop(0)
        return _TRUTH[word.lower()] is form.bare
    if joined is not None:
        return joined
    if form.maybe and not (rest and rest[0].lower() in form.maybe):
        return True
    if not rest or _is_flag(rest[0]):
        message = f"`{printable(flag, max_length=60)}` stands without its value"
        raise InputError(message, hint=f"put the value behind it: `{printable(flag, max_length=60)} VALUE`")
    return _following(rest) if form.many else rest.pop(0)


def _graft(args: dict[str, object], name: str, path: list[str], value: object) -> None:
    """Sets one leaf of a tree of settings; what was typed as JSON before is part of the tree."""
    present = args.get(name)
    try:
        tree = present if isinstance(present, dict) else json.loads(str(present or "{}"))
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise InputError(f"`--{name.replace('_', '-')}` has no JSON object as its value", hint="write it like '{}'")
    args[name] = tree
    *above, leaf = (part.replace("-", "_") for part in path)
    for part in above:
        below = tree.get(part)
        tree[part] = tree = below if isinstance(below, dict) else {}
    try:
        tree[leaf] = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        tree[leaf] = value
