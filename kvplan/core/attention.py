"""Transient memory of one attention call, per backend: what is alive at its peak and gone after it.

Keys, values and queries themselves are not counted: they are the cache and the layer's activations.
To add a backend: a function below with its formula and source, its line in `BACKENDS`, and its key in the JSON
document (`report.schema`, `report.data`). A new kind of mixer may need its own lengths in `PassShape`.

    b  sequences    q  query tokens    S = b · heads · q · k       scores
    h  heads        k  key tokens      O = b · heads · q · value_dim   output elements
    w  bytes of the model's dtype
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from kvplan.core.cache import kv_heads_per_rank
from kvplan.core.dtypes import DType
from kvplan.core.mixers import CompressedAttention, CrossAttention, SoftmaxMixer, window_of
from kvplan.core.model import EagerSoftmax, Layer
from kvplan.core.units import ceil_div, larger, smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """The shape of one call on one GPU: sequences of `query_tokens` each, against `key_tokens` each.

    A pass that a limit cuts short holds fewer tokens than sequences · tokens, hence the two totals.
    """

    batch_size: int
    num_heads: int
    num_kv_heads: int
    query_tokens: int
    key_tokens: int
    total_query_tokens: int
    """b · q, or what the pass's limit leaves of it."""
    total_key_tokens: int
    """b · k, or the tokens of the sequences that the pass reaches."""
    key_dim: int
    value_dim: int
    dtype: DType
    causal: bool
    eager_softmax: EagerSoftmax = "fp32"

    @property
    def num_rows(self) -> int:
        """b · h · q: rows of the score matrix."""
        return self.num_heads * self.total_query_tokens

    @property
    def num_scores(self) -> int:
        """S = b · h · q · k."""
        return self.num_rows * self.key_tokens

    @property
    def width(self) -> int:
        """w: bytes of one element of the model's dtype."""
        return self.dtype.bits // 8

    @property
    def output_bytes(self) -> int:
        """w · O."""
        return self.width * self.num_rows * self.value_dim

    @property
    def key_elements(self) -> int:
        """Elements of K, copied out to every query head."""
        return self.num_heads * self.total_key_tokens * self.key_dim

    @property
    def repeated_elements(self) -> int:
        """Elements of K and V copied out to every query head, where heads are grouped; else none."""
        if self.num_heads == self.num_kv_heads:
            return 0
        return self.num_heads * self.total_key_tokens * (self.key_dim + self.value_dim)


_IN_REGISTERS = 128
"""Dimensions of a value that memory-efficient attention sums up in registers."""

# Bytes alive per score at the softmax, by the way a class computes it: (fp32, bf16, fp16).
# Traced on torch 2.13 with transformers 5.23; tests/data/truth/attention.jsonl holds the measurements.
_EAGER_SCORE_BYTES: dict[EagerSoftmax, tuple[int, int, int]] = {
    "fp32": (4 + 4, 2 + 4 + 4, 2 + 4 + 2),  # scores, [fp32 copy of bf16], fp32 softmax, [cast back]
    "model-dtype": (4 + 4, 2 + 2, 2 + 2),  # scores and probabilities: gpt2, t5, bart, bert
    "masked-copy": (4 * 3, 2 * 3, 2 * 3),  # scores, scores + mask, probabilities: falcon
    "alibi": (16, 18, 18),  # three fp32 copies, and the scores and probabilities in the model's dtype: falcon
}


