"""llama.cpp: which device each layer stands on, and the account of each device."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import InputError, load_model
from kvplan.core.device import visible_bytes
from kvplan.core.dtypes import FP16
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.llamacpp import profile
from kvplan.core.engines.llamacpp.devices import HOST, context_bytes, context_cells, split_layers
from kvplan.core.hardware import Gpu, MeasuredDevice
from kvplan.core.layout import stage_weights
from kvplan.core.serving import resolve
from kvplan.core.units import MIB
from tests.models import spec

POOLED = profile(None).pooled
QWEN = "Qwen/Qwen3.5-9B"


def deployment(n_ctx, **switches):
    return Deployment(dtype=FP16, key_dtype=FP16, value_dtype=FP16, max_model_len=n_ctx, switches=Switches(**switches))


SPLITS = {
    "all on one": ((None, (1.0,)), [0] * 33),
    "the output and ten layers": ((11, (1.0,)), [HOST] * 22 + [0] * 11),
    "none": ((0, (1.0,)), [HOST] * 33),
    # 33 places: the first device has those below 33 / 2, which is 17
    "two alike": ((None, (1.0, 1.0)), [0] * 17 + [1] * 16),
    "three to one": ((None, (3.0, 1.0)), [0] * 25 + [1] * 8),
    "one device left out": ((None, (0.0, 1.0)), [1] * 33),
    "twenty of which two devices have ten": ((20, (1.0, 1.0)), [HOST] * 13 + [0] * 10 + [1] * 10),
}


@pytest.mark.parametrize(("asked", "places"), SPLITS.values(), ids=SPLITS)
def test_layers_are_dealt_to_devices(asked, places):
    split = split_layers(spec(), *asked)
    assert [*split.layers, split.output] == places


OLDER_SPLITS = {
    # b3800: layers from n_layer - n_gpu_layers on, the output only where n_gpu_layers is above n_layer.
    "ten layers": ((10, (1.0,)), [HOST] * 22 + [0] * 10 + [HOST]),
    "all layers, and the output with the CPU": ((32, (1.0,)), [0] * 32 + [HOST]),
    "all": ((33, (1.0,)), [0] * 33),
    "none": ((0, (1.0,)), [HOST] * 33),
    "ten of which two devices have five": ((10, (1.0, 1.0)), [HOST] * 22 + [0] * 5 + [1] * 5 + [HOST]),
}


@pytest.mark.parametrize(("asked", "places"), OLDER_SPLITS.values(), ids=OLDER_SPLITS)
def test_older_builds_give_the_gpu_the_output_last(asked, places):
    split = split_layers(spec(), *asked, output_last=True)
    assert [*split.layers, split.output] == places


def test_the_cache_of_an_older_build_is_one_layer_more():
    # Llama-3.1-8B, -ngl 10 of 33: 10 layers of 8192 · 4096 bytes, where newer builds have 9 and the output.
    model = load_model("meta-llama/Llama-3.1-8B")
    for output_last, layers in ((True, 10), (False, 9)):
        asked = deployment(8192, num_gpu_layers=10, output_last=output_last)
        where = context_bytes(model, asked, context_cells(model, asked, 8192))
        assert where.devices == (layers * 32 * MIB,)
        assert where.total == 1024 * MIB


def test_a_hybrid_over_host_and_gpu():
    # The log has 96 MiB of keys and values with the CPU and 160 with Vulkan: 3 and 5 of 8 attention layers of 32 MiB.
    model = load_model(QWEN)
    asked = deployment(8192, num_gpu_layers=20)
    where = context_bytes(model, asked, context_cells(model, asked, 8192))
    state = round(50.25 * MIB) // 24
    assert where.host == 3 * 32 * MIB + 10 * state
    assert where.devices == (5 * 32 * MIB + 14 * state,)
    assert POOLED.pool(model, asked, None).allocated_bytes == where.devices[0]


@given(shares=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), layers=st.none() | st.integers(0, 99))
def test_devices_and_host_hold_it_all(shares, layers):
    asked = deployment(4096, num_gpu_layers=layers, tensor_split=tuple(float(share) for share in shares))
    where = context_bytes(spec(), asked, context_cells(spec(), asked, 4096))
    assert where.total == 2048 * MIB
    assert len(where.devices) == len(shares)
    assert all(not num_bytes for num_bytes, share in zip(where.devices, shares, strict=True) if not share)


# The account.

GPU = Gpu(name="test", memory_bytes=24 * 1024 * MIB)


def test_an_account_for_each_device():
    asked = replace(deployment(4096, tensor_split=(1.0, 1.0)), gpu=GPU)
    first, last = POOLED.budget(spec(), asked, (3 * MIB, 4 * MIB))
    assert first.usable_bytes == first.device_bytes == visible_bytes(GPU) == (24 * 1024 - 512) * MIB
    names = {account.stage: {item.name: item.num_bytes for item in account.taken} for account in (first, last)}
    assert names[0]["weights"] == 3 * MIB
    # The mask: 512 · 4096 · 2 bytes; logits: 512 · 32,000 · 4, on the device with the output alone
    assert names[0]["compute buffer's floor"] == 4 * MIB
    assert names[1]["compute buffer's floor"] == 512 * 32_000 * 4
    assert names[1]["output buffer"] == 32_000 * 4
    assert "output buffer" not in names[0]
    assert last.kv_memory_bytes < first.kv_memory_bytes < GPU.memory_bytes


def test_without_flash_attention_scores_are_counted():
    asked = replace(deployment(4096, flash_attention=False), gpu=GPU)
    (account,) = POOLED.budget(spec(), asked, (0,))
    assert account.taken[1].num_bytes == 512 * 4096 * (2 + 32 * 4)


# Compute buffers that servers printed: model, n_ctx, n_ubatch, MiB.
BUFFERS = {
    "Qwen3.5-27B, CUDA": ("Qwen/Qwen3.5-27B", 131072, 512, 495.00),
    "Qwen3.5-27B, Vulkan": ("Qwen/Qwen3.5-27B", 8192, 512, 568.18),
    "Qwen3.5-9B, Vulkan": (QWEN, 8192, 512, 498.00),
    "gpt-oss-20b, Metal": ("openai/gpt-oss-20b", 131072, 2048, 1672.08),
}


@pytest.mark.parametrize(("name", "n_ctx", "n_ubatch", "printed"), BUFFERS.values(), ids=BUFFERS)
def test_compute_buffers_lie_within_their_spread(name, n_ctx, n_ubatch, printed):
    asked = replace(deployment(n_ctx, num_ubatch_tokens=n_ubatch, kv_unified=True), gpu=GPU)
    (account,) = POOLED.budget(load_model(name), asked, (0,))
    floor, rest = account.taken[1:3]
    assert abs(floor.num_bytes + rest.num_bytes - printed * MIB) <= rest.spread_bytes


def test_what_was_measured_on_the_device_counts():
    measured = replace(GPU, measured=MeasuredDevice(context_bytes=300 * MIB, source="here"))
    (account,) = POOLED.budget(spec(), replace(deployment(4096), gpu=measured), (0,))
    assert account.taken[-1].num_bytes == 300 * MIB


def test_an_account_needs_a_device_and_weights_for_each():
    for asked in (
        deployment(4096),
        replace(deployment(4096), gpu=replace(GPU, memory_bytes=None)),
        replace(deployment(4096), gpu=GPU),
    ):
        with pytest.raises(InputError):
            POOLED.budget(spec(), asked, (1, 2))


# gpt-oss-120b: 36 layers, each with 128 experts of three matrices 2880 x 2880 in MXFP4 (17 bytes for 32 elements) and
# three rows of 2880 biases, in bf16 here.
EXPERTS = 128 * (3 * 2880 * 2880 * 17 // 32 + 3 * 2880 * 2)


@pytest.mark.parametrize(("asked", "kept"), [(0, 0), (10, 10), (36, 36), (999, 36)])
def test_experts_of_the_first_layers_stay_with_the_cpu(asked, kept):
    model = load_model("openai/gpt-oss-120b")
    plain, asks = (resolve(model, engine="llamacpp", switches=Switches(num_cpu_moe_layers=n)) for n in (0, asked))
    assert sum(stage_weights(model, plain)) - sum(stage_weights(model, asks)) == kept * EXPERTS


def test_the_first_layers_lie_on_the_first_device():
    model = load_model("openai/gpt-oss-120b")
    plain, asks = (
        resolve(model, engine="llamacpp", pp=2, switches=Switches(num_cpu_moe_layers=n)) for n in (0, 22)
    )  # 37 places: 19 layers on the first of two, 17 on the second
    saved = [a - b for a, b in zip(stage_weights(model, plain), stage_weights(model, asks), strict=True)]
    assert saved == [19 * EXPERTS, 3 * EXPERTS]


def test_the_first_gpu_has_room_for_a_tensor_of_the_cpus():
    """ggml-backend.cpp: a GPU multiplies a long batch by a copy; the fused gate and up is the largest that is named."""
    model = load_model("openai/gpt-oss-120b")
    copy = 128 * 2 * 2880 * 2880 * 17 // 32
    for told, expected in (
        ({}, [None, None]),
        ({"num_cpu_moe_layers": 1}, [copy, None]),
        ({"num_gpu_layers": 20}, [copy, None]),
    ):
        asked = replace(deployment(4096, tensor_split=(1.0, 1.0), **told), gpu=GPU)
        accounts = POOLED.budget(model, asked, (0, 0))
        items = [{item.name: item.num_bytes for item in account.taken} for account in accounts]
        assert [found.get("buffer for the CPU's tensors") for found in items] == expected
