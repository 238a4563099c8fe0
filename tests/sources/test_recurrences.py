"""Which recurrence a linear layer is, and how many channels its convolution has: engines size both by the kind."""

import json
from pathlib import Path

import pytest
from family_rows import read
from gguf_writer import gguf_bytes

from kvplan import load_model
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.mixers import LinearAttention
from kvplan.core.model import ModelSpec
from kvplan.sources.families.table import READERS
from tests.data.truth.type_check import load_rows, spec_of

DATA = Path(__file__).parent.parent / "data"
ROWS = {model_type: rows for model_type, rows in load_rows().items() if model_type in READERS}
REMOTE = {
    row["name"]: row["config"] for row in map(json.loads, (DATA / "remote_configs.jsonl").read_text().splitlines())
}
GGUF = json.loads((DATA / "gguf" / "models.json").read_text())
VOCABULARY = {"tokenizer.ggml.tokens": [f"<{i}>" for i in range(5000)], "tokenizer.ggml.scores": list(range(5000))}

KINDS = {
    "mamba1": {"mamba", "falcon_mamba", "jamba", "zamba"},
    "mamba2": {"mamba2", "bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "nemo_speechlm", "zamba2"},
    "gated_delta": {
        *("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "olmo_hybrid"),
        *("minicpm_ocr", "minicpmv4_6", "minicpmv4_7"),
    },
    "kda": {"kimi_linear", "bailing_hybrid", "glm5_next"},
    "lightning": {"minimax"},
    "rg_lru": {"recurrent_gemma"},
    "rwkv": {"rwkv"},
    "xlstm": {"xlstm"},
}
REMOTE_KINDS = {"MiniMax-Text-01": "lightning", "MiniMax-M1": "lightning", "RWKV-5-World-1B5": "rwkv"}
GGUF_KINDS = {
    "mamba1": {"mamba", "jamba"},
    "mamba2": {"mamba2", "falcon-h1", "granitehybrid", "nemotron_h", "nemotron_h_moe"},
    "gated_delta": {"qwen3next", "qwen35", "qwen35moe"},
    "kda": {"kimi-linear"},
}

CHANNELS = {
    # What the classes' defaults come to, by hand, as vLLM 0.33's mamba/mamba_utils.py adds it up.
    # Gated delta: 2 · key heads · key_dim + value heads · value_dim.
    "qwen3_next": 2 * 16 * 128 + 32 * 128,
    "olmo_hybrid": 2 * 30 * 96 + 30 * 192,
    # Kimi's: three convolutions, each over all heads.
    "kimi_linear": 3 * 32 * 128,
    "bailing_hybrid": 3 * 32 * 128,
    "glm5_next": 3 * 64 * 128,
    # Mamba-2: heads · head_dim + 2 · groups · state.
    "mamba2": 128 * 64 + 2 * 8 * 128,
    "nemotron_h": 128 * 64 + 2 * 8 * 128,
    # Mamba-1: expand · hidden.
    "mamba": 2 * 768,
}


def recurrent(spec: ModelSpec) -> list[LinearAttention]:
    return [mixer for layer in spec.layers for mixer in layer.mixers if isinstance(mixer, LinearAttention)]


def kinds(spec: ModelSpec) -> set[str | None]:
    return {mixer.recurrence for mixer in recurrent(spec)}


@pytest.mark.parametrize("model_type", sorted(ROWS))
def test_every_linear_layer_says_what_it_is(model_type: str) -> None:
    """Whatever keys are changed; a type without linear layers has no kind."""
    expected = {kind for kind, types in KINDS.items() if model_type in types}
    found: set[str | None] = set()
    for row in ROWS[model_type]:
        try:
            found |= kinds(spec_of(row))
        except (InputError, UnsupportedError):
            continue
    assert found == expected


@pytest.mark.parametrize("name", sorted(REMOTE))
def test_a_type_whose_class_comes_with_its_repository(name: str) -> None:
    assert kinds(read(REMOTE[name])) == {kind for model, kind in REMOTE_KINDS.items() if model == name}


@pytest.mark.parametrize("name", sorted(GGUF))
def test_gguf_says_the_same(name: str, tmp_path: Path) -> None:
    model = GGUF[name]
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(model["metadata"] | VOCABULARY, model["tensors"], data=100))
    architecture = model["metadata"]["general.architecture"]
    expected = {kind for kind, own in GGUF_KINDS.items() if architecture in own}
    assert kinds(load_model(tmp_path / "m.gguf")) == expected


@pytest.mark.parametrize(("model_type", "channels"), CHANNELS.items(), ids=CHANNELS)
def test_the_channels_of_a_convolution(model_type: str, channels: int) -> None:
    assert {mixer.conv_channels for mixer in recurrent(spec_of(ROWS[model_type][0]))} == {channels}


def test_the_groups_of_mamba_2_are_its_key_heads() -> None:
    mixers = [recurrent(spec_of(ROWS[model_type][0]))[0] for model_type in ("mamba2", "nemotron_h", "bamba")]
    assert [mixer.num_key_heads for mixer in mixers] == [8, 8, 1]
