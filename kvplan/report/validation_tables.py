"""The sections of a validation as tables: words and figures of rows, fits and readings as the document holds them.

A document is a mapping of the schema `kvplan/validate/1`; `kvplan.report.validation` puts the tables on a page. To add
a section: a function from its rows and the layers' short names to a table, and its line in `SECTIONS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kvplan.core.text import join_words, printable
from kvplan.core.units import format_bytes
from kvplan.report.inspect import layer_names
from kvplan.report.page import LINE_LENGTH, Line, Table

Document = Mapping[str, Any]
Row = Mapping[str, Any]
Names = Mapping[str, str]
"""Of the layers: short ones by those of the document."""

WORST_FIRST = ("off", "inconclusive", "ok", "info")
_MOST_LINES, _LONGEST_NAME, _LONGEST_TERM = 6, 40, 30
_INDENT, _NARROWEST = 2, 8


def short_names(cases: Sequence[Row]) -> dict[str, str]:
    """`sliding 128` for `18 × sliding 128, 64/8 heads × 64`; `A sliding 128` where two kinds are called the same."""
    kinds = []
    for case in cases:
        head = shortened(printable(case["name"].partition(", ")[0]), _LONGEST_NAME)
        count, _, kind = head.partition(" × ")
        kinds.append(kind if kind and count.isdigit() else head)
    if len(set(kinds)) < len(kinds):
        kinds = [f"{letter} {kind}" for letter, kind in zip(layer_names(len(kinds)), kinds, strict=True)]
    return {case["name"]: kind for case, kind in zip(cases, kinds, strict=True)}


def fitted(table: Table) -> Table:
    """The table within a line's length: what is too much is cut from its widest columns of words."""
    lines = (table.header, *table.rows)
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(table.header))]
    excess = _INDENT + sum(widths) + 2 * (len(widths) - 1) - LINE_LENGTH
    words = [(width, -i) for i, width in enumerate(widths) if table.align[i] == "l"]
    width, widest = max(words, default=(0, 0))
    if excess <= 0 or width <= _NARROWEST:
        return table
    room = max(width - excess, _NARROWEST)
    cut = [tuple(shortened(cell, room) if i == -widest else cell for i, cell in enumerate(cells)) for cells in lines]
    return fitted(replace(table, header=cut[0], rows=tuple(cut[1:])))


def shortened(text: str, most: int) -> str:
    """What is longer ends in a mark."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def signed(error: float | None) -> str:
    """`+2.3 %`, `-14 %`; below zero the plan counts too little; `equal` for none."""
    if error is None:
        return ""
    if error == 0:
        return "equal"
    if abs(error) < 0.0005:
        return "<0.1 %"
    if error >= 9.995:
        return ">999 %"
    return f"{100 * error:+.0f} %" if abs(error) >= 0.0995 else f"{100 * error:+.1f} %"


def share(fraction: float | None) -> str:
    """`88 %`, `3.2 %`."""
    if fraction is None:
        return "-"
    return f"{100 * fraction:.0f} %" if fraction >= 0.0995 else f"{100 * fraction:.1f} %"


def multiple(ratio: float | None) -> str:
    """`4.0×`, `32×`, `0.25×`."""
    if ratio is None:
        return "-"
    return f"{ratio:,.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×" if ratio >= 0.995 else f"{ratio:.2f}×"


def seconds_text(seconds: float | None) -> str:
    """`12.3 µs`, `1.23 ms`, `4.56 s`."""
    if seconds is None:
        return "-"
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:,.3g} {name}" if seconds < 1000 * unit else f"{seconds / unit:,.0f} {name}"
    return f"{seconds / 1e-6:.3g} µs"


def worst_of(rows: Iterable[Row]) -> str:
    """The verdict that counts of several."""
    return min((row["verdict"] for row in rows), key=WORST_FIRST.index, default="info")


def worst_error(rows: Iterable[Row]) -> float | None:
    """The signed error that is furthest from zero; None where nothing was compared."""
    return max((row["error"] for row in rows if row["error"] is not None), key=abs, default=None)


def label(row: Row, names: Names) -> str:
    """Which layers, or which part of the run."""
    return names.get(row["case"]) or shortened(printable(row["case"]), _LONGEST_NAME)


def term_of(row: Row) -> str:
    """Which figure of them."""
    return shortened(printable(row["term"]), _LONGEST_TERM)


def amount(row: Row, side: str) -> str:
    """A row's predicted or measured figure in its unit; `equal` for a measured one that is the predicted."""
    value, unit = row[side], row["unit"]
    if value is None:
        return "-"
    if unit == "relative error":
        return f"{value:.2g}" if side == "measured" else f"at most {row['slack']:.2g}"
    if side == "measured" and value == row["predicted"]:
        return "equal"
    if unit == "seconds":
        return seconds_text(value)
    if unit == "bytes" and side == "predicted" and value >= 1024:
        return f"{int(value):,} ({format_bytes(int(value))})"
    return f"{int(value):,}" if value == int(value) else f"{value:,.3f}"


