"""Records and measured devices: whose count, which device a driver's name means, and what a bad file says."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvplan import InputError
from kvplan.core.hardware import Gpu, MeasuredDevice
from kvplan.sources import records
from kvplan.sources.gpus import find_gpu, load_gpus

ENTRY: dict[str, Any] = {
    "context_bytes": 500_000_000,
    "read_bytes_per_second": 3e12,
    "copy_bytes_per_second": None,
    "matmul_flops_per_second": 700_000_000_000_000,
    "driver": "580.65.06",
    "torch": "2.13.0",
    "date": "2026-01-02T03:04:05+00:00",
    "record": "nvidia-h200--a-b--2026-01-02.json",
}
SOURCE = "driver 580.65.06, torch 2.13.0, 2026-01-02, record nvidia-h200--a-b--2026-01-02.json"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder; what ships lies beside it and is empty."""
    folder, shipped = tmp_path / "own", tmp_path / "shipped"
    for path in (folder, shipped):
        path.mkdir()
    monkeypatch.setenv("KVPLAN_RECORDS", str(folder))
    monkeypatch.setattr(records, "SHIPPED", shipped)
    return folder


def write(folder: Path, **devices: dict[str, Any]) -> None:
    document = {"schema": "kvplan/devices/1", "devices": devices}
    (folder / "devices.json").write_text(json.dumps(document), encoding="utf-8")


def test_what_was_measured_and_where_that_comes_from(own: Path) -> None:
    write(own, **{"NVIDIA H200": ENTRY})
    assert records.measured_device(find_gpu("H200")) == MeasuredDevice(
        context_bytes=500_000_000,
        read_bytes_per_second=3e12,
        copy_bytes_per_second=None,
        matmul_flops_per_second=7e14,
        source=f"kvplan validate on NVIDIA H200, {SOURCE}",
    )
    assert records.named_gpu("h200").measured == records.named_gpu("NVIDIA H200").measured is not None
    assert records.named_gpu("H200 NVL").measured is None
    write(own, **{"NVIDIA H200": {"context_bytes": 5, "driver": None}})
    assert records.named_gpu("h200").measured == MeasuredDevice(
        context_bytes=5, source="kvplan validate on NVIDIA H200"
    )


DRIVER_NAMES = {
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 PCIe": "h100 pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA H200": "H200",
    "NVIDIA H200 NVL": "H200 NVL",
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-PCIE-40GB": "A100-PCIe-40GB",
    "NVIDIA A100 80GB PCIe": "a100 pcie",
    "NVIDIA A10G": "A10G",
    "NVIDIA A30": "A30",
    "NVIDIA B200": "B200",
    "NVIDIA B300 SXM6 AC": "B300",
    "NVIDIA GB200": "GB200",
    "NVIDIA GH200 480GB": "GH200",
    "NVIDIA L4": "L4",
    "NVIDIA L40S": "L40S",
    "NVIDIA GeForce RTX 4090": "4090",
    "NVIDIA RTX A6000": "A6000",
    "NVIDIA RTX 6000 Ada Generation": "6000 ada",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx pro 6000",
    "Tesla T4": "T4",
    "Tesla V100-SXM2-16GB": "V100",
    "AMD Instinct MI300X": "MI300X",
}


@pytest.mark.parametrize(("driver", "written"), DRIVER_NAMES.items(), ids=DRIVER_NAMES)
def test_a_drivers_name_means_one_device(own: Path, driver: str, written: str) -> None:
    write(own, **{driver: ENTRY})
    meant = [gpu.name for gpu in load_gpus() if records.measured_device(gpu)]
    assert meant == [find_gpu(written).name]


OTHERS = [
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D",
    "NVIDIA A10-24Q", "NVIDIA GeForce RTX 3080 Ti Laptop GPU", "Quadro RTX 6000", "NVIDIA", "GPU", "",
]  # fmt: skip


@pytest.mark.parametrize("driver", OTHERS)
def test_a_slice_or_a_cousin_of_a_device_is_another_one(own: Path, driver: str) -> None:
    write(own, **{driver: ENTRY})
    assert [gpu.name for gpu in load_gpus() if records.measured_device(gpu)] == []
    assert records.measured_by_driver(driver) is not None


def test_ones_own_measurement_wins(own: Path) -> None:
    write(own.parent / "shipped", **{"NVIDIA H200": ENTRY | {"context_bytes": 1, "date": "2027"}, "NVIDIA L4": ENTRY})
    write(own, **{"NVIDIA H200": ENTRY | {"context_bytes": 2}})
    found = records.named_gpu("H200").measured
    assert found is not None
    assert found.context_bytes == 2
    assert records.measured_by_driver("NVIDIA H200") == found
    assert records.named_gpu("L4").measured is not None
    assert records.measured_by_driver("NVIDIA B200") is None


def test_of_two_names_of_one_device_the_newer_measurement(own: Path) -> None:
    old, new = ENTRY | {"context_bytes": 1}, ENTRY | {"context_bytes": 2, "date": "2026-03-01"}
    for names in ("NVIDIA GH200 480GB", "NVIDIA GH200 120GB"), ("NVIDIA GH200 120GB", "NVIDIA GH200 480GB"):
        write(own, **dict(zip(names, (old, new), strict=True)))
        found = records.named_gpu("GH200").measured
        assert found is not None
        assert found.context_bytes == 2


