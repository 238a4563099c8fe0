"""One start of an installed engine for people: what was run, what it said beside the plan, how it ended.

Everything is read from the document `kvplan/engine-run/1`; what was said is drawn as `kvplan explain` draws it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kvplan.core.text import printable
from kvplan.report.explain import start_pages
from kvplan.report.page import Line, Page

Document = Mapping[str, Any]

_LAST_LINES = 6


def engine_run_page(document: Document) -> Page:
    """The answer of `kvplan validate --against vllm`."""
    start, head, ending = document["start"], Line(_head(document), "faint"), _ending(document)
    if start is None:
        title = f"{document['engine']}, {printable(document['model']['id'])}: said nothing that is known"
        return Page(title=title, lines=(head, *ending))
    page = start_pages({"starts": [start]})[0]
    lines = (head, *page.lines)
    if not page.tables:
        return replace(page, lines=(*lines, *ending))
    last = page.tables[-1]
    tables = (*page.tables[:-1], replace(last, after=(*last.after, *ending)))
    return replace(page, lines=lines, tables=tables)


def _head(document: Document) -> str:
    device = document["device"]
    driver = f", driver {printable(device['driver'])}" if device["driver"] else ""
    when = f"{document['date'][:16].replace('T', ' ')} UTC"
    return f"random weights, {printable(device['name'])}{driver}, {when}, took {document['total_seconds']:,.0f} s"


def _ending(document: Document) -> list[Line]:
    """How it ended, unless it was ended once all was said; and whether nothing could be judged."""
    lines = []
    if document["ended"] != "complete":
        understood = document["start"] and document["start"]["failure"]
        said = [] if understood else document["last_lines"][-_LAST_LINES:]
        lines += [Line(f"{_cause(document)}{_what_it_said(said, bool(understood))}")]
        lines += [Line(printable(line, max_length=160), "faint") for line in said]
    if document["verdict"] == "failed":
        lines.append(Line("failed: no figure of the cache could be set beside the plan", "bad"))
    if not document["all_ended"]:
        lines.append(Line("a process of the engine would not end: look for it before you start another", "bad"))
    return lines


def _what_it_said(said: list[str], understood: bool) -> str:
    if understood:
        return ""
    return "; its last lines:" if said else " and said nothing"


def _cause(document: Document) -> str:
    engine, code = document["engine"], document["exit_code"]
    if document["ended"] == "time out":
        return f"{engine} was ended when the time was up (`--minutes`)"
    if code is not None and code < 0:
        return f"{engine} was ended by signal {-code}"
    return f"{engine} ended by itself{'' if code is None else f' with exit code {code}'}"
