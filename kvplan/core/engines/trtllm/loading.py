"""What TensorRT-LLM's PyTorch backend loads beyond a model's parameters: the padding of mxfp4 experts.

Source: TensorRT-LLM 1.2, tensorrt_llm/_torch/modules/fused_moe/quantization.py `MXFP4WeightFusedMoEMethod` and
`MXFP4WeightTRTLLMGenFusedMoEMethod` (`weight_alignment` 128, `input_hidden_alignment` 512)
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.trtllm.layers import dealt
from kvplan.core.measured import Measured
from kvplan.core.model import ModelSpec, Weight
from kvplan.core.units import ceil_div, round_up
from kvplan.core.weights import stored_as

STEP = 128
"""What the width of the model and that of an expert on one rank are padded to."""
INPUT_STEP = 512
"""The same of an expert's input in the kernels for Blackwell."""
OTHER_BYTES_SHARE = 50
"""Rotary tables, biases in fp32, blocks of torch's allocator: a fiftieth of the weights at most, as far as is seen."""


def loaded(model: ModelSpec, deployment: Deployment, stage: int, weight_bytes: int) -> tuple[Measured, ...]:
    """The weights of a stage's fullest rank, and what its experts are padded with, if anything."""
    weights = Measured(
        name="weights",
        num_bytes=weight_bytes,
        spread_bytes=weight_bytes // OTHER_BYTES_SHARE,
        source="the model's tensors",
        basis="derived",
    )
    padding = padding_of_experts(model, deployment, stage)
    return (weights,) if padding is None else (weights, padding)


def padding_of_experts(model: ModelSpec, deployment: Deployment, stage: int) -> Measured | None:
    """Bytes that mxfp4 experts of a stage's fullest rank take beyond the checkpoint's rows and columns.

        gate and up: 2 · round_up(I / tp, 128) × round_up(hidden, 128);  down: the other way round

    The kernels for Blackwell pad the input of gate and up to 512 instead, Triton's may pad nothing: which of them run
    is not known here, so that the spread reaches to both. None where no expert is padded.
    """
    start, stop = dealt(model, deployment)[stage]
    usual = most = 0
    for layer, count in model.layer_counts(start, stop):
        for weight in layer.weights:
            usual += count * _padding(weight, model, deployment, STEP)
            most += count * _padding(weight, model, deployment, INPUT_STEP)
    if not most:
        return None
    return Measured(
        name="padding of experts",
        num_bytes=usual,
        spread_bytes=max(usual, most - usual),
        source="TensorRT-LLM 1.2, fused_moe/quantization.py: 128 rows and columns; by kernel 512, or none",
        basis="assumed",
    )


def _padding(weight: Weight, model: ModelSpec, deployment: Deployment, input_step: int) -> int:
    stored = stored_as(weight, model.quantization)
    if stored is None or stored.name != "mxfp4" or weight.part != "experts" or weight.split is None:
        return 0
    whole = deployment.switches.expert_parallel
    rows, columns = weight.shape if whole else weight.rank_shape(deployment.tp)
    copies = ceil_div(weight.copies, deployment.tp) if whole else weight.copies
    if weight.split.axis == 0:
        halves = 2 if weight.shape[0] == 2 * weight.split.units else 1
        padded = halves * round_up(rows // halves, STEP), round_up(columns, input_step)
    else:
        padded = round_up(rows, STEP), round_up(columns, STEP)
    return copies * (stored.bytes_of(*padded) - stored.bytes_of(rows, columns))
