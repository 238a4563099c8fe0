"""Where the two hands meet: rows of predicted beside measured, each with its error, its tolerance and a verdict.

A record keeps cases and readings; the rows follow from them, so that today's prediction can be held against what was
measured long ago.

    ok            within the tolerance        off      not
    inconclusive  the measurement itself spreads further than the tolerance, or could not be had
    info          one of the two is missing: told, not judged
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from kvplan.core.units import MIB, ceil_div
from kvplan.validate import predict
from kvplan.validate.case import Case
from kvplan.validate.isolate import is_failure
from kvplan.validate.predict_ranks import job_cache_bytes

Verdict = Literal["ok", "off", "inconclusive", "info"]
EXACT = 0.0
TRANSIENT_TOLERANCE = 0.01
PROCESS_TOLERANCE, PROCESS_SLACK = 0.01, 64 * MIB
CONTEXT_SLACK = 32 * MIB
_FLASH_ROWS, _FULL_GPU = 64, 512
"""Queries of a block of flash attention, and how many blocks fill any GPU: it splits keys below 1.6 blocks an SM.

Source: flash-attention 2, flash_api.cpp `set_params_splitkv`, `num_splits_heuristic`
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One term. The error is signed: (predicted − measured) / measured; below zero the plan counts too little."""

    section: str
    case: str
    term: str
    unit: str
    predicted: float | None
    measured: float | None
    tolerance: float = EXACT
    slack: float = 0.0
    """A difference of so many units is forgiven, however small the whole."""
    spread: float | None = None
    note: str = ""

    @property
    def error(self) -> float | None:
        """None where one side is missing or nothing was measured but zero."""
        if self.predicted is None or self.measured is None:
            return None
        if self.measured == self.predicted:
            return 0.0
        return (self.predicted - self.measured) / self.measured if self.measured else None

    @property
    def verdict(self) -> Verdict:
        """Whether prediction and measurement agree."""
        if self.predicted is None or self.measured is None:
            return "info"
        if abs(self.predicted - self.measured) <= max(self.tolerance * abs(self.measured), self.slack):
            return "ok"
        if self.spread is not None and self.spread > self.tolerance:
            return "inconclusive"
        return "off"

    def to_json(self) -> dict[str, Any]:
        """Every field, with error and verdict."""
        return asdict(self) | {"error": self.error, "verdict": self.verdict}


def compare(cases: Sequence[Case], readings: Mapping[str, Any]) -> list[Row]:
    """All rows that these readings allow, in the order of their sections."""
    named = {case.name: case for case in cases}
    rows: list[Row] = []
    for name, section in _SECTIONS.items():
        reading = readings.get(name)
        if reading is not None and not is_failure(reading):
            rows += section(named, reading)
        elif reading is not None and name == "framework" and reading["failure"]["kind"] == "no figure":
            rows.append(_no_figure(cases, reading))
    return rows


def overall(verdicts: Collection[Verdict], failures: Sequence[Any]) -> Verdict:
    """Off if one is off or a job failed, else inconclusive if one is, else ok; info if nothing was judged."""
    if failures or "off" in verdicts:
        return "off"
    if "inconclusive" in verdicts:
        return "inconclusive"
    return "ok" if "ok" in verdicts else "info"


def _memory(cases: Mapping[str, Case], reading: Mapping[str, Any]) -> Iterator[Row]:
    for pool in reading["pools"]:
        case = cases[pool["case"]]
        pages = f", {pool['pages']:,} pages a layer" if pool["pages"] is not None else ""
        yield Row(
            section="memory", case=case.name, term="pools", unit="bytes", note=f"{pool['layers']} layers{pages}",
            predicted=case.num_layers * predict.pool_bytes(case), measured=pool["pool_bytes"],
        )  # fmt: skip
    requests = predict.pool_requests([cases[pool["case"]] for pool in reading["pools"]])
    points = {point["point"]: point for point in reading["points"]}
    if "tallied_bytes" in reading:
        yield from _host_memory(requests, reading["tallied_bytes"], points)
    else:
        yield from _device_memory(cases, requests, reading, points)


def _host_memory(requests: Sequence[int], tallied: int, points: Mapping[str, Any]) -> Iterator[Row]:
    """torch's CPU allocator and the process: main memory has no context, and no blocks."""
    total = sum(requests)
    yield Row(
        section="memory", case="all layers", term="requested", unit="bytes", predicted=total, measured=tallied,
        note="pools and block tables, as torch's allocator reports them",
    )  # fmt: skip
    if not total:
        return  # what a process takes for nothing is not the cache's
    grown = _difference(points, "run", "start", "process")
    yield Row(
        section="memory", case="all layers", term="process", unit="bytes", predicted=total, measured=grown,
        tolerance=PROCESS_TOLERANCE, slack=PROCESS_SLACK, note="resident memory, every token written",
    )  # fmt: skip


