"""The table of accelerators: every line is sound, and every way of writing a name finds its device."""

from collections import Counter

import pytest

from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.units import GIB, MIB
from kvplan.sources.gpus import _table, find_gpu, load_gpus

GPUS = load_gpus()

NAMES = {
    "H100": "H100-SXM5-80GB",
    "h100": "H100-SXM5-80GB",
    "H100 80GB": "H100-SXM5-80GB",
    "h100 sxm": "H100-SXM5-80GB",
    "H100-SXM5": "H100-SXM5-80GB",
    "h100 pcie": "H100-PCIe-80GB",
    "h100-nvl": "H100-NVL-94GB",
    "NVIDIA H100 80GB HBM3": "H100-SXM5-80GB",
    "NVIDIA H100 PCIe": "H100-PCIe-80GB",
    "h200": "H200-SXM-141GB",
    "H200 NVL": "H200-NVL-141GB",
    "b200": "B200-SXM-180GB",
    "gb200": "GB200",
    "a100": "A100-SXM4-80GB",
    "a100-80g": "A100-SXM4-80GB",
    "A100_80GB": "A100-SXM4-80GB",
    "a100-40gb": "A100-SXM4-40GB",
    "a100 pcie": "A100-PCIe-80GB",
    "NVIDIA A100 80GB PCIe": "A100-PCIe-80GB",
    "NVIDIA A100-SXM4-40GB": "A100-SXM4-40GB",
    "NVIDIA GeForce RTX 2060": "RTX 2060 6GB",
    "RTX 2060 12GB": "RTX 2060 12GB",
    "NVIDIA GeForce RTX 2080 Ti": "RTX 2080 Ti",
    "NVIDIA GeForce RTX 3060": "RTX 3060",
    "NVIDIA GeForce RTX 3060 Ti": "RTX 3060 Ti",
    "3080": "RTX 3080 10GB",
    "NVIDIA GeForce RTX 3090": "RTX 3090",
    "NVIDIA GeForce RTX 3090 Ti": "RTX 3090 Ti",
    "4060 ti 16gb": "RTX 4060 Ti 16GB",
    "NVIDIA GeForce RTX 4070 Ti": "RTX 4070 Ti",
    "NVIDIA GeForce RTX 4070 Ti SUPER": "RTX 4070 Ti SUPER",
    "NVIDIA GeForce RTX 4080 SUPER": "RTX 4080 SUPER",
    "NVIDIA GeForce RTX 5070 Ti": "RTX 5070 Ti",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": "RTX PRO 6000 Blackwell Max-Q",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "RTX PRO 6000 Blackwell",
    "a10": "A10",
    "a10g": "A10G",
    "v100": "V100-SXM2-16GB",
    "v100 32gb": "V100-SXM2-32GB",
    "Tesla V100-SXM2-32GB": "V100-SXM2-32GB",
    "Tesla T4": "T4",
    "4090": "RTX 4090",
    "rtx4090": "RTX 4090",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "RTX 4090 24GB": "RTX 4090",
    "rtx-3090": "RTX 3090",
    "l40s": "L40S",
    "l40": "L40",
    "L4": "L4",
    "a6000": "RTX A6000",
    "6000 ada": "RTX 6000 Ada",
    "NVIDIA RTX 6000 Ada Generation": "RTX 6000 Ada",
    "rtx pro 6000": "RTX PRO 6000 Blackwell",
    "mi300x": "MI300X",
    "MI300": "MI300X",
    "AMD Instinct MI300X": "MI300X",
    "mi250x": "MI250X-GCD-64GB",
    "NVIDIA GH200 480GB": "GH200-96GB",
    "gaudi 3": "Gaudi3",
    "v5e": "TPU v5e",
    "ironwood": "TPU v7 (Ironwood)",
    "trn2": "Trainium2",
    "dgx spark": "GB10 (DGX Spark)",
    "m3": "Apple M3",
    "M3 Max": "Apple M3 Max",
}


@pytest.mark.parametrize(("written", "name"), NAMES.items(), ids=NAMES)
def test_ways_of_writing(written: str, name: str) -> None:
    assert find_gpu(written).name == name


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_every_device_answers_to_its_own_name(gpu: Gpu) -> None:
    assert find_gpu(gpu.name) is gpu
    assert find_gpu(gpu.name.lower().replace("-", " ")) is gpu


