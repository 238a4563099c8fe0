"""Engines: what each holds for the same need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import InputError, estimate
from kvplan.core.engines.table import ENGINES, find_engine
from tests.models import LLAMA, spec

MISTRAL = {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "num_key_value_heads": 8}


@given(n=st.integers(1, 100_000), window=st.integers(2, 50_000))
def test_transformers_keeps_one_token_less_than_the_window(n, window):
    cache = estimate(spec(MISTRAL, sliding_window=window), seq_len=n, engine="transformers").kv_cache
    # 32 layers · 8 heads · (128 + 128) · 2 bytes = 131,072
    assert cache.reserved_bytes == 131_072 * min(n, window - 1)
    assert cache.needed_bytes == 131_072 * min(n, window)


def test_a_window_of_one_slices_nothing_away():
    cache = estimate(spec(MISTRAL, sliding_window=1), seq_len=50, engine="transformers").kv_cache
    assert cache.reserved_bytes == 131_072 * 50


def test_while_a_prompt_is_read_transformers_holds_all_of_it():
    def activations(engine):
        return estimate(spec(MISTRAL, sliding_window=100), seq_len=1000, engine=engine).per_gpu[0].activation_bytes

    # The slices are views: 1000 tokens stay alive where 99 are kept.
    assert activations("transformers") - activations("exact") == 131_072 * (1000 - 99)


def test_falcon_40b_is_held_once_for_every_query_head():
    # 60 layers · 128 heads · (64 + 64) · 2 = 1,966,080 a token in transformers; 8 of the 128 heads are needed.
    exact, held = (
        estimate("tiiuae/falcon-40b", seq_len=100, engine=name).kv_cache for name in ("exact", "transformers")
    )
    assert exact.reserved_bytes == exact.needed_bytes == held.needed_bytes == 100 * 122_880
    assert held.reserved_bytes == 100 * 1_966_080


def test_versions():
    assert find_engine("transformers@5.23.0").name == "transformers"
    assert find_engine(" Exact ").name == "exact"
    for text in ("transformers@5.2", "transformers@4", "exact@1", "", "vllm2", "vllm@x"):
        with pytest.raises(InputError):
            find_engine(text)


def test_every_profile_says_what_it_was_checked_against():
    for engine in map(find_engine, ENGINES):
        assert engine.name == "exact" or (engine.version and engine.date)
