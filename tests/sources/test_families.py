"""Every family's reader against what transformers itself builds, and against figures worked by hand.

`tests/data/truth/families.jsonl` is written by `make_truth.py` beside it: parameters and cache tensors of the class
that each config names, built in bf16 on torch's meta device.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16
from kvplan.core.engines.transformers import TRANSFORMERS
from kvplan.core.errors import InputError, KvplanError, UnsupportedError
from kvplan.core.model import FullAttention, LatentAttention, ModelSpec, SlidingAttention, Source, Weight
from kvplan.core.plan import plan_memory
from kvplan.core.serving import resolve
from kvplan.core.weights import active_parameters, all_weights, num_parameters, sizes_by_part
from kvplan.sources.config import spec_from_config
from kvplan.sources.families.table import READERS

TRUTH = Path(__file__).parent.parent / "data" / "truth" / "families.jsonl"
ROWS = {row["id"]: row for row in map(json.loads, TRUTH.read_text().splitlines())}
REMOVED = object()


def read(config: dict[str, Any]) -> ModelSpec:
    return spec_from_config(config, id="test/model", source=Source(kind="config", location="tests"))


def changed(row_id: str, **changes: Any) -> dict[str, Any]:
    """A recorded config with some keys changed or removed; `vision_config__image_size` reaches into an object."""
    config = json.loads(json.dumps(ROWS[row_id]["config"]))
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = config
        for parent in parents:
            target = target[parent]
        if value is REMOVED:
            target.pop(key, None)
        else:
            target[key] = value
    return config


def weights_of(spec: ModelSpec) -> dict[str, Weight]:
    return {weight.name: weight for weight, _ in all_weights(spec)}


def head_beside_a_tied_config(row: dict[str, Any]) -> int:
    """The output head that T5 checkpoints hold and `from_pretrained` keeps, though the bare class builds none."""
    config = row["config"]
    if row["model_type"] != "t5" or config.get("tie_word_embeddings") is not False:
        return 0
    return config["vocab_size"] * config["d_model"]


# What transformers says.


def test_the_rows_cover_every_family():
    assert {row["model_type"] for row in ROWS.values()} == set(READERS) - {"RefinedWeb", "RefinedWebModel"}


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
    "gated T5": ("google/flan-t5-large", 3 * 2816),
}


@pytest.mark.parametrize(("row_id", "elements"), MLP_ACTIVATIONS.values(), ids=MLP_ACTIVATIONS)
def test_the_width_of_the_mlp(row_id, elements):
    assert read(ROWS[row_id]["config"]).layers[-1].mlp_activations == elements


# How the classes differ.


def test_transformers_caches_every_head_of_a_grouped_falcon():
    mixer = read(ROWS["tiiuae/falcon-40b"]["config"]).layers[0].mixers[0]
    assert isinstance(mixer, FullAttention)
    assert (mixer.num_kv_heads, mixer.transformers_kv_heads) == (8, 128)


# As published in 2023, before `falcon` was a model type of transformers: bias and alibi false.
REFINED_WEB = {
    "tiiuae/falcon-7b": {
        "model_type": "RefinedWebModel",
        "hidden_size": 4544,
        "n_head": 71,
        "n_layer": 32,
        "multi_query": True,
    },
    "tiiuae/falcon-40b": {
        "model_type": "RefinedWeb",
        "hidden_size": 8192,
        "n_head": 128,
        "n_head_kv": 8,
        "n_layer": 60,
    },
}


@pytest.mark.parametrize(("row_id", "config"), REFINED_WEB.items(), ids=REFINED_WEB)
def test_falcon_under_its_first_name_is_the_same_model(row_id, config):
    shared = {"architectures": ["RWForCausalLM"], "vocab_size": 65_024, "parallel_attn": True, "bias": False}
    first, later = read(config | shared), read(ROWS[row_id]["config"])
    assert (first.layers, first.layer_order) == (later.layers, later.layer_order)
    assert num_parameters(first) == num_parameters(later)


# What a row becomes with another class or flag: (row, changes, parameters more than the row's).
VARIANTS = {
    "a base class has no head": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaModel"]},
        -128_256 * 4096,
    ),
    "a classifier has two labels": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaForSequenceClassification"]},
        (2 - 128_256) * 4096,
    ),
    "or as many as it names": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaForTokenClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}},
        3 * 4096 + 3 - 128_256 * 4096,
    ),
    "num_labels before id2label": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaForSequenceClassification"], "num_labels": 5, "id2label": {"0": "a"}},
        (5 - 128_256) * 4096,
    ),
    "a span needs two scores": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaForQuestionAnswering"]},
        2 * 4096 + 2 - 128_256 * 4096,
    ),
    "no class means the language model": ("meta-llama/Llama-3.1-8B", {"architectures": None}, 0),
    "a tied head is not counted": (
        "meta-llama/Llama-3.1-8B",
        {"tie_word_embeddings": True},
        -128_256 * 4096,
    ),
    "gpt2 spelled the common way": (
        "gpt2",
        {"n_embd": REMOVED, "n_layer": REMOVED, "hidden_size": 768, "num_hidden_layers": 12},
        0,
    ),
    "gpt2 beside an encoder": (
        "gpt2",
        {"add_cross_attention": True},
        12 * (4 * 768**2 + 4 * 768 + 2 * 768),
    ),
    "q_lora_rank missing is the class's 1536": (
        "deepseek-ai/DeepSeek-V2-Lite",
        {"q_lora_rank": REMOVED},
        27 * (1536 * 2048 + 1536 + 3072 * 1536 - 3072 * 2048),
    ),
    "a siglip tower with its pooling head": (
        "google/gemma-3-27b-it",
        {"vision_config__vision_use_head": REMOVED},
        1152 + 4 * 1152**2 + 4 * 1152 + 2 * 1152 + 2 * 1152 * 4304 + 4304 + 1152,
    ),
    "gemma3 without a head": ("google/gemma-3-27b-it", {"architectures": ["Gemma3Model"]}, 0),
    "gemma3 untied": ("google/gemma-3-27b-it", {"tie_word_embeddings": False}, 262_208 * 5376),
    "T5's encoder alone": (
        "google-t5/t5-small",
        {"architectures": ["T5EncoderModel"]},
        -(6 * (8 * 512**2 + 2 * 2048 * 512 + 3 * 512) + 32 * 8 + 512),
    ),
    "T5 gated": (
        "google-t5/t5-small",
        {"feed_forward_proj": "gated-gelu", "is_gated_act": REMOVED},
        12 * 2048 * 512,
    ),
    "T5 with a head of its own": (
        "google-t5/t5-small",
        {"tie_word_embeddings": False},
        32_128 * 512,
    ),
    "BART untied has three tables and a head": (
        "bart:BartForConditionalGeneration",
        {"tie_word_embeddings": False},
        3 * 50_265 * 1024,
    ),
    "a BART classifier has three labels": (
        "facebook/bart-large",
        {"architectures": ["BartForSequenceClassification"]},
        1024**2 + 1024 + 3 * 1024 + 3,
    ),
    "BERT untied brings a second bias": (
        "google-bert/bert-large-uncased",
        {"tie_word_embeddings": False},
        30_522 * 1024 + 30_522,
    ),
    "BERT for pre-training": (
        "google-bert/bert-large-uncased",
        {"architectures": ["BertForPreTraining"]},
        1024**2 + 1024 + 2 * 1024 + 2,
    ),
    "BERT for two labels": (
        "bert:BertModel",
        {"architectures": ["BertForSequenceClassification"]},
        2 * 768 + 2,
    ),
    "BERT for two labels a token has no pooler": (
        "bert:BertModel",
        {"architectures": ["BertForTokenClassification"]},
        2 * 768 + 2 - 768**2 - 768,
    ),
    "BERT without a class is the bare model": ("bert:BertModel", {"architectures": None}, 0),
    "a decoder without a class is a language model": ("bert", {"architectures": None}, 0),
}


@pytest.mark.parametrize(("row_id", "changes", "more"), VARIANTS.values(), ids=VARIANTS)
def test_a_class_or_a_flag_changes_the_count(row_id, changes, more):
    assert num_parameters(read(changed(row_id, **changes))) == ROWS[row_id]["num_parameters"] + more


TIED = {
    "a tied language model": ("gpt2", {}, True),
    "an untied one": ("gpt2", {"tie_word_embeddings": False}, False),
    "a base class needs no head": ("gpt2", {"architectures": ["GPT2Model"]}, False),
    "a masked language model": ("bert:BertForMaskedLM", {}, True),
    "an embedding model": ("bert:BertModel", {}, False),
    "T5 for generation": ("google-t5/t5-small", {}, True),
    "T5's encoder": ("google-t5/t5-small", {"architectures": ["T5EncoderModel"]}, False),
}


@pytest.mark.parametrize(("row_id", "changes", "tied"), TIED.values(), ids=TIED)
def test_only_a_head_that_exists_is_the_token_table(row_id, changes, tied):
    assert read(changed(row_id, **changes)).tied_embeddings is tied


def windows(spec: ModelSpec) -> list[int | None]:
    """Each layer's window, None for a full layer."""
    mixers = [spec.layers[i].mixers[0] for i in spec.layer_order]
    return [mixer.window if isinstance(mixer, SlidingAttention) else None for mixer in mixers]