def test_no_two_devices_share_a_name() -> None:
    shared = [key for key, count in Counter(key for _, keys in _table() for key in keys).items() if count > 1]
    assert shared == []


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_every_line_is_sound(gpu: Gpu) -> None:
    rates = (gpu.bandwidth_bytes_per_second, gpu.bf16_flops, gpu.fp16_flops, gpu.fp8_flops)
    assert all(rate is None or rate > 1e9 for rate in rates)
    assert gpu.bandwidth_bytes_per_second is not None
    assert gpu.vendor
    assert gpu.source
    assert gpu.memory_note
    assert gpu.marketed_gb is not None
    if gpu.memory_bytes is not None:
        assert 0.93 < gpu.memory_bytes / (gpu.marketed_gb * 1e9) < 1.08
    if gpu.fp8_flops and gpu.fp16_flops:
        assert gpu.fp8_flops >= gpu.fp16_flops
    assert (gpu.visible_bytes is not None) == ("visible: " in gpu.source)
    if gpu.visible_bytes is not None and gpu.memory_bytes is not None:
        # The same few hundred MiB are a larger share of a small card: 406 of 6144 on an RTX 2060.
        assert 0 <= gpu.memory_bytes - gpu.visible_bytes < max(640 * MIB, gpu.memory_bytes * 3 // 100)
    elif gpu.visible_bytes is not None:
        assert 0.87 < gpu.visible_bytes / (gpu.marketed_gb * GIB) < 1


def test_h100_holds_what_its_driver_prints() -> None:
    """81559 MiB, not the 80 GiB of the box: the difference is 361 MiB."""
    h100 = find_gpu("H100")
    assert h100.memory_bytes == 81_559 * MIB == 85_520_809_984
    assert h100.bandwidth_bytes_per_second == 3.35e12
    assert h100.arch == "9.0"


PRINTED = {
    # What torch, vLLM, llama.cpp or Unsloth print as the total, GiB; from logs that name the device.
    "Tesla T4": ("14.563", "14.741"),
    "A100-SXM4-40GB": ("39.38", "39.557"),
    "A100-SXM4-80GB": ("79.14", "79.25"),
    "NVIDIA L4": ("21.96", "22.161"),
    "L40S": ("44.392", "44.522"),
    "RTX 3090": ("23.558", "23.699"),
    "RTX 4090": ("23.51", "23.647"),
    "RTX 5090": ("31.342", "31.357"),
    "NVIDIA H100 80GB HBM3": ("79.097", "79.19"),
    "NVIDIA H100 NVL": ("93.016", "93.10"),
    "NVIDIA H200": ("139.72", "139.81"),
    "NVIDIA B200": ("178.35", "178.36"),
    "MI300X": ("191.688", "191.98"),
    "GB10": ("119.631", "121.69"),
}


@pytest.mark.parametrize(("written", "range_gib"), PRINTED.items(), ids=PRINTED)
def test_what_frameworks_see_is_the_least_that_logs_print(written: str, range_gib: tuple[str, str]) -> None:
    visible = find_gpu(written).visible_bytes
    least, most = (float(text) for text in range_gib)
    half = 0.5 * 10 ** -len(range_gib[0].partition(".")[2])
    assert visible is not None
    assert abs(visible / GIB - least) <= half + 1e-9
    assert visible < most * GIB


def test_unified_memory_has_no_figure_but_a_reason() -> None:
    gpu = find_gpu("M4 Max")
    assert gpu.memory_bytes is None
    assert "unified" in gpu.memory_note


@pytest.mark.parametrize(
    ("written", "name", "num_bytes"),
    [
        ("80GiB", "80 GiB GPU", 80 * GIB),
        ("24 gb", "24 GB GPU", 24 * 10**9),
        ("47.5GiB", "47.5 GiB GPU", 47 * GIB + GIB // 2),
    ],
)
def test_a_memory_size_is_a_gpu_without_a_name(written: str, name: str, num_bytes: int) -> None:
    gpu = find_gpu(written)
    assert (gpu.name, gpu.memory_bytes, gpu.bandwidth_bytes_per_second) == (name, num_bytes, None)


@pytest.mark.parametrize(
    ("written", "choices"),
    [
        ("80gb pcie", ["A100-PCIe-80GB", "H100-PCIe-80GB"]),
        ("rtx 6000", ["RTX 6000 Ada", "RTX PRO 6000 Blackwell"]),
        ("v5", ["TPU v5e", "TPU v5p"]),
        ("80gb sxm", ["H100-SXM5-80GB", "A100-SXM4-80GB"]),
        ("jetson", ["Jetson AGX Orin 64GB", "Jetson Orin NX 16GB"]),
    ],
)
def test_an_ambiguous_name_lists_the_choices(written: str, choices: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        find_gpu(written)
    assert not str(caught.value).endswith(".")
    assert all(f"`{choice}`" in caught.value.hint for choice in choices)


UNKNOWN = ["", "   ", "h1000", "rtx 4091", "nvidia", "0GiB", "h", "80", "🙂", "-24GB", "a1", "a100 sxm4 pcie"]


@pytest.mark.parametrize("written", UNKNOWN)
def test_an_unknown_name_is_an_input_error_with_a_next_step(written: str) -> None:
    with pytest.raises(InputError) as caught:
        find_gpu(written)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="no GPU named `rtx 4091` is known") as caught:
        find_gpu("rtx 4091")
    assert "did you mean `RTX 4090`" in caught.value.hint
    assert "kvplan gpus" in caught.value.hint