def _eager(call: AttentionCall) -> int:
    """Scores and probabilities in full: what transformers' eager attention holds at its peak, on CUDA.

        bytes = R + max(S · per score, w · S + K', w · S + max(V' + w · O, 2 · w · O))
        R     = w · b · h · k · (key_dim + value_dim) where heads are grouped: `repeat_kv` copies K and V

    A single KV head is repeated as a view, and R is nothing; where there are several sequences, each product then
    copies its own operand: K' = w · b · h · k · key_dim, V' likewise with value_dim, else nothing.

    Per score, with its softmax in fp32 as most classes have it: fp32 4 + 4, bf16 2 + 4 + 4, fp16 2 + 4 + 2.
    CUDA widens fp16 inside the softmax kernel; bf16 is copied to fp32 first.

    Source: transformers 5.23, models/*/modeling_*.py `eager_attention_forward`; ATen/native/SoftMax.cpp,
    LinearAlgebra.cpp `matmul`
    """
    shared = call.num_kv_heads == 1 < call.num_heads
    repeated = 0 if shared else call.width * call.repeated_elements
    copied = smaller(call.batch_size - 1, 1) * call.width * call.num_heads * call.total_key_tokens if shared else 0
    if call.eager_softmax == "sinks":
        return repeated + copied * call.value_dim + _sinks(call)
    at = ("fp32", "bf16", "fp16").index(call.dtype.name)
    softmax = call.num_scores * _EAGER_SCORE_BYTES[call.eager_softmax][at]
    scores = call.width * call.num_scores
    output = scores + larger(copied * call.value_dim + call.output_bytes, 2 * call.output_bytes)
    return repeated + reduce(larger, (softmax, scores + copied * call.key_dim, output))


def _sinks(call: AttentionCall) -> int:
    """gpt_oss: the sink is one more column, and its softmax subtracts the row maxima itself, in the model's dtype.

        bytes = w · max(S + 2 · S' + b·h·q, 2 · S' + 2 · O)    S' = b · h · q · (k + 1)

    Source: transformers 5.23, models/gpt_oss/modeling_gpt_oss.py
    """
    with_sink = call.num_scores + call.num_rows
    softmax = call.width * (call.num_scores + 2 * with_sink + call.num_rows)
    return larger(softmax, 2 * call.width * with_sink + 2 * call.output_bytes)


