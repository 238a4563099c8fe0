"""What layers need, worked by hand, and what must hold for any of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import parse_kv_dtype
from kvplan.core.mixers import CrossAttention, FullAttention, LatentAttention, LinearAttention, SlidingAttention
from kvplan.core.model import Layer

BF16 = parse_kv_dtype("bf16")
TOKENS = st.integers(0, 2_000_000)


def need(mixer, num_tokens, dtype=BF16, tp=1):
    return sum(cache.bytes_for(num_tokens) for _, cache in caches_of(Layer(mixers=(mixer,), weights=()), dtype, tp))


def gqa(num_heads=64, num_kv_heads=8, head_dim=128, **more):
    return FullAttention(num_heads=num_heads, num_kv_heads=num_kv_heads, key_dim=head_dim, value_dim=head_dim, **more)


def sliding(window, num_heads=64, num_kv_heads=8, head_dim=64):
    return SlidingAttention(
        num_heads=num_heads, num_kv_heads=num_kv_heads, key_dim=head_dim, value_dim=head_dim, window=window
    )


LATENT = LatentAttention(num_heads=128, latent_dim=512, rope_dim=64, key_dim=192, value_dim=128)

# 2 · 16 key heads · 128 + 32 value heads · 128 = 8192 channels.
DELTA_NET = LinearAttention(
    num_heads=32, num_key_heads=16, key_dim=128, value_dim=128, conv_channels=8192, conv_columns=4
)

# Bytes that one layer needs for 4,096 tokens; geometry from each published config.json.
KNOWN = {
    # 8 heads · (128 + 128) · 2 bytes = 4096 a token
    "llama-2-70b": (gqa(), "bf16", 4096 * 4096),
    # 32 heads · (128 + 128) · 2 = 16384
    "llama-2-7b, MHA": (gqa(32, 32), "bf16", 4096 * 16384),
    # 1 head · (64 + 64) · 2 = 256
    "falcon-7b, MQA": (gqa(71, 1, 64), "bf16", 4096 * 256),
    # 128 of 4096 tokens · 8 heads · (64 + 64) · 2 = 2048
    "gpt-oss-20b, sliding": (sliding(128), "bf16", 128 * 2048),
    # (512 + 64) · 2 = 1152, whatever the heads
    "deepseek-v3, latent": (LATENT, "bf16", 4096 * 1152),
    # 8 heads · 2 · (128 + 4 of scale) = 2112
    "llama-2-70b, int8": (gqa(), "int8", 4096 * 2112),
    # 8 heads · 2 · (64 + 4) = 1088
    "llama-2-70b, int4": (gqa(), "int4", 4096 * 1088),
    "llama-2-70b, fp8": (gqa(), "fp8", 4096 * 2048),
    "bert-base, encoder": (gqa(12, 12, 64, cached=False), "bf16", 0),
    # 16 heads · (64 + 64) · 2 = 4096 a token of the encoder
    "bart-large, cross": (
        CrossAttention(num_heads=16, num_kv_heads=16, key_dim=64, value_dim=64), "bf16", 4096 * 4096,
    ),
    # 32 · 128 · 128 · 4 of states + 8192 · 4 · 2 of columns, whatever the tokens and the format of the KV cache
    "qwen3-next-80b, linear": (DELTA_NET, "bf16", 2_162_688),
    "qwen3-next-80b, linear beside fp8": (DELTA_NET, "fp8", 2_162_688),
    "qwen3-next-80b, linear beside fp32": (DELTA_NET, "fp32", 2_162_688),
}  # fmt: skip


@pytest.mark.parametrize(("mixer", "dtype", "expected"), KNOWN.values(), ids=KNOWN)
def test_bytes_of_4096_tokens(mixer, dtype, expected):
    assert need(mixer, 4096, parse_kv_dtype(dtype)) == expected


@pytest.mark.parametrize("mixer", [mixer for mixer, _, _ in KNOWN.values()], ids=KNOWN)
@given(n=TOKENS)
def test_a_longer_sequence_never_needs_less(mixer, n):
    assert need(mixer, n) <= need(mixer, n + 1)


@given(n=TOKENS, window=st.integers(1, 200_000))
def test_a_window_never_needs_more_than_full_attention_and_as_much_while_it_is_not_full(n, window):
    full = gqa(head_dim=64)
    assert need(sliding(window), n) <= need(full, n)
    if window >= n:
        assert need(sliding(window), n) == need(full, n)


@given(n=TOKENS, heads=st.integers(1, 128), kv_heads=st.integers(1, 128), dim=st.integers(1, 512))
def test_grouped_heads_need_their_share(n, heads, kv_heads, dim):
    assert need(gqa(heads, kv_heads, dim), n) == kv_heads * need(gqa(heads, 1, dim), n)


@given(n=TOKENS, tp=st.integers(1, 64), kv_heads=st.integers(1, 64))
def test_ranks_hold_the_whole_between_them_and_never_less_than_one_head(n, tp, kv_heads):
    mixer = gqa(64, kv_heads)
    assert need(mixer, n, tp=tp) * tp >= need(mixer, n)
    assert need(mixer, n, tp=tp) >= need(gqa(64, 1), n)
    if tp >= kv_heads:
        assert need(mixer, n, tp=tp) == need(gqa(64, 1), n)


@given(n=TOKENS, tp=st.integers(1, 64))
def test_tensor_parallelism_does_not_shrink_a_latent(n, tp):
    assert need(LATENT, n, tp=tp) == need(LATENT, n)


@given(n=TOKENS)
def test_a_state_neither_grows_nor_waits_for_its_first_token(n):
    [(_, cache)] = caches_of(Layer(mixers=(DELTA_NET,), weights=()), BF16)
    assert (cache.kind, cache.bytes_per_token) == ("linear", 0)
    assert cache.bytes_for(n) == cache.bytes_for(0) == 2_162_688


def test_columns_have_the_models_format_and_states_their_own():
    def held(mixer, model_dtype):
        layer = Layer(mixers=(mixer,), weights=())
        [(_, cache)] = caches_of(layer, parse_kv_dtype("fp8"), 1, parse_kv_dtype(model_dtype))
        return cache.fixed_bytes

    assert held(DELTA_NET, "fp32") == 32 * 128 * 128 * 4 + 8192 * 4 * 4
    assert held(replace(DELTA_NET, state_bits=16), "bf16") == 32 * 128 * 128 * 2 + 8192 * 4 * 2
    assert held(replace(DELTA_NET, conv_channels=0, conv_columns=0), "fp32") == 32 * 128 * 128 * 4


def test_ranks_share_states_and_channels_out():
    # 8 of 32 heads, 2048 of 8192 channels.
    assert need(DELTA_NET, 1, tp=4) == 8 * 128 * 128 * 4 + 2048 * 4 * 2


@given(tp=st.integers(1, 100), heads=st.integers(1, 64), channels=st.integers(0, 10_000))
def test_ranks_hold_all_states_between_them_and_never_less_than_one(tp, heads, channels):
    mixer = replace(DELTA_NET, num_heads=heads, conv_channels=channels)
    assert need(mixer, 1, tp=tp) * tp >= need(mixer, 1)
    assert need(mixer, 1, tp=tp) >= 128 * 128 * 4


@pytest.mark.parametrize("mixer", [mixer for mixer, _, _ in KNOWN.values()], ids=KNOWN)
def test_a_wider_format_never_needs_less(mixer):
    sizes = [need(mixer, 1000, parse_kv_dtype(name)) for name in ("int4", "fp8", "int8", "bf16", "fp32")]
    assert sizes == sorted(sizes)


def test_the_encoder_keeps_its_own_clock():
    cross = CrossAttention(num_heads=16, num_kv_heads=16, key_dim=64, value_dim=64)
    [(_, cache)] = caches_of(Layer(mixers=(cross,), weights=()), BF16)
    assert cache.over_encoder
