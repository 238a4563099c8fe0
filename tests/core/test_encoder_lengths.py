"""How long an encoder's output is: as asked, fixed by the architecture, or nothing where no image came."""

from typing import Any

import pytest

from kvplan import InputError, estimate
from kvplan.core.hardware import Gpu
from kvplan.core.sweep import sweep
from kvplan.core.units import GIB
from tests.models import spec

WHISPER: dict[str, Any] = {
    "model_type": "whisper",
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
    "vocab_size": 51865,
    "torch_dtype": "bfloat16",
}
LED: dict[str, Any] = WHISPER | {"model_type": "led", "max_encoder_position_embeddings": 16384}
# Two of five layers look at images: 2 KV heads of 16, keys and values in two bytes.
MLLAMA: dict[str, Any] = {
    "model_type": "mllama",
    "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 64,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "cross_attention_layers": [1, 3],
        "vocab_size": 200,
    },
}
ONE_TOKEN = 2 * 2 * 16 * 2
# 4 tiles of (448 / 14)² patches and a class token.
ONE_IMAGE = 4 * 1025


def codes(plan: Any) -> list[str]:
    return [warning.code for warning in plan.warnings]


def test_a_fixed_length_stands_for_what_is_not_said() -> None:
    plan = estimate(spec(WHISPER), seq_len=100)
    # 4 layers, each K and V of 6 heads of 64 in two bytes.
    assert plan.kv_cache.fixed_bytes_per_sequence == 1500 * 4 * 2 * 6 * 64 * 2
    assert plan.serving.encoder_seq_len == 1500
    assert codes(plan) == []


@pytest.mark.parametrize("length", [1, 1499, 3000])
def test_a_fixed_length_is_no_other(length: int) -> None:
    assert estimate(spec(WHISPER), encoder_seq_len=1500).serving.encoder_seq_len == 1500
    with pytest.raises(InputError, match="1500 tokens"):
        estimate(spec(WHISPER), encoder_seq_len=length)


def test_a_fixed_length_does_not_move_with_the_sequence() -> None:
    points = sweep(spec(WHISPER), estimate(spec(WHISPER)).serving, [10, 20], [1])
    cache = points.columns["kv_cache_bytes"]
    assert cache[1] - cache[0] == 10 * 4 * 2 * 6 * 64 * 2


def test_an_encoder_has_positions_of_its_own() -> None:
    assert codes(estimate(spec(LED), seq_len=100, encoder_seq_len=16384)) == []
    assert codes(estimate(spec(LED), seq_len=100, encoder_seq_len=16385)) == ["beyond-max-positions"]
    assert codes(estimate(spec(LED), seq_len=1025, encoder_seq_len=100)) == ["beyond-max-positions"]


@pytest.mark.parametrize("engine", ["exact", "transformers"])
def test_without_images_nothing_is_kept_for_them(engine: str) -> None:
    plan = estimate(spec(MLLAMA), seq_len=100, engine=engine)
    assert plan.kv_cache.reserved_bytes == 3 * 100 * ONE_TOKEN
    assert plan.serving.encoder_seq_len == 0
    (warning,) = plan.warnings
    assert warning.code == "images-not-planned"
    assert f"{ONE_IMAGE:,}" in warning.message
    assert f"--encoder-seq {ONE_IMAGE}" in warning.message
    assert (
        estimate(spec(MLLAMA), seq_len=100, encoder_seq_len=0).kv_cache == estimate(spec(MLLAMA), seq_len=100).kv_cache
    )


def test_images_are_kept_beside_the_text() -> None:
    plan = estimate(spec(MLLAMA), seq_len=100, encoder_seq_len=ONE_IMAGE)
    assert plan.kv_cache.reserved_bytes == (3 * 100 + 2 * ONE_IMAGE) * ONE_TOKEN
    assert plan.kv_cache.bytes_per_token == 3 * ONE_TOKEN
    assert codes(plan) == []


def test_images_do_not_begin_a_decoder() -> None:
    # The second of two stages holds layers that look at images, but no token table.
    model = spec(MLLAMA)
    assert model.first_decoder_layer == model.num_layers
    whole, halves = (estimate(model, pp=pp).per_gpu for pp in (1, 2))
    assert sum(use.weights_bytes for use in halves) == whole[0].weights_bytes


def test_layers_that_look_at_images_are_read_where_there_are_some() -> None:
    gpu = Gpu(name="round", memory_bytes=1000 * GIB, bandwidth_bytes_per_second=1e12)
    text, image = (estimate(spec(MLLAMA), gpu=gpu, seq_len=10, encoder_seq_len=n).speed for n in (0, 1))
    assert text is not None
    assert image is not None
    # Two layers' MLP, two norms and two gates, and the image's keys and values.
    layer = 3 * 96 * 64 + 2 * 64 + 2
    assert image.decode_read_bytes - text.decode_read_bytes == 2 * (2 * layer + ONE_TOKEN)


@pytest.mark.parametrize("length", [-1, True, False, 1.5])
def test_tokens_of_images_are_a_whole_number(length: Any) -> None:
    with pytest.raises(InputError, match="whole number"):
        estimate(spec(MLLAMA), encoder_seq_len=length)


def test_no_tokens_are_none_for_an_encoder_of_text() -> None:
    with pytest.raises(InputError, match="whole number"):
        estimate(spec(LED), encoder_seq_len=0)
