"""The read kernel in Triton's interpreter, and the ceilings' bookkeeping on a CPU; rates mean nothing here."""

import pytest
import torch

from kvplan.validate.kernels.launch import Unsupported, run_all
from kvplan.validate.suite import ceilings
from kvplan.validate.suite.ceilings import READ_SHAPES, ReadShape, measure_ceilings, plan_read
from kvplan.validate.suite.timing import Effort, Failure, Guard, HostStopwatch, Timing

QUICK = Effort(rounds=1, replays_per_round=1, warm_ups=1, min_calls=1, max_calls=1)
SMALL = {"num_bytes": 1 << 18, "matmul_size": 32, "effort": QUICK}


@pytest.mark.parametrize("shape", READ_SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize(("tiles", "programs"), [(1, 1), (5, 2), (6, 3), (2, 3)])
def test_every_number_is_read_once(shape, tiles, programs):
    source = torch.randn(tiles * shape.tile)
    sums = torch.full((programs,), float("nan"))
    run_all(plan_read(source, sums, shape))
    expected = [source.view(tiles, -1)[first::programs].sum(dtype=torch.float64) for first in range(programs)]
    torch.testing.assert_close(sums.double(), torch.stack(expected), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("source", [torch.zeros(4097), torch.zeros(4096, dtype=torch.float16)], ids=["ragged", "half"])
def test_only_whole_tiles_of_fp32_are_read(source):
    with pytest.raises(Unsupported, match="multiples of 4096"):
        plan_read(source, torch.zeros(1), ReadShape(4, 8, 8))


def test_all_three_ceilings_are_measured():
    found = measure_ceilings("cpu", **SMALL)
    assert found.buffer_bytes == 1 << 18
    assert set(found.timings) == {*(shape.name for shape in READ_SHAPES), "torch.sum", "torch.Tensor.copy_", "torch.mm"}
    assert all(isinstance(timing, Timing) for timing in found.timings.values())
    best = found.timings[found.read_by]
    assert found.read_by not in ("torch.Tensor.copy_", "torch.mm")
    assert found.read_bytes_per_second == (1 << 18) / best.median_seconds
    assert found.copy_bytes_per_second == (1 << 18) / found.timings["torch.Tensor.copy_"].median_seconds
    assert found.matmul_flops_per_second == 2 * 32**3 / found.timings["torch.mm"].median_seconds


def test_a_reader_that_adds_up_wrong_is_no_ceiling(monkeypatch):
    monkeypatch.setattr(ceilings, "run_all", lambda launches: None)  # the sums stay NaN
    found = measure_ceilings("cpu", **SMALL)
    failed = {name for name, timing in found.timings.items() if isinstance(timing, Failure)}
    assert failed == {shape.name for shape in READ_SHAPES}
    assert found.timings[READ_SHAPES[0].name].kind == "ArithmeticError"
    assert found.read_by == "torch.sum"


def test_what_fails_leaves_the_other_ceilings(monkeypatch):
    def no_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ceilings, "_memory_candidates", no_memory)
    found = measure_ceilings("cpu", **SMALL)
    assert (found.read_bytes_per_second, found.read_by, found.copy_bytes_per_second) == (None, None, None)
    assert found.timings["a buffer to read"].kind == "OutOfMemoryError"
    assert found.matmul_flops_per_second > 0


def test_nothing_is_measured_on_a_lost_device():
    guard = Guard(HostStopwatch(), lost="the device was lost in `sweep`")
    found = measure_ceilings("cpu", guard=guard, **SMALL)
    assert found.matmul_flops_per_second is None
    assert all(failure.kind == "NotRun" for failure in found.timings.values())


@pytest.mark.parametrize(("wanted", "expected"), [(1 << 32, 1 << 32), (1, 1 << 16), ((1 << 17) + 1, 1 << 17)])
def test_a_buffer_is_whole_tiles_twice(wanted, expected):
    assert ceilings._buffer_bytes(torch.device("cpu"), wanted) == expected


def test_a_short_memory_makes_a_short_buffer(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 40))
    assert ceilings._buffer_bytes(torch.device("cuda:0"), 1 << 32) == 1 << 29
