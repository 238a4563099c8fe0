"""Figures of vLLM that follow from no tensor: what its processes take outside torch, and what CUDA graphs cost.

All from public start-up logs (`tests/data/engines/observations.csv`), with the spread of what was seen.
"""

from dataclasses import dataclass, replace

from kvplan.core.measured import Measured
from kvplan.core.model import ModelSpec
from kvplan.core.units import MIB
from kvplan.core.weights import stored_as

SUBTRACTS_GRAPHS, ESTIMATES_ON_V2 = (0, 21), (0, 29)
"""The releases from which on an estimate of the CUDA graphs is taken off before the pool is sized, and from which on
the newer model runner makes one (before, it says 0: v1/worker/gpu/model_runner.py `profile_cudagraph_memory`)."""
GRAPH_SIZES, V0_GRAPH_SIZES = 51, 35
"""Batch sizes that are captured by default: 1, 2, 4, 8 … 256, 272 … 512; V0 up to 256."""
_H100 = "start-up logs of vLLM 0.19 on H100 (llm-d-incubation/llm-d-planner)"

CONTEXT = Measured(
    name="CUDA context",
    num_bytes=500 * MIB,
    spread_bytes=250 * MIB,
    source="287-666 MiB in public reports (pytorch/pytorch#86509, #107667), before vLLM's first look at the device",
)


def _outside(num_mib: int, spread_mib: int, source: str) -> Measured:
    return Measured(name="non-torch", num_bytes=num_mib * MIB, spread_bytes=spread_mib * MIB, source=source)


