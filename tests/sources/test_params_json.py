"""The original formats, and that they give the very plan of the config.json of the same model."""

import pytest

from kvplan import estimate
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.model import Source
from kvplan.sources import params_json
from kvplan.sources.catalog import load
from kvplan.sources.config import spec_from_raw
from kvplan.sources.params_json import is_params


def load_model_of(params):
    return spec_from_raw(params, id="x", source=Source(kind="params", location="tests"))


def config_from_params(params):
    return params_json.config_from_params(params)[0]


# meta-llama/Llama-2-70b: params.json as Meta ships it.
LLAMA_2_70B = {
    "dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80,
    "norm_eps": 1e-05, "vocab_size": -1,
}  # fmt: skip

# Widths of the feed-forward part by hand: ⅔ · 4 · dim, times the multiplier, up to a multiple.
WIDTHS = {
    "llama-2-7b": (4096, 256, None, 11008),  # int(10922.67) = 10922, up to 43 · 256
    "llama-2-13b": (5120, 256, None, 13824),  # int(13653.3), up to 54 · 256
    "llama-2-70b": (8192, 4096, 1.3, 28672),  # int(1.3 · 21845) = 28398, up to 7 · 4096
    "llama-3-8b": (4096, 1024, 1.3, 14336),  # int(1.3 · 10922) = 14198, up to 14 · 1024
}


@pytest.mark.parametrize(("dim", "multiple", "multiplier", "width"), WIDTHS.values(), ids=WIDTHS)
def test_the_width_that_meta_derives(dim, multiple, multiplier, width):
    params = {**LLAMA_2_70B, "dim": dim, "multiple_of": multiple, "vocab_size": 32000}
    params["ffn_dim_multiplier"] = multiplier
    assert config_from_params(params)["intermediate_size"] == width


@pytest.mark.parametrize(
    ("original", "converted"),
    [
        ("meta-llama/Llama-2-7b", "meta-llama/Llama-2-7b-hf"),
        ("meta-llama/Llama-2-13b", "meta-llama/Llama-2-13b-hf"),
        ("meta-llama/Llama-2-70b", "meta-llama/Llama-2-70b-hf"),
    ],
)
def test_both_formats_of_a_model_give_the_same_plan(original, converted):
    ours, theirs = (estimate(name, seq_len=4096, dtype="bf16", tp=2) for name in (original, converted))
    assert ours.weights == theirs.weights
    assert ours.kv_cache == theirs.kv_cache
    assert ours.per_gpu == theirs.per_gpu


def test_the_vocabulary_is_the_tokenizers_and_never_guessed():
    with pytest.raises(InputError) as caught:
        config_from_params(LLAMA_2_70B)
    assert "`vocab_size` is -1" in str(caught.value)
    assert "--set vocab_size=32000" in caught.value.hint


@pytest.mark.parametrize("key", ["dim", "n_heads", "n_layers", "multiple_of", "vocab_size"])
def test_a_missing_key_is_named(key):
    params = {k: v for k, v in {**LLAMA_2_70B, "vocab_size": 32000}.items() if k != key}
    with pytest.raises(InputError, match=f"`{key}` is missing"):
        config_from_params(params)


def test_mistral_states_its_width_and_its_window():
    # mistralai/Mistral-7B-v0.1, params.json
    params = {
        "dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
        "norm_eps": 1e-05, "sliding_window": 4096, "vocab_size": 32000,
    }  # fmt: skip
    config = config_from_params(params)
    assert config["model_type"] == "mistral"
    assert config["sliding_window"] == 4096
    assert config["intermediate_size"] == 14336
    unwindowed = config_from_params({k: v for k, v in params.items() if k != "sliding_window"})
    assert unwindowed["sliding_window"] is None


def test_mixtral_states_its_experts():
    params = {
        "dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
        "vocab_size": 32000, "moe": {"num_experts_per_tok": 2, "num_experts": 8},
    }  # fmt: skip
    config = config_from_params(params)
    assert (config["model_type"], config["num_local_experts"], config["num_experts_per_tok"]) == ("mixtral", 8, 2)


# Keys of newer files in these formats: llama-models models/llama4/args.py and llama3/args.py; mistral-inference.
BEYOND = [
    "kv_lora_rank", "vision_encoder", "index_n_heads", "layer_types", "moe_args", "vision_args", "ffn_exp",
    "attention_chunk_size", "use_qk_norm", "nope_layer_interval", "quantization_args", "lora_args",
    "vision_num_cross_attention_layers", "llama_4_scaling", "something_new",
]  # fmt: skip


@pytest.mark.parametrize("key", BEYOND)
def test_a_newer_architecture_is_refused_by_name(key):
    with pytest.raises(UnsupportedError, match=f"`{key}`"):
        config_from_params({**LLAMA_2_70B, "vocab_size": 32000, key: 1})


def test_keys_that_change_no_shape_are_no_obstacle():
    plain = {**LLAMA_2_70B, "vocab_size": 32000}
    more = {"rope_theta": 500000.0, "use_scaled_rope": True, "use_qk_norm": False, "vision_args": None}
    assert config_from_params(plain | more) == config_from_params(plain)


def test_only_stated_facts_are_called_the_files():
    model = load_model_of({**LLAMA_2_70B, "vocab_size": 32000})
    origins = {fact.key: fact.origin for fact in model.facts}
    assert origins["num_key_value_heads"] == "params.json"
    assert origins["tie_word_embeddings"].startswith("class default")


def test_which_files_are_in_an_original_format():
    assert is_params(LLAMA_2_70B)
    assert not is_params({"model_type": "gpt2", "n_layers": 12})
    assert load("meta-llama/Llama-2-70b") is not None


def test_another_architecture_is_named_before_a_key_that_it_lacks():
    # DeepSeek's own inference configs: no `multiple_of`, but that is not what is wrong.
    with pytest.raises(UnsupportedError, match="`kv_lora_rank`"):
        config_from_params({"dim": 2048, "kv_lora_rank": 512, "n_layers": 27, "n_heads": 16, "vocab_size": 102400})
