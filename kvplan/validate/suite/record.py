"""The record of one run as JSON: what the device was, what was right, what was fast, and what failed.

A record is written at once or not at all, and the same results make the same text: blocks and fields stand in the order
in which they are declared, keys of mappings in that in which they were put in. JSON knows no NaN and no infinity; they
become null.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = "kvplan/kernels/1"

Rows = list[Any]
"""Dataclasses, or mappings by field name."""


class RecordError(ValueError):
    """A file that is no record of this schema; the message says what is wrong and where."""


@dataclass
class Record:
    """Everything that one run found; blocks that it did not get to are empty."""

    device: Any
    correctness: Rows = field(default_factory=list)
    ceilings: Any = None
    sweep: Rows = field(default_factory=list)
    benchmarks: Rows = field(default_factory=list)
    failures: Rows = field(default_factory=list)
    total_seconds: float | None = None

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **plain(self)}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write it whole: a run that is cut off leaves the file of before."""
        write_whole(Path(path), self.to_json())


def write_whole(path: Path, text: str) -> None:
    """The text in the place of what the file held before, or nothing of it; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as part:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


_TYPES: dict[str, tuple[type, ...]] = {
    "device": (dict,),
    "correctness": (list,),
    "ceilings": (dict, type(None)),
    "sweep": (list,),
    "benchmarks": (list,),
    "failures": (list,),
    "total_seconds": (int, float, type(None)),
}


def read_record(path: Path) -> Record:
    """A record from its file, its blocks as plain mappings and lists. Raises `RecordError` if it is not one."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise RecordError(f"`{path}` is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise RecordError(f"`{path}` has the schema `{schema}`, not `{SCHEMA}`")
    if wrong := sorted((found.keys() - {"schema"}) ^ _TYPES.keys()):
        raise RecordError(f"`{path}` lacks these blocks, or has them too many: {', '.join(wrong)}")
    for name, types in _TYPES.items():
        if not isinstance(found[name], types):
            raise RecordError(f"`{name}` of `{path}` is a {type(found[name]).__name__}")
    return Record(**{name: found[name] for name in _TYPES})


def plain(value: Any) -> Any:
    """`value` in JSON's terms. Raises TypeError for what has none: nothing is written as its `repr` by accident."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a record cannot hold a {type(value).__name__}: {value!r}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a record's keys are strings, not {key!r}")
    return key


def _refuse(constant: str) -> Any:
    raise RecordError(f"`{constant}` is no JSON number")
