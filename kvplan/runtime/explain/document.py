"""Explanations as plain data: one object a start, of the document `kvplan/explain/1`, and tidy rows for CSV."""

from collections.abc import Sequence
from typing import Any

from kvplan.runtime.explain.answer import Answer, Number, Row
from kvplan.runtime.explain.ranks import degrees_of
from kvplan.runtime.observation import Observation

SCHEMA = "kvplan/explain/1"


def explanations_to_dict(explanations: Sequence[Answer], kvplan_version: str) -> dict[str, Any]:
    """The document of `kvplan explain --json`; the last start decides `within_tolerance`."""
    return {
        "schema": SCHEMA,
        "kvplan_version": kvplan_version,
        "starts": [start_to_dict(explanation) for explanation in explanations],
        "within_tolerance": explanations[-1].is_within_tolerance,
    }


def start_to_dict(explanation: Answer) -> dict[str, Any]:
    """One start."""
    observation, failure = explanation.observation, explanation.failure
    return {
        "engine": observation.engine,
        "engine_version": observation.version,
        "model": explanation.model,
        "model_in_log": observation.model,
        "gpu": _gpu_name(explanation),
        "num_gpus": observation.num_gpus,
        **{name: _degree(explanation, name) for name in ("tp", "pp", "dp")},
        "started": explanation.started,
        "lines": [observation.first_line, observation.last_line],
        "options": {name: _plain(value) for name, value in observation.options.items()},
        "unread_flags": list(observation.unread),
        "facts": dict(observation.facts),
        "rows": [row_to_dict(row) for row in explanation.rows],
        "figures": _figures(observation),
        "failure": None
        if failure is None
        else {
            "errors": list(failure.errors),
            "reasons": list(failure.reasons),
            "remedies": list(failure.remedies),
        },
        "advice": list(explanation.advice),
        "notes": list(explanation.notes),
        "predicted": explanation.is_predicted,
        "tolerance": explanation.tolerance,
        "within_tolerance": explanation.is_within_tolerance,
        "outside_tolerance": [label(row) for row in explanation.outside],
    }


def row_to_dict(row: Row) -> dict[str, Any]:
    """One row: bytes and counts whole, requests with their fraction."""
    return {
        "section": row.section,
        "name": row.name,
        "rank": row.rank,
        "unit": row.unit,
        "observed": row.observed,
        "half_step": row.half_step,
        "predicted": row.predicted,
        "low": row.low,
        "high": row.high,
        "difference": row.difference,
        "relative": row.relative,
        "basis": row.basis,
        "verdict": row.verdict,
        "judged": row.judged,
        "why": row.why,
    }


def csv_rows(explanations: Sequence[Answer]) -> list[dict[str, Any]]:
    """One row a figure, the start before it."""
    return [
        {
            "start": index,
            "engine": explanation.observation.engine,
            "engine_version": explanation.observation.version,
            "model": explanation.model,
            **row_to_dict(row),
        }
        for index, explanation in enumerate(explanations, 1)
        for row in explanation.rows
    ]


def label(row: Row) -> str:
    """`given: tokens`, with its rank where it has one."""
    return f"{row.section}: {row.name}" + (f" [{row.rank}]" if row.rank else "")


def _gpu_name(explanation: Answer) -> str | None:
    if explanation.serving is not None and explanation.serving.gpu is not None:
        return explanation.serving.gpu.name
    return explanation.observation.gpu


def _degree(explanation: Answer, name: str) -> int:
    """Ranks of one sort of parallelism, as the model was served or else as the log has it."""
    if explanation.serving is not None:
        return int(getattr(explanation.serving, name))
    seen = explanation.observation
    stated = {**degrees_of(seen, seen.options, None).options, **seen.options}.get(name)
    return stated if isinstance(stated, int) and stated > 0 else 1


def _figures(observation: Observation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "value": _whole(figure.value),
            "unit": figure.unit,
            "half_step": figure.half_step,
            "rank": figure.rank,
            "line": figure.line_number,
        }
        for name, figures in sorted(observation.figures.items())
        for figure in figures
    ]


def _whole(value: float) -> Number:
    return int(value) if float(value).is_integer() else value


def _plain(value: object) -> Any:
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value)
