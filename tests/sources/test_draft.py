"""What checkpoints store for multi-token prediction: published totals, sizes worked by hand, and laws."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import estimate
from kvplan.core.dtypes import BF16
from kvplan.core.model import ModelSpec
from kvplan.core.weights import all_weights, computed_weight_bytes, draft_bytes, draft_parameters, num_parameters
from kvplan.report.inspect import inspect_document, inspect_page
from kvplan.sources import catalog
from kvplan.sources.config import spec_from_raw
from tests.models import HERE

# What the Hub counts in a repository's safetensors files, and what it counts there that is no parameter of the class
# or the draft: (totals, the routers' corrections, other buffers and scales).
PUBLISHED = {
    # 58 + 1 corrections of 256 experts; a scale for every 128 × 128 elements of a quantised matrix: with one for the
    # matrix that joins token and state, for the tables or for a router, this would not come out.
    "deepseek-ai/DeepSeek-V3": (684_531_386_000, 59 * 256, 41_540_496),
    "deepseek-ai/DeepSeek-V3.2": (685_355_329_792, 59 * 256, 0),
    # 40 + 1 corrections, and for 3 layers a table of the experts of each token
    "deepseek-ai/DeepSeek-V4-Flash": (290_944_616_402, 41 * 256, 3 * 129_280 * 6),
    "zai-org/GLM-4.5": (358_337_791_296, 90 * 160, 0),
    "zai-org/GLM-4.5-Air": (110_468_824_832, 46 * 128, 0),
    "zai-org/GLM-5.1": (753_864_139_008, 76 * 256, 0),
    "zai-org/GLM-5.2": (753_329_940_480, 76 * 256, 0),
    "Qwen/Qwen3-Next-80B-A3B-Instruct": (81_324_862_720, 0, 0),
    "Qwen/Qwen3.5-0.8B": (873_438_784, 0, 0),
    "Qwen/Qwen3.5-35B-A3B": (35_951_822_704, 0, 0),
    "Qwen/Qwen3.5-122B-A10B": (125_086_497_008, 0, 0),
    "Qwen/Qwen3.8-2.4T-A95B": (2_446_182_725_504, 0, 0),
    "LGAI-EXAONE/EXAONE-4.5-33B": (34_350_097_664, 0, 0),
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": (560_524_578_816, 0, 0),
}
LONGCAT = {
    "model_type": "longcat_flash", "hidden_size": 6144, "num_layers": 28, "num_attention_heads": 64,
    "vocab_size": 131072, "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048, "n_routed_experts": 512,
    "zero_expert_num": 256, "moe_topk": 12, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
HY3 = {
    "model_type": "hy_v3", "hidden_size": 4096, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 120832, "intermediate_size": 13312,
    "moe_intermediate_size": 1536, "num_experts": 192, "num_experts_per_tok": 8, "num_shared_experts": 1,
    "num_nextn_predict_layers": 1, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
ERNIE = {
    "model_type": "ernie4_5_moe", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "moe_intermediate_size": 32, "moe_num_experts": 4, "moe_k": 2,
    "moe_num_shared_experts": 1, "vocab_size": 100, "use_bias": False, "num_nextn_predict_layers": 1,
}  # fmt: skip


def of_catalog(name: str) -> ModelSpec:
    model = catalog.load(name)
    assert model is not None
    return model


def read(config: dict) -> ModelSpec:
    return spec_from_raw(config, id="x", source=HERE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_model_and_draft_are_what_the_hub_counts(name):
    total, corrections, beside = PUBLISHED[name]
    model = of_catalog(name)
    assert num_parameters(model) + draft_parameters(model) + corrections + beside == total


def test_the_scales_of_deepseek_v3_are_those_of_model_and_draft():
    model = of_catalog("deepseek-ai/DeepSeek-V3")
    assert model.draft is not None
    scales = 0
    for weight, count in (*all_weights(model), *((weight, 1) for weight in model.draft.weights)):
        if weight.stored is not None:
            rows, columns = (-(-size // 128) for size in weight.shape)
            scales += count * weight.copies * rows * columns
    assert scales == PUBLISHED["deepseek-ai/DeepSeek-V3"][2]


def test_the_files_of_longcat_hold_model_and_draft_but_no_unused_experts():
    """561,862,880,256 on the Hub: without 256 idle experts' gates, with corrections of 768 experts in 28 layers."""
    model = read(LONGCAT)
    idle = 28 * 256 * 2 * 2048 * 6144
    assert num_parameters(model) - idle + draft_parameters(model) + 28 * 768 == 561_862_880_256
    # vLLM makes none of them (models/longcat_flash.py).
    plan, served = estimate(model), estimate(model, engine="vllm")
    assert plan.weights.num_parameters - served.weights.num_parameters == idle
    assert plan.weights.total_bytes - served.weights.total_bytes == 2 * idle
    assert ["idle-weights" in [warning.code for warning in found.warnings] for found in (plan, served)] == [True, False]
    # A dense layer of 392,593,408 and a copy of the token table: by hand from vLLM's longcat_flash_mtp.py.
    assert draft_parameters(model) == 392_593_408 + 131_072 * 6144


def test_the_files_of_hy3_hold_model_and_draft():
    """597,572,342,272 bytes by the index of tencent/Hy3; corrections of 192 experts in 80 layers are in fp32."""
    model = read(HY3)
    assert 2 * (num_parameters(model) + draft_parameters(model)) + 80 * 192 * 4 == 597_572_342_272