def _device_memory(
    cases: Mapping[str, Case], requests: Sequence[int], reading: Mapping[str, Any], points: Mapping[str, Any]
) -> Iterator[Row]:
    allocated, reserved = predict.reserved_growth(requests, reading["free_blocks"])
    predicted = {"requested": sum(requests), "allocated": allocated, "reserved": reserved}
    for level, amount in predicted.items():
        yield Row(
            section="memory", case="all layers", term=level, unit="bytes", predicted=amount,
            measured=_difference(points, "pool", "warm-up", level), note="by the pools, as torch's allocator says",
        )  # fmt: skip
    for workspace in reading["workspaces"]:
        case = cases[workspace["case"]]
        yield Row(
            section="memory", case=case.name, term="decode workspace", unit="bytes", measured=workspace["bytes"],
            predicted=predict.workspace_bytes(case, workspace["splits"]), note=f"{workspace['splits']} splits",
        )  # fmt: skip
    yield Row(
        section="memory", case="all layers", term="left by a run", unit="bytes", predicted=0,
        measured=_difference(points, "run", "pool", "requested"), note="prompt and decode give back what they take",
    )  # fmt: skip
    yield from _process_memory(reading, points, reserved)


def _process_memory(reading: Mapping[str, Any], points: Mapping[str, Any], reserved: int) -> Iterator[Row]:
    """Context and total. The plan of a context rests on a record of the same device, where there is one.

    A context is what the process holds beside torch's segments once it is warm: the driver's part, and what libraries
    and kernels load into it, without which nothing is served.
    """
    held = {name: _process(point, reading) for name, point in points.items()}
    before = points["warm-up"]["reserved"]
    warm = None if held["warm-up"] is None else held["warm-up"] - before
    expected = reading.get("expected_context_bytes")
    yield Row(
        section="memory", case="process", term="context", unit="bytes", predicted=expected, measured=warm,
        slack=CONTEXT_SLACK, note=reading.get("expected_context_note", "no earlier record of such a device"),
    )  # fmt: skip
    # A context that nobody has measured yet is calibrated by this very run, and so is not judged by it.
    base = warm if expected is None else expected
    yield Row(
        section="memory", case="process", term="total", unit="bytes", measured=held["pool"],
        predicted=None if base is None else base + before + reserved,
        tolerance=PROCESS_TOLERANCE, slack=PROCESS_SLACK, note="context, what torch reserves; by the driver",
    )  # fmt: skip
    yield Row(
        section="memory", case="process", term="graphs", unit="bytes", predicted=None,
        measured=None if held["graphs"] is None or held["run"] is None else held["graphs"] - held["run"],
        note=reading.get("graph_failure") or "one captured decode step through all layers",
    )  # fmt: skip


def _process(point: Mapping[str, Any], reading: Mapping[str, Any]) -> int | None:
    """The process by the driver, else what the device lost since before the process came."""
    if point["process"] is not None:
        return int(point["process"])
    before = reading.get("device_bytes_before")
    return None if before is None or point["device"] is None else point["device"] - before


def _difference(points: Mapping[str, Any], later: str, earlier: str, level: str) -> int | None:
    a, b = points[later][level], points[earlier][level]
    return None if a is None or b is None else a - b


