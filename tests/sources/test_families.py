"""Every family's reader against what transformers itself builds, and against figures worked by hand."""

import re
from collections import Counter
from typing import Any

import pytest
from family_rows import ROWS, read

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16
from kvplan.core.engines.transformers import TRANSFORMERS
from kvplan.core.errors import UnsupportedError
from kvplan.core.plan import plan_memory
from kvplan.core.serving import resolve
from kvplan.core.weights import active_parameters, num_parameters, sizes_by_part
from kvplan.sources.families.table import READERS, reader_of


def head_beside_a_tied_config(row: dict[str, Any]) -> int:
    """The output head that T5 checkpoints hold and `from_pretrained` keeps, though the bare class builds none."""
    config = row["config"]
    if row["model_type"] != "t5" or config.get("tie_word_embeddings") is not False:
        return 0
    return config["vocab_size"] * config["d_model"]


# What transformers says.


def test_every_line_of_the_table_names_a_reader():
    assert all(callable(reader_of(model_type)) for model_type in READERS)
    assert list(READERS) == sorted(READERS)


def test_a_type_that_is_not_read_is_named_with_what_is_close():
    with pytest.raises(UnsupportedError, match="`llama9`") as caught:
        reader_of("llama9")
    assert "close to it: llama" in caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_parameters_are_those_of_transformers(row):
    expected = row["num_parameters"] + head_beside_a_tied_config(row)
    assert num_parameters(read(row["config"])) == expected


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_each_part_holds_what_it_holds_in_transformers(row):
    # Routers count as mlp there.
    words = {"embeddings": "embedding", "router": "mlp"}
    parts: Counter[str] = Counter()
    for part, size in sizes_by_part(read(row["config"]), BF16, None).items():
        parts[words.get(part, part)] += size.parameters
    expected = Counter(row["parts"]) + Counter({"head": head_beside_a_tied_config(row)})
    assert parts == expected


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_layer_caches_what_it_caches_in_transformers(row):
    spec = read(row["config"])
    for case, expected in row["cache"].items():
        batch, length, encoder = read_case(case)
        held: dict[bool, list[tuple[str, int]]] = {False: [], True: []}
        for index in spec.layer_order:
            for mixer, needed in caches_of(spec.layers[index], BF16):
                cache = TRANSFORMERS.reserve(needed, mixer)
                tokens = encoder if cache.over_encoder else length
                held[cache.over_encoder].append((cache.kind, batch * cache.bytes_for(tokens)))
        # A class with an encoder keeps its decoder's own layers first, then those across.
        assert held[False] + held[True] == [(kind, size) for n, kind, size in expected for _ in range(n)], case


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_plan_reserves_what_transformers_holds(row):
    spec = read(row["config"])
    for case, layers in row["cache"].items():
        batch, length, encoder = read_case(case)
        serving = resolve(
            spec,
            engine="transformers",
            dtype="bf16",
            seq_len=length,
            batch_size=batch,
            encoder_seq_len=encoder if spec.has_encoder else None,
        )
        reserved = plan_memory(spec, serving).kv_cache.reserved_bytes
        assert reserved == sum(n * size for n, _, size in layers), case


def read_case(text: str) -> tuple[int, int, int]:
    """(batch, length, encoder's length) of `3x1024` or `1x200/50`."""
    match = re.fullmatch(r"(\d+)x(\d+)(?:/(\d+))?", text)
    assert match
    batch, length, encoder = match.groups()
    return int(batch), int(length), int(encoder or length)


