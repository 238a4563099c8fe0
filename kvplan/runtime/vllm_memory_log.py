"""The figures of vLLM's start-up log: what is taken of the memory, and the pool that is made of the rest.

Sources and units as in `vllm_log`, whose dialect they are of.
"""

import re

from kvplan.runtime.lines import Line
from kvplan.runtime.wording import NUMBER, Start, Wording, number, wording

_UNITS = dict.fromkeys(
    (
        "weights", "activation_peak", "non_torch", "consumed", "non_kv", "graphs", "graph_estimate", "kv_memory",
        "requested", "device_total", "device_free", "needed", "torch_peak",
    ),
    "GiB",
) | {"utilization": "share", "needed_len": "tokens", "estimated_max_len": "tokens"}  # fmt: skip


_ROUNDED = _UNITS | {"utilization": "rounded share"}
"""V0 prints two digits of the share, V1 all of them."""


def size(key: str, pattern: str, versions: str, **options: object) -> Wording:
    """A wording whose figures are sizes, or shares."""
    return wording(key, pattern, versions, places=2, **{"units": _UNITS, **options})


def count(key: str, pattern: str, versions: str, **options: object) -> Wording:
    """A wording whose figures are counts."""
    names = re.findall(r"(?<!P)<(\w+)>", pattern)
    unit = {"num_blocks": "blocks", "num_cpu_blocks": "blocks", "max_concurrency": "x", "state_slots": "seqs"}
    return wording(key, pattern, versions, units={name: unit.get(name, "tokens") for name in names}, **options)


def option(name: str, value: object = None) -> dict[str, object]:
    """What the engine says that it decided, under kvplan's name."""

    def read(start: Start, found: re.Match[str], line: Line) -> None:
        del line
        start.options[name] = int(found["x_value"].replace(",", "")) if value is None else value

    return {"then": read}


def _read_share(start: Start, found: re.Match[str], line: Line) -> None:
    """The share as the engine repeats it; what it was told stands over it."""
    del line
    if "gpu_memory_utilization" not in start.args:
        start.options["gpu_memory_utilization"] = float(found["x_value"])


def _read_override(start: Start, found: re.Match[str], line: Line) -> None:
    """The user's blocks. Those of the small pool that graphs are measured with, from 0.18 on, replace none: 0."""
    del line
    if int(found["x_before"]):
        start.options["num_gpu_blocks_override"] = int(found["x_value"])


def _runs(engine: str) -> dict[str, object]:
    """A wording that one of the two engines of one release alone has."""

    def read(start: Start, found: re.Match[str], line: Line) -> None:
        del found, line
        start.facts.setdefault("engine", engine)

    return {"then": read}


def _read_in_use(start: Start, found: re.Match[str], line: Line) -> None:
    if found["x_size"]:
        start.add("kv_memory", found["x_size"], "GiB", line, places=2, weak=True)


def _worded_as(version: str) -> dict[str, object]:
    """A wording that these versions alone have, for logs that do not state theirs."""

    def read(start: Start, found: re.Match[str], line: Line) -> None:
        del found, line
        start.facts.setdefault("worded_as", version)

    return {"then": read}


def _read_load(start: Start, found: re.Match[str], line: Line) -> None:
    """What one model took; what one rank of V0 loads after it, and says apart, is what drafts."""
    loaded = [figure.value for figure in start.figures.get("weights", ()) if figure.rank == line.rank]
    drafts = loaded and ("weights", line.rank) not in start.passing and number(found["x_size"])[0] < loaded[0]
    name = "draft_weights" if drafts else "weights"
    start.add(name, found["x_size"], "GiB", line, places=2)


_LOADING = (
    wording(
        "Model loading took", rf"Model loading took (?P<x_size>{NUMBER}) G", "0.7+", begins="load", then=_read_load
    ),
    wording(
        "Loading model weights took",
        rf"Loading model weights took (?P<x_size>{NUMBER}) G",
        "0.3 to 0.7; on Ascend",
        begins="load",
        then=_read_load,
    ),
)

_MEMORY_V0 = (
    size(
        "Memory profiling results:",
        r"total_gpu_memory=<device_total>GiB initial_memory_usage=.{0,12}? peak_torch_memory=<torch_peak>GiB "
        r"memory_usage_post_profile=.{0,12}? non_torch_memory=<non_torch>GiB kv_cache_size=<kv_memory>GiB "
        r"gpu_memory_utilization=<utilization>",
        "0.6.2 to 0.6.4",
        units=_ROUNDED,
        **_worded_as("0.6.4"),
    ),
    size(
        "x gpu_memory_utilization",
        r"total_gpu_memory \(<device_total>GiB\) x gpu_memory_utilization \(<utilization>\) = <requested>GiB",
        "0.6.5 to 0.10",
        units=_ROUNDED,
    ),
    size("model weights take", r"model weights take <weights>GiB", "0.6.4 to 0.10", weak=True, **_runs("V0")),
    size("non_torch_memory takes", r"non_torch_memory takes <non_torch>GiB", "0.6.4 to 0.10"),
    size("activation peak memory takes", r"activation peak memory takes <activation_peak>GiB", "0.6.4 to 0.10"),
    size(
        "reserved for KV Cache is",
        r"reserved for KV Cache is <kv_memory>GiB",
        "0.6.5 to 0.10",
        **_worded_as("0.7.3"),
    ),
    count(
        " blocks: ",
        r"(?:(?<!, )# \w+|\bGPU) blocks: <num_blocks>(?:, # CPU blocks: <num_cpu_blocks>)?",
        "0.1 to 0.10; V1 of 0.7",
    ),
)

