"""`kvplan.curve`: tidy columns, whole numbers, a capacity where a GPU was named, and refusals that say why."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import Gpu, InputError, curve, estimate, load_model
from kvplan.core import sweep as sweep_module
from kvplan.core.layout import stage_uses
from kvplan.core.sweep import PARTS
from kvplan.core.units import GIB
from tests.models import spec

LLAMA = spec()
WINDOWED = spec(model_type="mistral", architectures=["MistralForCausalLM"], num_key_value_heads=8, sliding_window=4096)
CATALOG = (
    "meta-llama/Llama-3.1-8B",
    "mistralai/Mistral-7B-v0.1",
    "google/gemma-3-27b-it",
    "deepseek-ai/DeepSeek-V2-Lite",
)

BYTES = [*PARTS, "total_bytes"]
COLUMNS = [
    "model",
    "seq_len",
    "batch_size",
    *BYTES,
    "capacity_bytes",
    "fits",
    "gpu",
    "gpu_memory_utilization",
    "num_gpus",
]


def test_columns_and_types():
    frame = curve(LLAMA, seq_lens=[1024, 2048], batch_sizes=[1, 8], gpu="H100", gpu_memory_utilization=0.9, tp=2)
    assert list(frame.columns) == COLUMNS
    assert set(frame[["seq_len", "batch_size", "num_gpus", *BYTES]].dtypes) == {np.dtype("int64")}
    assert frame["capacity_bytes"].dtype == pd.Int64Dtype()
    assert frame["fits"].dtype == pd.BooleanDtype()
    assert list(zip(frame["seq_len"], frame["batch_size"], strict=True)) == [(1024, 1), (1024, 8), (2048, 1), (2048, 8)]
    assert frame[["model", "gpu", "gpu_memory_utilization", "num_gpus"]].drop_duplicates().values.tolist() == [
        ["test/model", "H100-SXM5-80GB", 0.9, 2]
    ]


def test_a_row_worked_by_hand():
    row = curve(LLAMA, seq_lens=[4096], gpu=Gpu(name="half a card", memory_bytes=20 * GIB)).iloc[0]
    # Llama-2-7B: 6,738,415,616 parameters in bf16; 2 · 32 layers · 32 heads · 128 · 2 bytes = 512 KiB a token.
    assert row["weights_bytes"] == 13_476_831_232
    assert row["kv_cache_bytes"] == 2 * GIB
    assert row["capacity_bytes"] == 20 * GIB
    assert row["total_bytes"] == sum(row[name] for name in PARTS)


def test_fits_flips_at_the_capacity_to_the_byte():
    total = int(curve(LLAMA, seq_lens=[1000])["total_bytes"].iloc[0])
    exact, short = (Gpu(name="card", memory_bytes=size) for size in (total, total - 1))
    assert curve(LLAMA, seq_lens=[999, 1000, 1001], gpu=exact)["fits"].tolist() == [True, True, False]
    assert curve(LLAMA, seq_lens=[999, 1000, 1001], gpu=short)["fits"].tolist() == [True, False, False]


@pytest.mark.parametrize("gpu", [None, Gpu(name="unified", memory_bytes=None)], ids=["no GPU", "memory unknown"])
def test_without_a_capacity_there_is_no_answer(gpu):
    frame = curve(LLAMA, seq_lens=[1024, 2048], gpu=gpu)
    assert frame["capacity_bytes"].isna().all()
    assert frame["fits"].isna().all()
    assert frame["gpu"].isna().all() == (gpu is None)
    assert frame["fits"].dtype == pd.BooleanDtype()


def test_frames_with_and_without_a_gpu_stand_below_each_other():
    both = pd.concat([curve(LLAMA, seq_lens=[1024]), curve(WINDOWED, seq_lens=[1024], gpu="H100")])
    assert both["capacity_bytes"].dtype == pd.Int64Dtype()
    assert both["fits"].tolist() == [pd.NA, True]


@settings(deadline=None)
@given(
    model=st.sampled_from([LLAMA, WINDOWED]),
    seq_lens=st.lists(st.integers(1, 200_000), min_size=1, max_size=4),
    batch_sizes=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    options=st.fixed_dictionaries(
        {},
        optional={
            "engine": st.sampled_from(["exact", "transformers"]),
            "attention": st.sampled_from(["eager", "flash"]),
            "num_gpus": st.sampled_from([1, 2, 8]),
            "kv_dtype": st.sampled_from(["bf16", "fp32"]),
            "gpu_memory_utilization": st.sampled_from([0.5, 0.93]),
        },
    ),
)
def test_every_row_is_an_estimate(model, seq_lens, batch_sizes, options):
    for row in curve(model, seq_lens=seq_lens, batch_sizes=batch_sizes, gpu="A100", **options).to_dict("records"):
        plan = estimate(model, seq_len=row["seq_len"], batch_size=row["batch_size"], gpu="A100", **options)
        assert {name: row[name] for name in BYTES} == {name: getattr(plan.fullest_gpu, name) for name in BYTES}
        assert (row["capacity_bytes"], row["fits"]) == (plan.fullest_gpu.capacity_bytes, plan.fits)
        assert row["num_gpus"] == len(plan.per_gpu)


@pytest.mark.parametrize("name", CATALOG)
def test_every_row_is_an_estimate_in_the_catalog(name):
    for row in curve(name, seq_lens=[1, 4097, 131072], batch_sizes=[3], gpu="H100", tp=2, pp=2).to_dict("records"):
        plan = estimate(name, seq_len=row["seq_len"], batch_size=3, gpu="H100", tp=2, pp=2)
        assert {part: row[part] for part in BYTES} == {part: getattr(plan.fullest_gpu, part) for part in BYTES}
        assert row["fits"] == plan.fits


def test_axes_may_be_ranges_arrays_and_generators():
    expected = curve(LLAMA, seq_lens=[1024, 2048], batch_sizes=[1, 2])
    for seq_lens in (range(1024, 2049, 1024), np.array([1024, 2048], dtype=np.int32), (n * 1024 for n in (1, 2))):
        pd.testing.assert_frame_equal(curve(LLAMA, seq_lens=seq_lens, batch_sizes=np.arange(1, 3)), expected)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ([], "`seq_lens` is empty"),
        ([1024.0], r"`seq_lens` holds 1024\.0, not a whole number"),
        ([np.float64(2.0)], "not a whole number"),
        ([1024, True], "`seq_lens` holds True"),
        ([np.True_], "not a whole number"),
        (["8K"], "`seq_lens` holds '8K'"),
        ([1024, None], "`seq_lens` holds None"),
        ([0], "`seq_len` is 0"),
        ([1024, 0], "`seq_lens` needs at least one number, all from 1"),
        ([1024, 2**63], "`seq_lens` needs"),
    ],
)
def test_a_bad_axis_is_named(axis, message):
    with pytest.raises(InputError, match=message) as caught:
        curve(LLAMA, seq_lens=axis)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("option", "hint"),
    [("kv_dtyp", "did you mean `kv_dtype`?"), ("seq_len", "did you mean `encoder_seq_len`?"), ("foo", "it takes ")],
)
def test_a_wrong_keyword_is_named(option, hint):
    with pytest.raises(InputError, match=f"a sweep takes no `{option}`") as caught:
        curve(LLAMA, seq_lens=[1024], **{option: 1})
    assert caught.value.hint.startswith(hint)


def test_an_option_that_makes_no_sense_is_refused_as_in_an_estimate():
    with pytest.raises(InputError, match="7 GPUs cannot be laid out"):
        curve(LLAMA, seq_lens=[1024], num_gpus=7, tp=2)


def test_more_than_64_bits_is_refused():
    with pytest.raises(InputError, match="64 bits"):
        curve(LLAMA, seq_lens=[2**40], batch_sizes=[2**30])


def test_a_million_points_take_one_pass(monkeypatch):
    passes = []
    monkeypatch.setattr(sweep_module, "stage_uses", lambda *given: passes.append(1) or stage_uses(*given))
    model = load_model("google/gemma-3-27b-it")
    frame = curve(model, seq_lens=range(1, 1001), batch_sizes=range(1, 1001), gpu="H100", tp=2)
    assert len(frame) == 1_000_000
    # One over all points, and one at the largest to see that nothing wraps.
    assert len(passes) <= 3
