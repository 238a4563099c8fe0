"""Versions of engines: which of several profiles one means."""

import re
from collections.abc import Sequence

from kvplan.core.errors import InputError

_RELEASE = re.compile(r"[vb]?(\d+(?:\.\d+){0,3})", re.IGNORECASE)


def release(version: str) -> tuple[int, ...]:
    """The numbers of `0.19.0`, `v0.8.5.post1`, `0.11.0rc2.dev98`, of a build `b11434`; () where there are none."""
    match = _RELEASE.match(version.strip())
    return tuple(int(number) for number in match[1].split(".")) if match else ()


def chosen(engine: str, asked: str | None, known: Sequence[str]) -> tuple[str, str | None]:
    """(the profile's version, what was asked for where that is newer than all): `known` from old to new.

    A version between two known ones has the profile of the older; one older than all is refused.
    """
    if asked is None:
        return known[-1], None
    numbers = release(asked)
    if not numbers:
        raise InputError(f"`{asked[:40]}` is not a version of {engine}", hint=f"e.g. `{engine}@{known[-1]}`")
    older = [version for version in known if release(version) <= numbers or asked.startswith(version)]
    if not older:
        hint = f"`{engine}@{known[0]}` is the oldest"
        raise InputError(f"kvplan knows no version of {engine} as old as {asked[:40]}", hint=hint)
    newest = release(known[-1])
    return older[-1], asked if older[-1] == known[-1] and numbers[: len(newest)] > newest else None
