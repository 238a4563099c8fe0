"""What a GPU holds besides weights and cache: activations, the driver's context, communication buffers.

Constants here are measurements with spread and source, never bare numbers in formulas.
"""

from dataclasses import dataclass
from functools import reduce

from kvplan.core.attention import BACKENDS, PassShape, kept_weights_bytes
from kvplan.core.dtypes import DType
from kvplan.core.model import Layer
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


def activation_bytes(layers: list[Layer], forward: Pass, logits_vocab: int) -> int:
    """The peak of one forward pass over what it keeps: the residual stream, and the widest step.

        peak   = 2 · tokens · hidden · dtype + max(attention of any layer, MLP of any layer, logits)
        logits = batch · vocabulary · (dtype + 4)       the fp32 copy that sampling reads; last token only

    Tokens are those of one pass (a prefill chunk). Frameworks keep a little more: this is a derived floor.
    """
    residual = forward.elements_bytes(
        reduce(larger, (forward.shape.tokens_of(layer) * forward.hidden_size for layer in layers), 0)
    )
    steps = [step for layer in layers for step in _layer_steps(layer, forward)]
    logits = forward.shape.num_sequences * ceil_div(logits_vocab * (forward.dtype.bits + 32), 8)
    return 2 * residual + reduce(larger, steps, logits)


def _layer_steps(layer: Layer, forward: Pass) -> list[int]:
    """The peaks of a layer's attention calls and of its MLP.

    attention = b · q · (heads · key_dim + kv_heads · (key_dim + value_dim)) · dtype + transient
    MLP       = tokens · widest · dtype + what eager attention keeps alive
    """
    steps, kept = [], 0
    for mixer in layer.mixers:
        call = forward.shape.call(layer, mixer, forward.dtype, forward.tp)
        width = call.num_heads * call.key_dim + call.num_kv_heads * (call.key_dim + call.value_dim)
        inputs = forward.elements_bytes(call.total_query_tokens * width)
        steps.append(inputs + BACKENDS[forward.backend](call))
        kept = kept + kept_weights_bytes(call, forward.backend)
    mlp = forward.shape.tokens_of(layer) * ceil_div(layer.mlp_activations, forward.tp)
    return [*steps, kept + forward.elements_bytes(mlp)]
