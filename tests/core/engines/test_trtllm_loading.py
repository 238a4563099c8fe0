"""What TensorRT-LLM pads experts with, worked by hand."""

import pytest

from kvplan.core.dtypes import parse_dtype, parse_kv_dtype
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.trtllm.loading import loaded, padding_of_experts
from kvplan.sources.load import load_model

GPT_OSS = load_model("openai/gpt-oss-20b", offline=True)  # 24 layers of 32 experts, 2880 wide and 2880 within


def deployment(tp: int = 1, **given: bool) -> Deployment:
    key = parse_kv_dtype("bf16")
    return Deployment(
        dtype=parse_dtype("bf16"), key_dtype=key, value_dtype=key, max_model_len=4096, tp=tp, switches=Switches(**given)
    )


def of_one_expert(width: int, within: int) -> int:
    """Gate and up, and down: 4 bits an element, and a byte of scale for 32 of them."""
    return 3 * width * within * 17 // 32


@pytest.mark.parametrize(("tp", "within", "padded"), [(1, 2880, 2944), (2, 1440, 1536)], ids=["whole", "halves"])
def test_rows_and_columns_of_128(tp: int, within: int, padded: int) -> None:
    found = padding_of_experts(GPT_OSS, deployment(tp), 0)
    assert found is not None
    assert found.num_bytes == 24 * 32 * (of_one_expert(2944, padded) - of_one_expert(2880, within))
    assert found.basis == "assumed"


def test_the_spread_reaches_to_kernels_that_pad_nothing_and_to_those_that_pad_to_512() -> None:
    """Gate and up take their input 3072 wide: two thirds of an expert's elements."""
    found = padding_of_experts(GPT_OSS, deployment(), 0)
    assert found is not None
    most = 24 * 32 * (2 * 2944 * 3072 + 2944 * 2944 - 3 * 2880 * 2880) * 17 // 32
    assert found.num_bytes - found.spread_bytes <= 0
    assert found.num_bytes + found.spread_bytes >= most


def test_whole_experts_are_dealt_out() -> None:
    whole, dealt = (padding_of_experts(GPT_OSS, deployment(*given), 0) for given in ((1,), (4,)))
    parallel = padding_of_experts(GPT_OSS, deployment(4, expert_parallel=True), 0)
    assert whole is not None
    assert dealt is not None
    assert parallel is not None
    assert 4 * parallel.num_bytes == whole.num_bytes
    assert parallel.num_bytes < dealt.num_bytes


def test_experts_in_16_bits_are_as_they_are() -> None:
    model = load_model("Qwen/Qwen3-8B", offline=True)
    assert padding_of_experts(model, deployment(), 0) is None
    (weights,) = loaded(model, deployment(), 0, 1000)
    assert (weights.num_bytes, weights.spread_bytes, weights.basis) == (1000, 20, "derived")
