"""The floor of a decode step, worked by hand; and no schedule of pipeline stages comes below it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import InputError, estimate
from kvplan.core.decode import NOT_DECODED, SpeedFloor, bytes_in_turn
from kvplan.core.hardware import Gpu, MeasuredDevice
from kvplan.core.mixers import CrossAttention
from kvplan.core.speed import decode_bytes
from kvplan.core.units import GIB, MIB
from kvplan.sources.catalog import load, names
from tests.models import spec

ROUND = Gpu(name="round", memory_bytes=1000 * GIB, bandwidth_bytes_per_second=1e12)
"""1 TB/s: a byte takes a picosecond."""
LLAMA_70B = "meta-llama/Llama-2-70b"
# A layer of Llama-2-70b: queries and output 8192 × 8192, keys and values 8192 × 1024, three matrices 8192 × 28672.
LAYER = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672
NORMS = 2 * 8192


def floor(model: Any, **how: Any) -> SpeedFloor:
    found = estimate(model, **({"gpu": ROUND} | how)).speed
    assert found is not None
    return found


def test_llama_2_70b_on_two_gpus_by_hand() -> None:
    # A rank reads half of each matrix, all norms, half of the head; the token table of 32000 × 8192 is looked up.
    weights = 2 * (80 * (LAYER // 2 + NORMS) + 32000 * 8192 // 2 + 8192)
    cache = 16 * 4096 * 327_680 // 2
    found = floor(LLAMA_70B, seq_len=4096, batch_size=16, tp=2)
    assert weights == 68_715_823_104
    assert cache == 10_737_418_240
    assert found.decode_read_bytes == weights + cache == 79_453_241_344
    assert found.decode_seconds_at_least == pytest.approx(0.079453241344)
    assert found.tokens_per_second_at_most == pytest.approx(16 / 0.079453241344)
    assert (found.bandwidth_bytes_per_second, found.basis, found.source) == (1e12, "data sheet", "as given")


def test_stages_are_read_one_after_another() -> None:
    # Four stages of 20 layers; the last has the head. One sequence passes through all of them; of many the last stage's
    # weights and the cache of its 20 layers are the longest queue.
    per_layer, head, cache = 2 * (LAYER + NORMS), 2 * (32000 * 8192 + 8192), 4096 * 4096
    assert floor(LLAMA_70B, seq_len=4096, pp=4).decode_read_bytes == 80 * (per_layer + cache) + head
    many = floor(LLAMA_70B, seq_len=4096, pp=4, batch_size=1000).decode_read_bytes
    assert many == 20 * (per_layer + 1000 * cache) + head


def test_a_token_reads_its_own_experts() -> None:
    # Mixtral: 32 layers of attention (4096: q, o 4096 wide, k, v 1024), a router of 8 rows, 2 of 8 experts of 14336.
    layer = 4096 * (2 * 4096 + 2 * 1024) + 8 * 4096 + 2 * 3 * 4096 * 14336 + 2 * 4096
    weights = 2 * (32 * layer + 32000 * 4096 + 4096)
    assert floor("mistralai/Mixtral-8x7B-v0.1", seq_len=1000).decode_read_bytes == weights + 1000 * 131_072


def test_a_tied_table_is_read_as_the_head() -> None:
    # Tied or not, a step reads one matrix of 32000 × 4096: the head.
    tied, untied = (floor(spec(tie_word_embeddings=tied), pp=2) for tied in (True, False))
    assert tied.decode_read_bytes == untied.decode_read_bytes


def test_a_full_window_is_read_and_no_more() -> None:
    at_window, beyond = (floor("mistralai/Mistral-7B-v0.1", seq_len=n, batch_size=4) for n in (4096, 8192))
    assert at_window.decode_read_bytes == beyond.decode_read_bytes
    # What an engine reserves is not what is read.
    held = floor("mistralai/Mistral-7B-v0.1", seq_len=8192, batch_size=4, engine="transformers")
    assert held.decode_read_bytes == beyond.decode_read_bytes
    shorter = floor("mistralai/Mistral-7B-v0.1", seq_len=1024, batch_size=4)
    reads = [32 * decode_bytes(n, bytes_per_token=4096, window=4096, batch=4) for n in (8192, 1024)]
    assert beyond.decode_read_bytes - shorter.decode_read_bytes == reads[0] - reads[1]


def test_states_are_read_however_long_the_sequence() -> None:
    # Qwen3-Next: 36 states of 2,162,688 bytes, 24,576 bytes a token in 12 full layers.
    hybrid = "Qwen/Qwen3-Next-80B-A3B-Instruct"
    one, three = (floor(hybrid, seq_len=1000, batch_size=n).decode_read_bytes for n in (1, 3))
    assert three - one == 2 * (36 * 2_162_688 + 1000 * 24_576)


def test_an_encoder_is_not_run_again() -> None:
    # flan-t5-small, 8 decoder layers, 512 wide: four projections of 6 · 64, a gated MLP of 1024, three norms; the
    # first holds 32 × 6 positions. A head of 32128 of its own. Cross-attention's projections are left out.
    layer = 4 * 512 * 384 + 3 * 512 * 1024 + 3 * 512
    weights = 2 * (8 * layer + 32 * 6 + 512 + 32128 * 512)
    # Keys and values of both sides: 8 layers · 6 heads · 128 · 2 bytes.
    found = floor("google/flan-t5-small", dtype="bf16", seq_len=10, encoder_seq_len=500)
    assert found.decode_read_bytes == weights + (10 + 500) * 8 * 6 * 128 * 2


def test_cross_attention_goes_by_the_names_that_are_left_out() -> None:
    models = [model for name in names() if (model := load(name)) is not None and model.has_encoder]
    assert len(models) > 3
    for model in models:
        for layer in model.layers:
            crosses = any(isinstance(mixer, CrossAttention) for mixer in layer.mixers)
            left_out = [weight for weight in layer.weights if any(part in weight.name for part in NOT_DECODED)]
            assert bool(left_out) == crosses, model.id


NO_FLOOR: dict[str, dict[str, Any]] = {
    "no GPU": {"model": spec(), "gpu": None},
    "an unknown bandwidth": {"model": spec(), "gpu": "80GiB"},
    "an encoder": {"model": "google-bert/bert-base-uncased"},
    "no vocabulary": {"model": spec(architectures=["LlamaModel"])},
    "a scheme known by its name": {"model": spec(quantization_config={"quant_method": "a_new_one"})},
}


@pytest.mark.parametrize("how", NO_FLOOR.values(), ids=NO_FLOOR)
def test_where_nothing_can_be_said(how: dict[str, Any]) -> None:
    assert estimate(**({"gpu": ROUND} | how)).speed is None


def test_it_does_not_take_memory_to_be_known() -> None:
    assert floor(spec(), gpu="GB10").basis == "data sheet"


MEASURED = MeasuredDevice(context_bytes=300 * MIB, read_bytes_per_second=0.5e12, source="a record")


def test_what_was_measured_comes_before_the_data_sheet() -> None:
    gpu = Gpu(name="measured", memory_bytes=1000 * GIB, bandwidth_bytes_per_second=1e12, measured=MEASURED)
    found, sheet = floor(spec(), gpu=gpu), floor(spec())
    assert (found.basis, found.source) == ("measured", "a record")
    assert found.decode_seconds_at_least == 2 * sheet.decode_seconds_at_least
    unread = MeasuredDevice(context_bytes=300 * MIB, source="a record")
    assert (
        floor(spec(), gpu=Gpu(name="g", memory_bytes=None, bandwidth_bytes_per_second=1e12, measured=unread)) == sheet
    )


@pytest.mark.parametrize("rate", [0, -1.0, 3.35, float("nan"), float("inf"), "fast"])
def test_a_bandwidth_that_makes_no_sense(rate: Any) -> None:
    with pytest.raises(InputError, match="bandwidth"):
        estimate(spec(), gpu=Gpu(name="odd", memory_bytes=80 * GIB, bandwidth_bytes_per_second=rate))


STAGES = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=5)


def rounds(stages: list[tuple[int, int]], groups: list[int], num_rounds: int) -> int:
    """Bytes read one after another while groups of sequences go round: a stage serves one at a time, and a sequence's
    next token waits for its last."""
    free, ready = [0] * len(stages), [0] * len(groups)
    for _ in range(num_rounds):
        for i, size in enumerate(groups):
            for stage, (weights, cache) in enumerate(stages):
                ready[i] = free[stage] = max(ready[i], free[stage]) + weights + size * cache
    return max(ready)


@given(stages=STAGES, groups=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_no_schedule_is_faster(stages: list[tuple[int, int]], groups: list[int]) -> None:
    assert rounds(stages, groups, num_rounds=7) >= 7 * bytes_in_turn(stages, sum(groups))


@given(stages=STAGES)
def test_one_sequence_takes_just_as_long(stages: list[tuple[int, int]]) -> None:
    assert rounds(stages, [1], num_rounds=1) == bytes_in_turn(stages, 1)


@given(weights=st.integers(0, 1000), cache=st.integers(0, 1000), batch=st.integers(1, 100))
def test_one_stage_takes_just_as_long(weights: int, cache: int, batch: int) -> None:
    assert rounds([(weights, cache)], [batch], num_rounds=1) == bytes_in_turn([(weights, cache)], batch)