def test_glm_4_6_has_the_draft_of_glm_4_5_without_its_tables():
    """356,785,898,816 on the Hub, of the same sizes: what the reader counts too much, as its docstring says."""
    model = of_catalog("zai-org/GLM-4.5")
    tables = 2 * 151_552 * 5120
    assert num_parameters(model) + draft_parameters(model) - tables + 90 * 160 == 356_785_898_816


def test_a_draft_layer_of_ernie_by_hand():
    # q and o 64 × 64, k and v 32 × 64, three of 96 × 64, 2 norms; joined by 64 × 128 after 2 norms (vLLM, ernie_mtp.py)
    assert draft_parameters(read(ERNIE)) == 2 * 4096 + 2 * 2048 + 3 * 6144 + 2 * 64 + 8192 + 2 * 64


def test_a_draft_layer_of_mimo_v2_by_hand():
    """0.33 B each, as the model's card says; vLLM names three (mimo_v2_flash_mtp.py)."""
    model = of_catalog("XiaomiMiMo/MiMo-V2-Flash")
    attention = 4096 * (64 * 192 + 8 * 192 + 8 * 128 + 64 * 128) + 64
    layer = attention + 3 * 4096 * 16384 + 2 * 4096 * 4096 + 5 * 4096
    assert draft_parameters(model) == 3 * layer
    assert 325_000_000 < layer < 335_000_000
    assert model.draft is not None
    assert [mixer.kind for mixer in model.draft.mixers] == ["sliding"] * 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("deepseek-ai/DeepSeek-V3", "latent"),
        ("zai-org/GLM-4.5", "full"),
        ("Qwen/Qwen3.5-0.8B", "full"),
        ("deepseek-ai/DeepSeek-V4-Flash", "sliding"),
        ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", "full"),
    ],
)
def test_a_draft_keeps_one_cache_more(name, kind):
    model = of_catalog(name)
    assert model.draft is not None
    assert [mixer.kind for mixer in model.draft.mixers] == [kind]


def test_checkpoints_of_minimax_m2_hold_none_whatever_the_config_names():
    """228,689,764,864 on the Hub: the class and 62 corrections of 256 experts."""
    model = of_catalog("MiniMaxAI/MiniMax-M2.5")
    assert model.draft is None
    assert num_parameters(model) + 62 * 256 == 228_689_764_864


# What is done with it.

NAMES = ["deepseek-ai/DeepSeek-V3", "Qwen/Qwen3.5-0.8B", "zai-org/GLM-5.1"]
MODELS = {name: of_catalog(name) for name in NAMES}


@given(name=st.sampled_from(NAMES), seq_len=st.integers(1, 100_000), tp=st.sampled_from([1, 2, 4]))
def test_no_figure_of_a_plan_knows_of_the_draft(name, seq_len, tp):
    with_draft = estimate(MODELS[name], seq_len=seq_len, tp=tp)
    without = estimate(replace(MODELS[name], draft=None), seq_len=seq_len, tp=tp)
    assert with_draft.weights.draft_parameters > 0
    assert with_draft.weights == replace(
        without.weights,
        draft_parameters=with_draft.weights.draft_parameters,
        draft_bytes=with_draft.weights.draft_bytes,
    )
    for part in ("kv_cache", "attention", "per_gpu", "evidence", "warnings"):
        assert getattr(with_draft, part) == getattr(without, part)


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V3", "Qwen/Qwen3.5-0.8B"])
def test_files_that_hold_the_draft_surprise_nobody(name):
    model = MODELS[name]
    computed = computed_weight_bytes(model, BF16, model.quantization)
    files = replace(model, stored_weight_bytes=computed + draft_bytes(model, BF16, model.quantization))
    plan = estimate(files, seq_len=1)
    assert plan.weights.total_bytes == computed
    assert plan.evidence["weights"] == "exact"
    assert [warning.code for warning in plan.warnings if "stored" in warning.code or "draft" in warning.code] == [
        "draft-not-loaded"
    ]


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V3", "Qwen/Qwen3.5-0.8B"])
def test_files_without_the_draft_lose_nothing_to_it(name):
    model = MODELS[name]
    computed = computed_weight_bytes(model, BF16, model.quantization)
    plan = estimate(replace(model, stored_weight_bytes=computed), seq_len=1)
    assert plan.weights.total_bytes == computed
    assert not any("draft" in warning.code or "stored" in warning.code for warning in plan.warnings)


def test_inspect_says_what_lies_beside_the_model():
    model = MODELS["deepseek-ai/DeepSeek-V3"]
    said = [line.text for line in inspect_page(model).lines]
    assert "beside it: 1 layer for multi-token prediction, 13.46 B parameters, not loaded by default" in said
    document = inspect_document(model)
    assert document["draft"]["num_parameters"] == draft_parameters(model) == 13_463_426_048
    assert document["draft"]["cache_bytes_per_token"] == 2 * (512 + 64)
    assert inspect_document(replace(model, draft=None))["draft"] is None


@given(count=st.integers(0, 8))
def test_as_many_draft_layers_as_the_config_names(count):
    draft = read(ERNIE | {"num_nextn_predict_layers": count}).draft
    assert (0 if draft is None else draft.num_layers) == count
