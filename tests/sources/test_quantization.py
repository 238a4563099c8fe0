"""How checkpoints store weights: against the schemes' own packages, real files, numbers worked by hand, and laws."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked import marked, matrix, stored_bytes, total

from kvplan import estimate
from kvplan.core.dtypes import BF16
from kvplan.core.errors import InputError
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.core.weights import all_weights, num_parameters, weight_bytes
from kvplan.sources.config import spec_from_raw
from tests.models import HERE, spec

DATA = Path(__file__).parents[1] / "data" / "quantization"
STORED = [json.loads(line) for line in (DATA / "stored.jsonl").read_text().splitlines()]
TOTALS = [json.loads(line) for line in (DATA / "totals.jsonl").read_text().splitlines()]


# Against the packages that write the tensors, as recorded by tests/data/quantization/make_stored.py.


@pytest.mark.parametrize("row", STORED, ids=[f"{row['package']} {row['rows']} {i}" for i, row in enumerate(STORED)])
def test_a_matrix_weighs_what_the_schemes_own_package_stores(row):
    found = stored_bytes(row["config"], matrix(row["rows"], row["columns"]))
    # A nested scale's offset is written as text, 17 significant digits more or less.
    assert abs(found - row["bytes"]) <= (3 if "nested_absmax" in str(row["tensors"]) else 0)


# Against the files of repositories.


@pytest.mark.parametrize("row", TOTALS, ids=[row["repository"] for row in TOTALS])
def test_a_repository_weighs_what_its_index_says(row):
    model = spec_from_raw(row["config"], id="x", source=HERE)
    assert row["total_size"] - total(model) == row["differs_by"], row["because"]


# By hand. A layer of Llama-2-7B: four matrices of 4096 × 4096, two of 11008 × 4096, one of 4096 × 11008.

SHAPES = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
LINEAR = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
REST = 2 * (2 * 32000 * 4096 + 32 * 2 * 4096 + 4096)


@pytest.mark.parametrize(
    ("config", "per_matrix"),
    [
        # AutoAWQ: 4 bits, an fp16 scale and a 4-bit zero point per 128.
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, lambda r, c: r * c // 2 + r * c // 128 * 5 // 2),
        # AutoGPTQ adds an int32 per input.
        ({"quant_method": "gptq", "bits": 4}, lambda r, c: r * c // 2 + r * c // 128 * 5 // 2 + 4 * c),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, lambda r, c: r * c + 3 * r + 4 * c),
        # 3 bits: 32 elements in three words, scales and zero points as ever.
        ({"quant_method": "gptq", "bits": 3}, lambda r, c: r * c * 3 // 8 + r * c // 128 * 19 // 8 + 4 * c),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, lambda r, c: r * c // 2 + r * c // 64),
        # 11008 inputs are 86 groups, which GEMV pads to 11 words of 8; 4096 are 32.
        (
            {"quant_method": "awq", "version": "gemv"},
            lambda r, c: r * c // 2 + r * {4096: 32, 11008: 88}[c] * 5 // 2,
        ),
        ({"quant_method": "auto-round", "bits": 4}, lambda r, c: r * c // 2 + r * c // 128 * 5 // 2),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, lambda r, c: r * c + 4 * r + 1),
        ({"quant_method": "fbgemm_fp8"}, lambda r, c: r * c + 4 * r),
        ({"quant_method": "blockwise_int8", "weight_block_size": [128, 128]}, lambda r, c: r * c + r * c // 4096),
        ({"quant_method": "mxfp8"}, lambda r, c: r * c + r * c // 32),
        ({"quant_algo": "W4A16_NVFP4", "ignore": ["lm_head"]}, lambda r, c: r * c // 2 + r * c // 16 + 4),
        ({"quant_method": "exl2", "bits": 4.5, "head_bits": 16}, lambda r, c: r * c * 9 // 16),
    ],
    ids=lambda value: "bytes" if callable(value) else str(value),
)
def test_bytes_by_hand(config, per_matrix):
    model = spec(quantization_config=config)
    assert model.quantization.understood
    assert total(model) == REST + 32 * sum(per_matrix(rows, columns) for rows, columns in SHAPES)
    assert num_parameters(model) == num_parameters(spec())


def test_what_hangs_over_an_edge_has_a_scale_too():
    assert stored_bytes({"quant_method": "fp8", "weight_block_size": [128, 128]}, matrix(129, 1)) == 129 + 2 * 4


def test_the_pieces_of_a_fused_matrix_share_what_all_rows_share():
    config = {"quant_method": "gptq", "bits": 4}
    pieces = [matrix(256, 128, f"self_attn.qkv_proj.weight[{piece}]", "attention") for piece in "qkv"]
    [layer], quantization = marked(config, *pieces)
    fused = sum(weight_bytes(weight, BF16, quantization) for weight in layer.weights)
    assert fused == stored_bytes(config, matrix(3 * 256, 128))


def test_experts_hold_a_scale_each():
    one = stored_bytes({"quant_algo": "NVFP4"}, matrix(64, 64, part="experts"))
    assert stored_bytes({"quant_algo": "NVFP4"}, matrix(64, 64, part="experts", copies=8)) == 8 * one


def test_a_rank_holds_its_share_of_everything_beside_the_weights():
    model = spec(quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128})
    whole, half = (estimate(model, tp=tp).per_gpu[0].weights_bytes for tp in (1, 2))
    norms = 2 * (32 * 2 * 4096 + 4096)
    assert 2 * (half - norms) == whole - norms


# What the plan says.


def test_plain_weights_have_no_scheme():
    for config in ({}, {"quantization_config": None}, {"quantization_config": {}}):
        assert spec(**config).quantization is None


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "modelopt"),
        ({"bits": 4, "group_size": 64}, "mlx"),
        ({"something": 1}, "unnamed"),
    ],
)
def test_a_scheme_without_a_name_is_known_by_its_keys(config, method):
    assert spec(quantization_config=config).quantization.method == method


INT2 = {"num_bits": 2, "type": "int", "strategy": "spiral"}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quant_method": "some_new_one", "bits": 4}, "some_new_one"),
        ({"quant_method": "modelopt", "quant_algo": "FP3"}, "modelopt (FP3)"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors (no groups)"),
        ({"config_groups": {"a": {"weights": INT2}}}, "compressed-tensors (strategy spiral)"),
        ({"config_groups": {"a": {"weights": INT2}}, "format": "knitted"}, "compressed-tensors (format knitted)"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "New"}}}, "torchao (New)"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "int3"}}}, "quark (int3)"),
        ({"quant_method": "vptq"}, "vptq (no layers)"),
    ],
)
def test_an_unknown_scheme_is_an_upper_bound_and_says_so(config, name):
    plan = estimate(spec(quantization_config=config))
    assert plan.weights.quantization == name
    assert plan.weights.total_bytes == 2 * plan.weights.num_parameters
    assert plan.evidence["weights"] == "assumed"
    assert "quantization-not-modelled" in [warning.code for warning in plan.warnings]


def test_a_scheme_that_replaces_nothing_is_not_understood():
    assert estimate(spec(quantization_config={"quant_method": "mxfp4"})).evidence["weights"] == "assumed"


def test_the_older_key_is_read_too():
    old = {"quant_method": "awq", "bits": 4}
    assert total(spec(compression_config=old)) == total(spec(quantization_config=old))


def test_the_files_total_wins_and_the_difference_is_said():
    model = spec(quantization_config={"quant_method": "awq", "bits": 4})
    counted = estimate(model)
    assert counted.evidence["weights"] == "exact"
    for surplus, word, basis in ((2**20, "1 MiB more", "exact"), (-(2**30), "1 GiB less", "derived")):
        plan = estimate(replace(model, stored_weight_bytes=counted.weights.total_bytes + surplus))
        assert plan.weights.total_bytes == counted.weights.total_bytes + surplus
        assert sum(part.total_bytes for part in plan.weights.parts.values()) == plan.weights.total_bytes
        [warning] = [warning for warning in plan.warnings if warning.code == "stored-differs"]
        assert word in warning.message
        assert plan.evidence["weights"] == basis
    # Planned otherwise than stored, the files say nothing.
    other = replace(model, stored_weight_bytes=10**9)
    assert estimate(other, quant="none").weights.total_bytes == 2 * num_parameters(model)
    assert estimate(other, dtype="fp32").weights.total_bytes > 10**9


def test_a_plan_may_quantise_otherwise_than_the_checkpoint():
    model = spec(quantization_config={"quant_method": "awq", "bits": 4})
    assert estimate(model, quant="fp8").weights.total_bytes == estimate(spec(), quant="fp8").weights.total_bytes


# Refusals.


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("int4", "not an object"),
        ({"quant_method": "gptq", "bits": "four"}, "`quantization_config.bits` is `four`"),
        ({"quant_method": "gptq"}, "`quantization_config.bits` is `None`"),
        ({"quant_method": "gptq", "bits": 9}, "not 2 or 3"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -5}, "group_size"),
        ({"quant_method": "fp8", "weight_block_size": ["a", 1]}, "two whole numbers"),
        ({"quant_method": "fp8", "modules_to_not_convert": [7]}, "a list of names"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf5"}, "nf4 or fp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": 3}}}, "an object"),
        ({"quant_method": "exl2", "bits": "many"}, "a number of bits"),
        ({"quant_method": "quanto", "weights": "int3"}, "weights"),
    ],
)
def test_a_wrong_setting_is_named(config, words):
    with pytest.raises(InputError, match="quantization_config") as caught:
        spec(quantization_config=config)
    assert words in str(caught.value)
    assert "quantization_config=null" in caught.value.hint


# Laws.

SIZES = st.integers(8, 200).map(lambda n: 32 * n)
SCHEMES = [row["config"] for row in STORED[::2] if row["package"].split()[0] != "aqlm"]


@given(rows=SIZES, columns=SIZES, config=st.sampled_from(SCHEMES))
def test_a_quantised_matrix_is_never_larger_than_a_plain_one(rows, columns, config):
    assert 0 < stored_bytes(config, matrix(rows, columns)) < 2 * rows * columns


@given(rows=SIZES, columns=SIZES, group=st.sampled_from([-1, 32, 64, 128]))
def test_more_bits_are_more_bytes_and_smaller_groups_too(rows, columns, group):
    sizes = [
        stored_bytes({"quant_method": "gptq", "bits": bits, "group_size": group}, matrix(rows, columns))
        for bits in (2, 3, 4, 8)
    ]
    assert sizes == sorted(sizes)
    if group > 32:
        finer = {"quant_method": "gptq", "bits": 8, "group_size": group // 2}
        assert stored_bytes(finer, matrix(rows, columns)) >= sizes[-1]


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), tp=st.integers(1, 4))
def test_parts_of_a_matrix_store_at_least_the_whole(rows, columns, tp):
    form = StoredFormat("f", (StoredTensor("w", 4, (1, 1), word=32, along="columns"), StoredTensor("s", 16, (1, 32))))
    whole = form.bytes_of(rows * tp, columns)
    assert tp * form.bytes_of(rows, columns) >= whole


@pytest.mark.parametrize("row", STORED, ids=[str(i) for i in range(len(STORED))])
def test_parameters_are_those_of_the_plain_model(row):
    model = spec(quantization_config=row["config"])
    assert num_parameters(model) == num_parameters(spec())
    assert any(weight.stored for weight, _ in all_weights(model))
