"""Models whose classes come with their repository, against figures worked by hand and against the Hub's own counts.

`tests/data/remote_configs.jsonl` has of each model's own config the keys that are read.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from family_rows import read
from remote_figures import BY_HAND

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16, FP16
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.model import ModelSpec
from kvplan.core.weights import active_parameters, all_weights, num_parameters, sizes_by_part
from kvplan.sources.families.table import READERS

ROWS = Path(__file__).parent.parent / "data" / "remote_configs.jsonl"
CONFIGS: dict[str, dict[str, Any]] = {
    row["name"]: row["config"] for row in map(json.loads, ROWS.read_text().splitlines())
}


def bytes_of_next_token(spec: ModelSpec) -> int:
    layers = (spec.layers[index] for index in spec.layer_order)
    return sum(cache.bytes_per_token for layer in layers for _, cache in caches_of(layer, BF16))


def fixed_bytes(spec: ModelSpec) -> int:
    layers = (spec.layers[index] for index in spec.layer_order)
    return sum(cache.fixed_bytes for layer in layers for _, cache in caches_of(layer, BF16))


def test_every_type_has_a_model_here():
    remote = {model_type for model_type, reader in READERS.items() if reader.startswith("remote.")}
    assert {config["model_type"] for config in CONFIGS.values()} - {"llava"} == remote


def test_every_model_is_worked_by_hand():
    assert set(CONFIGS) - {"DeepSeek-V4-Flash"} == set(BY_HAND)


@pytest.mark.parametrize(
    ("name", "token_bytes", "parameters"), [(name, *row) for name, row in BY_HAND.items()], ids=BY_HAND
)
def test_parameters_and_cache_are_those_worked_by_hand(name, token_bytes, parameters):
    spec = read(CONFIGS[name])
    assert (bytes_of_next_token(spec), num_parameters(spec)) == (token_bytes, parameters)


# What the Hub counts in the repository's safetensors files, buffers included. RWKV's is listed for the 3B's repository,
# and is what the 1B5 has.
ON_THE_HUB = {
    "GLM-4-9B": 9_399_951_392,
    "InternLM2-7B": 7_737_708_544,
    "Qwen-7B": 7_721_324_544,
    "MiniMax-Text-01": 456_089_655_296,
    "Ling-lite": 16_801_974_272,
    "Ling-mini-2.0": 16_255_643_392,
    "Nemotron-Ultra-253B": 253_401_268_224,
    "EXAONE-3.5-7.8B": 7_818_448_896,
    "Phi-1.5": 1_418_270_720,
    "Phi-3-vision": 4_146_621_440,
    "DeepSeek-MoE-16B": 16_375_728_128,
    "MiMo-7B": 7_833_409_536,
    "RWKV-5-World-1B5": 1_577_754_624,
    "InternVL2-4B": 4_146_855_936,
    "MiniCPM-V-2.6": 8_099_175_152,
    "MiniCPM-V-4": 4_059_533_040,
    "DeepSeek-OCR": 3_336_106_240,
}


@pytest.mark.parametrize(("name", "elements"), ON_THE_HUB.items(), ids=ON_THE_HUB)
def test_all_tensors_are_as_many_elements_as_the_hub_counts(name, elements):
    assert (
        sum(count * weight.copies * weight.num_elements for weight, count in all_weights(read(CONFIGS[name])))
        == elements
    )


def test_chatglm_holds_the_bytes_that_its_index_states():
    # THUDM/chatglm3-6b-32k, pytorch_model.bin.index.json: 200 tensors, the frequencies of the positions among them.
    sizes = sizes_by_part(read(CONFIGS["ChatGLM3-6B"]), FP16, None)
    assert sum(size.total_bytes for size in sizes.values()) == 12_487_168_064


# What does not grow: (bytes of one sequence).
FIXED = {
    # 70 layers of 64 matrices of 128², in bf16.
    "MiniMax-Text-01": 70 * 64 * 128**2 * 2,
    # 24 layers of 32 matrices of 64² in fp32, and the last inputs of both halves in bf16.
    "RWKV-5-World-1B5": 24 * (32 * 64**2 * 4 + 2 * 2048 * 2),
    # The inputs of the last two tokens, in 24 layers.
    "Yuan2-2B": 24 * 2 * 2048 * 2,
}


@pytest.mark.parametrize(("name", "size"), FIXED.items(), ids=FIXED)
def test_what_a_sequence_keeps_however_long_it_is(name, size):
    assert fixed_bytes(read(CONFIGS[name])) == size


# Parameters that one token passes through.
ACTIVE = {
    # All but 376 of 384 experts in 60 layers: "32B activated", model card.
    "Kimi-K2": 1_026_408_209_408 - 60 * 376 * 3 * 2048 * 7168,
    # All but 45 of 48 experts in 56 layers: "38B activated", model card.
    "Step-3, text": 316_294_538_240 - 56 * 45 * 3 * 5120 * 7168,
    # One of 16 experts: "52B activated", https://arxiv.org/abs/2411.02265
    "Hunyuan-Large": 388_698_128_640 - 64 * 15 * 3 * 18_304 * 6400,
    # Without the layer that predicts ahead.
    "MiMo-7B": 7_833_409_536 - 210_790_400,
}


@pytest.mark.parametrize(("name", "parameters"), ACTIVE.items(), ids=ACTIVE)
def test_a_token_passes_through_its_experts_only(name, parameters):
    assert active_parameters(read(CONFIGS[name])) == parameters


def test_the_first_deepseek_v4_is_read_as_the_others():
    ours, theirs = CONFIGS["DeepSeek-V4-Flash"], {**CONFIGS["DeepSeek-V4-Flash"], "model_type": "deepseek_v4"}
    assert num_parameters(read(ours)) == num_parameters(read(theirs)) == 284_332_230_231
    assert read(ours).layers == read(theirs).layers


def test_layers_that_share_keys_keep_nothing():
    kinds = [read(CONFIGS["Hunyuan-Large"]).layers[i].mixers[0].kind for i in (0, 1)]
    assert kinds == ["full", "shared"]


def test_a_layer_that_is_not_there_holds_nothing():
    spec = read(CONFIGS["Nemotron-Ultra-253B"])
    empty = [count for layer, count in spec.layer_counts() if not layer.weights]
    assert empty == [81]
    assert spec.num_layers == 162


def test_what_the_repository_s_class_assumes_says_so():
    origins = {fact.key: fact.origin for fact in read(CONFIGS["Phi-1.5"]).facts}
    assert origins["n_inner"] == "default of the model's own class"


# (model, changes, the error, a word of it)
REFUSED = {
    "the first ChatGLM": ("ChatGLM3-6B", {"position_encoding_2d": True}, UnsupportedError, "ChatGLM-6B"),
    "ChatGLM with a prefix": ("ChatGLM3-6B", {"pre_seq_len": 128}, UnsupportedError, "pre_seq_len"),
    "groups that do not divide": ("ChatGLM3-6B", {"multi_query_group_num": 5}, InputError, "multi_query_group_num"),
    "a class of another model": ("ChatGLM3-6B", {"architectures": ["GlmForCausalLM"]}, UnsupportedError, "Glm"),
    "an odd MLP": ("Qwen-7B", {"intermediate_size": 22_017}, InputError, "intermediate_size"),
    "quantised keys of Qwen": ("Qwen-7B", {"use_cache_quantization": True}, UnsupportedError, "use_cache_quantization"),
    "sparse MiniCPM4": ("MiniCPM-2B", {"sparse_config": {"topk": 64}}, UnsupportedError, "sparse_config"),
    "biases of Ling": ("Ling-lite", {"use_bias": True}, UnsupportedError, "use_bias"),
    "more active experts than there are": ("Grok-1", {"num_experts_per_tok": 9}, InputError, "num_experts_per_tok"),
    "a list of layers too short": ("MiniMax-Text-01", {"attn_type_list": [0, 1]}, InputError, "attn_type_list"),
    "several keys in Step-3": ("Step-3, text", {"num_attention_groups": 2}, InputError, "num_attention_groups"),
    "layers that are no numbers": ("Step-3, text", {"moe_layers_enum": "4,five"}, InputError, "moe_layers_enum"),
    "latent attention in Hunyuan": ("Hunyuan-Large", {"use_mla": True}, UnsupportedError, "use_mla"),
    "blocks for other layers": ("Nemotron-Ultra-253B", {"num_hidden_layers": 80}, InputError, "block_configs"),
    "no width": ("OpenELM-270M", {"model_dim": None}, InputError, "model_dim"),
    "two answers on tying": ("OpenELM-270M", {"tie_word_embeddings": False}, UnsupportedError, "share_input_output"),
    "heads without a size": ("RWKV-5-World-1B5", {"head_size": None}, InputError, "head_size"),
    "an unknown tower": ("LLaVA-1.5-7B", {"mm_vision_tower": "someone/else"}, UnsupportedError, "someone/else"),
    "an unknown projector": ("LLaVA-1.5-7B", {"mm_projector_type": "qformer"}, InputError, "mm_projector_type"),
    "MiniCPM-V 2.0": ("MiniCPM-V-4", {"version": 2.0}, UnsupportedError, "MiniCPM-V 2.0"),
    "a vocabulary between the two": ("Emu3", {"vocab_size": 200_000}, UnsupportedError, "200000"),
    "biases that no Emu3 has": ("Emu3", {"qkv_bias": True}, UnsupportedError, "qkv_bias"),
    "tying left open": ("TeleChat-7B", {"tie_word_embeddings": None}, InputError, "tie_word_embeddings"),
    "shared queries in Yuan": ("Yuan2-2B", {"use_shareqk": True}, UnsupportedError, "use_shareqk"),
}


@pytest.mark.parametrize(("name", "changes", "error", "word"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_modelled_is_refused(name, changes, error, word):
    with pytest.raises(error, match=word):
        read({**CONFIGS[name], **changes})