def reasons(rows: Sequence[Row], names: Names) -> tuple[Line, ...]:
    """Why rows were not judged: a line a reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["verdict"] == "info" and (reason := _reason(row)):
            found.setdefault((term_of(row), reason), []).append(label(row, names))
    whose = {about: some(dict.fromkeys(who)) for about, who in found.items()}
    return tuple(
        Line(f"not judged: {term} of {who}: {printable(reason)}", "faint") for (term, reason), who in whose.items()
    )


def disagreements(rows: Sequence[Row], names: Names) -> tuple[Line, ...]:
    """The rows that do not agree, for tables that show several rows as one."""
    wrong = [row for row in rows if row["verdict"] in ("off", "inconclusive")]
    lines = [Line(_wrong(row, names), "bad" if row["verdict"] == "off" else "plain") for row in wrong[:_MOST_LINES]]
    more = len(wrong) - _MOST_LINES
    return (*lines, *([Line(f"and {more} more; `--format csv` lists every one", "bad")] if more > 0 else []))


def some(words: Iterable[str], most: int = 3) -> str:
    """`a, b and c`, or `a, b, c and 4 more`."""
    listed = list(words)
    more = [f"{len(listed) - most} more"] if len(listed) > most else []
    return join_words([*listed[:most], *more])


def _wrong(row: Row, names: Names) -> str:
    told = f"; {printable(row['note'])}" if row["note"] else ""
    measured = amount(row, "measured")
    return (
        f"{row['verdict']}: {term_of(row)} of {label(row, names)}: "
        f"predicted {amount(row, 'predicted')}, measured {measured}{told}"
    )


def _reason(row: Row) -> str:
    """A transient row's note begins with the call's shape."""
    note: str = row["note"]
    return note.partition("; ")[2] if row["section"] == "transient" else note


def amounts(title: str, rows: Sequence[Row], names: Names, *, what: str = "layers") -> Table:
    """Rows one by one: predicted, measured, error, verdict."""
    cells = tuple(
        (
            label(row, names),
            term_of(row),
            amount(row, "predicted"),
            amount(row, "measured"),
            _error(row),
            word(row["verdict"]),
        )
        for row in rows
    )
    header = (what, "", "predicted", "measured", "error", "verdict")
    after = (*_allowances(rows), *reasons(rows, names))
    return Table(title=title, header=header, align="llrrrl", rows=cells, after=after)


def word(verdict: str) -> str:
    """A verdict for people."""
    return "not judged" if verdict == "info" else verdict


def _error(row: Row) -> str:
    """Blank where `equal` or the two figures already say it."""
    if row["unit"] == "relative error" or row["predicted"] == row["measured"]:
        return ""
    return signed(row["error"])


def _allowances(rows: Sequence[Row]) -> tuple[Line, ...]:
    """What may differ, and by how much, where anything may."""
    by_much: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["unit"] == "bytes" and (much := _allowance(row)):
            by_much.setdefault(much, {})[term_of(row)] = None
    return tuple(Line(f"{join_words(terms)} may differ by {much}", "faint") for much, terms in by_much.items())


def _allowance(row: Row) -> str:
    parts = [f"{100 * row['tolerance']:g} %"] if row["tolerance"] else []
    parts += [format_bytes(int(row["slack"]))] if row["slack"] else []
    return " or ".join(parts) + (", whichever is more" if len(parts) > 1 else "")


def _memory(rows: Sequence[Row], names: Names) -> Table:
    """Pools to the byte, then what torch's allocator and the process hold."""
    renamed = [{**row, "term": row["term"].removeprefix("decode ")} for row in rows]
    return amounts("Memory, bytes", renamed, names)


