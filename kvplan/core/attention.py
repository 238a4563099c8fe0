"""Transient memory of one attention call, per backend: what is alive at its peak and gone after it.

Keys, values and queries themselves are not counted: they are the cache and the layer's activations.
To add a backend: a function below with its formula and source, and its line in `BACKENDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kvplan.core.cache import kv_heads_per_rank
from kvplan.core.dtypes import DType
from kvplan.core.model import CrossAttention, Layer, Mixer, SlidingAttention
from kvplan.core.units import ceil_div, round_up, smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """The shape of one call on one GPU: `batch_size` sequences of `query_tokens` against `key_tokens`."""

    batch_size: int
    num_heads: int
    num_kv_heads: int
    query_tokens: int
    key_tokens: int
    key_dim: int
    value_dim: int
    dtype: DType

    @property
    def num_scores(self) -> int:
        """batch · heads · query tokens · key tokens."""
        return self.batch_size * self.num_heads * self.query_tokens * self.key_tokens

    @property
    def output_bytes(self) -> int:
        """batch · query tokens · heads · value_dim, in the model's dtype."""
        elements = self.batch_size * self.query_tokens * self.num_heads * self.value_dim
        return ceil_div(elements * self.dtype.bits, 8)

    @property
    def repeated_kv_bytes(self) -> int:
        """K and V copied out to every query head, where a backend cannot read grouped heads."""
        if self.num_heads == self.num_kv_heads:
            return 0
        elements = self.batch_size * self.num_heads * self.key_tokens * (self.key_dim + self.value_dim)
        return ceil_div(elements * self.dtype.bits, 8)


def call_of(
    mixer: Mixer, dtype: DType, *, batch_size: int, query_tokens: int, key_tokens: int, tp: int, decode: bool
) -> AttentionCall:
    """The call that a layer makes; a decode step of a windowed layer sees the window only."""
    if isinstance(mixer, SlidingAttention) and decode:
        key_tokens = smaller(key_tokens, mixer.window)
    return AttentionCall(
        batch_size=batch_size,
        num_heads=max(1, ceil_div(mixer.num_heads, tp)),
        num_kv_heads=kv_heads_per_rank(mixer, tp),
        query_tokens=query_tokens,
        key_tokens=key_tokens,
        key_dim=mixer.key_dim,
        value_dim=mixer.value_dim,
        dtype=dtype,
    )


def _eager(call: AttentionCall) -> int:
    """Scores and probabilities in full: what transformers' `eager_attention_forward` holds at its softmax.

        bytes = repeated K and V + scores · (dtype + [fp32 copy of bf16 scores] + fp32 probabilities)
              = repeated K and V + scores · {fp32: 4+4, fp16: 2+4+2, bf16: 2+4+4}

    The softmax runs in fp32. On CUDA an fp16 input is widened inside the kernel, and the peak comes when the
    probabilities are cast back; a bf16 input is copied to fp32 first.

    Source: transformers 5.23, models/llama/modeling_llama.py; ATen/native/SoftMax.cpp `softmax`
    """
    per_score = {"fp32": 8, "fp16": 8, "bf16": 10}[call.dtype.name]
    return call.repeated_kv_bytes + call.num_scores * per_score


def _math(call: AttentionCall) -> int:
    """torch's "math" SDPA: 16-bit inputs are widened, so scores and probabilities are both fp32.

        bytes = scores · (4 + 4) + fp32 copies of q, K and V (16-bit inputs) + repeated K and V

    Source: ATen/native/transformers/attention.cpp `_scaled_dot_product_attention_math`
    """
    return call.num_scores * 8 + 2 * call.repeated_kv_bytes


def _efficient(call: AttentionCall) -> int:
    """Memory-efficient attention: the output and one fp32 log-sum-exp per query, rows padded to 32.

        bytes = output + batch · heads · ⌈query tokens / 32⌉ · 32 · 4

    Source: Rabe & Staats 2021, https://arxiv.org/abs/2112.05682; ATen `_efficient_attention_forward`
    """
    rows = round_up(call.query_tokens, 32)
    return call.output_bytes + call.batch_size * call.num_heads * rows * 4


def _flash(call: AttentionCall) -> int:
    """FlashAttention: the output and one fp32 log-sum-exp per query and head; no scores in memory.

        bytes = output + batch · heads · query tokens · 4

    Source: Dao 2023, §3.1, https://arxiv.org/abs/2307.08691
    """
    return call.output_bytes + call.batch_size * call.num_heads * call.query_tokens * 4


BACKENDS: dict[str, Callable[[AttentionCall], int]] = {
    "eager": _eager,
    "math": _math,
    "efficient": _efficient,
    "flash": _flash,
}


def transient_bytes(call: AttentionCall) -> dict[str, int]:
    """Bytes of one call for every backend."""
    return {name: backend(call) for name, backend in BACKENDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PassShape:
    """The tokens of one forward pass: a prefill chunk, or one decode step."""

    decode: bool
    batch_size: int
    query_tokens: int
    key_tokens: int
    encoder_tokens: int

    def call(self, layer: Layer, mixer: Mixer, dtype: DType, tp: int) -> AttentionCall:
        """The call that `mixer` of `layer` makes in this pass."""
        query, key = self.query_tokens, self.key_tokens
        if layer.in_encoder:
            query = key = self.encoder_tokens
        elif isinstance(mixer, CrossAttention):
            key = self.encoder_tokens
        return call_of(
            mixer,
            dtype,
            batch_size=self.batch_size,
            query_tokens=query,
            key_tokens=key,
            tp=tp,
            decode=self.decode,
        )
