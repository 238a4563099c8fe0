"""Layers over stages, heads over ranks, and the smallest layout that does."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import estimate
from kvplan.core.engines.deployment import Switches
from kvplan.core.hardware import Gpu
from kvplan.core.layout import layouts, stage_weights, tp_accepted
from kvplan.core.plan import plan_memory
from kvplan.core.serving import resolve
from kvplan.core.stages import stage_bounds
from kvplan.core.units import GIB
from kvplan.sources.catalog import load
from tests.models import spec


def sizes(num_layers, pp):
    return [stop - start for start, stop in stage_bounds(num_layers, pp)]


@pytest.mark.parametrize(
    ("num_layers", "pp", "expected"),
    # The remainder goes to the last stages but never the very last (vLLM 0.33, distributed/utils.py).
    [(126, 4, [31, 32, 32, 31]), (80, 8, [10] * 8), (5, 2, [3, 2]), (61, 4, [15, 15, 16, 15]), (7, 7, [1] * 7)],
)
def test_stages(num_layers, pp, expected):
    assert sizes(num_layers, pp) == expected


@given(num_layers=st.integers(1, 200), data=st.data())
def test_stages_cover_every_layer_once(num_layers, data):
    pp = data.draw(st.integers(1, num_layers))
    bounds = stage_bounds(num_layers, pp)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == num_layers
    assert all(stop == start for (_, stop), (start, _) in pairwise(bounds))
    assert max(sizes(num_layers, pp)) - min(sizes(num_layers, pp)) <= 1


def test_a_layout_divides_heads_as_engines_demand():
    gqa = spec(num_key_value_heads=8)
    assert [tp for tp in range(1, 33) if tp_accepted(gqa, tp)] == [1, 2, 4, 8, 16, 32]
    assert (3, 1) not in list(layouts(gqa, 3))
    assert list(layouts(gqa, 6)) == [(2, 3), (1, 6)]


def test_the_key_heads_of_a_recurrent_layer_are_not_replicated():
    # 16 query heads, 2 KV heads, 32 states; 16 heads of keys, then 4.
    for key_heads, accepted in ((16, [1, 2, 4, 8, 16]), (4, [1, 2, 4])):
        model = load("Qwen/Qwen3-Next-80B-A3B-Instruct", {"linear_num_key_heads": str(key_heads)})
        assert [tp for tp in range(1, 65) if tp_accepted(model, tp)] == accepted


def gpu(gib):
    return Gpu(name="test", memory_bytes=gib * GIB)


@given(gib=st.integers(4, 96), batch=st.integers(1, 64), seq_len=st.sampled_from([512, 4096, 32768]))
def test_the_smallest_fit_fits_and_one_gpu_fewer_does_not(gib, batch, seq_len):
    model = spec(num_key_value_heads=8)
    plan = estimate(model, seq_len=seq_len, batch_size=batch, gpu=gpu(gib))
    best = plan.smallest_fit
    if best is None:
        return
    assert best.num_gpus == best.tp * best.pp
    assert estimate(model, seq_len=seq_len, batch_size=batch, gpu=gpu(gib), tp=best.tp, pp=best.pp).fits
    for tp, pp in layouts(model, best.num_gpus - 1):
        assert not estimate(model, seq_len=seq_len, batch_size=batch, gpu=gpu(gib), tp=tp, pp=pp).fits


def test_nothing_is_small_enough_where_one_token_does_not_fit():
    assert estimate(spec(), seq_len=4096, gpu=Gpu(name="tiny", memory_bytes=GIB // 4)).smallest_fit is None


def test_the_last_stage_holds_a_tied_table_again():
    tied = spec(tie_word_embeddings=True)
    plan = estimate(tied, pp=2)
    table = 2 * 32000 * 4096
    assert sum(use.weights_bytes for use in plan.per_gpu) == plan.weights.total_bytes + table


def test_stages_hold_the_weights_and_the_cache_between_them():
    plan = estimate(spec(), pp=4, seq_len=1000, batch_size=3)
    assert sum(use.weights_bytes for use in plan.per_gpu) == plan.weights.total_bytes
    assert sum(use.kv_cache_bytes for use in plan.per_gpu) == plan.kv_cache.reserved_bytes


def test_what_the_cpu_keeps_is_taken_off_each_stages_layers_and_off_nothing_else():
    """vLLM 0.33, model_executor/offloader/uva.py: each rank its own, and no table or head among it."""
    # A layer has 5120 · (2 · 8192 + 2 · 1024 + 3 · 25,600) + 2 · 5120 + 2 · 128 = 487,598,336 weights of 2 bytes; a table
    # and a head have 151,936 · 5120 each, the last norm 5120.
    model, layer, table = load("Qwen/Qwen3-32B"), 975_196_672, 1_555_824_640
    whole = 64 * layer + 2 * table + 10_240
    for pp, kept, expected in (
        (1, 0, whole),
        (1, 30 * GIB, whole - 30 * GIB),
        (2, 10 * GIB, 32 * layer + table - 10 * GIB),
        (1, 1000 * GIB, whole - 64 * layer),
    ):
        serving = resolve(model, engine="vllm", pp=pp, switches=Switches(cpu_offload_bytes=kept))
        assert stage_weights(model, serving)[0] == expected, (pp, kept)
    assert plan_memory(model, serving).weights.total_bytes == whole