def _math(call: AttentionCall) -> int:
    """torch's "math" SDPA: everything in fp32, whatever the inputs.

        bytes = copies + max(4·K + 4·S + 4·Q, 9·S + b·h·q, 4·S + 4·O + [2·S + 2·O])
        copies = fp32 scaled Q + [fp32 Q, K and V] + fp32 K and V for every head (grouped) + 4·q·k (causal mask)

    [ ] for 16-bit inputs; 4·Q in the maximum for several queries of several sequences, whose transposed view is
    copied. Nine bytes a score: scores, probabilities, and the mask of fully masked rows.

    Source: ATen/native/transformers/attention.cpp `_scaled_dot_product_attention_math`, torch 2.13
    """
    half = call.width == 2
    scores, rows = call.num_scores, call.num_rows
    queries, outputs = 4 * rows * call.key_dim, 4 * rows * call.value_dim
    kv_elements = call.num_kv_heads * call.total_key_tokens * (call.key_dim + call.value_dim)
    copies = queries + 4 * call.repeated_elements + (queries + 4 * kv_elements if half else 0)
    if call.causal:
        copies = copies + 4 * call.query_tokens * call.key_tokens
    output_step = 4 * scores + outputs + (2 * scores + outputs // 2 if half else 0)
    several = smaller(call.batch_size - 1, 1) * smaller(call.query_tokens - 1, 1)
    scores_step = 4 * call.key_elements + 4 * scores + several * queries
    return copies + reduce(larger, (scores_step, 9 * scores + rows, output_step))


def _efficient(call: AttentionCall) -> int:
    """Memory-efficient attention, without gradients: the output, and beside a wide one in 16 bits an fp32 copy.

        bytes = w · O + [4 · O where w = 2 and value_dim > 128]

    Up to 128 the output is summed up in registers. The log-sum-exp is kept for gradients only.

    Source: Rabe & Staats 2021, https://arxiv.org/abs/2112.05682; ATen native/transformers/cuda/attention.cu
    `_efficient_attention_forward`, mem_eff_attention/kernel_forward.h `kNeedsOutputAccumulatorBuffer`
    """
    summed = 4 * call.num_rows * call.value_dim if call.width == 2 and call.value_dim > _IN_REGISTERS else 0
    return call.output_bytes + summed


def _flash(call: AttentionCall) -> int:
    """FlashAttention: the output and one fp32 log-sum-exp per query and head; no scores in memory.

        bytes = w · O + b · h · q · 4

    Where a call is too short to fill a GPU, its keys are cut into splits whose fp32 sums stand beside: some MB, which
    depend on the GPU and are left out.

    Source: Dao 2023, §3.1, https://arxiv.org/abs/2307.08691
    """
    return call.output_bytes + call.num_rows * 4


BACKENDS: dict[str, Callable[[AttentionCall], int]] = {
    "eager": _eager,
    "math": _math,
    "efficient": _efficient,
    "flash": _flash,
}


def transient_bytes(call: AttentionCall) -> dict[str, int]:
    """Bytes of one call for every backend."""
    return {name: backend(call) for name, backend in BACKENDS.items()}


def kept_weights_bytes(call: AttentionCall, backend: str) -> int:
    """What eager attention keeps alive through the rest of its layer: w · S probabilities, and the mask.

    Source: transformers 5.23: a decoder layer binds the returned attention weights until it ends.
    """
    if backend != "eager":
        return 0
    mask = call.total_query_tokens * call.key_tokens
    return call.width * (call.num_scores + mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassShape:
    """The tokens of one forward pass: a prefill, cut short at a limit where there is one, or one decode step."""

    decode: bool
    batch_size: int
    seq_len: int
    encoder_seq_len: int
    limit: int | None

    @property
    def num_tokens(self) -> int:
        """Tokens of the decoder: min(b · n, limit), or one of every sequence."""
        return self.batch_size if self.decode else self._limited(self.batch_size * self.seq_len)

    @property
    def num_encoder_tokens(self) -> int:
        """Tokens of the encoder: an input is never cut, so at least one whole."""
        return larger(self._limited(self.batch_size * self.encoder_seq_len), self.encoder_seq_len)

    @property
    def num_sequences(self) -> int:
        """Sequences that the pass can reach."""
        return self.batch_size if self.decode else self._limited(self.batch_size)

    def _limited(self, num_tokens: int) -> int:
        return num_tokens if self.limit is None else smaller(num_tokens, self.limit)

    def tokens_of(self, layer: Layer) -> int:
        """Tokens that pass through a layer."""
        return self.num_encoder_tokens if layer.in_encoder else self.num_tokens

    def call(self, layer: Layer, mixer: SoftmaxMixer, dtype: DType, tp: int) -> AttentionCall:
        """The call that `mixer` of `layer` makes in this pass; a windowed layer decodes over its window only."""
        queries, keys, total_keys = self._lengths(layer, mixer)
        return AttentionCall(
            batch_size=self.num_sequences,
            num_heads=max(1, ceil_div(mixer.num_heads, tp)),
            num_kv_heads=kv_heads_per_rank(mixer, tp),
            query_tokens=queries,
            key_tokens=keys,
            total_query_tokens=self.tokens_of(layer),
            total_key_tokens=total_keys,
            key_dim=mixer.key_dim,
            value_dim=mixer.value_dim,
            dtype=dtype,
            causal=not (self.decode or layer.in_encoder or isinstance(mixer, CrossAttention)),
            eager_softmax=layer.eager_softmax,
        )

    def _lengths(self, layer: Layer, mixer: SoftmaxMixer) -> tuple[int, int, int]:
        """(query tokens, key tokens, key tokens of all sequences) of one call."""
        if layer.in_encoder:
            return self.encoder_seq_len, self.encoder_seq_len, self.num_encoder_tokens
        queries = 1 if self.decode else self._limited(self.seq_len)
        if isinstance(mixer, CrossAttention):
            return queries, self.encoder_seq_len, self.num_sequences * self.encoder_seq_len
        if not self.decode:
            total = larger(self.num_tokens, self.seq_len)
            return queries, self.seq_len + _entries(mixer, self.seq_len), total + _entries(mixer, total)
        window = window_of(mixer)
        keys = self.seq_len if window is None else smaller(self.seq_len, window)
        keys += _entries(mixer, self.seq_len)
        return queries, keys, self.batch_size * keys


def _entries(mixer: SoftmaxMixer, num_tokens: int) -> int:
    """Keys beside those of the tokens themselves: entries that fold several tokens."""
    return mixer.entries_of(num_tokens) if isinstance(mixer, CompressedAttention) else 0
