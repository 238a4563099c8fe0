"""A case's kernels against float64, interpreted at tiny lengths: right ones pass, a wrong one is seen, in every kind."""

from dataclasses import replace

import pytest
import torch

from kvplan.validate.case import Case
from kvplan.validate.compare import compare
from kvplan.validate.measure import checks as module
from kvplan.validate.measure.checks import checks, measure_correctness
from kvplan.validate.record import judged as judge
from kvplan.validate.suite import correctness
from kvplan.validate.suite.record import plain

CPU = torch.device("cpu")
FULL = Case(name="full", kind="full", num_heads=6, num_kv_heads=2, key_dim=32, value_dim=32, seq_len=64)
SLIDING = replace(FULL, name="sliding", kind="sliding", window=7, sinks=True)
LATENT = replace(FULL, name="latent", kind="latent", num_heads=5, num_kv_heads=5, latent_dim=64, rope_dim=16)
LINEAR = replace(FULL, name="linear", kind="linear", num_heads=2, num_kv_heads=4)
COMPUTING = replace(FULL, num_heads=2)
ENCODER, SPARSE, CROSS = (
    replace(COMPUTING, name="encoder", kind="encoder"),
    replace(COMPUTING, name="sparse", kind="sparse", window=9),
    replace(COMPUTING, name="cross", kind="cross"),
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(correctness, "SHORT_LENGTHS", (20, 1, 5, 18))
    torch.manual_seed(7)


def judged(case: Case) -> dict[str, str]:
    """Verdicts by phase, as they are told."""
    rows = compare([case], {"correctness": measure_correctness([case], CPU)})
    assert all(row.case == case.name for row in rows)
    return {row.term: row.verdict for row in rows}


@pytest.mark.parametrize(
    ("case", "phases"),
    [
        (FULL, {"decode", "prefill"}),
        (replace(FULL, num_heads=2, value_dim=16), {"decode", "prefill"}),
        (replace(FULL, num_heads=7, num_kv_heads=1, key_dim=80, value_dim=80, page_size=5), {"decode", "prefill"}),
        (replace(FULL, dtype="fp16", kv_dtype="fp16"), {"decode", "prefill"}),
        (replace(FULL, kv_dtype="fp8"), {"decode", "prefill"}),
        (replace(FULL, kv_dtype="int8"), {"decode", "prefill"}),
        (SLIDING, {"decode", "prefill"}),
        (replace(SLIDING, window=4096, dtype="fp16", kv_dtype="int8"), {"decode", "prefill"}),
        (LATENT, {"decode"}),
        (replace(LATENT, dtype="fp16", kv_dtype="fp16", page_size=4), {"decode"}),
        (replace(LATENT, kv_dtype="fp8"), {"decode"}),
        (ENCODER, {"prefill"}),
        (SPARSE, {"prefill"}),
        (CROSS, {"prefill"}),
        # no matrix product takes so few dimensions, and a block has no room for so many heads
        (replace(FULL, key_dim=8, value_dim=8), {"decode"}),
        (replace(FULL, num_heads=129, num_kv_heads=1, key_dim=16, value_dim=16), {"decode"}),
    ],
    ids=lambda given: "" if isinstance(given, set) else f"{given.kind} {given.key_dim} {given.dtype} {given.kv_dtype}",
)
def test_right_kernels_are_right(case, phases):
    assert judged(case) == dict.fromkeys(phases, "ok")


def test_a_recurrent_step_is_right():
    assert judged(LINEAR) == {"decode": "ok"}


def test_heads_shrink_where_kernels_are_interpreted_and_nothing_else_does():
    big = replace(FULL, num_heads=64, num_kv_heads=8)
    for device, kv_heads in ((CPU, 2), (torch.device("cuda"), 8)):
        for _, check in checks(big, device):
            given = check.run.keywords
            assert (given["group"], given["shape"]["num_kv_heads"]) == (8, kv_heads)
            assert (given["shape"]["key_dim"], given["shape"]["dtype"]) == (32, torch.bfloat16)
    (found,) = checks(replace(LATENT, num_heads=128), torch.device("cuda"))
    assert found[1].run.keywords["heads"] == 128
    assert (found[1].run.keywords["latent_dim"], found[1].run.keywords["rope_dim"]) == (64, 16)


def test_what_a_device_must_be_able_to_do():
    """e4m3 is a type from compute capability 8.9 on."""
    for case, least in (
        (FULL, (8, 0)),
        (replace(FULL, kv_dtype="fp8"), (8, 9)),
        (replace(LATENT, kv_dtype="fp8"), (8, 9)),
    ):
        assert {check.compute_capability for _, check in checks(case, CPU)} == {least}


def test_a_device_that_cannot_is_told(monkeypatch):
    monkeypatch.setattr(module, "check_all", lambda device, guard, found: [])
    assert measure_correctness([LATENT], CPU) == [
        {"case": "latent", "phase": "decode", "skipped": "this device has no such type"}
    ]
    assert judged(LATENT) == {"decode": "info"}


@pytest.mark.parametrize(
    ("kernel", "case", "phase"),
    [
        ("decode", FULL, "decode"),
        ("prefill", FULL, "prefill"),
        ("mla_decode", LATENT, "decode"),
        ("prefill", CROSS, "prefill"),
    ],
)
def test_a_kernel_with_another_scale_is_seen(kernel, case, phase, monkeypatch):
    right = getattr(correctness, kernel)
    monkeypatch.setattr(correctness, kernel, lambda *given, scale, **options: right(*given, scale=3 * scale, **options))
    assert judged(case)[phase] == "off"


def test_a_kernel_with_another_window_is_seen(monkeypatch):
    right = correctness.decode
    monkeypatch.setattr(
        correctness, "decode", lambda *given, window, **options: right(*given, window=window - 3, **options)
    )
    assert judged(SLIDING) == {"decode": "off", "prefill": "ok"}


def test_a_kernel_that_fails_is_told_and_the_next_goes_on(monkeypatch):
    def fails(*given, **options):
        raise ValueError("no such shape\nand a long story")

    monkeypatch.setattr(correctness, "decode", fails)
    rows = measure_correctness([FULL, ENCODER], CPU)
    assert [(row["case"], row["phase"], row["ok"]) for row in rows] == [
        ("full", "decode", False), ("full", "prefill", True), ("encoder", "prefill", True),
    ]  # fmt: skip
    assert rows[0]["failure"] == {"kind": "ValueError", "message": "no such shape", "notes": ()}
    assert rows[0]["error"] is None
    assert judged(FULL) == {"decode": "info", "prefill": "ok"}


def test_an_output_that_is_not_all_numbers_is_a_failure(monkeypatch):
    """JSON knows no NaN: as an error that is unknown it would not be judged at all."""
    monkeypatch.setattr(correctness, "decode", lambda q_BHD, cache, **options: torch.empty(4, 6, 32))
    found = measure_correctness([FULL], CPU)[0]
    assert (found["ok"], found["error"]) == (False, None)
    assert found["failure"]["kind"] == "Wrong"
    told = plain({"correctness": [found]})
    document = judge([FULL], told)
    assert document["verdict"] == "off"
    assert document["failures"] == [
        {"where": "correctness, full, decode", "kind": "Wrong", "message": "what the kernel gave is not all numbers"}
    ]