_MEMORY_V1 = (
    size("Available KV cache memory:", r"Available KV cache memory: <kv_memory> GiB", "0.8.3+"),
    size(
        "memory for KV Cache as specified by",
        r"(?:nitial free memory:? <device_free> GiB[,;] )?[Rr]eserved <kv_memory> GiB memory for KV Cache as "
        r"specified by",
        "0.11+",
    ),
    wording(
        "Available memory: ",
        r"Available memory: <kv_memory>, total memory: <device_total>",
        "0.7 to 0.10 on Ascend",
        units={"kv_memory": "B", "device_total": "B"},
    ),
    wording(
        "will be enabled by default",
        r"In v0\.19, CUDA graph memory profiling will be enabled by default",
        "0.17 to 0.20",
        **_worded_as("0.19"),
    ),
    wording(
        "--gpu-memory-utilization",
        r"(?:The current --gpu-memory-utilization=|increase --gpu-memory-utilization from )(?P<x_value>0?\.\d+|1\.0+)",
        "0.17+",
        then=_read_share,
    ),
    size("Total non KV cache memory:", r"Total non KV cache memory: <non_kv>GiB", "0.10+, debug"),
    size("torch peak memory increase:", r"torch peak memory increase: <activation_peak>GiB", "0.10+, debug"),
    size("forward increase memory:", r"non-torch forward increase memory: <non_torch>GiB", "0.10+, debug"),
    size("weights memory:", r"weights memory: <weights>GiB", "0.10+, debug", weak=True),
    size(
        "Desired GPU memory utilization is",
        r"Free memory on device (?:\S+ )?\(<device_free>/<device_total> GiB\) on startup\. "
        r"Desired GPU memory utilization is \(<utilization>, <requested> GiB\)",
        "0.10.2+",
    ),
    size("GiB for weight", r"Actual usage(?: is|:) <weights> GiB for weight", "0.10.2 to 0.20", weak=True),
    size("for consumed memory", r"<consumed> GiB for consumed memory", "0.27+"),
    size("for peak activation", r"<activation_peak> GiB for peak activation", "0.10.2+", weak=True),
    size("for non-torch memory", r"<non_torch> GiB for non-torch memory", "0.10.2 to 0.20", weak=True),
    size(
        "raph memory",
        r"<graphs> GiB for (?:CUDAGraph|NPU graph|XPU ?[Gg]raph) memory",
        "0.10.2+; of NPUs on Ascend",
        weak=True,
    ),
    wording(
        "urrent kv cache memory in use",
        r"kv cache memory in use is (?:<kv_memory> bytes|(?P<x_size>\d[\d.]*) GiB)",
        "0.11 in bytes, 0.12+ in GiB",
        units={"kv_memory": "B"},
        weak=True,
        then=_read_in_use,
    ),
    size("Current KV cache memory:", r"Current KV cache memory: <kv_memory> GiB", "0.18+ on Ascend", weak=True),
)

_GRAPHS = (
    size("Graph capturing finished", r"Graph capturing finished in \d+ secs?, took <graphs> GiB", "0.5+"),
    size("Estimated CUDA graph memory:", r"Estimated CUDA graph memory: <graph_estimate> GiB", "0.19+"),
    size(
        "CUDA graph pool memory:",
        r"CUDA graph pool memory: <graphs> GiB \(actual\), <graph_estimate> GiB \(estimated\)",
        "0.19+",
        weak=True,
    ),
)

_POOL = (
    count("KV cache size:", r"KV cache size: <num_tokens> tokens", "0.7+"),
    count(
        "Maximum concurrency for",
        r"Maximum concurrency for <concurrency_len> tokens per request: <max_concurrency>x",
        "0.5.1+",
    ),
    count("num_gpu_blocks is:", r"num_gpu_blocks is: <num_blocks>", "0.8+, debug"),
    count(
        "num_gpu_blocks_override=",
        r"Overriding num_gpu_blocks=(?P<x_before>\d+) with num_gpu_blocks_override=(?P<x_value>\d+)",
        "0.5+",
        then=_read_override,
    ),
)

MEMORY = (*_LOADING, *_MEMORY_V0, *_MEMORY_V1, *_GRAPHS, *_POOL)
"""Figures of all versions."""
