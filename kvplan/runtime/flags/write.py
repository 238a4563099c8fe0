"""kvplan's options → the words of an engine's command line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kvplan.core.engines.deployment import Switches
from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.runtime.flags.argument import Argument, Dialect
from kvplan.runtime.flags.table import find_dialect
from kvplan.runtime.flags.values import ON


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Options as an engine takes them."""

    words: list[str]
    environment: dict[str, str]
    settings: dict[str, object]
    """What the engine reads from a file alone: a tree."""


def words_from_options(engine: str, options: Mapping[str, object]) -> Written:
    """The engine's own spelling of each option that is not None.

    A switch whose only flag says the contrary is left out where it agrees with the engine's default. Raises
    InputError for an option, or a value, that the engine cannot be told.
    """
    dialect = find_dialect(engine)
    by_option = {argument.option: argument for argument in dialect.arguments if argument.option}
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    words: list[str] = []
    environment: dict[str, str] = {}
    settings: dict[str, object] = {}
    for name, value in given.items():
        argument, variable = by_option.get(name), dialect.variables.get(name)
        if name in dialect.joint_options:
            continue
        if argument is not None and argument.in_file:
            settings[argument.key] = _setting(argument, value)
        elif argument is not None:
            words += _flag(argument, name, value)
        elif variable is not None:
            environment[variable.name] = _written(variable.write, name, value)
        elif not _is_default(name, value):
            raise InputError(f"{engine} cannot be told `{printable(name)}`", hint=f"it takes {_known(dialect)}")
    try:
        words += dialect.joint_write(given)
        settings |= dialect.joint_settings(given)
    except ValueError:
        hint = "give whole numbers above 0"
        raise InputError(f"an option is not the count that {engine} takes it for", hint=hint) from None
    return Written(words=words, environment=environment, settings=_tree(settings))


def _known(dialect: Dialect) -> str:
    own = {argument.option for argument in dialect.arguments if argument.option}
    return ", ".join(sorted(own | dialect.joint_options | set(dialect.variables)))


def _is_default(name: str, value: object) -> bool:
    """A switch that is off, or as kvplan has it by itself, needs no flag."""
    return name in Switches.__dataclass_fields__ and value == getattr(Switches(), name) and type(value) is not str


def _flag(argument: Argument, name: str, value: object) -> list[str]:
    if argument.value.bare:
        if (value is True) is (argument.value is ON) and isinstance(value, bool):
            return [argument.flags[0]]
        if isinstance(value, bool):
            return list(argument.off[:1])
        raise InputError(f"`{name}` is not true or false", hint=f"give `{name}` True or False")
    text = _written(argument.value.write, name, value)
    if not text:
        return []
    return [argument.flags[0], *(text.split() if argument.value.many else [text])]


def _setting(argument: Argument, value: object) -> object:
    if argument.value.bare:
        return bool(value) is (argument.value is ON)
    text = _written(argument.value.write, argument.key, value)
    return value if isinstance(value, (int, float)) else text


def _written(write: Callable[[object], str], name: str, value: object) -> str:
    try:
        return write(value)
    except ValueError:
        raise InputError(f"`{name}` cannot be {printable(str(value))}", hint=f"give `{name}` another value") from None


def _tree(dotted: Mapping[str, object]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for name, value in dotted.items():
        *above, leaf = name.split(".")
        branch = tree
        for part in above:
            below = branch.setdefault(part, {})
            branch = below if isinstance(below, dict) else {}
        branch[leaf] = value
    return tree
