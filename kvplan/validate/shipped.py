"""`python -m kvplan.validate.shipped`: judge the shipped records anew, and put what they say into the page.

To add a record: `kvplan validate MODEL --out kvplan/validate/records/NAME.json`, then this. A row that today's
prediction changes shows in the difference, and must be explained there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvplan.core.units import MIB
from kvplan.validate import record
from kvplan.validate.devices import FILE_NAME

FOLDER = Path(__file__).with_name("records")
PAGE = Path(__file__).with_name("README.md")
_MARKS = ("<!-- table: python -m kvplan.validate.shipped -->", "<!-- end of table -->")
_HEADER = (
    "| model | layers tried | on | caches, bytes | torch's allocator | process | kernels | one call | transformers | |",
    "|---|---|---|--:|---|--:|--:|--:|---|---|",
)
_RANKS_HEADER = (
    "| model | layout | over | ranks | cache of each, bytes | to the plan | decode | |",
    "|---|---|---|--:|--:|---|--:|---|",
)


def paths() -> list[Path]:
    """The shipped records, by name."""
    return sorted(path for path in FOLDER.glob("*.json") if path.name != FILE_NAME)


def table(documents: Sequence[Mapping[str, Any]]) -> str:
    """Two Markdown tables: of one process what was held and the worst errors, of several what each held."""
    together = [document for document in documents if "ranks" in document["readings"]]
    alone = [document for document in documents if document not in together]
    return "\n".join((*_HEADER, *map(_line, alone), "", *_RANKS_HEADER, *map(_ranks_line, together)))


def _ranks_line(document: Mapping[str, Any]) -> str:
    reading, rows = document["readings"]["ranks"], _of(document["rows"], "ranks")
    layout = ", ".join(f"{name} {reading[name]}" for name in ("tp", "pp", "cp") if reading[name] > 1)
    held = [row for row in rows if row["term"] == "cache"]
    largest = _largest([row for row in rows if row["unit"] == "relative error"])
    sizes = " ".join(dict.fromkeys(f"{row['measured']:,}" for row in held))
    cells = (
        document["name"],
        layout,
        reading["backend"],
        str(len(held)),
        sizes,
        _equal(held),
        largest,
        document["verdict"],
    )
    return f"| {' | '.join(cells)} |"


def _line(document: Mapping[str, Any]) -> str:
    rows = document["rows"]
    one_each = document["model"] is None
    kinds = ", ".join(case["name"] if one_each else f"{case['num_layers']} {_kind(case)}" for case in document["cases"])
    cells = [
        document["name"],
        kinds,
        document["device"]["name"],
        f"{sum(row['measured'] or 0 for row in _of(rows, 'memory', 'pools')):,}",
        _equal(_of(rows, "memory", "requested", "allocated", "reserved")),
        _difference(_of(rows, "memory", "process", "total")),
        _largest(_of(rows, "correctness")),
        _worst(_of(rows, "transient")),
        _equal(_of(rows, "framework")),
        document["verdict"],
    ]
    return f"| {' | '.join(cells)} |"


def _kind(case: Mapping[str, Any]) -> str:
    return case["kind"] if case["window"] is None else f"{case['kind']} {case['window']}"


def _of(rows: Sequence[Mapping[str, Any]], section: str, *terms: str) -> list[Mapping[str, Any]]:
    """The judged rows of a section, of these terms if any are named."""
    found = [row for row in rows if row["section"] == section and row["verdict"] != "info"]
    return [row for row in found if not terms or row["term"] in terms]


def _equal(rows: Sequence[Mapping[str, Any]]) -> str:
    """`equal` where every row is, to the byte."""
    if not rows:
        return "-"
    equal = sum(row["predicted"] == row["measured"] for row in rows)
    return "equal" if equal == len(rows) else f"{equal} of {len(rows)} equal"


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    """The largest signed error."""
    errors = [row["error"] for row in rows if row["error"] is not None]
    if not errors:
        return "-"
    worst = max(errors, key=abs)
    return "equal" if worst == 0 else "<0.1 %" if abs(worst) < 0.0005 else f"{100 * worst:+.1f} %"


def _difference(rows: Sequence[Mapping[str, Any]]) -> str:
    """Predicted less measured, the largest: of a small cache a share would say little."""
    found = [(row["predicted"] - row["measured"]) / MIB for row in rows]
    return f"{max(found, key=abs):+.1f} MiB" if found else "-"


def _largest(rows: Sequence[Mapping[str, Any]]) -> str:
    """The kernels' largest error against float64."""
    return f"{max(row['measured'] for row in rows):.1e}" if rows else "-"


def into_page(text: str) -> str:
    """The page with this table in it."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(_MARKS[0])
    return f"{before}{_MARKS[0]}\n{text}\n{_MARKS[1]}{rest.split(_MARKS[1])[1]}"


def main() -> None:
    """Rewrite what follows from readings: the records' rows, and the page's table."""
    documents = []
    for path in paths():
        document = record.read(path)
        document |= record.recompute(document)
        record.write(document, path)
        documents.append(document)
    PAGE.write_text(into_page(table(documents)), encoding="utf-8")


if __name__ == "__main__":
    main()
