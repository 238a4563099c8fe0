"""What layers need, worked by hand, and what must hold for any of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import parse_kv_dtype
from kvplan.core.model import CrossAttention, FullAttention, LatentAttention, Layer, SlidingAttention

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


@pytest.mark.parametrize("mixer", [mixer for mixer, _, _ in KNOWN.values()], ids=KNOWN)
def test_a_wider_format_never_needs_less(mixer):
    sizes = [need(mixer, 1000, parse_kv_dtype(name)) for name in ("int4", "fp8", "int8", "bf16", "fp32")]
    assert sizes == sorted(sizes)


def test_the_encoder_keeps_its_own_clock():
    cross = CrossAttention(num_heads=16, num_kv_heads=16, key_dim=64, value_dim=64)
    [(_, cache)] = caches_of(Layer(mixers=(cross,), weights=()), BF16)
    assert cache.over_encoder
