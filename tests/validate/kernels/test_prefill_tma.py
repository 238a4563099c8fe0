"""Prefill by TMA against float64, in the interpreter: both forms, sequences that end inside a tile, poisoned neighbours."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.validate.kernels import reference
from kvplan.validate.kernels.launch import Config, Unsupported
from kvplan.validate.kernels.prefill_tma import plan_prefill_tma, prefill_tma
from tests.validate.kernels.caches import assert_close

SCALE = 0.2
FORMS = {"plain": False, "warp-specialised": True}


def check(
    length: int,
    *,
    batch: int = 2,
    group: int = 2,
    dim: int = 32,
    block_m: int = 32,
    block_n: int = 16,
    dtype: torch.dtype = torch.float32,
    warp_specialized: bool = False,
    **rule: Any,
) -> None:
    q_BSHD, k_BSKD, v_BSKD = (torch.randn(batch, length, heads, dim).to(dtype) for heads in (2 * group, 2, 2))
    config = Config(block_n, 4, 2, block_m=block_m)
    options = {"scale": SCALE, "warp_specialized": warp_specialized, "config": config}
    out_BSHD = prefill_tma(q_BSHD, k_BSKD, v_BSKD, **options, **rule)
    seen = reference.visible(length, length, **rule)
    for b in range(batch):
        assert_close(out_BSHD[b], reference.attention(q_BSHD[b], k_BSKD[b], v_BSKD[b], seen, scale=SCALE), dtype)


RULES: dict[str, dict[str, Any]] = {
    "causal": {},
    "full": {"causal": False},
    "window": {"window": 20},
    "window of one": {"window": 1},
    "window larger than the sequence": {"window": 999},
    "window on both sides": {"window": 20, "causal": False},
}


@pytest.mark.parametrize("warp_specialized", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_agrees_with_float64(rule, warp_specialized):
    check(77, warp_specialized=warp_specialized, **rule)


@pytest.mark.parametrize("warp_specialized", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("length", [1, 16, 31, 32, 33, 64])
def test_sequences_that_end_anywhere_in_a_tile(length, warp_specialized):
    check(length, warp_specialized=warp_specialized)


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # numpy, of the NaN sequences themselves
@pytest.mark.parametrize("warp_specialized", FORMS.values(), ids=FORMS)
def test_a_neighbour_is_neither_read_nor_written(warp_specialized):
    """Three sequences of 21 tokens; the outer two are NaN, which a key or a row across the border would show."""
    q, k, v = (torch.full((3, 21, heads, 32), float("nan")) for heads in (4, 2, 2))
    for x in (q, k, v):
        x[1] = torch.randn(x.shape[1:])
    config = Config(16, 4, 2, block_m=32)
    out = prefill_tma(q, k, v, scale=SCALE, config=config, warp_specialized=warp_specialized)
    seen = reference.visible(21, 21)
    assert_close(out[1], reference.attention(q[1], k[1], v[1], seen, scale=SCALE), torch.float32)
    assert out[0].isnan().all()


@pytest.mark.parametrize("group", [1, 3, 8])
def test_groups(group):
    check(40, group=group, batch=1)


@pytest.mark.parametrize(("block_m", "block_n"), [(16, 32), (64, 16), (32, 64)])
def test_blocks_of_any_proportion(block_m, block_n):
    check(70, block_m=block_m, block_n=block_n, batch=1, window=25)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types(dtype):
    check(50, dtype=dtype, dim=64, batch=1)


@settings(max_examples=10)
@given(
    length=st.integers(1, 70),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 80),
    block_m=st.sampled_from([16, 32]),
    warp_specialized=st.booleans(),
)
def test_any_shape(length, causal, window, block_m, warp_specialized):
    check(length, batch=1, causal=causal, window=window, block_m=block_m, warp_specialized=warp_specialized)


REFUSED = {
    "cross-attention": ((2, 8, 4, 32), (2, 9, 2, 32), "of self-attention"),
    "heads that do not share": ((2, 8, 3, 32), (2, 8, 2, 32), "3 query heads do not share 2 KV heads"),
    "dimensions that a box would cross": ((2, 8, 4, 80), (2, 8, 2, 80), "80 is not a power of two"),
}


def test_a_scale_that_would_turn_maxima_round():
    x = torch.zeros(1, 8, 2, 32)
    with pytest.raises(Unsupported, match="must be positive"):
        plan_prefill_tma(x, x, x, scale=-1.0)


@pytest.mark.parametrize(("queries", "keys", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_it_does_not_take(queries, keys, sentence):
    with pytest.raises(Unsupported, match=sentence):
        plan_prefill_tma(torch.zeros(queries), torch.zeros(keys), torch.zeros(keys), scale=1.0)
