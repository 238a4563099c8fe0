"""What the readers refuse: missing keys, impossible values, classes and layers that nobody knows."""

import re
from typing import Any

import pytest
from family_rows import FULL, REMOVED, ROWS, SLIDING, changed, read

from kvplan.core.errors import InputError, KvplanError, UnsupportedError
from kvplan.core.plan import plan_memory
from kvplan.core.serving import resolve
from kvplan.sources.families.table import READERS
from tests.data.truth.type_rows import DEFAULTS, default_config
from tests.data.truth.type_rows import changed as with_changes

# Keys that published configs of a family always state at their top: a file without them is broken.
NEEDED = {
    "meta-llama/Llama-3.1-8B": "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size",
    "mistralai/Mixtral-8x7B-v0.1": "hidden_size intermediate_size",
    "gemma2": "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size",
    "google/gemma-3-1b-it": "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size",
    "tiiuae/falcon-7b": "hidden_size num_hidden_layers num_attention_heads vocab_size",
    "gpt2": "n_embd n_layer n_head vocab_size",
    "EleutherAI/pythia-160m": "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size",
    "Qwen/Qwen3-Next-80B-A3B-Thinking": "hidden_size num_hidden_layers num_attention_heads vocab_size",
    "openai/gpt-oss-20b": "hidden_size vocab_size",
    "deepseek-ai/DeepSeek-V3": "hidden_size num_hidden_layers num_attention_heads",
    "google-t5/t5-small": "d_model num_layers num_heads d_ff vocab_size",
    "facebook/bart-large": "d_model decoder_layers encoder_ffn_dim decoder_attention_heads",
    "bert:BertModel": "hidden_size num_hidden_layers intermediate_size vocab_size",
}


@pytest.mark.parametrize(
    ("row_id", "key"),
    [pytest.param(row_id, key, id=f"{row_id} {key}") for row_id, keys in NEEDED.items() for key in keys.split()],
)
def test_a_missing_key_is_an_error_that_names_it(row_id, key):
    with pytest.raises(InputError, match=f"`{key}` is missing"):
        read(changed(row_id, **{key: REMOVED}))


# What a class fills in where the file is silent: (row, key, value); transformers 5.23, models/*/configuration_*.py.
LEFT_TO_THE_CLASS = [
    ("mistralai/Mixtral-8x7B-v0.1", "num_local_experts", 8),
    ("mistralai/Mixtral-8x7B-v0.1", "num_experts_per_tok", 2),
    ("gpt2", "n_positions", 1024),
    ("Qwen/Qwen3-Next-80B-A3B-Thinking", "linear_num_value_heads", 32),
    ("Qwen/Qwen3-Next-80B-A3B-Thinking", "num_experts", 512),
    ("openai/gpt-oss-20b", "num_experts_per_tok", 4),
    ("deepseek-ai/DeepSeek-V3", "kv_lora_rank", 512),
    ("deepseek-ai/DeepSeek-V3", "n_routed_experts", 256),
    ("bert:BertModel", "max_position_embeddings", 512),
]


@pytest.mark.parametrize(("row_id", "key", "value"), LEFT_TO_THE_CLASS)
def test_a_key_that_is_left_to_the_class_is_told(row_id, key, value):
    facts = {fact.key: fact for fact in read(changed(row_id, **{key: REMOVED})).facts}
    assert (facts[key].value, facts[key].origin) == (value, "class default (transformers 5.23)")


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
    "key heads that do not divide the states": (
        "Qwen/Qwen3-Next-80B-A3B-Thinking",
        {"linear_num_key_heads": 12},
        "linear_num_key_heads",
    ),
    "a full layer in every null": (
        "Qwen/Qwen3-Next-80B-A3B-Thinking",
        {"full_attention_interval": None},
        "full_attention_interval",
    ),
    "a dense layer by name": (
        "Qwen/Qwen3-Next-80B-A3B-Thinking",
        {"mlp_only_layers": ["first"]},
        "mlp_only_layers",
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
    "a head of its own": ("Qwen/Qwen2-7B", {"architectures": ["Qwen2ForCausalLMEagle3"]}, "Qwen2ForCausalLMEagle3"),
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
    "a sliding layer among recurrent ones": (
        "Qwen/Qwen3-Next-80B-A3B-Thinking",
        {"layer_types": [SLIDING] * 48},
        "sliding_attention",
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


OFTEN_UNSTATED = ("head_dim", "num_key_value_heads", "sliding_window", "layer_types", "num_labels")


@pytest.mark.parametrize("model_type", sorted({row["model_type"] for row in ROWS.values()}))
def test_a_strange_value_is_read_or_refused_but_never_a_traceback(model_type):
    row_id, row = next((key, row) for key, row in ROWS.items() if row["model_type"] == model_type)
    refusals = [
        refusal(changed(row_id, **{key: value})) for key in (*row["config"], *OFTEN_UNSTATED) for value in STRANGE
    ]
    assert all(error.exit_code in (2, 3) and error.hint for error in refusals if error)


@pytest.mark.parametrize(
    "model_type", sorted((READERS.keys() & DEFAULTS) - {row["model_type"] for row in ROWS.values()})
)
def test_a_strange_value_of_any_type_is_read_or_refused(model_type):
    """One strange value for each key, another for each type and key, nested keys too."""
    config = default_config(model_type)
    paths = [*config, *OFTEN_UNSTATED]
    paths += [f"{key}.{inner}" for key, value in config.items() if isinstance(value, dict) for inner in value]
    for i, path in enumerate(paths):
        for j in range(2):
            value = STRANGE[(i * 5 + j * 7 + len(model_type)) % len(STRANGE)]
            error = refusal(with_changes(config, {path: "left out" if value is REMOVED else value}))
            assert error is None or (error.exit_code in (2, 3) and error.hint), (path, value)


def refusal(config: dict[str, Any]) -> KvplanError | None:
    """Why kvplan cannot plan with a config, None where it can."""
    try:
        spec = read(config)
        plan_memory(spec, resolve(spec, seq_len=8, tp=2))
    except KvplanError as error:
        return error
    return None
