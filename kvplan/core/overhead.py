"""What a GPU holds besides weights and cache: activations, the driver's context, communication buffers.

Constants here are measurements with spread and source, never bare numbers in formulas.
"""

from dataclasses import dataclass
from functools import reduce

from kvplan.core.attention import PassShape, transient_bytes
from kvplan.core.dtypes import DType
from kvplan.core.model import Layer, Mixer
from kvplan.core.units import MIB, ceil_div, larger


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure that somebody measured: its value and spread in bytes, and where it stands."""

    value: int
    spread: int
    source: str


CUDA_CONTEXT = Measured(
    512 * MIB,
    256 * MIB,
    "287-666 MiB in public reports, by GPU, driver and module loading "
    "(pytorch/pytorch#86509, pytorch/pytorch#107667, unslothai/unsloth-zoo#1053)",
)
COMMUNICATION = Measured(
    1946 * MIB,
    52 * MIB,
    "vLLM 0.19 on H100: 2.1-2.2 GiB outside torch with tensor parallelism, 0.25 GiB without "
    "(llm-d-incubation/llm-d-planner, accuracy/results/v0.19.0)",
)


def context_bytes(tp: int) -> int:
    """The driver's context, and with tensor parallelism the collectives' buffers."""
    return CUDA_CONTEXT.value + (COMMUNICATION.value if tp > 1 else 0)


def mixer_activation_bytes(layer: Layer, mixer: Mixer, dtype: DType, shape: PassShape, backend: str, tp: int) -> int:
    """Queries, keys and values of the pass's tokens, and the attention call's own transient bytes.

    bytes = batch · query tokens · (heads · key_dim + kv_heads · (key_dim + value_dim)) · dtype + transient
    """
    call = shape.call(layer, mixer, dtype, tp)
    width = call.num_heads * call.key_dim + call.num_kv_heads * (call.key_dim + call.value_dim)
    return _elements(call.batch_size * call.query_tokens * width, dtype) + transient_bytes(call)[backend]


def activation_bytes(
    layers: list[Layer],
    hidden_size: int,
    dtype: DType,
    shape: PassShape,
    backend: str,
    tp: int,
    logits_vocab: int,
) -> int:
    """The peak of one forward pass over what it keeps: the residual stream, and the widest step.

        peak = 2 · tokens · hidden · dtype + max(attention of any layer, MLP of any layer, logits)
        logits = batch · vocabulary · (dtype + 4)       the fp32 copy that sampling reads; last token only

    Tokens are those of one pass (a prefill chunk). Frameworks keep a little more: this is a derived floor.
    """
    steps = [0]
    tokens = shape.batch_size * shape.query_tokens
    for layer in layers:
        layer_tokens = shape.batch_size * shape.encoder_tokens if layer.in_encoder else tokens
        tokens = larger(tokens, layer_tokens)
        steps.append(_elements(layer_tokens * ceil_div(layer.mlp_activations, tp), dtype))
        steps += [mixer_activation_bytes(layer, mixer, dtype, shape, backend, tp) for mixer in layer.mixers]
    steps.append(shape.batch_size * ceil_div(logits_vocab * (dtype.bits + 32), 8))
    return 2 * _elements(tokens * hidden_size, dtype) + reduce(larger, steps)


def _elements(count: int, dtype: DType) -> int:
    return ceil_div(count * dtype.bits, 8)
