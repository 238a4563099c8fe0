"""One start of an installed engine for people: what was run, what it said beside the plan, the verdict.

Everything is read from the document `kvplan/engine-run/1`.
"""

from collections.abc import Mapping
from typing import Any

from kvplan.core.text import printable
from kvplan.core.units import format_bytes
from kvplan.report.page import Line, Page, Table, Tone, plural
from kvplan.report.validation_tables import signed

Document = Mapping[str, Any]
Row = Mapping[str, Any]

_TITLES = {
    "account": "Where the memory of one GPU goes",
    "given": "What follows of the memory that it states",
    "flags": "The same of GPU, flags and model alone",
    "arithmetic": "Its own sums",
}
_HEADER, _ALIGN = ("", "predicted", "measured", "error", "", ""), "lrrrll"
_TONES: dict[str, Tone] = {"ok": "good", "off": "bad", "failed": "bad"}
_LAST_LINES = 6


def engine_run_page(document: Document) -> Page:
    """The answer of `kvplan validate --against vllm`."""
    start, device = document["start"], document["device"]
    engine = " ".join(filter(None, (document["engine"], document["engine_version"])))
    rows: list[Row] = start["rows"] if start else []
    tables = [_table(section, [row for row in rows if row["section"] == section]) for section in _TITLES]
    return Page(
        title=f"{printable(document['model']['id'])} on {printable(device['name'])}: {printable(engine)} and the plan",
        lines=tuple(_head(document)),
        tables=(*(table for table in tables if table.rows), _verdict(document, rows)),
    )


def _head(document: Document) -> list[Line]:
    driver = document["device"]["driver"]
    facts = [
        f"started with random weights {document['date'][:16].replace('T', ' ')} UTC",
        f"took {document['total_seconds']:,.0f} s",
        *([f"driver {printable(driver)}"] if driver else []),
        f"kvplan {document['kvplan_version']}",
    ]
    notes = document["start"]["notes"] if document["start"] else []
    lines = [Line(", ".join(facts), "faint"), *(Line(printable(note, max_length=600), "faint") for note in notes)]
    return [*lines, Line("error: (predicted - measured) / measured; below zero, the plan says too little", "faint")]


def _table(section: str, rows: list[Row]) -> Table:
    if section == "arithmetic":  # what adds up needs no lines
        rows = [row for row in rows if row["verdict"] == "off"]
    cells = tuple(
        (
            _name(row),
            _amount(row["predicted"], row["unit"]),
            _amount(row["observed"], row["unit"]),
            "equal" if row["verdict"] == "equal" else signed(row["relative"]) if row["predicted"] is not None else "-",
            _VERDICTS[row["verdict"]],
            printable(row["why"], max_length=60),
        )
        for row in rows
    )
    return Table(title=_TITLES[section], header=_HEADER, align=_ALIGN, rows=cells)


_VERDICTS = {"equal": "ok", "near": "ok", "off": "off", "unknown": "-"}


def _name(row: Row) -> str:
    return printable(row["name"] + (f" [{row['rank']}]" if row["rank"] else ""), max_length=40)


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "bytes":
        return format_bytes(round(value)) if value >= 0 else f"-{format_bytes(round(-value))}"
    return f"{value:,.2f}" if unit == "requests" else f"{round(value):,}"


def _verdict(document: Document, rows: list[Row]) -> Table:
    judged = [row for row in rows if row["judged"] and row["predicted"] is not None]
    outside = document["start"]["outside_tolerance"] if document["start"] else []
    verdict = document["verdict"]
    if verdict == "failed":
        sentence = f"failed: {_ending(document)} before it had sized its cache"
    elif verdict == "off":
        sentence = f"off: {', '.join(printable(name) for name in outside)} of {plural(len(judged), 'judged figure')}"
    else:
        sentence = f"ok: {plural(len(judged), 'judged figure')} within tolerance"
    lines = [Line(sentence, _TONES[verdict])]
    if document["ended"] != "complete":
        lines += [Line(_ending(document))] if verdict != "failed" else []
        lines += [Line(printable(line, max_length=160), "faint") for line in document["last_lines"][-_LAST_LINES:]]
    if document["start"] and (failure := document["start"]["failure"]):
        lines += [Line(printable(text, max_length=400)) for text in (*failure["reasons"], *failure["remedies"])]
    return Table(title="Verdict", header=(), align="", rows=(), after=tuple(lines))


def _ending(document: Document) -> str:
    engine, code = document["engine"], document["exit_code"]
    if document["ended"] == "time out":
        return f"{engine} was ended when the time was up"
    if code is not None and code < 0:
        return f"{engine} was ended by signal {-code}"
    return f"{engine} ended by itself with exit code {code}"
