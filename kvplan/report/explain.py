"""Explanations for people: one page a start, from the document `kvplan/explain/1`."""

from collections.abc import Mapping
from typing import Any

from kvplan.core.text import join_words, printable
from kvplan.core.units import GIB, MIB, format_bytes
from kvplan.report.page import LINE_LENGTH, Line, Page, Table, plural

Start = Mapping[str, Any]
Row = Mapping[str, Any]

_HEADER = ("", "log", "kvplan", "±", "difference", "", "verdict", "basis")
_ALIGN = "lrrrrrll"
_MAX_ERROR = 400
_MAX_NAME = 48


def start_pages(document: Mapping[str, Any]) -> list[Page]:
    """The answer of `kvplan explain`: a page for each start, in the order of the log."""
    starts = document["starts"]
    return [_page(start, index, len(starts)) for index, start in enumerate(starts, 1)]


def headline(start: Start) -> str:
    """`vllm 0.19.0, Qwen/Qwen3-8B on H100, tp 1, started`."""
    engine = f"{start['engine']} {start['engine_version'] or '(version not told)'}"
    model = _short(printable(start["model"] or start["model_in_log"] or "a model that is not told"))
    gpu = f" on {printable(start['gpu'])}" if start["gpu"] else ""
    degrees = [f"{name} {start[name]}" for name in ("tp", "pp", "dp") if name == "tp" or start[name] > 1]
    if start["engine"] == "llamacpp":
        degrees = [plural(start["num_gpus"], "device")] if start["num_gpus"] else []
    state = (
        "started" if start["started"] else "did not start" if start["failure"] else "its start is not told to its end"
    )
    return ", ".join([engine, f"{model}{gpu}", *degrees, state])


def _short(name: str) -> str:
    """The end of a long path, which tells more than its beginning."""
    return name if len(name) <= _MAX_NAME else f"…{name[1 - _MAX_NAME :]}"


def _pool(start: Start) -> list[str]:
    """What the log says of the cache, in few words."""
    figures: dict[str, Mapping[str, Any]] = {}
    for figure in start["figures"]:
        known = figures.get(figure["name"])
        if known is None or figure["value"] < known["value"]:
            figures[figure["name"]] = figure
    words = []
    if memory := figures.get("kv_memory"):
        told = f"{memory['value']:.2f} {memory['unit']}"
        words.append(f"{format_bytes(round(memory['value'])) if memory['unit'] == 'B' else told} for the cache")
    elif held := sum(row["observed"] for row in start["rows"] if _is_cache(row)):
        words.append(f"{format_bytes(held)} of cache")
    elif memory := figures.get("kv_cache"):
        size = round(memory["value"] * {"B": 1, "GiB": GIB}.get(memory["unit"], MIB))
        words.append(f"{format_bytes(size)} of cache")
    for name, noun in (("num_tokens", "tokens"), ("cells", "cells")):
        if name in figures:
            words.append(f"{figures[name]['value']:,} {noun}")
    if "max_concurrency" in figures and "concurrency_len" in figures:
        requests, length = figures["max_concurrency"]["value"], figures["concurrency_len"]["value"]
        words.append(f"{requests:,.2f} requests of {length:,}")
    return words


def _is_cache(row: Row) -> bool:
    """Rows that together are the cache of an engine that prints no sum."""
    parts = ("keys", "values", "keys and values", "sliding keys", "sliding values", "sliding keys and values", "states")
    name = row["name"]
    return row["section"] == "given" and not row["rank"] and (name in parts or name.startswith("states of"))


def _page(start: Start, index: int, count: int) -> Page:
    where = f"start {index} of {count}, " if count > 1 else ""
    title, below = _title_lines(headline(start), ", ".join(_pool(start)))
    lines = [Line(below)] if below else []
    lines.append(Line(f"{where}lines {start['lines'][0]:,} to {start['lines'][1]:,} of the log", "faint"))
    lines += [Line(printable(note, max_length=600), "faint") for note in start["notes"]]
    lines += _failure(start)
    tables = [table for table in (_table(start, section) for section in _sections(start)) if table is not None]
    closing = (*(Line(f"advice: {text}") for text in start["advice"]), _verdict(start))
    if tables:
        last = tables[-1]
        after = (*last.after, *closing)
        tables[-1] = Table(title=last.title, header=last.header, align=last.align, rows=last.rows, after=after)
    else:
        lines += closing
    return Page(title=title, lines=tuple(lines), tables=tuple(tables))


def _title_lines(title: str, pool: str) -> tuple[str, str]:
    """(the title, what of it goes below because it is too long)."""
    whole = f"{title}: {pool}" if pool else title
    if len(whole) <= LINE_LENGTH:
        return whole, ""
    if len(title) <= LINE_LENGTH:
        return title, pool
    at = whole.rfind(", ", 0, LINE_LENGTH)
    return (whole[:at], whole[at + 2 :]) if at > 0 else (title, pool)


def _failure(start: Start) -> list[Line]:
    """Why it did not start, and what would have fitted."""
    failure = start["failure"]
    if failure is None:
        return []
    lines = [Line(f"the log: {printable(text, max_length=_MAX_ERROR)}", "bad") for text in failure["errors"]]
    lines += [Line(f"kvplan: {text}") for text in failure["reasons"]]
    return lines + [Line(f"would do: {text}", "good") for text in failure["remedies"]]