BROKEN = {
    "cut short": '{"schema"',
    "empty": "",
    "a list": "[]",
    "no schema": "{}",
    "a later schema": '{"schema": "kvplan/devices/2", "devices": {}}',
    "no devices": '{"schema": "kvplan/devices/1"}',
    "devices in a list": '{"schema": "kvplan/devices/1", "devices": []}',
    "no entry": '{"schema": "kvplan/devices/1", "devices": {"NVIDIA H200": 1}}',
}
WRONG: dict[str, dict[str, Any]] = {
    "no context": {"context_bytes": None},
    "a negative one": {"context_bytes": -1},
    "none at all": {"context_bytes": 0},
    "an immense one": {"context_bytes": 2**50},
    "a fraction": {"context_bytes": 1.5},
    "a truth": {"context_bytes": True},
    "a slow memory": {"read_bytes_per_second": 3.35},
    "a fast one": {"read_bytes_per_second": 1e30},
    "a rate in words": {"copy_bytes_per_second": "fast"},
    "a true rate": {"matmul_flops_per_second": True},
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_named(own: Path, text: str) -> None:
    (own / "devices.json").write_text(text, encoding="utf-8")
    for look in (lambda: records.named_gpu("H200"), lambda: records.measured_by_driver("NVIDIA H200")):
        with pytest.raises(InputError) as caught:
            look()
        assert str(own / "devices.json") in str(caught.value)
        assert "KVPLAN_RECORDS" in caught.value.hint
    assert records.named_gpu("80GiB") == Gpu(
        name="80 GiB GPU", memory_bytes=80 * 2**30, memory_note="as given", source="as given"
    )


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_figure_is_named(own: Path, change: dict[str, Any]) -> None:
    write(own, **{"NVIDIA H200": ENTRY | change, "NVIDIA L4": ENTRY})
    with pytest.raises(InputError, match=next(iter(change))) as caught:
        records.named_gpu("H200")
    assert "NVIDIA H200" in str(caught.value)
    assert records.named_gpu("L4").measured is not None


def test_a_folder_in_the_way_of_the_file(own: Path) -> None:
    (own / "devices.json").mkdir()
    with pytest.raises(InputError, match="no regular file"):
        records.named_gpu("H200")


def test_what_an_entry_says_of_itself_cannot_move_a_cursor(own: Path) -> None:
    write(own, **{"NVIDIA H200": ENTRY | {"driver": "\x1b[2J\n"}})
    measured = records.named_gpu("H200").measured
    assert measured is not None
    assert measured.source.isprintable()


def test_where_ones_own_records_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(name: str = "posix", **environ: str) -> str:
        monkeypatch.setattr(records, "os", SimpleNamespace(name=name, environ=environ))
        return records.own_folder().as_posix()

    monkeypatch.setenv("HOME", "/home/her")
    assert folder(KVPLAN_RECORDS="/data/measured", XDG_DATA_HOME="/xdg") == "/data/measured"
    assert folder(KVPLAN_RECORDS="~/measured") == "/home/her/measured"
    assert folder(XDG_DATA_HOME="/xdg") == "/xdg/kvplan/records"
    assert folder(XDG_DATA_HOME="relative") == folder() == "/home/her/.local/share/kvplan/records"
    assert folder("nt", LOCALAPPDATA="/local") == "/local/kvplan/records"
    assert folder("nt") == "/home/her/AppData/Local/kvplan/records"


def test_without_a_home_there_are_no_records_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KVPLAN_RECORDS")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(InputError, match="home"):
        records.own_folder()
    assert records.named_gpu("H200").name == "H200-SXM-141GB"


def test_records_by_name_and_ones_own_before_what_ships(own: Path) -> None:
    shipped = own.parent / "shipped"
    for folder, name, value in ((shipped, "a", 1), (shipped, "b", 2), (own, "b", 3), (own, "c", 4)):
        (folder / f"{name}.json").write_text(json.dumps({"schema": "kvplan/validate/1", "value": value}))
    write(own)
    assert [path.parent.name for path in records.record_paths()] == ["shipped", "own", "own"]
    assert [record["value"] for record in records.load_records()] == [1, 3, 4]


def test_a_record_that_cannot_be_read_is_left_out_and_named(own: Path) -> None:
    (own / "foreign.json").write_text('{"schema": "kvplan/estimate/1"}')
    (own / "good.json").write_text('{"schema": "kvplan/validate/1"}')
    with pytest.warns(UserWarning, match=r"left out: .*foreign\.json"):
        assert records.load_records() == [{"schema": "kvplan/validate/1"}]


def test_no_folder_at_all(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVPLAN_RECORDS", str(own / "missing" / "folder"))
    assert records.load_records() == []
    assert records.named_gpu("H200").measured is None


def test_every_shipped_entry_is_sound_and_every_record_readable() -> None:
    document = json.loads((records.SHIPPED / "devices.json").read_text(encoding="utf-8"))
    assert document["schema"] == records.DEVICES_SCHEMA
    for name, entry in document["devices"].items():
        assert records.measured_by_driver(name) is not None
        assert (records.SHIPPED / entry["record"]).exists()
    assert len(records.load_records()) == len(records.record_paths())
