"""What is in use at a moment: allocations on a CPU by hand, a GPU's figures from stand-ins for torch and the driver."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvplan.validate.measure import meter
from kvplan.validate.measure.meter import (
    Meter,
    Reading,
    Tally,
    free_bytes,
    resident_bytes,
    returned_bytes,
    transient_bytes,
)
from kvplan.validate.suite import device as device_module
from kvplan.validate.suite.device import process_bytes, used_bytes

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
MIB = 1 << 20


def some(num_bytes: int) -> torch.Tensor:
    return torch.empty(num_bytes, dtype=torch.uint8)


def test_allocations_worked_by_hand():
    with Tally() as tally:
        kept = some(1000)
        gone = some(5000)
        del gone
        other = some(300)
    assert [size for _, size in tally.events] == [1000, 5000, -5000, 300]
    assert (tally.held_bytes, tally.peak_bytes) == (1300, 6000)
    assert len(kept) + len(other) == 1300


def test_what_was_there_before_does_not_count_when_it_goes():
    before = some(7000)
    with Tally() as tally:
        inside = some(100)
        del before
    assert (tally.held_bytes, tally.peak_bytes) == (100, 100)
    assert len(inside) == 100


def test_nothing_and_views_are_no_allocations():
    base = some(64)
    with Tally() as tally:
        views = [base[3:], base.view(torch.int32), base.reshape(8, 8).T]
    assert (tally.held_bytes, tally.peak_bytes, tally.events) == (0, 0, [])
    assert len(views) == 3


def test_a_tally_is_read_though_its_work_failed():
    tally, kept = Tally(), []

    def fails():
        with tally:
            kept.append(some(40))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fails()
    assert tally.held_bytes == 40


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 100)), max_size=40))
def test_the_tally_of_any_order(steps):
    """A place is taken, given back, taken anew: held is what is open, and it was never more than the peak."""
    live, events, most = {}, [], 0
    for place, size in steps:
        if place in live:
            events.append((place, -live.pop(place)))
        else:
            live[place] = size
            events.append((place, size))
        most = max(most, sum(live.values()))
    assert meter._held(events) == (sum(live.values()), most)


def test_transient_bytes_of_a_call():
    """Two temporaries of 4000 bytes live at once; when the sum's 4 bytes come, the first of them has gone."""
    a = torch.ones(1000)
    assert transient_bytes(lambda: a * a, CPU) == 4000
    assert transient_bytes(lambda: ((a * a) * a).sum(), CPU) == 8000
    assert transient_bytes(lambda: a.mul_(a), CPU) == 0
    assert 4000 < transient_bytes(lambda: a * 2, CPU) <= 4000 + 8 + 4  # a number from Python becomes a tensor


def test_returned_bytes_leave_out_what_was_there():
    a = torch.ones(1000)
    assert returned_bytes(lambda: ((a * 2) * 3).sum(), [a]) == 8000
    assert returned_bytes(lambda: a.mul_(1.0), [a]) == 0
    assert returned_bytes(lambda: a.mul_(1.0), []) == 4000
    # a view keeps its storage, however little of it is seen
    assert returned_bytes(lambda: (a * 2)[:1] + 1, [a]) == 4004


def test_softmax_works_in_more_than_it_returns():
    """The reason why there are two ways to look at a call: inside an operator a CPU may hold what a GPU does not."""
    a = torch.ones(64, 64, dtype=torch.bfloat16)
    outside = returned_bytes(lambda: torch.softmax(a, -1, dtype=torch.float32), [a])
    assert outside == 64 * 64 * 4 + 64 * 64 * 4  # the copy that is widened, the probabilities
    assert transient_bytes(lambda: torch.softmax(a, -1, dtype=torch.float32), CPU) >= outside


def test_memory_is_resident_once_it_is_written():
    before = resident_bytes()
    buffer = some(64 * MIB)
    taken = resident_bytes()
    buffer.fill_(1)
    written = resident_bytes()
    assert taken - before < 16 * MIB
    assert 48 * MIB < written - taken < 80 * MIB


def test_a_meter_on_a_cpu_reads_the_process_alone():
    one = Meter(CPU)
    reading = one.read("start")
    assert one.readings == [reading]
    assert reading.process > 10 * MIB
    assert reading == Reading("start", process=reading.process)


def test_where_the_operating_system_has_no_such_file(monkeypatch):
    def missing(self, **options):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    assert resident_bytes() is None
    assert free_bytes(CPU) is None


def files(monkeypatch, found: dict[str, str]) -> None:
    """These files are all that there is."""

    def read(self, **options):
        if str(self) not in found:
            raise FileNotFoundError(self)
        return found[str(self)]

    monkeypatch.setattr(Path, "read_text", read)