# Figures worked by hand from each published config.json: (row, bytes in bf16 that one more token needs while no
# window is full, parameters).
BY_HAND = {
    # 80 layers · 2 · 8 heads · 128 · 2 bytes; two tables of 32000 · 8192, and in each layer
    # 2 · 8192² + 2 · 1024 · 8192 + 3 · 28672 · 8192 + 2 · 8192.
    "llama": ("meta-llama/Llama-2-70b-hf", 80 * 4096, 2 * 262_144_000 + 80 * 855_654_400 + 8192),
    # 32 · 2 · 8 · 128 · 2; in each layer 2 · 4096² + 2 · 1024 · 4096 + 3 · 14336 · 4096 + 2 · 4096.
    "mistral": ("mistralai/Mistral-7B-v0.1", 131_072, 2 * 131_072_000 + 32 * 218_112_000 + 4096),
    # The layers of Mistral with a vocabulary of 128256.
    "llama 3": ("meta-llama/Llama-3.1-8B", 131_072, 2 * 128_256 * 4096 + 32 * 218_112_000 + 4096),
    # 32 · 2 · 5 · 64 · 2; a tied table of 49152 · 960, and in each layer 2 · 960² + 2 · 320 · 960 + 3 · 2560 · 960
    # + 2 · 960.
    "llama, small and tied": (
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        40_960,
        49_152 * 960 + 32 * (2 * 960**2 + 2 * 320 * 960 + 3 * 2560 * 960 + 2 * 960) + 960,
    ),
    # 24 · 2 · 2 · 64 · 2; a tied table of 151936 · 896, q with its bias 896² + 896, k and v 128 · 896 + 128 each.
    "qwen2, small and tied": (
        "Qwen/Qwen2.5-0.5B",
        12_288,
        151_936 * 896 + 24 * (2 * 896**2 + 896 + 2 * (128 * 896 + 128) + 3 * 4864 * 896 + 2 * 896) + 896,
    ),
    # The same attention; 8 experts of 3 · 14336 · 4096 and a router of 8 · 4096.
    "mixtral": (
        "mistralai/Mixtral-8x7B-v0.1",
        131_072,
        2 * 131_072_000 + 32 * (41_943_040 + 8 * 176_160_768 + 32_768 + 8192) + 4096,
    ),
    # 2 KV heads of 64 in 24 layers; biases of 896 + 2 · 128 on q, k and v.
    "qwen2": (
        "Qwen/Qwen2.5-0.5B",
        24 * 2 * 2 * 64 * 2,
        136_134_656 + 24 * (2 * 896**2 + 2 * 128 * 896 + 896 + 2 * 128 + 3 * 4864 * 896 + 2 * 896) + 896,
    ),
    # head_dim 128, though 1024 / 16 is 64: q and o are 2048 wide. Two norms of 128 for query and key.
    "qwen3": (
        "Qwen/Qwen3-0.6B",
        28 * 2 * 8 * 128 * 2,
        155_582_464 + 28 * (2 * 2048 * 1024 + 2 * 1024**2 + 2 * 128 + 3 * 3072 * 1024 + 2 * 1024) + 1024,
    ),
    # 2 KV heads of 256 in 12 of 48 layers, whose queries bring as wide a gate. 36 delta nets: q and k of 16 heads, v
    # and z of 32, all of 128; β and decay; 8192 channels of 4. 512 experts and a shared one of width 512.
    "qwen3_next": (
        "Qwen/Qwen3-Next-80B-A3B-Thinking",
        12 * 2 * 2 * 256 * 2,
        2 * 151_936 * 2048
        + 36 * (12_288 * 2048 + 2 * 32 * 2048 + 8192 * 4 + 2 * 32 + 128 + 2048 * 4096)
        + 12 * (2 * 4096 * 2048 + 2 * 512 * 2048 + 2048 * 4096 + 2 * 256)
        + 48 * (512 * 2048 + 513 * 3 * 512 * 2048 + 2048 + 2 * 2048)
        + 2048,
    ),
    # 10 KV heads of 128 in 40 layers; qkv is 7680 wide, gate and up together 35840.
    "phi3": (
        "microsoft/phi-4",
        40 * 2 * 10 * 128 * 2,
        2 * 513_802_240 + 40 * (7680 * 5120 + 5120**2 + 35840 * 5120 + 17920 * 5120 + 2 * 5120) + 5120,
    ),
    # One KV head of 256 in 18 layers; the table of 256000 · 2048 is the head.
    "gemma": (
        "google/gemma-2b-it",
        18 * 2 * 256 * 2,
        524_288_000 + 18 * (2 * 2048**2 + 2 * 256 * 2048 + 3 * 16384 * 2048 + 2 * 2048) + 2048,
    ),
    # 4 KV heads of 256 in 26 layers; q and o are 2048 wide, four norms a layer.
    "gemma2": (
        "google/gemma-2-2b",
        26 * 2 * 4 * 256 * 2,
        589_824_000 + 26 * (2 * 2048 * 2304 + 2 * 1024 * 2304 + 3 * 9216 * 2304 + 4 * 2304) + 2304,
    ),
    # 16 KV heads of 128 in 62 layers. Its text_config states no vocabulary: 262208, the class's.
    # Vision: 588 · 1152 + 1152 patches, 64² · 1152 positions, 27 layers, a norm; 1152 · 5376 + 1152 lead to the text.
    "gemma3": (
        "google/gemma-3-27b-it",
        62 * 2 * 16 * 128 * 2,
        (262_208 * 5376 + 62 * (2 * 4096 * 5376 + 2 * 2048 * 5376 + 2 * 128 + 3 * 21504 * 5376 + 4 * 5376) + 5376)
        + (588 * 1152 + 1152 + 4096 * 1152 + 2 * 1152 + 1152 * 5376 + 1152)
        + 27 * (4 * 1152**2 + 4 * 1152 + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152),
    ),
    # One KV head of 64 in 32 layers: multi-query. One LayerNorm a layer, no biases.
    "falcon, multi-query": (
        "tiiuae/falcon-7b",
        32 * 2 * 64 * 2,
        65_024 * 4544 + 32 * ((4544 + 128) * 4544 + 4544**2 + 2 * 18176 * 4544 + 2 * 4544) + 2 * 4544,
    ),
    # 8 KV heads of 64 in 60 layers are needed: qkv is (128 + 16) · 64 wide. Two LayerNorms a layer.
    "falcon, grouped": (
        "tiiuae/falcon-40b",
        60 * 2 * 8 * 64 * 2,
        65_024 * 8192 + 60 * (9216 * 8192 + 8192**2 + 2 * 32768 * 8192 + 4 * 8192) + 2 * 8192,
    ),
    # 12 h² + 13 h in each layer.
    "gpt2": ("gpt2", 12 * 2 * 768 * 2, (50_257 + 1024) * 768 + 12 * (12 * 768**2 + 13 * 768) + 2 * 768),
    "gpt_neox": (
        "EleutherAI/pythia-160m",
        12 * 2 * 768 * 2,
        2 * 50_304 * 768 + 12 * (12 * 768**2 + 13 * 768) + 2 * 768,
    ),
    # 24 · 2 · 8 · 64 · 2. Attention with biases and 64 sinks; 32 experts of 3 · 2880² + 3 · 2880; a biased router.
    "gpt_oss": (
        "openai/gpt-oss-20b",
        49_152,
        2 * 579_133_440
        + 24 * (2 * 4096 * 2880 + 4096 + 2880 + 2 * (512 * 2880 + 512) + 64)
        + 24 * (32 * (3 * 2880**2 + 3 * 2880) + 32 * 2880 + 32 + 2 * 2880)
        + 2880,
    ),
    # 27 · (512 + 64) · 2; queries are not compressed; one dense layer, then 64 experts and 2 shared.
    "deepseek_v2": (
        "deepseek-ai/DeepSeek-V2-Lite",
        31_104,
        2 * 102_400 * 2048
        + 27 * (3072 * 2048 + 576 * 2048 + 512 + 4096 * 512 + 2048 * 2048 + 2 * 2048)
        + 3 * 10_944 * 2048
        + 26 * (64 * 2048 + 66 * 3 * 1408 * 2048)
        + 2048,
    ),
    # 61 · (512 + 64) · 2. Attention as in DeepSeek-V3 §4.2; three dense layers, then 256 experts and one shared.
    "deepseek_v3": (
        "deepseek-ai/DeepSeek-V3",
        70_272,
        2 * 129_280 * 7168
        + 61 * (1536 * 7168 + 1536 + 24_576 * 1536 + 576 * 7168 + 512 + 32_768 * 512 + 7168 * 16_384 + 2 * 7168)
        + 3 * 3 * 18_432 * 7168
        + 58 * (256 * 7168 + 257 * 3 * 2048 * 7168)
        + 7168,
    ),
    # 128 heads of 128 beside a d_model of 1024; the encoder's 24 layers keep nothing, the decoder's cross-attention
    # keeps the encoder's tokens, not this one. 32 buckets of 128 heads on each side.
    "t5": (
        "google-t5/t5-11b",
        24 * 2 * 16_384 * 2,
        32_128 * 1024
        + 24 * (4 * 16_384 * 1024 + 2 * 65_536 * 1024 + 2 * 1024)
        + 24 * (8 * 16_384 * 1024 + 2 * 65_536 * 1024 + 3 * 1024)
        + 2 * (32 * 128 + 1024),
    ),
    # The encoder's layer has 4 h² + 8 h² + 13 h, the decoder's 4 h² + 6 h more; positions are 1024 + 2.
    "bart": (
        "facebook/bart-large",
        12 * 2 * 1024 * 2,
        50_265 * 1024 + 2 * (1026 * 1024 + 2 * 1024) + 12 * (12 + 16) * 1024**2 + 12 * (13 + 19) * 1024,
    ),
    # An encoder caches nothing. The pooler is h² + h.
    "bert": (
        "bert:BertModel",
        0,
        (30_522 + 512 + 2) * 768 + 2 * 768 + 12 * (12 * 768**2 + 13 * 768) + 768**2 + 768,
    ),
}