NON_TORCH = {
    "0.21": (
        _outside(200, 80, "0.13-0.16 GiB in 0.27-0.31 on RTX 4090 and A100, 0.22 on L4; 0.25 on H100 in 0.19"),
        _outside(1350, 820, "0.6 GiB at tp 4 on H100 in 0.25 (vllm-project/vllm#48601), 2.1 at tp 2 on H100 in 0.19"),
        _outside(72, 64, f"{_H100}: 0.07 GiB at pp 4"),
    ),
    "0.17": (
        _outside(256, 220, f"{_H100}: 0.24-0.27 GiB on 20 models, 0.46 on Granite"),
        _outside(2150, 64, f"{_H100}: 2.07-2.11 GiB at tp 2, 2.17 at tp 4: NCCL, custom all-reduce"),
        _outside(72, 64, f"{_H100}: 0.07 GiB at pp 4"),
    ),
    "before 0.17": (
        _outside(138, 32, "0.13-0.14 GiB on H100 (llm-d/llm-d-benchmark), 0.13 in unslothai/unsloth-zoo"),
        _outside(580, 400, "0.55 GiB at tp 2 (llm-d/llm-d-benchmark), 0.61 at dp 2; tp 4: 0.2 in 0.8, 1.84 in 0.10"),
        _outside(138, 64, "as on one GPU: no log shows pipeline stages alone"),
    ),
    "v0": (
        _outside(64, 300, "0.02-0.10 GiB on T4, A10, RTX 4090, A100; 0.35 once on RTX 3090"),
        _outside(205, 205, "0.2 GiB at tp 16, 0.39 at tp 2 (vllm-project/vllm#14447, #11251)"),
        _outside(64, 300, "as on one GPU: no log shows pipeline stages alone"),
    ),
}  # fmt: skip
"""By generation: on one GPU; with tensor or data parallelism; with pipeline stages alone."""
OVER_PCIE = _outside(
    500, 300, "0.25 GiB at tp 2 and 0.7 at tp 4 on RTX PRO 6000 in 0.27: no NVLink, no all-reduce of vLLM's own"
)
"""With tensor or data parallelism from 0.21 on, of GPUs without NVLink."""
PCIE_BYTES_PER_SECOND = 64e9
"""What two GPUs exchange over PCIe at most, PCIe 5.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCost:
    """What CUDA graphs of all batch sizes take."""

    fixed_bytes: int
    layer_bytes: int
    spread_bytes: int
    source: str


_ACTUAL = GraphCost(
    fixed_bytes=380 * MIB,
    layer_bytes=17 * MIB,
    spread_bytes=260 * MIB,
    source=f"{_H100}: least squares over dense models of 8-80 layers a stage",
)
_ESTIMATE = GraphCost(
    fixed_bytes=136 * MIB,
    layer_bytes=20 * MIB,
    spread_bytes=290 * MIB,
    source=f"the estimate that the same logs print: {_H100}; 0.4-0.8 GiB for 28-42 layers in 0.21-0.22",
)
_ESTIMATE_WITH_STATES = GraphCost(
    fixed_bytes=400 * MIB,
    layer_bytes=18 * MIB,
    spread_bytes=440 * MIB,
    source="estimates that logs of vLLM 0.22-0.30 print for Qwen3.5-Qwen3.8: 0.6 GiB for 64 layers and 5 sizes, "
    "0.64 for 32, 1.06 for 40, 1.45-1.94 for 64",
)
_V2_SPREAD = 600 * MIB
"""Of the newer runner's estimate: 0.44-0.54 GiB for 32 and 47 layers, 1.2 for 40 (0.30-0.31)."""
_ACTUAL_NOW = GraphCost(
    fixed_bytes=0,
    layer_bytes=17 * MIB,
    spread_bytes=320 * MIB,
    source="logs of vLLM 0.22-0.31 on A100, L4, RTX 4090, RTX 5090: 0.23-0.56 GiB for 24-36 layers, 0.71-0.78 for 42",
)
_ACTUAL_WITH_STATES = GraphCost(
    fixed_bytes=400 * MIB,
    layer_bytes=18 * MIB,
    spread_bytes=620 * MIB,
    source="logs of vLLM 0.22-0.27 for Qwen3.5-Qwen3.6: 0.55 GiB for 32 layers, 0.62-2.04 for 64",
)
_EARLY = GraphCost(
    fixed_bytes=380 * MIB,
    layer_bytes=17 * MIB,
    spread_bytes=1400 * MIB,
    source=f"as in 0.19 ({_H100}); 1.02 GiB for 62 layers in 0.11, 1.22 for 80 in 0.16, 2.24 for 36 in 0.9",
)
_V0 = GraphCost(
    fixed_bytes=0,
    layer_bytes=16 * MIB,
    spread_bytes=320 * MIB,
    source="0.17-0.70 GiB for 28-40 layers, most with 4-bit weights (unslothai/notebooks)",
)
_MXFP4 = 1000 * MIB
"""On top for mxfp4 experts: 1.55-1.84 GiB for 24 layers, where dense models take 0.77."""


def graph_cost(
    model: ModelSpec, release: tuple[int, ...], *, v1: bool, estimated: bool, states: bool = False, on_v2: bool = False
) -> GraphCost:
    """What fits the version: V0, then V1, whose cost is known from 0.17 on.

    `states`: recurrent layers; `on_v2`: the newer model runner.
    """
    if not v1:
        return _V0
    cost = _ACTUAL if release >= (0, 17) else _EARLY
    if estimated:
        cost = _ESTIMATE_WITH_STATES if states else _ESTIMATE
    elif release >= SUBTRACTS_GRAPHS:
        cost = _ACTUAL_WITH_STATES if states else _ACTUAL_NOW
    if estimated and on_v2:
        cost = replace(cost, spread_bytes=max(cost.spread_bytes, _V2_SPREAD))
    if not _has_mxfp4_experts(model):
        return cost
    return replace(
        cost,
        fixed_bytes=cost.fixed_bytes + _MXFP4,
        spread_bytes=cost.spread_bytes + _MXFP4 // 2,
        source=f"{cost.source}; 0.8-1.1 GiB on top for mxfp4 experts",
    )


def _has_mxfp4_experts(model: ModelSpec) -> bool:
    stored = (stored_as(weight, model.quantization) for layer in model.layers for weight in layer.weights)
    return any(form is not None and form.name == "mxfp4" for form in stored)
