"""What single attention calls hold, measured on a CPU, against the calculator; and why a backend refuses one."""

from dataclasses import replace

import pytest
import torch

from kvplan.validate import predict
from kvplan.validate.case import Case
from kvplan.validate.compare import compare
from kvplan.validate.measure import transient
from kvplan.validate.measure.transient import Shape, calls, measure_transient

CPU = torch.device("cpu")
MHA = Case(name="mha", kind="full", num_heads=4, num_kv_heads=4, key_dim=16, value_dim=16)
CASES = [
    MHA,
    replace(MHA, name="gqa", num_kv_heads=2),
    replace(MHA, name="mqa", num_kv_heads=1),
    replace(MHA, name="odd", num_heads=6, num_kv_heads=3, key_dim=24, value_dim=24),
    replace(MHA, name="uneven", key_dim=24),
    replace(MHA, name="encoder", kind="encoder"),
    replace(MHA, name="sliding", kind="sliding", window=8, num_kv_heads=2),
    replace(MHA, name="sinks", num_kv_heads=2, sinks=True),
]
SHAPES = [Shape(1, 64, 64), Shape(3, 48, 48), Shape(1, 1, 80), Shape(3, 1, 80)]
SLACK = 64
"""Numbers that Python hands over become tensors of their own on a CPU."""


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call_holds_what_was_planned(case, dtype):
    """Eager and flash as their operators hand it out, "math" by the allocator: all of it is one operator."""
    case = replace(case, dtype=dtype)
    rows = measure_transient(case, SHAPES, CPU)
    assert len(rows) == len(SHAPES) * 3  # a CPU has no memory-efficient attention
    for row in rows:
        load = {name: row[name] for name in ("batch", "queries", "keys")}
        planned = predict.call_bytes(case, row["backend"], **load)
        if row["backend"] == "flash" and case.key_dim != case.value_dim:
            assert (row["bytes"], row["outside"]) == (None, None)
            continue
        measured = row["bytes"] if row["backend"] == "math" else row["outside"]
        assert abs(measured - planned) <= SLACK, (row, planned)
        assert row["seconds"] is None
        assert row["refused"] is None


# 2 sequences, 4 heads over 2, 8 queries on 8 keys of 16 dimensions, bf16: 512 scores, 1,024 numbers of output
def test_bytes_worked_by_hand():
    rows = measure_transient(replace(MHA, num_kv_heads=2), [Shape(2, 8, 8)], CPU)
    outside = {row["backend"]: row["outside"] for row in rows}
    # keys and values of four heads; then the scores in bf16, a copy in fp32, the probabilities in fp32
    assert abs(outside["eager"] - (2 * 1024 * 2 + 512 * (2 + 4 + 4))) <= SLACK
    # the output, and one fp32 number a query and head
    assert outside["flash"] == 1024 * 2 + 64 * 4


def test_rows_are_judged_within_their_tolerance():
    cases = [replace(case, name=f"{case.name} {dtype}", dtype=dtype) for case in CASES for dtype in ("bf16", "fp16")]
    reading = [row for case in cases for row in measure_transient(case, SHAPES[:2], CPU)]
    rows = compare(cases, {"transient": reading})
    assert len(rows) == len(reading)
    assert {row.verdict for row in rows} == {"ok", "info"}
    # fp16 widens another way on a CPU, and uneven dimensions are refused
    assert all("fp16" in row.case or "uneven" in row.case for row in rows if row.verdict == "info")


def test_the_four_programs_give_one_answer():
    """What is measured is attention, whichever way it is written: causal or not, grouped or not."""
    torch.manual_seed(0)
    for case in (replace(MHA, dtype="fp32", kind="cross"), replace(MHA, dtype="fp32", num_kv_heads=2, kind="encoder")):
        found = {name: call() for name, (call, _) in calls(case, Shape(2, 12, 20), CPU).items()}
        assert set(found) == {"eager", "math", "flash"}
        for name in ("math", "flash"):
            torch.testing.assert_close(found[name].transpose(1, 2), found["eager"])


