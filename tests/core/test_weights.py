"""Parameters to bytes: hand-worked sizes, schemes and ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.dtypes import parse_dtype
from kvplan.core.errors import InputError
from kvplan.core.model import Quantization, Split, Weight
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.core.weights import (
    active_parameters,
    num_parameters,
    parse_quant,
    sizes_by_part,
    stored_formats,
    weight_bytes,
)
from kvplan.sources.catalog import load
from tests.models import spec

BF16 = parse_dtype("bf16")
FP8_BLOCKS = StoredFormat("fp8", (StoredTensor("weight", 8), StoredTensor("scale", 32, (128, 128))))
MXFP4 = StoredFormat("mxfp4", (StoredTensor("weight", 4), StoredTensor("scale", 8, (1, 32))))
CHECKPOINT = Quantization(method="a checkpoint's", understood=True)


def matrix(rows, columns, part="mlp", split=None, **more):
    return Weight(name="w.weight", shape=(rows, columns), part=part, split=split, linear=True, **more)


def test_llama_2_7b_by_hand():
    # Touvron et al. 2023: embeddings and head 32000·4096 each; a layer has 4·4096² in attention, 3·4096·11008 in
    # the MLP and 2·4096 in norms; one final norm.
    per_layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert num_parameters(spec()) == 2 * 32000 * 4096 + 32 * per_layer + 4096 == 6_738_415_616


def test_parts_sum_to_the_whole():
    model = spec(tie_word_embeddings=True, attention_bias=True)
    parts = sizes_by_part(model, BF16, None)
    assert sum(part.parameters for part in parts.values()) == num_parameters(model)
    assert sum(part.total_bytes for part in parts.values()) == 2 * num_parameters(model)
    assert "head" not in parts


def test_gpt_oss_20b_holds_what_its_files_hold():
    # The published model.safetensors.index.json of openai/gpt-oss-20b says total_size 13761264768.
    # Experts: 24 · 32 · 3 · 2880² = 19,110,297,600 elements in 4 bits with one byte per 32; 1,804,459,584 in bf16.
    model = load("openai/gpt-oss-20b")
    parts = sizes_by_part(model, BF16, model.quantization)
    assert sum(part.total_bytes for part in parts.values()) == 13_761_264_768


def test_qwen3_8b_fp8_holds_as_many_scales_as_its_files():
    # The published safetensors headers of Qwen/Qwen3-8B-FP8 list 8,191,159,296 elements, 423,936 of them scales.
    # A layer by hand: q and o 32·32 blocks of 128 × 128, k and v 8·32, gate, up and down 96·32; 36 layers.
    scales = 36 * (2 * 32 * 32 + 2 * 8 * 32 + 3 * 96 * 32)
    assert scales == 8_191_159_296 - 8_190_735_360
    model = load("Qwen/Qwen3-8B-FP8")
    linear = 36 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 12288 * 4096)
    plain = num_parameters(model) - linear
    parts = sizes_by_part(model, BF16, model.quantization)
    assert sum(part.total_bytes for part in parts.values()) == linear + 4 * scales + 2 * plain


def test_mixtral_uses_two_of_eight_experts():
    # mistral.ai/news/mixtral-of-experts: 46.7B parameters, 12.9B per token.
    model = load("mistralai/Mixtral-8x7B-v0.1")
    expert = 3 * 4096 * 14336
    assert num_parameters(model) - active_parameters(model) == 32 * 6 * expert
    assert active_parameters(model) == 12_879_925_248


@pytest.mark.parametrize(
    ("quant", "stored", "part", "expected"),
    [
        (None, None, "mlp", 2 * 256 * 384),
        (None, FP8_BLOCKS, "mlp", 2 * 256 * 384),
        (CHECKPOINT, None, "mlp", 2 * 256 * 384),
        (CHECKPOINT, FP8_BLOCKS, "mlp", 256 * 384 + 2 * 3 * 4),
        (CHECKPOINT, MXFP4, "experts", 256 * 384 // 2 + 256 * 12),
        (parse_quant("int8"), None, "mlp", 256 * 384 + 256 * 4),
        (parse_quant("int4"), FP8_BLOCKS, "mlp", 256 * 384 // 2 + 256 * 3 * 20 // 8),
        (parse_quant("int4"), FP8_BLOCKS, "head", 2 * 256 * 384),
    ],
    ids=[
        "plain",
        "no scheme",
        "left plain",
        "fp8 blocks",
        "mxfp4",
        "int8",
        "planned otherwise",
        "no plan for the head",
    ],
)
def test_bytes_of_a_matrix_of_256_by_384(quant, stored, part, expected):
    assert weight_bytes(matrix(256, 384, part, stored=stored), BF16, quant) == expected


def test_a_block_that_hangs_over_the_edge_has_a_scale_too():
    assert FP8_BLOCKS.bytes_of(129, 1) == 129 + 2 * 4


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        # 33 · 3 bits are four words of 32; down the rows 10 · 3 bits are one.
        (StoredTensor("w", 3, (1, 1), word=32, along="columns"), 10 * 4 * 4),
        (StoredTensor("w", 3, (1, 1), word=32, along="rows"), 33 * 4),
        (StoredTensor("w", 3), 124),
        (StoredTensor("scale", 16, (1, 16)), 10 * 3 * 2),
        (StoredTensor("index", 32, (0, 1)), 33 * 4),
        (StoredTensor("scale", 32, (0, 0)), 4),
        (StoredTensor("absmax", 8, 64), 6),
    ],
    ids=["along rows", "down columns", "in one run", "groups", "per input", "per matrix", "in storage order"],
)
def test_bytes_of_a_tensor_for_10_by_33(tensor, expected):
    assert tensor.bytes_of(10, 33) == expected


def test_a_scheme_that_is_not_understood_counts_as_plain():
    unknown = Quantization(method="new", bits=4, understood=False)
    assert weight_bytes(matrix(10, 10, stored=FP8_BLOCKS), BF16, unknown) == 200


def test_formats_add_up_to_the_whole():
    model = load("openai/gpt-oss-20b")
    found = stored_formats(model)
    assert list(found) == ["mxfp4", "plain"]
    assert found["mxfp4"].parameters == 24 * 32 * 3 * 2880**2
    assert sum(size.total_bytes for size in found.values()) == 13_761_264_768
    assert sum(size.parameters for size in found.values()) == num_parameters(model)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(InputError) as caught:
        parse_quant("int3")
    assert "int4" in caught.value.hint


@given(heads=st.integers(1, 64), tp=st.integers(1, 64), dim=st.integers(1, 128))
def test_ranks_hold_the_whole_between_them(heads, tp, dim):
    weight = matrix(heads * dim, 64, split=Split(0, heads))
    assert weight_bytes(weight, BF16, tp=tp) * tp >= weight_bytes(weight, BF16)
    assert weight_bytes(weight, BF16, tp=tp) <= weight_bytes(weight, BF16)
    if heads % tp == 0:
        assert weight_bytes(weight, BF16, tp=tp) * tp == weight_bytes(weight, BF16)


def test_what_is_not_split_is_whole_on_every_rank():
    assert weight_bytes(matrix(10, 10), BF16, tp=8) == 200