def _correctness(cases: Mapping[str, Case], reading: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for found in reading:
        wrong = found.get("failure")
        told = found.get("skipped") or (f"{wrong['kind']}: {wrong['message']}" if wrong else "")
        yield Row(
            section="correctness", case=found["case"], term=found["phase"], unit="relative error",
            predicted=None if told else 0.0, measured=found.get("error"), slack=found.get("tolerance", 0.0),
            note=told or "against float64",
        )  # fmt: skip


def _transient(cases: Mapping[str, Case], reading: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for found in reading:
        case, backend = cases[found["case"]], found["backend"]
        batch, queries, keys = (found[name] for name in ("batch", "queries", "keys"))
        note = f"{batch} × {queries:,} × {keys:,}"
        measured, told = _judged_transient(found, case)
        if found["refused"]:
            told = f"{_refusal(found['refused'])}"
        yield Row(
            section="transient", case=case.name, term=backend, unit="bytes",
            predicted=None if told else predict.call_bytes(case, backend, batch=batch, queries=queries, keys=keys),
            measured=measured, tolerance=TRANSIENT_TOLERANCE, note=f"{note}; {told}" if told else note,
        )  # fmt: skip


def _judged_transient(found: Mapping[str, Any], case: Case) -> tuple[int | None, str]:
    """(bytes, why they are not judged): on a CPU fused operators work in buffers that a GPU's do not need.

    What "math" does in steps within one operator only the allocator sees.
    """
    blocks = found["batch"] * case.num_heads * ceil_div(found["queries"], _FLASH_ROWS)
    if found["outside"] is None and found["backend"] == "flash" and blocks < _FULL_GPU:
        return found["bytes"], "too short to fill the GPU: torch splits its keys, which the plan leaves out"
    if found["outside"] is None or found["backend"] == "math":
        return found["bytes"], ""
    if found["backend"] == "eager" and case.dtype == "fp16":
        return found["outside"], "a CPU's softmax makes a copy of fp16 that a GPU's does not"
    return found["outside"], ""


def _refusal(said: str) -> str:
    return f"torch refuses: {said}"


def _work(cases: Mapping[str, Case], reading: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Bytes and operations of every load that was timed: counted on tensors, and by the calculator."""
    for found in reading:
        if "failure" in found:
            continue
        case, phase = cases[found["case"]], found["phase"]
        moved, operations = predict.work(case, phase, batch=found["batch"], seq_len=found["seq_len"])
        load = f"{found['batch']:,} × {found['seq_len']:,}"
        for term, unit, amount in (("bytes", "bytes", moved), ("flops", "flops", operations)):
            yield Row(
                section="work", case=case.name, term=f"{phase} {term}", unit=unit, predicted=amount,
                measured=found[term], note=load,
            )  # fmt: skip


def _framework(cases: Mapping[str, Case], reading: Mapping[str, Any]) -> Iterator[Row]:
    """What the framework's own cache holds, kind by kind, after a prompt and, where windows slid, one token later."""
    source = f"{reading['framework']} {reading['version']}, {reading['cache_class'] or 'no cache'}"
    if reading["cache_class"] is None:
        total = sum(predict.framework_bytes([_under(case, reading, 0) for case in cases.values()]).values())
        yield Row(
            section="framework", case="no cache", term="after the prompt", unit="bytes", predicted=total,
            measured=reading["tensor_bytes"], note=source,
        )  # fmt: skip
        return
    for held, more in ((reading, 0), (reading["after_decode"], 1)):
        loaded = [_under(case, reading, more) for case in cases.values()]
        when = "after one more" if more else "after the prompt"
        for term, name, planned in (
            (when, "tensor_bytes", predict.framework_bytes(loaded)),
            (f"storage {when}", "storage_bytes", predict.framework_storage_bytes(loaded, decoding=bool(more))),
        ):
            for kind in sorted(planned.keys() | held["kinds"].keys()):
                yield Row(
                    section="framework", case=kind, term=term, unit="bytes", predicted=planned.get(kind, 0),
                    measured=held["kinds"].get(kind, {}).get(name, 0), note=source,
                )  # fmt: skip


def _no_figure(cases: Sequence[Case], reading: Mapping[str, Any]) -> Row:
    """Where the framework has no cache to show: what the plan says, and why nothing is beside it."""
    planned = predict.framework_bytes([_under(case, reading, 0) for case in cases])
    return Row(
        section="framework", case="all layers", term="after the prompt", unit="bytes", predicted=sum(planned.values()),
        measured=None, note=reading["failure"]["message"],
    )  # fmt: skip


def _under(case: Case, reading: Mapping[str, Any], more: int) -> Case:
    tokens = reading["seq_len"] + more
    if case.over_images:  # the framework is given text alone
        tokens = 0
    elif case.kind in ("cross", "encoder"):
        tokens = reading["encoder_seq_len"] or reading["seq_len"]
    # the framework holds all layers, and keys and values in the model's own type
    layers = case.model_layers or case.num_layers
    return replace(case, batch=reading["batch"], seq_len=tokens, num_layers=layers, kv_dtype=case.dtype)


def _ranks(cases: Mapping[str, Case], reading: Mapping[str, Any]) -> Iterator[Row]:
    """Bytes of every rank, what it computed with the others, what went from stage to stage."""
    layout = {name: reading[name] for name in ("tp", "pp", "cp")}
    planned = job_cache_bytes(list(cases.values()), reading["layer_order"], **layout)
    for rank, held in zip(planned, reading["ranks"], strict=True):
        name = f"rank {held['rank']} (tp {held['tp']}, cp {held['cp']}, stage {held['stage']})"
        yield Row(
            section="ranks", case=name, term="cache", unit="bytes", predicted=rank, measured=held["cache_bytes"],
            note=f"{reading['backend']}, node {held['node']}",
        )  # fmt: skip
        if held["requested_bytes"] is not None:
            yield Row(
                section="ranks", case=name, term="requested", unit="bytes", predicted=rank + held["table_bytes"],
                measured=held["requested_bytes"], note="pools and block tables, as torch's allocator says",
            )  # fmt: skip
    for check in reading["checks"]:
        yield Row(
            section="ranks", case=check["case"], term=f"decode, stage {check['stage']}", unit="relative error",
            predicted=0.0, measured=check["error"], slack=check["tolerance"], note="merged over ranks, against float64",
        )  # fmt: skip
    for sent in reading["transfers"]:
        yield Row(
            section="ranks", case=f"rank {sent['from']} to {sent['to']}", term="activations", unit="bytes",
            predicted=sent["bytes"], measured=sent["bytes"] if sent["ok"] else 0, note="arrived as they were sent",
        )  # fmt: skip


_SECTIONS: dict[str, Callable[[Mapping[str, Case], Any], Iterator[Row]]] = {
    "memory": _memory,
    "correctness": _correctness,
    "transient": _transient,
    "throughput": _work,
    "framework": _framework,
    "ranks": _ranks,
}
"""How the rows of a reading are made, by the reading's name, in the order in which they are shown."""
