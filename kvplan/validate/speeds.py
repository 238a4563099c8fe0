"""Times against the speed model: fitted on half of a sweep, judged on the other, and what a model's attention makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from kvplan.core.errors import InputError
from kvplan.validate.case import Case
from kvplan.validate.fit import fit_speed

TOLERANCES = {"decode": (0.05, 0.15), "prefill": (0.10, 0.30)}
"""(median, worst) error of the judged half."""


def judge(
    cases: Sequence[Case], timed: Sequence[Mapping[str, Any]], ceilings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One fit for each kind of layer and phase that was timed at enough loads: the model, its errors, a verdict."""
    found = []
    for case in cases:
        for phase in TOLERANCES:
            rows = [row for row in timed if (row["case"], row["phase"]) == (case.name, phase) and "failure" not in row]
            if rows:
                found.append({"case": case.name, "phase": phase} | _fit(case, phase, rows, ceilings))
    return found


def _fit(case: Case, phase: str, rows: Sequence[Mapping[str, Any]], ceilings: Mapping[str, Any]) -> dict[str, Any]:
    """A state is written as much as it is read: its ceiling is the copy's."""
    moving = "copy_bytes_per_second" if case.kind == "linear" else "read_bytes_per_second"
    points = [(row["bytes"], row["flops"], row["seconds"]) for row in rows]
    spread = median((row["high_seconds"] - row["low_seconds"]) / row["seconds"] for row in rows)
    told: dict[str, Any] = {"num_points": len(points), "spread": spread, "best": _best(rows, ceilings, moving)}
    try:
        fit = fit_speed(
            points,
            read_bytes_per_second=ceilings[moving] or 0.0,
            matmul_flops_per_second=ceilings["matmul_flops_per_second"] or 0.0,
        )
    except InputError as error:
        return told | {"verdict": "info", "note": str(error)}
    middle, worst = TOLERANCES[phase]
    verdict = "ok" if fit.median_error <= middle and fit.worst_error <= worst else "off"
    if verdict == "off" and spread > middle:
        verdict = "inconclusive"
    at = rows[fit.worst_point]
    figures = {name: value for name, value in asdict(fit).items() if name not in ("worst_point", "judged_points")}
    return told | figures | {
        "verdict": verdict,
        "tolerance": {"median": middle, "worst": worst},
        "worst_load": [at["batch"], at["seq_len"]],
        "judged_loads": [[rows[i]["batch"], rows[i]["seq_len"]] for i in fit.judged_points],
    }  # fmt: skip


def _best(rows: Sequence[Mapping[str, Any]], ceilings: Mapping[str, Any], moving: str) -> dict[str, Any]:
    """The highest rates of the sweep, and their shares of the ceilings measured in the same run."""
    rate = max(row["bytes"] / row["seconds"] for row in rows)
    flops = max(row["flops"] / row["seconds"] for row in rows)
    return {
        "bytes_per_second": rate,
        "share_of_memory": rate / ceilings[moving] if ceilings[moving] else None,
        "flops_per_second": flops,
        "share_of_matmul": flops / ceilings["matmul_flops_per_second"] if ceilings["matmul_flops_per_second"] else None,
    }


def tokens_per_second(cases: Sequence[Case], timed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Decode steps of all of a model's layers, attention alone, at every load that all of them were timed at.

    A recurrent layer's time knows no length: it stands in at every length of its batch.
    """
    keeping = [case for case in cases if case.causal]
    decoded = [row for row in timed if row["phase"] == "decode" and "failure" not in row]
    loads = sorted({(row["batch"], row["seq_len"]) for row in decoded if row["seq_len"] > 1})
    found = []
    for batch, tokens in loads:
        seconds = [_seconds(case, decoded, batch, tokens) for case in keeping]
        known = [one for one in seconds if one is not None]
        if keeping and len(known) == len(keeping):
            step = sum(known)
            found.append(
                {"batch": batch, "seq_len": tokens, "attention_seconds": step, "tokens_per_second": batch / step}
            )
    return found


def _seconds(case: Case, decoded: Sequence[Mapping[str, Any]], batch: int, tokens: int) -> float | None:
    length = 1 if case.kind == "linear" else tokens
    for row in decoded:
        if (row["case"], row["batch"], row["seq_len"]) == (case.name, batch, length):
            return float((case.model_layers or case.num_layers) * row["seconds"])
    return None