FULL, SLIDING = "full_attention", "sliding_attention"
WINDOWS = {
    "mistral, unstated": ("mistralai/Mistral-7B-v0.1", {"sliding_window": REMOVED}, [4096] * 32),
    "mistral, null": ("mistralai/Mistral-7B-v0.1", {"sliding_window": None}, [None] * 32),
    "llama with a window": ("meta-llama/Llama-3.1-8B", {"sliding_window": 512}, [512] * 32),
    "layer_types decide": (
        "mistralai/Mistral-7B-v0.1",
        {"layer_types": [FULL] * 31 + [SLIDING]},
        [None] * 31 + [4096],
    ),
    "qwen2 says no": ("Qwen/Qwen2.5-7B", {"use_sliding_window": False, "sliding_window": 4096}, [None] * 28),
    "qwen2 from a layer on": (
        "Qwen/Qwen2.5-7B",
        {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 26},
        [None] * 26 + [4096] * 2,
    ),
    "qwen2 with a window of null": (
        "Qwen/Qwen2.5-7B",
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
        [None] * 28,
    ),
    "gemma3 every third": (
        "google/gemma-3-1b-it",
        {"sliding_window_pattern": 3, "num_hidden_layers": 4},
        [512, 512, None, 512],
    ),
    "gemma3 looking both ways": (
        "google/gemma-3-1b-it",
        {"use_bidirectional_attention": True, "num_hidden_layers": 1},
        [512 // 2 + 1],
    ),
    "gpt-oss alternates": ("openai/gpt-oss-20b", {"layer_types": REMOVED}, [128, None] * 12),
}


@pytest.mark.parametrize(("row_id", "changes", "expected"), WINDOWS.values(), ids=WINDOWS)
def test_which_layers_slide(row_id, changes, expected):
    assert windows(read(changed(row_id, **changes))) == expected


HEADS = {
    # (row, changes, KV heads, head_dim): what the class makes of keys that are missing or null.
    "llama, null": ("meta-llama/Llama-3.1-8B", {"num_key_value_heads": None}, 32, 128),
    "llama, missing": ("meta-llama/Llama-3.1-8B", {"num_key_value_heads": REMOVED, "head_dim": None}, 32, 128),
    "mistral, missing": ("mistralai/Mistral-7B-v0.1", {"num_key_value_heads": REMOVED}, 8, 128),
    "qwen2, null": ("Qwen/Qwen2-7B", {"num_key_value_heads": None}, 28, 128),
    "qwen3, missing": ("Qwen/Qwen3-32B", {"num_key_value_heads": REMOVED, "head_dim": REMOVED}, 32, 128),
    "gemma, missing": ("gemma", {"num_key_value_heads": REMOVED, "head_dim": REMOVED}, 16, 256),
    "gpt-oss, missing": ("openai/gpt-oss-20b", {"num_key_value_heads": REMOVED, "head_dim": REMOVED}, 8, 64),
    "falcon, neither": ("tiiuae/falcon-7b", {"multi_query": False, "num_kv_heads": REMOVED}, 71, 64),
}


@pytest.mark.parametrize(("row_id", "changes", "kv_heads", "head_dim"), HEADS.values(), ids=HEADS)
def test_heads_that_the_config_leaves_out(row_id, changes, kv_heads, head_dim):
    config = changed(row_id, **changes)
    if row_id == "Qwen/Qwen3-32B":
        config["num_attention_heads"] = 32
    mixer = read(config).layers[0].mixers[0]
    assert isinstance(mixer, FullAttention | SlidingAttention)
    assert (mixer.num_kv_heads, mixer.key_dim) == (kv_heads, head_dim)


def test_an_encoder_runs_once_and_keeps_nothing():
    spec = read(ROWS["google-t5/t5-small"]["config"])
    kinds = [tuple(mixer.kind for mixer in spec.layers[i].mixers) for i in spec.layer_order]
    assert kinds == [("encoder",)] * 6 + [("full", "cross")] * 6


def test_expanded_heads_of_latent_attention_differ_from_its_cache():
    mixer = read(ROWS["deepseek-ai/DeepSeek-V3"]["config"]).layers[0].mixers[0]
    assert mixer == LatentAttention(num_heads=128, latent_dim=512, rope_dim=64, key_dim=192, value_dim=128)


def test_a_nested_config_says_which_facts_are_the_class_defaults():
    facts = {fact.key: fact for fact in read(ROWS["google/gemma-3-27b-it"]["config"]).facts}
    assert facts["text_config.vocab_size"].value == 262_208
    assert facts["text_config.vocab_size"].origin == "class default (transformers 5.23)"
    assert facts["text_config.hidden_size"].origin == "config.json"


# How tensor parallelism cuts the weights.


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_units_divide_the_axis_that_is_cut(row):
    for weight, _ in all_weights(read(row["config"])):
        if weight.split is not None:
            assert weight.shape[weight.split.axis] % weight.split.units == 0, weight.name


RANK_SHAPES = {
    # (row, tp, tensor, shape on a rank)
    "query heads": ("meta-llama/Llama-2-70b-hf", 8, "self_attn.q_proj.weight", (1024, 8192)),
    "replicated KV heads": ("meta-llama/Llama-2-70b-hf", 16, "self_attn.k_proj.weight", (128, 8192)),
    "a multi-query head": ("tiiuae/falcon-7b", 8, "self_attention.query_key_value.weight[k]", (64, 4544)),
    "a latent is whole": ("deepseek-ai/DeepSeek-V3", 8, "self_attn.kv_a_proj_with_mqa.weight", (576, 7168)),
    "its expansion is not": ("deepseek-ai/DeepSeek-V3", 8, "self_attn.kv_b_proj.weight", (4096, 512)),
    "an expert's gate and up": ("openai/gpt-oss-20b", 8, "mlp.experts.gate_up_proj", (720, 2880)),
    "sinks": ("openai/gpt-oss-20b", 8, "self_attn.sinks", (8,)),
    "a router is whole": ("mistralai/Mixtral-8x7B-v0.1", 8, "block_sparse_moe.gate.weight", (8, 4096)),
    "positions are whole": ("gpt2", 2, "wpe.weight", (1024, 768)),
    "relative positions": (
        "google-t5/t5-11b",
        8,
        "layer.0.SelfAttention.relative_attention_bias.weight",
        (32, 16),
    ),
    "a bias after the sum is whole": ("bert:BertModel", 4, "output.dense.bias", (768,)),
}


@pytest.mark.parametrize(("row_id", "tp", "name", "shape"), RANK_SHAPES.values(), ids=RANK_SHAPES)
def test_the_shape_on_one_rank(row_id, tp, name, shape):
    assert weights_of(read(ROWS[row_id]["config"]))[name].rank_shape(tp) == shape


def test_experts_are_what_mxfp4_replaces():
    spec = read(ROWS["openai/gpt-oss-20b"]["config"])
    experts = {weight.name: weight for weight, _ in all_weights(spec) if weight.part == "experts"}
    assert {name for name, weight in experts.items() if weight.linear} == {
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    }
    assert experts["mlp.experts.gate_up_proj"].shape == (2 * 2880, 2880)
    assert {(weight.copies, weight.active_copies) for weight in experts.values()} == {(32, 4)}


# What cannot be read.

# Keys that published configs of a family always state.
NEEDED = {
    "meta-llama/Llama-3.1-8B": "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size",
    "mistralai/Mixtral-8x7B-v0.1": "hidden_size num_local_experts num_experts_per_tok",
    "gemma2": "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size",
    "google/gemma-3-1b-it": "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size",
    "google/gemma-3-27b-it": "text_config vision_config",
    "tiiuae/falcon-7b": "hidden_size num_hidden_layers num_attention_heads vocab_size",
    "gpt2": "n_embd n_layer n_head n_positions vocab_size",
    "EleutherAI/pythia-160m": "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size",
    "openai/gpt-oss-20b": "hidden_size num_local_experts num_experts_per_tok vocab_size",
    "deepseek-ai/DeepSeek-V3": "hidden_size kv_lora_rank qk_rope_head_dim n_routed_experts moe_intermediate_size",
    "google-t5/t5-small": "d_model num_layers num_heads d_ff vocab_size",
    "facebook/bart-large": "d_model decoder_layers encoder_ffn_dim decoder_attention_heads",
    "bert:BertModel": "hidden_size num_hidden_layers max_position_embeddings intermediate_size vocab_size",
}


@pytest.mark.parametrize(
    ("row_id", "key"),
    [pytest.param(row_id, key, id=f"{row_id} {key}") for row_id, keys in NEEDED.items() for key in keys.split()],
)
def test_a_missing_key_is_an_error_that_names_it(row_id, key):
    with pytest.raises(InputError, match=f"`{key}` is missing"):
        read(changed(row_id, **{key: REMOVED}))


WRONG = {
    "heads do not divide": ("meta-llama/Llama-3.1-8B", {"num_attention_heads": 24}, "num_attention_heads"),
    "KV heads do not divide": ("meta-llama/Llama-3.1-8B", {"num_key_value_heads": 5}, "num_key_value_heads"),
    "more heads than width": ("Qwen/Qwen2-7B", {"num_attention_heads": 7000}, "num_attention_heads"),
    "a head_dim of 0": ("Qwen/Qwen3-8B", {"head_dim": 0}, "head_dim"),
    "no layers": ("Qwen/Qwen3-8B", {"num_hidden_layers": 0}, "num_hidden_layers"),
    "layers beyond reason": ("Qwen/Qwen3-8B", {"num_hidden_layers": 2**40}, "num_hidden_layers"),
    "a window of 0": ("mistralai/Mistral-7B-v0.1", {"sliding_window": 0}, "sliding_window"),
    "a null that the class refuses": (
        "mistralai/Mistral-7B-v0.1",
        {"num_key_value_heads": None},
        "num_key_value_heads",
    ),
    "a null head_dim of gemma": ("gemma", {"head_dim": None}, "head_dim"),
    "sliding layers without a window": (
        "mistralai/Mistral-7B-v0.1",
        {"layer_types": [SLIDING] * 32, "sliding_window": None},
        "sliding_window",
    ),
    "qwen's sliding layers with windows off": (
        "Qwen/Qwen2.5-7B",
        {"layer_types": [SLIDING] * 28},
        "use_sliding_window",
    ),
    "gemma2 without a window": ("gemma2", {"sliding_window": None}, "sliding_window"),
    "too few layer_types": ("Qwen/Qwen3-8B", {"layer_types": [FULL] * 3}, "layer_types"),
    "more experts used than there are": (
        "mistralai/Mixtral-8x7B-v0.1",
        {"num_experts_per_tok": 9},
        "num_experts_per_tok",
    ),
    "queries compressed to nothing": ("deepseek-ai/DeepSeek-V3", {"q_lora_rank": 0}, "q_lora_rank"),
    "shared experts of null": ("deepseek-ai/DeepSeek-V3", {"n_shared_experts": None}, "n_shared_experts"),
    "falcon's heads": ("tiiuae/falcon-7b", {"num_attention_heads": 70}, "num_attention_heads"),
    "KV heads of a falcon that has none": (
        "tiiuae/falcon-7b",
        {"multi_query": False, "num_kv_heads": 2},
        "num_kv_heads",
    ),
    "multi_query of null": ("tiiuae/falcon-7b", {"multi_query": None}, "multi_query"),
    "gpt2's heads": ("gpt2", {"n_head": 7}, "n_head"),
    "bert's heads": ("bert:BertModel", {"num_attention_heads": 7}, "num_attention_heads"),
    "an encoder across": ("bert:BertModel", {"add_cross_attention": True}, "add_cross_attention"),
    "a patch wider than the image": (
        "google/gemma-3-27b-it",
        {"vision_config__patch_size": 1000},
        "vision_config.patch_size",
    ),
    "a nested heads error": (
        "google/gemma-3-27b-it",
        {"text_config__num_attention_heads": 31},
        "text_config.num_key_value_heads",
    ),
    "an activation that T5 does not have": (
        "google-t5/t5-small",
        {"feed_forward_proj": "swish-gelu"},
        "feed_forward_proj",
    ),
}


@pytest.mark.parametrize(("row_id", "changes", "key"), WRONG.values(), ids=WRONG)
def test_an_impossible_value_is_an_error_that_names_its_key(row_id, changes, key):
    with pytest.raises(InputError, match=re.escape(key)) as caught:
        read(changed(row_id, **changes))
    assert caught.value.hint


UNKNOWN = {
    "another family's class": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["XverseForCausalLM"]},
        "XverseForCausalLM",
    ),
    "a head of its own": ("Qwen/Qwen2-7B", {"architectures": ["Qwen2ForRewardModel"]}, "Qwen2ForRewardModel"),
    "two heads": ("gpt2", {"architectures": ["GPT2DoubleHeadsModel"]}, "GPT2DoubleHeadsModel"),
    "the text class of a model that sees": (
        "google/gemma-3-27b-it",
        {"architectures": ["Gemma3ForCausalLM"]},
        "Gemma3ForCausalLM",
    ),
    "a T5 that nobody wrote": ("google-t5/t5-small", {"architectures": ["T5ForCausalLM"]}, "T5ForCausalLM"),
    "a BART that nobody wrote": ("facebook/bart-large", {"architectures": ["BartForAudio"]}, "BartForAudio"),
    "a BERT that nobody wrote": ("bert:BertModel", {"architectures": ["BertForAudio"]}, "BertForAudio"),
    "another tower": (
        "google/gemma-3-27b-it",
        {"vision_config__model_type": "clip_vision_model"},
        "clip_vision_model",
    ),
    "another kind of layer": (
        "Qwen/Qwen3-8B",
        {"layer_types": ["chunked_attention"] * 36},
        "chunked_attention",
    ),
}