def _sections(start: Start) -> list[str]:
    """The log's own sums are shown where nothing else is, and where one does not come out."""
    rows = start["rows"]
    sums = [row for row in rows if row["section"] == "arithmetic"]
    shown = [name for name in ("account", "given", "flags") if any(row["section"] == name for row in rows)]
    wrong = any(row["verdict"] != "equal" for row in sums)
    return [*shown, "arithmetic"] if sums and (wrong or not start["predicted"]) else shown


def _title(start: Start, section: str) -> str:
    if section == "account":
        return "Where the memory of one GPU goes" if start["engine"] != "llamacpp" else "Where the memory goes"
    if section == "given":
        known = "the pools" if start["engine"] == "sglang" else "the cache's memory"
        return "What follows of the flags" if start["engine"] == "llamacpp" else f"What follows of {known} as printed"
    return "From GPU, flags and model alone" if section == "flags" else "The log's own sums"


def _table(start: Start, section: str) -> Table | None:
    rows = [row for row in start["rows"] if row["section"] == section]
    if not rows:
        return None
    reasons = [(name, row["why"]) for row in rows if row["why"] for name in (_name(row),)]
    unit = "MiB" if start["engine"] == "llamacpp" else "GiB"
    cells = [_cells(row, unit) for row in rows]
    kept = [i for i, title in enumerate(_HEADER) if i < 3 or title == "verdict" or any(cell[i] for cell in cells)]
    return Table(
        title=_title(start, section),
        header=tuple(_HEADER[i] for i in kept),
        align="".join(_ALIGN[i] for i in kept),
        rows=tuple(tuple(cell[i] for i in kept) for cell in cells),
        after=tuple(Line(f"{name}: {why}", "faint") for name, why in _joined(reasons)),
    )


def _joined(reasons: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Equal reasons of several rows said once."""
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons:
        by_reason.setdefault(why, []).append(name)
    return [(join_words(dict.fromkeys(names)), why) for why, names in by_reason.items()]


def _name(row: Row) -> str:
    return f"{row['name']} [{printable(row['rank'])}]" if row["rank"] else str(row["name"])


def _cells(row: Row, unit: str) -> tuple[str, ...]:
    """The cells of one row, bytes in the unit that the engine prints; what is equal shows no difference."""
    shown = row["predicted"] is not None
    differs = shown and row["verdict"] != "equal"
    spread = max(row["predicted"] - row["low"], row["high"] - row["predicted"]) if shown else 0
    relative = _percent(row["relative"]) if differs and row["relative"] is not None else ""
    return (
        _name(row),
        _amount(row["observed"], row["unit"], unit),
        _amount(row["predicted"], row["unit"], unit) if shown else "not known",
        _amount(spread, row["unit"], unit).removesuffix(f" {unit}") if spread else "",
        _signed(row["difference"], row["unit"], unit) if differs else "",
        relative,
        row["verdict"] if shown else "",
        row["basis"] or "",
    )


def _amount(value: float, unit: str, size_unit: str = "GiB") -> str:
    if unit == "bytes":
        size = value / (MIB if size_unit == "MiB" else GIB)
        return f"{size:,.2f} {size_unit}" if abs(size) >= 0.005 else format_bytes(round(value))
    return f"{value:,.2f}" if unit == "requests" else f"{value:,.0f}"


def _percent(share: float) -> str:
    """`+2.3 %`; what is little is not nothing."""
    return f"{100 * share:+.1f} %" if abs(share) >= 0.0005 else "<0.1 %"


def _signed(value: float, unit: str, size_unit: str) -> str:
    shown = _amount(abs(value), unit, size_unit)
    if unit == "bytes" and not shown.endswith(f" {size_unit}"):
        return "<0.01"
    return ("+" if value > 0 else "-") + shown.removesuffix(f" {size_unit}")


def _verdict(start: Start) -> Line:
    """Whether it is within tolerance, in one sentence."""
    outside, judged = start["outside_tolerance"], [row for row in start["rows"] if row["judged"]]
    if outside:
        rows = [row for row in judged if any(label.endswith(f": {_name(row)}") for label in outside)]
        words = [f"{_name(row)} ({_amount(row['predicted'], row['unit'])} predicted)" for row in rows]
        return Line(f"beyond tolerance: {join_words(dict.fromkeys(words))}", "bad")
    exact = sum(row["judged"] == "exact" for row in judged)
    pools = [row for row in judged if row["judged"] == "pool"]
    if not judged:
        compared = any(row["predicted"] is not None for row in start["rows"])
        return Line("no figure that decides could be compared" if compared else "nothing could be compared", "bad")
    words = [f"{plural(exact, 'exact figure')} equal"] if exact else []
    allowed = f"{100 * start['tolerance']:g} %"
    words += [f"{row['name']} {_off(row)} ({allowed} allowed)" for row in pools]
    words += [
        f"{row['name']} {_off(row)}, not judged: kvplan's account of it rests on assumptions"
        for row in start["rows"]
        if row["name"] in ("pools", "left for the cache") and row["basis"] == "assumed" and not row["judged"]
    ]
    words += [
        f"{row['name']} {_off(row)}, not judged: a log that ends here may not tell of all of them"
        for row in start["rows"]
        if row["name"] == "pools" and row["basis"] not in (None, "assumed") and not row["judged"]
    ]
    return Line(f"within tolerance: {', '.join(words)}", "good")


def _off(row: Row) -> str:
    return f"{100 * abs(row['relative'] or 0):.1f} % off"