@pytest.mark.parametrize(("row_id", "token_bytes", "parameters"), BY_HAND.values(), ids=BY_HAND)
def test_figures_worked_by_hand(row_id, token_bytes, parameters):
    spec = read(ROWS[row_id]["config"])
    plan = plan_memory(spec, resolve(spec, dtype="bf16", seq_len=1))
    assert plan.kv_cache.bytes_per_token == token_bytes
    assert num_parameters(spec) == parameters


ACTIVE = {
    # Everything but 6 of 8 experts in 32 layers: "13B active parameters", Mixtral, §1.
    "mixtral": ("mistralai/Mixtral-8x7B-v0.1", 46_702_792_704 - 32 * 6 * 176_160_768),
    # Everything but 28 of 32 experts in 24 layers; the model card's 3.6B leave the token table out.
    "gpt_oss": ("openai/gpt-oss-20b", 20_914_757_184 - 24 * 28 * 24_891_840),
    # Everything but 502 of 512 experts in 48 layers; the model card's 3B are fewer by the tables of 0.31B each.
    "qwen3_next": ("Qwen/Qwen3-Next-80B-A3B-Thinking", 79_674_391_296 - 48 * 502 * 3 * 512 * 2048),
    # Everything but 248 of 256 experts in 58 layers: "37B activated", DeepSeek-V3, abstract.
    "deepseek_v3": ("deepseek-ai/DeepSeek-V3", 671_026_404_352 - 58 * 248 * 44_040_192),
}


@pytest.mark.parametrize(("row_id", "parameters"), ACTIVE.values(), ids=ACTIVE)
def test_a_token_passes_through_its_experts_only(row_id, parameters):
    assert active_parameters(read(ROWS[row_id]["config"])) == parameters


# gate, up and product; or in and out; or those of the experts that a token uses.
MLP_ACTIVATIONS = {
    "gated": ("meta-llama/Llama-2-70b-hf", 3 * 28_672),
    "plain": ("gpt2", 2 * 3072),
    "two of eight experts": ("mistralai/Mixtral-8x7B-v0.1", 2 * 3 * 14_336),
    "eight experts and a shared one": ("deepseek-ai/DeepSeek-V3", (8 + 1) * 3 * 2048),
    "ten experts and a shared one": ("Qwen/Qwen3-Next-80B-A3B-Thinking", (10 + 1) * 3 * 512),
    "gated T5": ("google/flan-t5-large", 3 * 2816),
}


@pytest.mark.parametrize(("row_id", "elements"), MLP_ACTIVATIONS.values(), ids=MLP_ACTIVATIONS)
def test_the_width_of_the_mlp(row_id, elements):
    assert read(ROWS[row_id]["config"]).layers[-1].mlp_activations == elements
