"""Attention over folded tokens: DeepSeek V4's figures worked by hand, and what holds for any."""

from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16
from kvplan.core.engines.transformers import TRANSFORMERS
from kvplan.core.mixers import CompressedAttention, FullAttention, LatentAttention
from kvplan.core.model import Layer

# deepseek-ai/DeepSeek-V4-Flash: vectors of 512, entries of 4 or of 128 tokens, an indexer's keys of 128.
SLIDING = CompressedAttention(num_heads=64, head_dim=512, window=128)
SPARSE = CompressedAttention(num_heads=64, head_dim=512, window=128, ratio=4, overlaps=True, index_dim=128)
HEAVY = CompressedAttention(num_heads=64, head_dim=512, window=128, ratio=128)

# GLM-5.3-Flash: latents without positions, one indexer's key of 128 for 16 tokens.
POOLED = LatentAttention(
    num_heads=64, latent_dim=512, rope_dim=0, key_dim=256, value_dim=256, index_dim=128, index_pool=16
)


def needed(mixer, num_tokens, tp=1):
    layer = Layer(mixers=(mixer,), weights=())
    return sum(cache.bytes_for(num_tokens) for _, cache in caches_of(layer, BF16, tp))


def held(mixer, num_tokens):
    layer = Layer(mixers=(mixer,), weights=())
    return sum(TRANSFORMERS.reserve(cache, mixer).bytes_for(num_tokens) for _, cache in caches_of(layer, BF16))


def test_needed_is_a_window_of_single_vectors_and_the_entries():
    assert needed(SLIDING, 6000) == 128 * 1024
    # 1,500 entries of 1,024 + 256 bytes; two open sums with their weights, 640 elements each, in fp32.
    assert needed(SPARSE, 6000) == 128 * 1024 + 1500 * 1280 + 2 * 2 * 640 * 4
    assert needed(HEAVY, 6000) == 128 * 1024 + 46 * 1024 + 2 * 512 * 4


def test_transformers_holds_tokens_that_wait_with_their_gates():
    # The cache has the window's vectors twice, as keys and as values.
    assert held(SLIDING, 6000) == 127 * 2 * 1024
    # The last entry's four tokens, projected and gated, once more for the next one.
    assert held(SPARSE, 6000) == 127 * 2 * 1024 + 1500 * 1280 + 2 * 4 * 1280
    assert held(HEAVY, 6000) == 127 * 2 * 1024 + 46 * 1024 + 112 * 2 * 1024


def test_nothing_overlaps_before_there_is_an_entry():
    # Three tokens, each with two vectors and two gates of 512 + 128 elements.
    assert held(SPARSE, 3) == 3 * 2 * 1024 + 3 * 4 * 1280


def test_every_rank_holds_it_all():
    assert needed(SPARSE, 6000, tp=8) == needed(SPARSE, 6000)


def test_prefill_keeps_the_projections_of_the_whole_prompt():
    layer = Layer(mixers=(HEAVY,), weights=())
    caches = [TRANSFORMERS.during_prefill(cache, HEAVY) for _, cache in caches_of(layer, BF16)]
    assert sum(cache.bytes_for(6000) for cache in caches) == 6000 * 2 * 1024 + 46 * 1024 + 6000 * 2 * 1024


def test_pooled_keys_of_an_indexer():
    assert needed(POOLED, 100) == 100 * 1024 + 6 * 256 + 2 * 4 * 128
    # Each token's key and gate, and whether it is padding.
    assert held(POOLED, 100) == 100 * 1024 + 100 * 257 * 2


def test_an_indexer_beside_a_latent_that_another_layer_keeps():
    reader = LatentAttention(num_heads=64, latent_dim=0, rope_dim=0, key_dim=128, value_dim=128, index_dim=128)
    assert needed(reader, 100) == 100 * 256


def test_an_indexer_beside_grouped_heads_is_not_cut():
    mixer = FullAttention(num_heads=64, num_kv_heads=4, key_dim=128, value_dim=128, index_dim=128)
    assert needed(mixer, 10) == 10 * (4 * 2 * 256 + 256)
    assert needed(mixer, 10, tp=4) == 10 * (2 * 256 + 256)


@given(st.integers(0, 2_000_000), st.sampled_from([SLIDING, SPARSE, HEAVY, POOLED]))
def test_needs_never_shrink(num_tokens, mixer):
    assert needed(mixer, num_tokens) <= needed(mixer, num_tokens + 1)
