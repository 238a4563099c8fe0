"""A validation for people and for spreadsheets: the machine, what was predicted beside what was measured, the verdict.

Everything is read from the document `kvplan/validate/1`, be it of this hour or a record: nothing here measures.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.core.units import MIB, format_bytes
from kvplan.report.page import Line, Page, Table, Tone, plural
from kvplan.report.validation_tables import (
    SECTIONS,
    WORST_FIRST,
    Document,
    Names,
    Row,
    amounts,
    fitted,
    label,
    multiple,
    seconds_text,
    share,
    short_names,
    signed,
    some,
)
from kvplan.report.validation_times import SECTION as TIMES
from kvplan.report.validation_times import time_tables, timed_rows

SCHEMA = "kvplan/validate/1"
_MOST_NAMED = 4
_TONES: dict[str, Tone] = {"ok": "good", "off": "bad", "inconclusive": "plain", "info": "plain"}
_FIGURES = ("predicted", "measured", "error", "tolerance", "slack", "spread")
_COLUMNS = ("section", "case", "term", "unit", *_FIGURES, "verdict", "note")
_PARTS = ("device", "name", "inputs", "cases", "readings", "rows", "fits", "tokens_per_second", "failures", "verdict")


def validation_page(document: Document) -> Page:
    """The answer of `kvplan validate`. Raises InputError for what is no document of this schema."""
    rows, names = checked_rows(document), short_names(document["cases"])
    by_section: dict[str, list[Row]] = {}
    for row in rows:
        by_section.setdefault(row["section"], []).append(row)
    tables = [_layers(document["cases"]), *_variants(document), *_points(document)]
    tables += [draw(by_section[name], names) for name, draw in SECTIONS.items() if name in by_section]
    tables += [amounts(printable(name), found, names) for name, found in by_section.items() if name not in SECTIONS]
    tables += [*time_tables(document, names), _verdict(document, rows, names)]
    what, where = printable(document["name"], max_length=44), printable(document["device"]["name"], max_length=24)
    return Page(
        title=f"{what} on {where}: predicted and measured",
        lines=_head(document),
        tables=tuple(fitted(table) for table in tables if table.rows or table.after),
    )


def validation_rows(document: Document) -> list[dict[str, Any]]:
    """Tidy rows for CSV and DataFrames: every term, and every load that was timed, with where and when it was measured.

    `error` is empty where nothing is the prediction, as for the kernels' own rounding; `slack` is what they may have.
    """
    found, device = [*checked_rows(document), *timed_rows(document)], document["device"]
    run = {
        "model": document["name"],
        "device": device["name"],
        "device_kind": device["kind"],
        "date": device["date"],
    }
    rows = [run | {name: row[name] for name in _COLUMNS} for row in found]
    return [row | {"error": None} if row["unit"] == "relative error" else row for row in rows]


def checked_rows(document: Document) -> Sequence[Row]:
    """The rows of a document. Raises InputError for what is none of `kvplan/validate/1`, or lacks a part of it."""
    hint = "`kvplan validate --out FILE` writes one"
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise InputError(f"this is no document of the schema `{SCHEMA}`", hint=hint)
    if lost := [name for name in _PARTS if name not in document]:
        raise InputError(f"this document of `{SCHEMA}` has no `{lost[0]}`", hint=hint)
    rows: Sequence[Row] = document["rows"]
    for row in rows:
        if lost := [name for name in _COLUMNS if name not in row]:
            raise InputError(f"a row of this document of `{SCHEMA}` has no `{lost[0]}`", hint=hint)
        if wrong := [name for name in _FIGURES if not isinstance(row[name], int | float | None)]:
            raise InputError(f"`{wrong[0]}` in a row of this document of `{SCHEMA}` is no number", hint=hint)
    if strange := [one for one in (document, *rows) if one["verdict"] not in WORST_FIRST]:
        told = printable(str(strange[0]["verdict"]), max_length=40)
        raise InputError(f"`{told}` is not a verdict", hint=f"one of {', '.join(WORST_FIRST)}")
    return rows


def _head(document: Document) -> tuple[Line, ...]:
    """The machine, what ran on it, what was tried of the model, and how to read an error."""
    device = document["device"]
    lines = [Line(_device_line(device, document.get("kvplan_version")), "faint")]
    if device["kind"] == "cpu":
        told = "no figure below is a GPU's; allocations are main memory's, kernels interpreted"
        lines.append(Line(f"not run on a GPU: {told}"))
    elif state := _state(device.get("state") or {}):
        lines.append(Line(state, "faint"))
    if tried := _tried_line(document):
        lines.append(Line(tried, "faint"))
    lines.append(Line("error: (predicted - measured) / measured; below zero, the plan counts too little", "faint"))
    return tuple(lines)


def _device_line(device: Mapping[str, Any], version: str | None) -> str:
    runtime = "HIP" if device["kind"] == "hip" else "CUDA"
    memory = device.get("memory_bytes")
    facts = (
        ("{}", device["name"]),
        ("{}", memory and format_bytes(memory)),
        ("{} SMs", device.get("num_sms")),
        ("compute capability {}", device.get("compute_capability")),
        ("driver {}", device.get("driver")),
        (runtime + " {}", device.get("runtime")),
        ("torch {}", device.get("torch")),
        ("Triton {}", device.get("triton")),
        ("Python {}", device.get("python")),
        ("kvplan {}", version),
        ("{}", device["date"][:16].replace("T", " ") + " UTC"),
    )
    return ", ".join(printable(form.format(fact)) for form, fact in facts if fact)


def _state(state: Mapping[str, Any]) -> str:
    """Clocks and heat: a GPU's figure means little without them."""
    kinds = (
        ("sm_clock_mhz", "SM clock {:,.0f} MHz"),
        ("memory_clock_mhz", "memory clock {:,.0f} MHz"),
        ("temperature_celsius", "{:.0f} °C"),
        ("power_watts", "{:.0f} W"),
    )
    told = [form.format(state[name]) for name, form in kinds if state.get(name) is not None]
    return f"at that time: {', '.join(told)}" if told else ""