def _correctness(rows: Sequence[Row], names: Names) -> Table:
    """The largest error of each phase beside what rounding explains."""
    cells = tuple((label(row, names), term_of(row), *_against_allowed(row), word(row["verdict"])) for row in rows)
    title = "Correctness of the kernels that are measured, against float64"
    header = ("layers", "phase", "largest error", "allowed", "verdict")
    return Table(title=title, header=header, align="llrrl", rows=cells, after=reasons(rows, names))


def _against_allowed(row: Row) -> tuple[str, str]:
    allowed = "-" if row["predicted"] is None else f"{row['slack']:.2g}"
    return ("-" if row["measured"] is None else f"{row['measured']:.2g}"), allowed


def _transient(rows: Sequence[Row], names: Names) -> Table:
    """A line a call: what its backends held, and the largest of the plan's errors."""
    backends = tuple(dict.fromkeys(row["term"] for row in rows))
    calls: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        shape = shortened(printable(row["note"].partition(";")[0]), _LONGEST_TERM)
        calls.setdefault((label(row, names), shape), {})[row["term"]] = row
    cells = tuple(
        (who, shape, *(_held(found.get(backend)) for backend in backends), _ratio(found), _outcome(found))
        for (who, shape), found in calls.items()
    )
    return Table(
        title="Transient memory of one attention call (batch × query × key); ratio: eager to flash",
        header=("layers", "call", *map(printable, backends), "ratio", "error"),
        align="lr" + "r" * len(backends) + "rr",
        rows=cells,
        after=(*_allowances(rows), *disagreements(rows, names), *reasons(rows, names)),
    )


def _held(row: Row | None) -> str:
    if row is None or row["measured"] is None:
        return "-" if row is None or "refuses" not in row["note"] else "refused"
    return format_bytes(int(row["measured"]))


def _ratio(found: Mapping[str, Row]) -> str:
    eager, flash = (found[name]["measured"] if name in found else None for name in ("eager", "flash"))
    return multiple(eager / flash if eager is not None and flash else None)


def _outcome(found: Mapping[str, Row]) -> str:
    """The largest error, with the verdict where it is not that all agree."""
    verdict, error = worst_of(found.values()), signed(worst_error(found.values()))
    return error if verdict == "ok" else word(verdict) if verdict == "info" else f"{error} {verdict}"


def _work(rows: Sequence[Row], names: Names) -> Table:
    """Bytes and operations of all loads that were timed, counted on tensors and by the plan."""
    by_term: dict[str, list[Row]] = {}
    for row in rows:
        by_term.setdefault(term_of(row), []).append(row)
    cells = tuple(
        (
            term,
            f"{len(found)}",
            f"{sum(row['measured'] == row['predicted'] for row in found)}",
            signed(worst_error(found)),
            word(worst_of(found)),
        )
        for term, found in by_term.items()
    )
    title = "Bytes and operations of the timed calls, counted on tensors and by the plan"
    header = ("", "calls", "equal", "worst error", "verdict")
    return Table(title=title, header=header, align="lrrrl", rows=cells, after=disagreements(rows, names))


def _framework(rows: Sequence[Row], names: Names) -> Table:
    """What a framework's own cache holds of each kind of layer."""
    sources = dict.fromkeys(printable(row["note"]) for row in rows if row["note"])
    table = amounts("The framework's own cache, bytes", [{**row, "note": ""} for row in rows], names)
    return replace(table, after=(Line(f"measured: {some(sources)}", "faint"), *table.after))


def _ranks(rows: Sequence[Row], names: Names) -> Table:
    """What every process of a layout holds."""
    return amounts("Ranks", rows, names, what="rank")


SECTIONS: dict[str, Callable[[Sequence[Row], Names], Table]] = {
    "memory": _memory,
    "correctness": _correctness,
    "transient": _transient,
    "work": _work,
    "framework": _framework,
    "ranks": _ranks,
}
"""In the order in which they are shown; a section that is not here is shown row by row after them."""
