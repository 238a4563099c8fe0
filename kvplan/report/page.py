"""What a report shows, before anyone decides how it is drawn: a title, lines, tables.

`estimate`, `inspect` and `listing` make pages; `text`, `markdown` and `html` draw them. To add a report: a
function that returns a Page. To add a format: a function that draws one.
"""

from dataclasses import dataclass
from typing import Literal

from kvplan.core.units import GIB, format_bytes

Tone = Literal["plain", "good", "bad", "faint"]
LINE_LENGTH = 100
"""Characters of a line of text, and so of what is cut to fit into one."""


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence of a page."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under a header; `align` has one letter a column, l or r."""

    title: str
    header: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]
    bars: tuple[float, ...] = ()
    """One fraction of 1 a row, drawn as a bar before the last column where the medium can."""
    after: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One report."""

    title: str
    lines: tuple[Line, ...] = ()
    code: tuple[str, ...] = ()
    """Lines to paste, shown as they are under the others."""
    tables: tuple[Table, ...] = ()


def gib(num_bytes: int) -> str:
    """GiB with two decimals and no unit, for a column that states it; what is not nothing never reads 0.00."""
    return "<0.01" if 0 < num_bytes < 0.005 * GIB else f"{num_bytes / GIB:,.2f}"


def exact_bytes(num_bytes: int, width: int = 0) -> str:
    """`1,342,177,280 bytes (1.25 GiB)`."""
    return f"{num_bytes:>{width},} bytes ({format_bytes(num_bytes)})"


def percent(part: int, whole: int) -> str:
    """`82 %`; one decimal below 10 %."""
    if whole == 0:
        return "0 %"
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "<0.1 %"
    return f"{share:,.0f} %" if share >= 9.95 or part == 0 else f"{share:.1f} %"


def milliseconds(seconds: float) -> str:
    """`41.4 ms`: three digits that count, more where there are more before the point."""
    amount = 1000 * seconds
    return f"{amount:,.0f} ms" if amount >= 100 else f"{amount:.3g} ms"


def plural(number: int, noun: str) -> str:
    """`1 layer`, `80 layers`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
