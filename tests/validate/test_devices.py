"""What `estimate` takes from records: a device's entry, the newest one, read back by `kvplan.sources.records`."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvplan import InputError
from kvplan.sources import records
from kvplan.validate import devices
from kvplan.validate.case import Case

MIB = 1 << 20
CASE = Case(name="2 × full", kind="full", num_heads=4, num_kv_heads=2, key_dim=64, value_dim=64, seq_len=64)
CEILINGS = {
    "read_bytes_per_second": 3e12, "read_by": "torch.sum", "copy_bytes_per_second": 2.8e12,
    "matmul_flops_per_second": 7e14, "buffer_bytes": 1 << 32,
}  # fmt: skip


def document(*, date: str = "2026-01-02T03:04:05+00:00", context: int | None = 450, **readings: Any) -> dict[str, Any]:
    """A record of an imaginary GPU whose driver says `context` MiB of a process, or nothing."""
    levels = {"requested": 0, "allocated": 0, "reserved": 0}
    points = [
        levels | {"point": name, "process": None if context is None else context * MIB, "device": 950 * MIB}
        for name in ("context", "warm-up", "pool", "run", "graphs")
    ]
    memory = {"points": points, "pools": [], "workspaces": [], "free_blocks": {}}
    return {
        "schema": "kvplan/validate/1",
        "name": "a/B",
        "inputs": {"level": "quick"},
        "device": {"kind": "cuda", "name": "Imaginary GPU", "driver": "1.2", "torch": "2.13.0", "date": date},
        "cases": [CASE.to_json()],
        "readings": {"memory": memory, "ceilings": CEILINGS} | readings,
    }


def test_the_entry_of_a_device() -> None:
    assert devices.device_facts(document()) == {
        "context_bytes": 450 * MIB,
        "read_bytes_per_second": 3e12,
        "copy_bytes_per_second": 2.8e12,
        "matmul_flops_per_second": 7e14,
        "driver": "1.2",
        "torch": "2.13.0",
        "date": "2026-01-02T03:04:05+00:00",
        "record": "imaginary-gpu--a-b--2026-01-02t03-04-05.json",
    }


def test_where_the_driver_hides_a_process_the_device_tells() -> None:
    hidden = document(context=None)
    assert devices.device_facts(hidden) is None
    hidden["readings"]["memory"]["device_bytes_before"] = 600 * MIB
    facts = devices.device_facts(hidden)
    assert facts is not None
    assert facts["context_bytes"] == 350 * MIB
    hidden["readings"]["memory"]["device_bytes_before"] = 960 * MIB  # somebody else left meanwhile
    assert devices.device_facts(hidden) is None


FAILURE = {"failure": {"kind": "crash", "message": "it fell"}}


@pytest.mark.parametrize("ceilings", [FAILURE, None])
def test_a_context_without_ceilings(ceilings: Any) -> None:
    facts = devices.device_facts(document(ceilings=ceilings))
    assert facts is not None
    assert facts["context_bytes"] == 450 * MIB
    assert [facts[key] for key in CEILINGS if key in facts] == [None, None, None]


def test_nothing_to_remember(tmp_path: Path) -> None:
    host = document()
    host["device"] |= {"kind": "cpu"}
    ranks = document(memory=None)
    del ranks["readings"]["memory"]
    for found in (host, ranks, document(memory=FAILURE)):
        assert devices.device_facts(found) is None
        devices.remember(found, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_record_is_remembered_and_the_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    dates = ["2026-01-02T03:04:05+00:00", "2026-03-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"]
    for size, date in enumerate(dates, start=1):
        devices.remember(document(date=date, context=size), folder)
    other = document(context=9)
    other["device"] |= {"name": "Another GPU"}
    devices.remember(other, folder)
    written = json.loads((folder / "devices.json").read_text(encoding="utf-8"))["devices"]
    assert {name: entry["context_bytes"] // MIB for name, entry in written.items()} == {
        "Another GPU": 9,
        "Imaginary GPU": 2,
    }
    assert [path.name for path in folder.iterdir()] == ["devices.json"]


def test_what_is_written_is_what_estimate_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVPLAN_RECORDS", str(tmp_path))
    devices.remember(document(), tmp_path)
    found = records.measured_by_driver("Imaginary GPU")
    assert found is not None
    assert (found.context_bytes, found.read_bytes_per_second) == (450 * MIB, 3e12)
    assert found.source == (
        "kvplan validate on Imaginary GPU, driver 1.2, torch 2.13.0, 2026-01-02, "
        "record imaginary-gpu--a-b--2026-01-02t03-04-05.json"
    )
    assert (devices.SCHEMA, devices.FILE_NAME) == (records.DEVICES_SCHEMA, records.DEVICES_FILE)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": "kvplan/devices/1", "devices": {"x": 1}}'])
def test_a_foreign_file_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "devices.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"devices\.json"):
        devices.remember(document(), tmp_path)
    assert path.read_text() == text
