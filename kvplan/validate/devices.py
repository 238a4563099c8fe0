"""What `kvplan estimate` takes from records: one entry a kind of device, in `devices.json` beside them.

`kvplan.sources.records` reads it. An entry rests on one record alone, the newest: figures of two are never mixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvplan.core.errors import InputError
from kvplan.validate import record
from kvplan.validate.case import Case
from kvplan.validate.compare import compare
from kvplan.validate.isolate import is_failure

SCHEMA = "kvplan/devices/1"
FILE_NAME = "devices.json"
_RATES = ("read_bytes_per_second", "copy_bytes_per_second", "matmul_flops_per_second")


def device_facts(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The entry of a record's device; None where it holds no context: measured on a CPU, or the driver did not say."""
    device, readings = document["device"], document["readings"]
    context = _context_bytes(document)
    if device["kind"] == "cpu" or context is None:
        return None
    ceilings = readings.get("ceilings") or {}
    rates = {} if is_failure(ceilings) else ceilings
    return {
        "context_bytes": context,
        **{key: rates.get(key) for key in _RATES},
        **{key: device.get(key) for key in ("driver", "torch", "date")},
        "record": record.file_name(document),
    }


def remember(document: Mapping[str, Any], folder: Path) -> None:
    """Enter a record's device into the folder's `devices.json`, unless what stands there is newer.

    Raises InputError for a file there that is not such a list, which is left as it is, and where none can be written.
    """
    facts = device_facts(document)
    if facts is None:
        return
    path = folder / FILE_NAME
    devices = _entries(path)
    name = document["device"]["name"]
    if str(devices.get(name, {}).get("date") or "") <= str(facts["date"] or ""):
        entries = dict(sorted((devices | {name: facts}).items()))
        record.write({"schema": SCHEMA, "devices": entries}, path)


def _context_bytes(document: Mapping[str, Any]) -> int | None:
    """What the process held before its first tensor, as the rows of the record have it."""
    memory = document["readings"].get("memory")
    if memory is None or is_failure(memory):
        return None
    rows = compare([Case.from_json(case) for case in document["cases"]], {"memory": memory})
    measured = next((row.measured for row in rows if (row.case, row.term) == ("process", "context")), None)
    return int(measured) if measured is not None and measured > 0 else None


def _entries(path: Path) -> dict[str, Any]:
    """The entries of before, whatever they hold: each stays until its own device is measured anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _foreign(path, f"cannot be read: {error}") from error
    devices = found.get("devices") if isinstance(found, dict) and found.get("schema") == SCHEMA else None
    if not isinstance(devices, dict) or not all(isinstance(entry, dict) for entry in devices.values()):
        raise _foreign(path, f"is no list of devices of the schema `{SCHEMA}`")
    return devices


def _foreign(path: Path, why: str) -> InputError:
    return InputError(f"`{path}` {why}", hint="delete it: the records beside it hold everything")