def test_only_a_prompt_of_a_decoder_is_causal():
    def causal(case, queries):
        return calls(case, Shape(1, queries, 4), CPU)["math"][0].args[4]

    assert causal(MHA, 4)
    assert not causal(MHA, 1)
    assert not any(causal(replace(MHA, kind=kind), 4) for kind in ("encoder", "cross", "sparse"))


def test_why_a_backend_refuses():
    rows = {row["backend"]: row for row in measure_transient(replace(MHA, key_dim=24), SHAPES[:1], CPU)}
    assert rows["flash"]["refused"] == (
        "Flash attention requires q,k,v to have the same last dimension. "
        "Got Query.size(-1): 24, Key.size(-1): 24, Value.size(-1): 16 instead."
    )
    assert rows["eager"]["refused"] is rows["math"]["refused"] is None


# As torch 2.6 on a GPU said when flash alone was switched on: every backend in turn, the one that was meant in between.
SAID = [
    "Memory efficient kernel not used because:",
    "Memory Efficient attention has been runtime disabled.",
    "Flash attention kernel not used because:",
    "Expected query, key and value to all be of dtype: {Half, BFloat16}. Got Query dtype: float instead.",
    "CuDNN attention kernel not used because:",
    "CuDNN attention has been runtime disabled.",
]


@pytest.mark.parametrize(
    ("said", "error", "expected"),
    [
        (SAID, RuntimeError("No available kernel. Aborting execution."), SAID[3]),
        ([], RuntimeError("No available kernel.\nand a long story"), "No available kernel."),
        (SAID[:3], RuntimeError("No available kernel."), "No available kernel."),
        ([], torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory"),
    ],
)
def test_the_reason_among_all_that_torch_says(said, error, expected):
    assert transient._reason(said, error) == expected


class Pretended(str):
    """A CPU to tensors, a GPU to who asks for its type."""

    type = "cuda"


@pytest.fixture
def gpu(monkeypatch):
    """A GPU whose allocator saw 1000 bytes more than before."""
    stats = {"requested_bytes.all.current": 500, "requested_bytes.all.peak": 1500}
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: stats)
    return Pretended("cpu")


def test_a_gpus_rows(gpu):
    """The allocator's word alone, and a time; the efficient backend is asked for too, which here is not there."""
    rows = {row["backend"]: row for row in measure_transient(MHA, [Shape(1, 4, 4)], gpu)}
    assert list(rows) == ["eager", "math", "efficient", "flash"]
    for name in ("eager", "math", "flash"):
        assert (rows[name]["bytes"], rows[name]["outside"]) == (1000, None)
        assert rows[name]["seconds"] > 0
    assert rows["efficient"]["bytes"] is None
    assert "No viable backend" in rows["efficient"]["refused"]


def test_a_call_that_does_not_fit_is_told_and_the_others_go_on(gpu, monkeypatch):
    def too_much(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transient, "eager", too_much)
    rows = {row["backend"]: row for row in measure_transient(MHA, [Shape(1, 4, 4)], gpu)}
    assert (rows["eager"]["bytes"], rows["eager"]["refused"]) == (None, "out of memory")
    assert rows["math"]["bytes"] == 1000


def test_bytes_stand_where_there_is_no_room_for_a_time(gpu, monkeypatch):
    def too_much(*given, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transient, "measure", too_much)
    rows = measure_transient(MHA, [Shape(1, 4, 4)], gpu)
    assert [(row["bytes"], row["seconds"]) for row in rows if not row["refused"]] == [(1000, None)] * 3


def test_a_lost_device_is_no_refusal(gpu, monkeypatch):
    def lost(*given):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(transient, "eager", lost)
    with pytest.raises(torch.AcceleratorError):
        measure_transient(MHA, [Shape(1, 4, 4)], gpu)
