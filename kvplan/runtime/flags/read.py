"""An engine's arguments by name → kvplan's options, and what kvplan could not read."""

from collections.abc import Iterator, Mapping

from kvplan.core.text import printable
from kvplan.runtime.flags.argument import Argument, Dialect, Options, UnknownValueError, spelled
from kvplan.runtime.flags.table import find_dialect
from kvplan.runtime.flags.values import refused


def options_from_args(engine: str, args: Mapping[str, object]) -> tuple[Options, tuple[str, ...]]:
    """(options under kvplan's names, what is unread) of arguments as an engine's log names them.

    `args` is vLLM's `non-default args: {...}`, SGLang's `ServerArgs(...)`, TensorRT-LLM's settings (as trees or as
    `kv_cache_config.dtype`), or the same of a command line; a value is a word or what Python makes of it. Unread is
    what may bear on memory and is not understood, as flags: `--offload-group-size 8`; None, False, 0 and empty values
    of such arguments say nothing. Raises InputError for a value that the engine itself would refuse.
    """
    dialect = find_dialect(engine)
    if dialect.nested:
        args = dict(_leaves(args))
    known = {name: argument for argument in dialect.arguments for name in (argument.key, *argument.older)}
    options: Options = {}
    unread: list[str] = []
    for name, value in args.items():
        argument = known.get(name)
        if value is None or name in dialect.silent or name in dialect.silent_bare:
            continue
        if argument is None:
            unread += [_told(dialect, name, value)] if _tells(dialect, name, value) else []
        elif argument.option is not None:
            _read_into(options, unread, argument, value)
    joint, unclear = dialect.joint_read(args)
    return options | joint, tuple(printable(text) for text in (*unread, *unclear))


def _leaves(args: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in args.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _tells(dialect: Dialect, name: str, value: object) -> bool:
    empty = value in (False, 0, "", "0", "auto") or value in ({}, [], ())
    return not empty and str(dialect.defaults.get(name)) != str(value)


def _told(dialect: Dialect, name: str, value: object) -> str:
    return spelled(name if name.startswith("-") or not dialect.nested else f"--{name}", value)


def _read_into(options: Options, unread: list[str], argument: Argument, value: object) -> None:
    try:
        read = argument.value.read(value)
    except UnknownValueError:
        unread.append(spelled(argument.flags[0], value))
    except (ValueError, OverflowError):
        raise refused(argument.flags[0], value, argument.value.what) from None
    else:
        options |= {} if read is None or argument.option is None else {argument.option: read}
