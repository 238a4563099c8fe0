"""What `kvplan validate` has measured: records that ship with kvplan, and the user's own.

A folder of records is JSON files of the schema `kvplan/validate/1`, and `devices.json`, what `estimate` needs of them:
one entry a kind of device, under the name that its driver gives. The user's own entries win over those that ship.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from warnings import warn

from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu, MeasuredDevice
from kvplan.core.serving import MAX_COUNT, RATES
from kvplan.core.text import printable
from kvplan.core.units import MIB
from kvplan.sources.gpus import find_gpu, key_of, keys_of
from kvplan.sources.json_file import read_json_file

SHIPPED = Path(__file__).parents[1] / "validate" / "records"
DEVICES_FILE = "devices.json"
DEVICES_SCHEMA, RECORD_SCHEMA = "kvplan/devices/1", "kvplan/validate/1"
_MAX_BYTES = 64 * MIB
_RATES = ("read_bytes_per_second", "copy_bytes_per_second", "matmul_flops_per_second")
_ORIGIN = {"driver": "driver {}", "torch": "torch {}", "date": "{:.10}", "record": "record {}"}
"""How an entry says where it comes from, key by key; each may be null."""
_HINT = "delete it, or set KVPLAN_RECORDS to another folder; `kvplan validate --save` writes one"


def own_folder() -> Path:
    """Where the user's records lie: KVPLAN_RECORDS, else `kvplan/records` among the user's data.

    That is under $XDG_DATA_HOME or ~/.local/share, on Windows under %LOCALAPPDATA%. Raises InputError where there is
    no home.
    """
    named = os.environ.get("KVPLAN_RECORDS")
    try:
        if named:
            return Path(named).expanduser()
        return _data_folder() / "kvplan" / "records"
    except RuntimeError:
        raise InputError("no home folder is known", hint="set KVPLAN_RECORDS to the folder of your records") from None


def named_gpu(name: str) -> Gpu:
    """The device that `name` means (`gpus.find_gpu`), with what was measured on one of its kind."""
    gpu = find_gpu(name)
    return replace(gpu, measured=measured_device(gpu))


def measured_device(gpu: Gpu) -> MeasuredDevice | None:
    """What was measured on a device of this kind, the user's own first; None where nothing was.

    A driver's name must mean the device exactly: a laptop's chip or a slice of a GPU is another one. Raises InputError
    for a `devices.json` that cannot be read: the answer would rest on other figures than its owner believes.
    """
    keys = keys_of(gpu)
    for folder in _folders() if keys else ():
        found = {name: entry for name, entry in _entries(folder / DEVICES_FILE).items() if key_of(name) in keys}
        if found:
            name = max(found, key=lambda name: str(found[name].get("date")))
            return _device(name, found[name], folder / DEVICES_FILE)
    return None


def measured_by_driver(name: str) -> MeasuredDevice | None:
    """What was measured on a device that its driver calls `name`, whether the table of GPUs has it or not."""
    for folder in _folders():
        path = folder / DEVICES_FILE
        if entry := _entries(path).get(name):
            return _device(name, entry, path)
    return None


def record_paths() -> list[Path]:
    """The files of all records by name; of two that are called the same, the user's own."""
    found: dict[str, Path] = {}
    for folder in reversed(_folders()):
        found |= {path.name: path for path in folder.glob("*.json") if path.name != DEVICES_FILE}
    return [found[name] for name in sorted(found)]


def load_records() -> list[dict[str, Any]]:
    """All records, in the order of `record_paths`; what cannot be read is left out with a warning."""
    records = []
    for path in record_paths():
        try:
            records.append(_document(path, RECORD_SCHEMA))
        except InputError as error:
            warn(f"a record is left out: {error}", stacklevel=2)
    return records


def _data_folder() -> Path:
    """A relative XDG_DATA_HOME counts for nothing, as its specification says.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/
    """
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    folder = Path(os.environ.get("XDG_DATA_HOME") or "")
    return folder if folder.is_absolute() else Path.home() / ".local" / "share"


def _folders() -> list[Path]:
    """The user's own, where there can be one, and what ships."""
    try:
        return [own_folder(), SHIPPED]
    except InputError:
        return [SHIPPED]


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a list of devices by their names; none where there is no such file."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError:  # read all the same, for the sentence that says why it cannot be
        pass
    devices = _document(path, DEVICES_SCHEMA).get("devices")
    if not isinstance(devices, dict) or not all(isinstance(entry, dict) for entry in devices.values()):
        _refuse(path, "no `devices` by name")
    return devices


def _document(path: Path, schema: str) -> dict[str, Any]:
    try:
        document = read_json_file(path, what=str(path), max_bytes=_MAX_BYTES)
    except InputError as error:
        raise InputError(str(error), hint=_HINT) from error
    if document.get("schema") != schema:
        _refuse(path, f"another schema than `{schema}`")
    return document


def _device(name: str, entry: Mapping[str, Any], path: Path) -> MeasuredDevice:
    """One entry, every figure checked."""
    context = entry.get("context_bytes")
    if isinstance(context, bool) or not isinstance(context, int) or not 0 < context <= MAX_COUNT:
        _refuse(path, f"no number of bytes as `context_bytes` of `{printable(name, max_length=60)}`")
    said = {key: entry[key] for key in _ORIGIN if isinstance(entry.get(key), str)}
    origin = (_ORIGIN[key].format(printable(text, max_length=200)) for key, text in said.items())
    source = ", ".join((f"kvplan validate on {printable(name, max_length=60)}", *origin))
    rates = {key: _rate(name, entry, key, path) for key in _RATES}
    return MeasuredDevice(context_bytes=context, source=source, **rates)


def _rate(name: str, entry: Mapping[str, Any], key: str, path: Path) -> float | None:
    rate = entry.get(key)
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not RATES[0] <= rate <= RATES[1]:
        _refuse(path, f"no rate as `{key}` of `{printable(name, max_length=60)}`")
    return float(rate)


def _refuse(path: Path, why: str) -> NoReturn:
    raise InputError(f"`{printable(str(path), max_length=300)}` holds {why}", hint=_HINT)
