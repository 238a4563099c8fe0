"""Whole numbers and how people write them: byte sizes, token counts, rounding.

Bytes are integers everywhere; GiB appears only where a number is printed.
"""

import re
from math import floor
from typing import Any

from kvplan.core.errors import InputError

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_COUNT_SUFFIX = {"": 1, "k": 1000, "m": 1000**2, "K": KIB, "M": MIB}
_BYTE_SUFFIX = {
    "": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024**4,
}  # fmt: skip
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)


def ceil_div(amount: int, divisor: int) -> int:
    """⌈amount / divisor⌉ in whole numbers; an int64 array of amounts gives an array."""
    return -(-amount // divisor)


def round_up(amount: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `amount`."""
    return ceil_div(amount, multiple) * multiple


def smaller(a: int, b: int) -> int:
    """`min` for two numbers, element by element where one is an int64 array (see `core.sweep`)."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    held: int = _numpy().minimum(a, b)
    return held


def larger(a: int, b: int) -> int:
    """`max` for two numbers, element by element where one is an int64 array (see `core.sweep`)."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    held: int = _numpy().maximum(a, b)
    return held


def _numpy() -> Any:
    """numpy, imported only where arrays come in: a plan of one point does without it."""
    import numpy

    return numpy


def parse_count(text: str) -> int:
    """A count as people write it: `4096`, `8k` = 8000, `8K` = 8192, `25.6k`.

    Raises InputError for anything else, and where the result is no whole number.
    """
    return _parse(text, _COUNT_SUFFIX, what="count", hint="write it like 4096, 8k (8000) or 8K (8192)")


def parse_bytes(text: str) -> int:
    """A size in bytes as people write it: `80GB` = 80·10⁹, `80GiB` = 80·2³⁰, or plain bytes."""
    hint = "write it like 80GB (10^9), 80GiB (2^30) or a plain number of bytes"
    if text.strip()[-1:].upper() in ("K", "M", "G", "T"):
        hint = f"some read `{text.strip()[-1]}` as 10^3s, others as 2^10s, vLLM by its case: {hint}"
    return _parse(text, _BYTE_SUFFIX, what="size", hint=hint, fold=True)


def _parse(text: str, suffixes: dict[str, int], *, what: str, hint: str, fold: bool = False) -> int:
    match = _NUMBER.fullmatch(text.strip())
    suffix = (match[2].lower() if fold else match[2]) if match else ""
    if match is None or suffix not in suffixes or len(match[1]) > 18:
        raise InputError(f"`{text[:40]}` is not a {what}", hint=hint)
    whole, _, fraction = match[1].partition(".")
    scaled = int(whole + fraction) * suffixes[suffix]
    number, rest = divmod(scaled, int("1" + "0" * len(fraction)))
    if rest:
        raise InputError(f"`{text[:40]}` is not a whole {what}", hint=hint)
    return number


def format_bytes(num_bytes: int) -> str:
    """For people: `1.25 GiB`, `320 KiB`, `512 B`; always binary units, and it says so."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(num_bytes) >= unit:
            digits = 0 if num_bytes % unit == 0 and abs(num_bytes) < 1000 * unit else 2
            return f"{num_bytes / unit:,.{digits}f} {name}"
    return f"{num_bytes} B"


def rounded_down(number: float) -> str:
    """For people: `1,234.56`, cut after two digits: 7.998 requests are not 8."""
    return f"{floor(round(number * 100, 6)) / 100:,.2f}"


def format_count(number: int) -> str:
    """For people: `68.98 B`, `124.44 M`, `512`: decimal, as parameter counts are quoted."""
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return f"{number:,}"
