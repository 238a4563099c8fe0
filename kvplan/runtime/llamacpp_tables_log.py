"""llama.cpp's tables of memory: plans that it tries before it loads, and the one with which it ends.

    |   - CUDA0 (RTX 4090) | total = free + (self = model + context + compute) + unaccounted |

Before the load `common_fit_params` prints one for each plan, then the devices' shares of the plan that it takes; what
is left of a device is not accounted for yet, so that the rest is below 0. Which table holds is told apart at the end.

Sources: llama.cpp b11434, common/fit.cpp `common_params_fit_impl`, `common_memory_breakdown_print`; b7300 to b9000,
src/llama.cpp `llama_params_fit_impl`, src/llama-context.cpp `llama_memory_breakdown_print`
"""

import re
from collections.abc import Mapping

from kvplan.runtime.lines import Line
from kvplan.runtime.llamacpp_cache_log import is_draft
from kvplan.runtime.wording import Start, wording

_Row = tuple[Line, Mapping[str, str | None]]
_FIGURES = (("x_model", "model_buffer"), ("x_context", "context_buffer"), ("x_compute", "compute_buffer"))
_TOLD_BY = {
    "model_buffer": {"model_buffer"},
    "compute_buffer": {"compute_buffer"},
    "context_buffer": {"context_buffer", "kv_buffer", "swa_kv_buffer", "state_buffer"},
}
"""Figures of devices beside which a table, in whole MiB, says nothing more."""
_HELD = frozenset({"cells", "kv_buffer", "kv_cache", "compute_buffer"})
"""Figures that are printed once the context is there: a table after them is that of the end."""


def _read_row(start: Start, found: re.Match[str], line: Line) -> None:
    """One device's row of a table."""
    if is_draft(start):
        return
    if found["x_total"]:
        start.add("device_total", found["x_total"], "MiB", line, rank=found["x_device"], weak=True)
    said = dict(found.groupdict())
    rest = said.get("x_rest") or ""
    if (start.is_ready or start.figures.keys() & _HELD) and not rest.startswith("-"):
        said["at_end"] = "1"
    start.tables.append((line, said))


def _read_share(start: Start, found: re.Match[str], line: Line) -> None:
    """What a device has of the plan that is taken: by that its table is told from the others."""
    start.tables.append((line, dict(found.groupdict())))


def _read_misfit(start: Start, found: re.Match[str], line: Line) -> None:
    """The first plan does not fit."""
    del found
    start.tables.append((line, {"misfit": "1"}))


TABLES = (
    wording(
        "memory_breakdown_print:",
        r"memory_breakdown_print: \| +- "
        r"(?:(?P<x_device>[A-Za-z]+\d+) \([^|]*\) *\| *(?P<x_total>\d+) = *\d+ \+ \(|Host *\|)"
        r" *(?P<x_self>\d+) = *(?P<x_model>\d+) \+ *(?P<x_context>\d+) \+ *(?P<x_compute>\d+)"
        r"(?:\) \+ *(?P<x_rest>-?\d+))?",
        "b6900+",
        after_ready=True,
        then=_read_row,
    ),
    wording(
        " layers",
        r"params_fit_impl: +- (?P<x_device>[A-Za-z]+\d+) \(.*\): +\d+ layers.*?, +(?P<x_used>\d+) MiB used",
        "b7300+",
        then=_read_share,
    ),
    wording("cannot meet free memory target", r"cannot meet free memory target", "b7300+", then=_read_misfit),
)
"""The wordings of tables of memory, in the dialect of llama.cpp."""


def keep_table(start: Start) -> None:
    """The figures of the one table that holds, where lines of their own say nothing of a device."""
    rows = _at_end(start.tables) or _planned(start.tables)
    if not rows:
        return
    start.facts["breakdown"] = "at the end" if rows[0][1].get("at_end") else "planned"
    wanted = [(group, name) for group, name in _FIGURES if not start.figures.keys() & _TOLD_BY[name]]
    for line, said in rows:
        for group, name in wanted:
            start.add(name, said[group] or "0", "MiB", line, rank=said["x_device"] or "Host", weak=True)


def _at_end(tables: list[_Row]) -> list[_Row]:
    """The last table that was printed once the context was there."""
    return _last([row for row in tables if row[1].get("at_end")])


def _planned(tables: list[_Row]) -> list[_Row]:
    """The table of the plan that was taken; none where the first does not fit and nothing says which did."""
    used = {said["x_device"]: said["x_used"] for _, said in tables if said.get("x_used")}
    rows = [row for row in tables if row[1].get("x_model") and not row[1].get("at_end")]
    if not used:
        return [] if any("misfit" in said for _, said in tables) else _last(rows)
    while rows:
        last = _last(rows)
        own = {said["x_device"]: said["x_self"] for _, said in last}
        if all(own.get(device) == share for device, share in used.items()):
            return last
        rows = rows[: -len(last)]
    return []


def _last(rows: list[_Row]) -> list[_Row]:
    """The rows of the last table: back to where a device comes twice."""
    found: list[_Row] = []
    seen: set[str | None] = set()
    for row in reversed(rows):
        if row[1]["x_device"] in seen or (found and row[1]["x_device"] is None):
            break
        seen.add(row[1]["x_device"])
        found.insert(0, row)
    return found