@pytest.mark.parametrize(("row_id", "changes", "name"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_refused_by_name(row_id, changes, name):
    with pytest.raises(UnsupportedError, match=name) as caught:
        read(changed(row_id, **changes))
    assert caught.value.exit_code == 3


STRANGE = (0, -1, 3, 2**47, 2**60, 1.5, "x", None, True, [], ["a"], {}, {"hidden_size": 0}, REMOVED)


@pytest.mark.parametrize("model_type", sorted(set(READERS) - {"RefinedWeb", "RefinedWebModel"}))
def test_a_strange_value_is_read_or_refused_but_never_a_traceback(model_type):
    row_id, row = next((key, row) for key, row in ROWS.items() if row["model_type"] == model_type)
    keys = (*row["config"], "head_dim", "num_key_value_heads", "sliding_window", "layer_types", "num_labels")
    refusals = [refusal(changed(row_id, **{key: value})) for key in keys for value in STRANGE]
    assert all(error.exit_code in (2, 3) and error.hint for error in refusals if error)


def refusal(config: dict[str, Any]) -> KvplanError | None:
    """Why kvplan cannot plan with a config, None where it can."""
    try:
        spec = read(config)
        plan_memory(spec, resolve(spec, seq_len=8, tp=2))
    except KvplanError as error:
        return error
    return None