MEMINFO = "MemTotal:       32000 kB\nMemFree:        1000 kB\nMemAvailable:    20000 kB\n"


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ({}, 20_000 << 10),
        ({"memory.max": "max\n", "memory.current": "5\n", "memory.stat": ""}, 20_000 << 10),
        ({"memory.max": "9000\n", "memory.current": "5000\n", "memory.stat": "anon 4000\n"}, 4000),
        # files that were read are dropped before anybody is refused
        ({"memory.max": "9000\n", "memory.current": "8000\n", "memory.stat": "anon 1\ninactive_file 6000\n"}, 7000),
        (
            {
                "memory/memory.limit_in_bytes": "9000",
                "memory/memory.usage_in_bytes": "7000",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
            },
            2500,
        ),
    ],
    ids=["no container", "no limit", "limit", "files read", "version 1"],
)
def test_free_main_memory_is_what_machine_and_container_leave(cgroup, expected, monkeypatch):
    files(monkeypatch, {"/proc/meminfo": MEMINFO} | {f"/sys/fs/cgroup/{name}": text for name, text in cgroup.items()})
    assert free_bytes(CPU) == expected


class FakeCuda:
    """As much of `torch.cuda` as a meter asks."""

    def __init__(self, monkeypatch):
        self.said: list[str] = []
        self.stats = {
            f"{level}_bytes.all.{when}": number
            for number, (level, when) in enumerate(
                [(level, when) for when in ("current", "peak") for level in ("requested", "allocated", "reserved")], 1
            )
        } | {"active_bytes.all.current": 99, "requested_bytes.small_pool.current": 98}
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.said.append("settled"))
        monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: self.stats)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3000, 10_000))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: self.said.append("reset"))


@pytest.fixture
def cuda(monkeypatch):
    return FakeCuda(monkeypatch)


def test_a_meter_on_a_gpu(cuda, monkeypatch):
    monkeypatch.setattr(meter, "process_bytes", lambda device: 77)
    reading = Meter(GPU).read("pool")
    assert reading == Reading(
        "pool",
        requested=1,
        allocated=2,
        reserved=3,
        requested_peak=4,
        allocated_peak=5,
        reserved_peak=6,
        process=77,
        device=7000,
    )
    assert cuda.said == ["settled", "reset"]


def test_a_device_on_which_nothing_was_allocated_holds_nothing(cuda, monkeypatch):
    monkeypatch.setattr(meter, "process_bytes", lambda device: None)
    cuda.stats = {}
    assert Meter(GPU).read("context") == Reading("context", 0, 0, 0, 0, 0, 0, process=None, device=7000)


def test_transient_bytes_on_a_gpu_are_the_peak_above_what_was_held(cuda):
    cuda.stats = {"requested_bytes.all.current": 500, "requested_bytes.all.peak": 900}

    def call():
        cuda.said.append("call")
        cuda.stats["requested_bytes.all.peak"] = 812

    assert transient_bytes(call, GPU) == 312
    assert cuda.said == ["settled", "reset", "call", "settled"]


def test_free_memory_of_a_gpu_is_the_drivers_word(cuda):
    assert free_bytes(GPU) == 3000


@pytest.fixture
def driver(monkeypatch):
    """nvidia-smi, whose answer a test sets."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="5f1c"))
    asked = SimpleNamespace(answer="", commands=[])

    def run(command, **options):
        asked.commands.append(command)
        if isinstance(asked.answer, Exception):
            raise asked.answer
        return SimpleNamespace(stdout=asked.answer)

    monkeypatch.setattr(device_module.subprocess, "run", run)
    return asked


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("523\n", 523 * MIB), ("0\n", 0), ("[N/A]\n", None), ("", None), (FileNotFoundError(), None)],
)
def test_what_all_processes_hold(answer, expected, driver):
    driver.answer = answer
    assert used_bytes(GPU) == expected
    assert driver.commands[0][:3] == ["nvidia-smi", "--id=GPU-5f1c", "--query-gpu=memory.used"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("11, 300\n{pid}, 1024\n12, 5\n", 1024 * MIB),
        ("{pid}, [N/A]\n", None),
        ("1{pid}, 300\n", None),  # another's number
        ("", None),
        (subprocess.CalledProcessError(6, "nvidia-smi"), None),
    ],
)
def test_what_this_process_holds(answer, expected, driver):
    driver.answer = answer.format(pid=os.getpid()) if isinstance(answer, str) else answer
    assert process_bytes(GPU) == expected
    assert "--query-compute-apps=pid,used_memory" in driver.commands[0]
