"""Bytes, flops and seconds of attention calls, worked by hand, and what must hold for any of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.errors import InputError
from kvplan.core.speed import (
    SpeedModel,
    attention_flops,
    decode_bytes,
    decode_flops,
    prefill_bytes,
    prefill_flops,
    state_step_bytes,
    visible_pairs,
)

LENGTHS = st.integers(1, 400)
WINDOWS = st.none() | st.integers(1, 500)


def test_decode_of_llama_2_70b():
    # 64 query heads, 8 KV heads, 128 wide, bf16: 8 · (128 + 128) · 2 = 4096 bytes a token; 16 sequences of 8192.
    assert decode_bytes(8192, bytes_per_token=4096, batch=16) == 16 * 8192 * 4096
    assert decode_flops(8192, num_heads=64, key_dim=128, value_dim=128, batch=16) == 2 * 16 * 64 * 8192 * 256


def test_decode_sees_the_window_only():
    # gpt-oss-20b: 64 heads of 64, window 128, 2048 bytes a token.
    assert decode_bytes(8192, bytes_per_token=2048, window=128) == 128 * 2048
    assert decode_flops(8192, num_heads=64, key_dim=64, value_dim=64, window=128) == 2 * 64 * 128 * 128
    assert decode_bytes(100, bytes_per_token=2048, window=128) == 100 * 2048


def test_latent_decode_does_much_per_byte():
    # DeepSeek-V3: 128 heads over one latent of 512 and a rotary key of 64; (512 + 64) · 2 = 1152 bytes a token.
    flops = decode_flops(4096, num_heads=128, key_dim=512 + 64, value_dim=512)
    assert flops == 2 * 128 * 4096 * 1088
    assert flops / decode_bytes(4096, bytes_per_token=1152) == pytest.approx(241.8, abs=0.1)


@pytest.mark.parametrize(
    ("num_tokens", "window", "pairs"),
    [
        (1, None, 1),
        (4, None, 1 + 2 + 3 + 4),
        (4, 2, 1 + 2 + 2 + 2),
        (4, 1, 4),
        (4, 9, 10),
        (8192, 4096, 4096 * 4097 // 2 + 4096 * 4096),
    ],
)
def test_visible_pairs(num_tokens, window, pairs):
    assert visible_pairs(num_tokens, window) == pairs


@given(n=LENGTHS, window=WINDOWS)
def test_pairs_are_the_tokens_that_every_query_sees(n, window):
    assert visible_pairs(n, window) == sum(min(i, window or n) for i in range(1, n + 1))


@given(n=LENGTHS, window=WINDOWS, batch=st.integers(1, 9))
def test_a_prompt_is_as_many_flops_as_its_tokens_one_by_one(n, window, batch):
    shape = {"num_heads": 8, "key_dim": 192, "value_dim": 128, "window": window, "batch": batch}
    assert prefill_flops(n, **shape) == sum(decode_flops(i, **shape) for i in range(1, n + 1))


def test_prefill_of_llama_2_7b():
    # 32 heads of 128: halved by the mask, 4 · n² · heads · dim, and the diagonal.
    assert prefill_flops(4096, num_heads=32, key_dim=128, value_dim=128) == 2 * 32 * 128 * (4096**2 + 4096)
    # Queries and output 4096 wide each, keys and values too, two bytes an element.
    shape = {"num_heads": 32, "key_dim": 128, "value_dim": 128, "element_bytes": 2, "bytes_per_token": 2 * 4096 * 2}
    assert prefill_bytes(1000, **shape) == 1000 * 4 * 4096 * 2
    assert prefill_bytes(1000, **shape, batch=3) == 3 * 1000 * 4 * 4096 * 2
    # The last chunk of 100 tokens reads all keys.
    assert prefill_bytes(100, **shape, num_keys=1000) == 100 * 2 * 4096 * 2 + 1000 * 2 * 4096 * 2


def test_an_encoder_looks_at_all_pairs():
    # bert-base: 12 heads of 64, both ways.
    assert attention_flops(512 * 512, num_heads=12, key_dim=64, value_dim=64) == 4 * 12 * 64 * 512 * 512


def test_a_state_is_read_and_written_whatever_the_length():
    # Qwen3-Next: 32 states of 128 × 128 in fp32.
    assert state_step_bytes(32 * 128 * 128 * 4, batch=2) == 2 * 2 * 32 * 128 * 128 * 4


def model(**changes):
    figures = {
        "overhead_seconds": 5e-6,
        "bytes_share": 0.8,
        "flops_share": 0.5,
        "read_bytes_per_second": 4e12,
        "matmul_flops_per_second": 8e14,
    }
    return SpeedModel(**{**figures, **changes})


def test_seconds_by_hand():
    # 3.2 GB at 0.8 · 4 TB/s are 1 ms; 0.8 TFLOP at 0.5 · 800 TFLOP/s are 2 ms.
    assert model().seconds(3.2e9, 0) == pytest.approx(1.005e-3)
    assert model().seconds(3.2e9, 8e11) == pytest.approx(2.005e-3)
    assert model().seconds(0, 0) == 5e-6


@given(num_bytes=st.floats(0, 1e12), flops=st.floats(0, 1e16), factor=st.floats(1, 100))
def test_more_work_never_takes_less_and_a_better_share_never_more(num_bytes, flops, factor):
    seconds = model().seconds(num_bytes, flops)
    assert 5e-6 <= seconds <= model().seconds(num_bytes * factor, flops)
    assert seconds <= model().seconds(num_bytes, flops * factor)
    assert model(bytes_share=0.9, flops_share=0.9).seconds(num_bytes, flops) <= seconds


def test_a_side_that_was_never_measured_is_not_guessed():
    decode_only, prefill_only = model(flops_share=None), model(bytes_share=None)
    assert decode_only.seconds(3.2e9, 1.2e12) == pytest.approx(1.005e-3)  # 1 ms of arithmetic at 1.5 · the ceiling
    assert prefill_only.seconds(3.2e9, 8e11) == pytest.approx(2.005e-3)
    with pytest.raises(InputError, match="arithmetic"):
        decode_only.seconds(3.2e9, 1.3e12)  # 1.08 ms
    with pytest.raises(InputError, match="memory"):
        prefill_only.seconds(3.2e9, 0)
