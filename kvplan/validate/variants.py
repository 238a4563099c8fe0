"""The textbook's variants against multi-head attention at the same shape: claims like "GQA 4×" as measured figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvplan.validate import isolate, predict
from kvplan.validate.case import Case

BASE = "MHA"


def against_mha(cases: Sequence[Case], readings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry a variant: bytes of its pool, seconds of its decode step and prompt, and how much better than MHA's.

    Times are those of the largest load that both were timed at; none on a CPU. Empty without the base.
    """
    memory = readings.get("memory")
    if not any(case.name == BASE for case in cases) or memory is None or isolate.is_failure(memory):
        return []
    held = {pool["case"]: pool["pool_bytes"] for pool in memory["pools"]}
    timed = [row for row in readings.get("throughput") or [] if "failure" not in row]
    transient = readings.get("transient")
    single = [] if transient is None or isolate.is_failure(transient) else transient
    return [_entry(case, held, timed) | _flash(case, single) for case in cases]


def _flash(case: Case, single: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """How much less memory fused attention takes than eager, and how much faster it is, at the largest single call."""
    calls = {
        (one["batch"] * one["queries"] * one["keys"], one["backend"]): one for one in single if one["case"] == case.name
    }
    both = [size for size, backend in calls if backend == "eager" and (size, "flash") in calls]
    if not both:
        return {"flash_memory_against_eager": None, "flash_speed_against_eager": None}
    eager, flash = (calls[max(both), backend] for backend in ("eager", "flash"))
    memory = "bytes" if eager["outside"] is None else "outside"
    return {
        "flash_memory_against_eager": _ratio(eager[memory], flash[memory]),
        "flash_speed_against_eager": _ratio(eager["seconds"], flash["seconds"]),
    }


def _ratio(base: float | None, other: float | None) -> float | None:
    return base / other if base is not None and other else None


def _entry(case: Case, held: Mapping[str, int], timed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": case.name,
        "predicted_bytes": predict.pool_bytes(case),
        "measured_bytes": held[case.name],
        "memory_against_mha": _ratio(held[BASE], held[case.name]),
    }
    for phase in ("decode", "prefill"):
        seconds, base, load = _seconds(case, phase, timed)
        entry |= {
            f"{phase}_seconds": seconds,
            f"{phase}_load": load,
            f"{phase}_speed_against_mha": _ratio(base, seconds),
        }
    return entry


def _seconds(
    case: Case, phase: str, timed: Sequence[Mapping[str, Any]]
) -> tuple[float | None, float | None, list[int] | None]:
    """(the variant's, the base's, load): at the load with the most tokens of those that both have."""
    base = {(row["batch"], row["seq_len"]): row["seconds"] for row in timed if _is(row, BASE, phase)}
    own = {(row["batch"], row["seq_len"]): row["seconds"] for row in timed if _is(row, case.name, phase)}
    if case.kind == "linear" and phase == "decode":  # its time knows no length
        own = {load: own[load[0], 1] for load in base if (load[0], 1) in own}
    shared = sorted(base.keys() & own.keys(), key=lambda load: (load[0] * load[1], load))
    if not shared:
        return None, None, None
    load = shared[-1]
    return own[load], base[load], list(load)


def _is(row: Mapping[str, Any], name: str, phase: str) -> bool:
    return bool(row["case"] == name and row["phase"] == phase)
