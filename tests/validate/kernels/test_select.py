"""One function picks the kernel and its configuration, and says what the choice rests on."""

from dataclasses import replace

import pytest

from kvplan.validate.kernels import select
from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.kernels.machine import MACHINES
from kvplan.validate.kernels.select import STATIC, Problem, choose

PREFILL = Problem("prefill", 2, 32, 8, 128, 128, 16, page_size=0, num_keys=8192, num_queries=8192)
LLAMA = Problem("decode", 32, 32, 8, 128, 128, 16, page_size=64, num_keys=8192)
H100, A100 = MACHINES["sm_90"], MACHINES["sm_80"]

CASES = {
    "whole tiles on Hopper": (LLAMA, H100, "decode_tma"),
    "small pages": (replace(LLAMA, page_size=16), H100, "decode"),
    "an A100 has no TMA": (LLAMA, A100, "decode"),
    "dimensions that TMA would read across": (replace(LLAMA, key_dim=80, value_dim=80), H100, "decode"),
    "prefill with contiguous keys": (PREFILL, H100, "prefill_packed_tma"),
    "prefill with small pages": (replace(PREFILL, page_size=16), H100, "prefill"),
    "prefill on an A100": (PREFILL, A100, "prefill"),
    "prefill on a MI300X": (PREFILL, MACHINES["gfx942"], "prefill"),
    "a latent": (Problem("mla_decode", 8, 128, 1, 576, 512, 16, page_size=64, num_keys=4096), H100, "mla_decode"),
    "MI300X": (LLAMA, MACHINES["gfx942"], "decode"),
}


@pytest.mark.parametrize(("problem", "machine", "kernel"), CASES.values(), ids=CASES)
def test_the_variant_that_fits_the_case(problem, machine, kernel):
    choice = choose(problem, machine)
    assert choice.kernel == kernel
    assert choice.basis == STATIC
    assert problem.page_size % choice.config.block_n == 0 or not kernel.endswith("tma")


def test_a_dimension_in_between_takes_the_next_larger_rows():
    odd, even = (choose(replace(LLAMA, page_size=16, key_dim=dim, value_dim=dim), H100) for dim in (96, 128))
    assert odd.config.block_n == even.config.block_n


@pytest.mark.parametrize("batch", [1, 4, 32, 512])
def test_splits_fill_the_machine_and_stay_worth_their_start(batch):
    config = choose(replace(LLAMA, batch=batch), H100).config
    assert batch * 8 * config.num_splits >= H100.num_sms
    assert 8192 // config.block_n // config.num_splits >= 4


def test_a_window_counts_its_own_keys():
    assert choose(replace(LLAMA, batch=1, num_keys=128), H100).config.num_splits == 1


def test_a_processor_with_less_shared_memory_takes_smaller_tiles():
    """Consumer GPUs have 99 KiB a block where an A100 has 163."""
    small = replace(A100, name="RTX 3090", max_shared_bytes=101_376)
    fits = choose(replace(LLAMA, key_dim=256, value_dim=256), small).config
    rows = [row for row in select._table() if row["kernel"] == "decode" and row["target"] == "sm_80"]
    chosen = [
        row for row in rows if (row["dim"], row["block_n"], row["num_stages"]) == (256, fits.block_n, fits.num_stages)
    ]
    assert chosen
    assert min(row["shared_bytes"] for row in chosen) <= 101_376


def test_a_row_measured_on_this_device_wins(monkeypatch):
    rows = list(select._table())
    base = next(row for row in rows if row["kernel"] == "decode" and row["target"] == "sm_90" and row["dim"] == 128)
    measured = base | {
        "basis": "measured",
        "device": "H100 SXM",
        "cost": 1.0,
        "block_n": 64,
        "rows": 16,
        "stored_bits": 16,
    }
    monkeypatch.setattr(select, "_table", lambda: (*rows, measured))
    assert choose(LLAMA, H100).basis == "measured on H100 SXM"
    assert choose(LLAMA, H100).kernel == "decode"
    other = replace(H100, name="H200")
    assert choose(LLAMA, other).basis == STATIC


def test_of_two_measured_variants_the_faster_one(monkeypatch):
    rows = list(select._table())
    like = {"target": "sm_90", "stored_bits": 16, "dim": 128, "rows": 16, "block_m": 0, "block_n": 64, "num_warps": 4}
    like |= {"num_stages": 3, "blocks_per_sm": 3, "basis": "measured", "device": "H100 SXM"}
    tma, pointers = ({"kernel": "decode_tma", "cost": 1.2} | like, {"kernel": "decode", "cost": 1.0} | like)
    monkeypatch.setattr(select, "_table", lambda: (*rows, tma, pointers))
    assert choose(LLAMA, H100).kernel == "decode"


def test_a_case_that_nothing_runs_is_refused():
    with pytest.raises(Unsupported, match="no decode kernel for sm_90 runs"):
        choose(replace(LLAMA, key_dim=1024), H100)
