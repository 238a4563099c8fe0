"""The document of a validation as a file: written whole, read back, judged anew by today's prediction.

`records/` ships with the package; a user's own lie in the folder that `own_folder` names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvplan.core.errors import InputError
from kvplan.validate import isolate
from kvplan.validate.case import Case
from kvplan.validate.compare import compare, overall
from kvplan.validate.speeds import judge, tokens_per_second
from kvplan.validate.suite.record import write_whole
from kvplan.validate.variants import against_mha

SCHEMA = "kvplan/validate/1"
_NO_FAULT = ("MemoryError", "Unsupported", "not run")
_NO_FAULT_OF_A_JOB = ("no figure", "not run")
_HINT = "`kvplan validate --out FILE` writes one"


def judged(cases: Sequence[Case], readings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of the document that follows from cases and readings."""
    rows = compare(cases, readings)
    failures = _failures(readings)
    timed = readings.get("throughput") or []
    ceilings = readings.get("ceilings")
    fits = judge(cases, timed, ceilings) if timed and ceilings and not isolate.is_failure(ceilings) else []
    verdicts = {row.verdict for row in rows} | {fit["verdict"] for fit in fits}
    if _unfinished(readings):
        verdicts.add("inconclusive")
    return {
        "rows": [row.to_json() for row in rows],
        "fits": fits,
        "tokens_per_second": tokens_per_second(cases, timed),
        "variants": against_mha(cases, readings),
        "failures": failures,
        "verdict": overall(verdicts, failures),
    }


def _unfinished(readings: Mapping[str, Any]) -> bool:
    """Whether a job, or all of a kind of layer's sweep, had no time left."""
    parts = [part for reading in readings.values() for part in (reading if isinstance(reading, list) else [reading])]
    late = [part for part in parts if (failure := isolate.failure_of(part)) and failure["kind"] == "not run"]
    return any(part.get("phase", "all") == "all" for part in late)


def recompute(document: Mapping[str, Any]) -> dict[str, Any]:
    """What today's prediction makes of a record's cases and readings: its rows, fits and verdict."""
    return judged([Case.from_json(case) for case in document["cases"]], document["readings"])


def _failures(readings: Mapping[str, Any]) -> list[dict[str, str]]:
    """What did not end well: jobs, checks, loads of a sweep.

    Not what there was no time for, nor single calls that did not fit or that no kernel of ours takes, nor a framework
    that has no cache to show.
    """
    found = []
    for name, reading in readings.items():
        parts = reading if isinstance(reading, list) else [reading, *reading.get("checks", ())]
        for part in parts:
            failure = isolate.failure_of(part)
            if failure and failure["kind"] not in (_NO_FAULT_OF_A_JOB if part is reading else _NO_FAULT):
                where = ", ".join([name, *(str(part[key]) for key in ("case", "phase") if key in part)])
                found.append({"where": where, "kind": failure["kind"], "message": failure["message"]})
    return found


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write it whole: what is cut off leaves the file of before. Raises InputError where it cannot be written."""
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror}", hint="name another file") from error


def read(path: Path) -> dict[str, Any]:
    """A record from its file. Raises InputError if it is none of this schema."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"`{path}` cannot be read as a record: {error}", hint=_HINT) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"`{path}` is no record of the schema `{SCHEMA}`", hint=_HINT)
    return document


def file_name(document: Mapping[str, Any]) -> str:
    """`nvidia-h100-80gb-hbm3--meta-llama-llama-3.1-8b--2026-11-22t10-20-30.json`; of ranks with their layout."""
    layout = [f"{name}{document['inputs'][name]}" for name in ("tp", "pp", "cp") if name in document["inputs"]]
    parts = (document["device"]["name"], document["name"], *layout, document["device"]["date"][:19])
    return "--".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in parts) + ".json"