def _tried_line(document: Document) -> str:
    model, inputs = document.get("model") or {}, document["inputs"]
    tried = inputs.get("layers_tried")
    layers = "" if tried is None else f"{tried[0]:,} of {plural(tried[1], 'layer')} tried"
    if tried is not None and tried[0] < tried[1]:
        layers += ", as many as the memory for it holds"
    layout = ", ".join(f"{name} {inputs[name]}" for name in ("tp", "pp", "cp") if inputs.get(name) is not None)
    level = f"level {printable(inputs['level'])}" if inputs.get("level") else ""
    seconds = document.get("total_seconds")
    lasted = f"took {seconds_text(seconds)}" if seconds else ""
    words = (printable(str(model.get("model_type") or "")), layers, layout, level, lasted)
    return ", ".join(word for word in words if word)


def _layers(cases: Sequence[Mapping[str, Any]]) -> Table:
    """What was tried, with the short names that the other tables use."""
    names = short_names(cases)
    rows = tuple(
        (
            names[case["name"]],
            f"{case['num_layers']:,}",
            _shape(case),
            f"{case['batch']:,}",
            f"{case['seq_len']:,}",
            printable(case["dtype"]),
            printable(case["kv_dtype"]),
        )
        for case in cases
    )
    header = ("layers", "count", "each", "sequences", "tokens", "dtype", "KV cache")
    return Table(title="Layers tried", header=header, align="lrlrrll", rows=rows)


def _shape(case: Mapping[str, Any]) -> str:
    """`64/8 heads × 64, sinks`; of a latent layer what it caches, of a recurrent one its states, else its columns."""
    keys, values = case["key_dim"], case["value_dim"]
    if case["kind"] == "linear":
        return f"{case['num_kv_heads']} states of {keys} × {values}"
    if case["kind"] == "conv":
        return f"{case['conv_channels']} channels × {case['conv_columns']}"
    heads, dims = f"{case['num_heads']}", f"{keys}" if keys == values else f"{keys}/{values}"
    index = f", index {case['index_dim']}" if case.get("index_dim") else ""
    if case["kind"] in ("latent", "latent_indexed"):
        return f"{heads} heads × {dims}, {case['latent_dim']} + {case['rope_dim']} cached{index}"
    heads += f"/{case['num_kv_heads']}" if case["num_kv_heads"] != case["num_heads"] else ""
    entries = f", entries of {case['ratio']}" if case.get("ratio") else ""
    return f"{heads} heads × {dims}{entries}{index}" + (", sinks" if case["sinks"] else "")


def _points(document: Document) -> list[Table]:
    """What was in use on a GPU at each point of the memory's run, by everybody who can say so, in MiB."""
    memory = document["readings"].get("memory") or {}
    found = [point for point in memory.get("points", ()) if point.get("reserved") is not None]
    levels = ("requested", "allocated", "reserved", "process", "device")
    rows = tuple((printable(point["point"]), *(_mib(point[level]) for level in levels)) for point in found)
    title = "In use at each point, MiB: by torch's allocator, by this process, by all on the device"
    return [Table(title=title, header=("", *levels), align="lrrrrr", rows=rows)] if rows else []


def _mib(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / MIB:,.1f}"


def _variants(document: Document) -> list[Table]:
    """The textbook's variants beside multi-head attention; times where there is a GPU."""
    found = document.get("variants") or []
    timed = [phase for phase in ("decode", "prefill") if any(one[f"{phase}_seconds"] is not None for one in found)]
    rows = []
    for one in found:
        predicted, measured = one["predicted_bytes"], one["measured_bytes"]
        held = f"{predicted:,} ({format_bytes(predicted)})" if predicted else "nothing"
        same = "equal" if predicted == measured else f"{measured:,}"
        cells = [printable(one["name"], max_length=24), held, same, multiple(one["memory_against_mha"])]
        for phase in timed:
            cells += [seconds_text(one[f"{phase}_seconds"]), multiple(one[f"{phase}_speed_against_mha"])]
        rows.append(tuple(cells))
    header = ("", "pool, bytes", "measured", "less", *(word for phase in timed for word in (phase, "faster")))
    title = "Variants at one shape; less memory and faster: against MHA"
    table = Table(title=title, header=header, align="lrrr" + "rr" * len(timed), rows=tuple(rows))
    return [table, _fused(found)] if found else []


