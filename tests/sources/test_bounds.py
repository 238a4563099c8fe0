"""`--assume full`: an architecture that is not understood, between two bounds."""

import json

import pytest

from kvplan import estimate, load_model
from kvplan.core.errors import InputError, KvplanError, UnsupportedError
from kvplan.core.model import Source
from kvplan.core.weights import num_parameters
from kvplan.sources import catalog
from kvplan.sources.config import spec_from_raw
from tests.command import run

ACME = {
    "model_type": "acme_lm",
    "architectures": ["AcmeForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 14336,
    "vocab_size": 128_000,
    "sliding_window": 4096,
    "torch_dtype": "bfloat16",
}
SOURCE = Source(kind="config", location="tests")
ITS_LAYERS_ARE_ONE = ("albert/albert-base-v1",)
"""The bounds take it that each layer has weights of its own, and say so."""


def assumed(config, **changes):
    return spec_from_raw({**config, **changes}, id="test/model", source=SOURCE, assume="full")


def test_an_unknown_type_is_named_with_the_way_on(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(ACME))
    with pytest.raises(UnsupportedError, match="`acme_lm`") as caught:
        load_model(tmp_path)
    assert "`--assume full` gives bounds" in caught.value.hint


def test_bounds_worked_by_hand():
    plan = estimate(assumed(ACME), seq_len=32_768)
    least, token = plan.bounds, 2 * 8 * 128 * 2
    attention = 2 * 4096**2 + 2 * 1024 * 4096
    # One table, attention without biases, an MLP of two matrices of half the width.
    assert least.num_parameters == 128_000 * 4096 + 32 * (attention + 2 * 7168 * 4096)
    assert least.kv_cache_bytes == 32 * 4096 * token
    assert plan.kv_cache.reserved_bytes == 32 * 32_768 * token
    # Two tables with a bias and positions, gates, biases, four norms with offsets a layer, three matrices.
    gate = 4096 * 4096 + 4096
    layer = attention + 4096 + 2 * 1024 + 4096 + gate + 3 * 14_336 * 4096 + 2 * 14_336 + 4096 + 8 * 4096
    assert plan.weights.num_parameters == 2 * 128_000 * 4096 + 128_000 + 4096 + 32 * layer + 2 * 4096
    assert plan.evidence["weights"] == plan.evidence["kv_cache"] == "assumed"
    assert [warning.code for warning in plan.warnings] == ["architecture-assumed"]
    assert "`sliding_window` is stated: between none and all of the layers may slide" in least.reasons


@pytest.mark.parametrize(
    ("changes", "cache_bytes", "reason"),
    [
        ({"sliding_window": None, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 100 * 32 * 576 * 2, "`kv_lora_rank`"),
        ({"sliding_window": None, "ssm_state": 16}, 0, "`ssm_state`"),
        ({"sliding_window": None, "num_kv_shared_layers": 4}, 0, "`num_kv_shared_layers`"),
        ({"sliding_window": None, "layer_types": ["full_attention", "gla"] * 16}, 0, "`layer_types`"),
        ({"sliding_window": None, "architectures": ["AcmeModel"]}, 0, "an encoder keeps no cache"),
        ({"sliding_window": None}, 100 * 32 * 4096, "biases or none"),
    ],
)
def test_what_a_config_hints_at_is_the_least(changes, cache_bytes, reason):
    plan = estimate(assumed(ACME, **changes), seq_len=100)
    assert plan.bounds.kv_cache_bytes == cache_bytes
    assert any(reason in each for each in plan.bounds.reasons)
    assert plan.kv_cache.reserved_bytes >= 100 * 32 * 4096


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"hidden_size": None}, InputError, "hidden_size"),
        ({"intermediate_size": None}, InputError, "intermediate_size"),
        ({"num_decoder_layers": 4}, UnsupportedError, "encoder-decoder"),
        ({"is_encoder_decoder": True}, UnsupportedError, "encoder-decoder"),
        ({"block_configs": [{}]}, UnsupportedError, "one by one"),
        ({"vision_config": {"hidden_size": 64}}, UnsupportedError, "vision_config"),
    ],
)
def test_what_cannot_be_bounded_is_refused(changes, error, word):
    with pytest.raises(error, match=word) as caught:
        assumed(ACME, **changes)
    assert caught.value.hint


def test_a_known_architecture_needs_no_bounds():
    spec = load_model("meta-llama/Llama-2-70b", assume="full")
    assert spec.assumed is None
    with pytest.raises(InputError, match="`half` is nothing that can be assumed"):
        spec_from_raw(ACME, id="x", source=SOURCE, assume="half")


def test_an_option_that_is_not_understood_is_bounded_as_well():
    config = ACME | {"model_type": "qwen3", "layer_types": ["chunked_attention"] * 32}
    del config["architectures"]
    spec = assumed(config | {"architectures": ["Qwen3ForCausalLM"]})
    assert "chunked_attention" in spec.assumed.reasons[0]


def test_every_model_of_the_catalog_lies_between_its_bounds():
    """Each is read as if its type were unknown; what is refused is no wrong number."""
    bounded = 0
    for entry in catalog.entries():
        config = {**entry.config, **(entry.about.get("set") or {})}
        unknown = {key: value for key, value in config.items() if key != "quantization_config"}
        try:
            between = assumed(unknown, model_type="unheard_of")
        except KvplanError:
            continue
        if entry.id in ITS_LAYERS_ARE_ONE:
            continue
        real = catalog.spec_of(entry)
        assert num_parameters(between.assumed.least) <= num_parameters(real) <= num_parameters(between), entry.id
        for seq_len in (100, 20_000):
            inside = estimate(real, seq_len=seq_len, dtype="bf16").kv_cache.needed_bytes
            plan = estimate(between, seq_len=seq_len, dtype="bf16")
            assert plan.bounds.kv_cache_bytes <= inside <= plan.kv_cache.needed_bytes, (entry.id, seq_len)
        bounded += 1
    assert bounded >= 390


def test_the_command_says_both_bounds(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(ACME))
    refused = run("estimate", str(tmp_path))
    assert (refused.exit_code, refused.stdout) == (3, "")
    result = run("estimate", str(tmp_path), "--assume", "full", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["bounds"]["kv_cache_bytes"] == {"least": 32 * 4096 * 4096, "most": 32 * 4096 * 4096}
    assert document["bounds"]["weights_bytes"]["most"] == document["weights"]["total_bytes"]
    page = run("estimate", str(tmp_path), "--assume", "full").stdout
    assert "Not understood: between two bounds" in page
