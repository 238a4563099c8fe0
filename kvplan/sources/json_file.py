"""JSON that others wrote, read as hostile: bounded in size, finite numbers, one object at the top.

Every source that reads a JSON file or a JSON header goes through `read_json` or `read_json_file`.
"""

import json
import math
import stat
from pathlib import Path
from typing import Any, NoReturn

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.core.units import MIB, format_bytes

MAX_CONFIG_BYTES = 4 * MIB
"""No config.json comes near it; weights do."""
MAX_DIGITS = 64
"""Tokenizer configs hold integers of 31 digits; nothing honest is longer than this."""

_DAMAGED = "the file may be damaged or cut short: download it again"


def read_json(content: str | bytes, *, what: str, max_bytes: int, finite: bool = True) -> dict[str, Any]:
    """The one object in `content`; `what` names the file in the sentence of an InputError.

    A byte-order mark is fine, a key given twice keeps its last value (as the frameworks read it).
    Absurdly long integers are not, nor NaN, Infinity and numbers too large for a float, unless not `finite`:
    published configs hold Infinity in keys that nobody plans with, and `Facts` refuses it where it matters.
    """
    name = _named(what)
    size = len(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise _too_large(name, max_bytes)
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise InputError(f"{name} is not UTF-8 text", hint=_DAMAGED) from None
    if not text.strip():
        raise InputError(f"{name} is empty", hint=_DAMAGED)
    value = _parse(text, name, finite=finite)
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise InputError(f"{name} holds a JSON {kind}, not an object", hint="check that this is the right file")
    return value


def read_json_file(path: Path, *, what: str, max_bytes: int, finite: bool = True) -> dict[str, Any]:
    """`read_json` for a file on disk, never reading more than one byte past the limit."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{_named(what)} is no regular file", hint="give a JSON file, or the folder it lies in")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{_named(what)} cannot be read: {reason}", hint="check the path and its permissions"
        ) from error
    return read_json(content, what=what, max_bytes=max_bytes, finite=finite)


def _parse(text: str, name: str, *, finite: bool) -> Any:
    strict: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite} if finite else {}
    try:
        return json.loads(text, parse_int=_bounded, **strict)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{name} is not valid JSON: {error.msg} ({where})", hint=_DAMAGED) from None
    except RecursionError:
        raise InputError(
            f"{name} is nested too deeply", hint="no model file looks like this: do not trust it"
        ) from None
    except ValueError as error:
        raise InputError(f"{name} holds {error}", hint="correct the file, or ask its author to") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"`{text}`, which is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"`{text[:20]}`, a number that is too large")
    return number


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _too_large(name: str, max_bytes: int) -> InputError:
    hint = "check that this is the right file: kvplan reads configs and headers, never weights"
    return InputError(f"{name} is larger than {format_bytes(max_bytes)}", hint=hint)


def _named(what: str) -> str:
    shown = printable(what, max_length=300)
    return shown if "`" in shown else f"`{shown}`"