def _fused(variants: Sequence[Mapping[str, Any]]) -> Table:
    """What fused attention saves at the largest single call."""
    kinds = {"less": "flash_memory_against_eager", "faster": "flash_speed_against_eager"}
    known = {name: key for name, key in kinds.items() if any(one[key] is not None for one in variants)}
    rows = tuple(
        (printable(one["name"], max_length=24), *(multiple(one[key]) for key in known.values()))
        for one in variants
        if any(one[key] is not None for key in known.values())
    )
    title = "Flash attention against eager, one call: less memory, faster"
    return Table(title=title, header=("", *known), align="l" + "r" * len(known), rows=rows)


def _verdict(document: Document, rows: Sequence[Row], names: Names) -> Table:
    """How many terms of each section agree; then what failed, what was left out, and the verdict in words."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row["section"], Counter())[row["verdict"]] += 1
    for fit in document["fits"]:
        counts.setdefault(TIMES, Counter())[fit["verdict"]] += 1
    cells = tuple(
        (printable(name), *(f"{found[verdict] or '-'}" for verdict in ("ok", "off", "inconclusive", "info")))
        for name, found in counts.items()
    )
    total = sum(counts.values(), Counter[str]())
    last = Line(_sentence(document, total, _disagreeing(document, rows, names)), _TONES[document["verdict"]])
    after = (*_left_out(document, names), *_failures(document), last)
    header = ("", "agree", "off", "inconclusive", "not judged")
    return Table(title="Verdict", header=header, align="lrrrr", rows=cells, after=after)


def _failures(document: Document) -> Iterator[Line]:
    for one in document["failures"]:
        where, kind, message = (printable(one[name], max_length=400) for name in ("where", "kind", "message"))
        yield Line(f"{where} failed: {message} ({kind})", "bad")


def _sentence(document: Document, total: Mapping[str, int], wrong: Sequence[str]) -> str:
    """`off: 2 of 41 terms do not agree: …; 1 part failed`."""
    verdict, off, unsteady = document["verdict"], total["off"], total["inconclusive"]
    judged = total["ok"] + off + unsteady
    of = f"{{}} of {plural(judged, 'term')}"
    named = f": {some(wrong, _MOST_NAMED)}" if wrong else ""
    if off:
        told = f"{of.format(off)} {'does' if off == 1 else 'do'} not agree{named}"
    elif unsteady:
        told = f"{of.format(total['ok'])} agree, {unsteady} spread too widely to be judged{named}"
    else:
        told = f"{of.format(judged)} agree" if judged else "nothing was judged"
    if off and unsteady:
        told += f"; {unsteady} spread too widely to be judged"
    failures = len(document["failures"])
    return f"{printable(verdict)}: {told}" + (f"; {plural(failures, 'part')} failed" if failures else "")


def _disagreeing(document: Document, rows: Sequence[Row], names: Names) -> list[str]:
    """Which terms are off, or inconclusive if none is, and by how much."""
    found: Sequence[Mapping[str, Any]] = [*rows, *document["fits"]]
    worst = "off" if any(one["verdict"] == "off" for one in found) else "inconclusive"
    words = []
    for row in rows:
        if row["verdict"] == worst:
            error = "" if row["unit"] == "relative error" or row["error"] is None else f", {signed(row['error'])}"
            words.append(f"{printable(row['term'])} of {label(row, names)} ({printable(row['section'])}{error})")
    for fit in document["fits"]:
        if fit["verdict"] == worst:
            told = f"{TIMES}, median {share(fit['median_error'])}"
            words.append(f"{printable(fit['phase'])} of {label(fit, names)} ({told})")
    return words


def _left_out(document: Document, names: Names) -> list[Line]:
    """What there was no time or no memory for; not a failure, and not measured."""
    told: Counter[str] = Counter()
    for name, reading in document["readings"].items():
        for part in reading if isinstance(reading, list) else [reading]:
            failure = part.get("failure") if isinstance(part, Mapping) else None
            if failure and failure["kind"] in ("MemoryError", "not run"):
                who = [part.get("phase"), label(part, names)] if "case" in part else []
                where = ", ".join(printable(str(one)) for one in (name, *who) if one)
                why = "too little memory" if failure["kind"] == "MemoryError" else printable(failure["message"])
                told[f"not measured: {where}: {why}"] += 1
    return [Line(text + (f" ({plural(count, 'load')})" if count > 1 else ""), "faint") for text, count in told.items()]
