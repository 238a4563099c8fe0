"""What a GPU holds besides weights and cache: activations, the driver's context, communication buffers.

Constants here are measurements with spread and source, never bare numbers in formulas.
"""

from dataclasses import dataclass
from functools import reduce

from kvplan.core.attention import BACKENDS, PassShape, kept_weights_bytes
from kvplan.core.device import context_of, driver_reserve
from kvplan.core.dtypes import DType
from kvplan.core.hardware import Gpu
from kvplan.core.measured import Measured
from kvplan.core.mixers import ShortConvolution, StateMixer
from kvplan.core.model import Layer
from kvplan.core.units import MIB, ceil_div, larger

TENSOR_PARALLEL_PROCESS = Measured(
    name="CUDA context and collectives",
    num_bytes=2170 * MIB,
    spread_bytes=60 * MIB,
    source="vLLM 0.19 on H100: 2.06-2.17 GiB outside torch with tensor parallelism, 0.25 GiB without "
    "(llm-d-incubation/llm-d-planner, accuracy/results/v0.19.0)",
)


def overheads(tp: int, gpu: Gpu | None = None) -> tuple[Measured, ...]:
    """What a process takes outside its tensors; pipeline stages alone bring no collectives' buffers.

    The context is that of this kind of device where one was measured; with tensor parallelism no record has it.
    """
    reserve = driver_reserve(gpu)
    if tp > 1:
        return (reserve, TENSOR_PARALLEL_PROCESS)
    return (reserve, context_of(gpu))


def context_bytes(tp: int, gpu: Gpu | None = None) -> int:
    """The sum of `overheads`."""
    return sum(overhead.num_bytes for overhead in overheads(tp, gpu))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One forward pass on one GPU: its tokens, its formats, the backend that its attention runs on."""

    shape: PassShape
    hidden_size: int
    dtype: DType
    backend: str
    tp: int

    def elements_bytes(self, count: int) -> int:
        """Bytes of `count` elements in the model's dtype."""
        return ceil_div(count * self.dtype.bits, 8)


def activation_bytes(layers: list[Layer], forward: Pass, num_logits: int) -> int:
    """The peak of one forward pass over what it keeps: the residual stream, and the widest step.

        peak   = 2 · tokens · hidden · dtype + max(attention of any layer, MLP of any layer, logits)
        logits = num_logits · (dtype + 4)       whole on every rank, with the fp32 copy that sampling reads

    Tokens are those of one pass (a prefill chunk). Frameworks keep a little more: this is a derived floor.
    """
    residual = forward.elements_bytes(
        reduce(larger, (forward.shape.tokens_of(layer) * forward.hidden_size for layer in layers), 0)
    )
    steps = [step for layer in layers for step in _layer_steps(layer, forward)]
    logits = ceil_div(num_logits * (forward.dtype.bits + 32), 8)
    return 2 * residual + reduce(larger, steps, logits)


def _layer_steps(layer: Layer, forward: Pass) -> list[int]:
    """The peaks of a layer's token mixers and of its MLP.

    attention = b · q · (heads · key_dim + kv_heads · (key_dim + value_dim)) · dtype + transient
    MLP       = tokens · widest · dtype + what eager attention keeps alive
    """
    steps, kept = [], 0
    for mixer in layer.mixers:
        if isinstance(mixer, StateMixer):
            steps.append(_state_step(layer, mixer, forward))
            continue
        call = forward.shape.call(layer, mixer, forward.dtype, forward.tp)
        width = call.num_heads * call.key_dim + call.num_kv_heads * (call.key_dim + call.value_dim)
        inputs = forward.elements_bytes(call.total_query_tokens * width)
        steps.append(inputs + BACKENDS[forward.backend](call))
        kept = kept + kept_weights_bytes(call, forward.backend)
    mlp = forward.shape.tokens_of(layer) * ceil_div(layer.mlp_activations, forward.tp)
    return [*steps, kept + forward.elements_bytes(mlp)]


def _state_step(layer: Layer, mixer: StateMixer, forward: Pass) -> int:
    """What a recurrent mixer reads and writes: queries, keys, values and output; no scores, whatever the backend.

        bytes = tokens · (2 · key_heads · key_dim + 2 · heads · value_dim) · dtype

    A short convolution's: two gates, its input and its output, 4 · tokens · channels · dtype. The fp32 copies that
    implementations make of a chunk are left out, so this is a floor.
    """
    if isinstance(mixer, ShortConvolution):
        channels = ceil_div(mixer.channels, forward.tp)
        return forward.elements_bytes(forward.shape.tokens_of(layer) * 4 * channels)
    heads, key_heads = (max(1, ceil_div(count, forward.tp)) for count in (mixer.num_heads, mixer.num_key_heads))
    width = 2 * key_heads * mixer.key_dim + 2 * heads * mixer.value_dim
    return forward.elements_bytes(forward.shape.tokens_of(layer) * width)
