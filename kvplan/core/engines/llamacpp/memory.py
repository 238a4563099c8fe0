"""The bytes of a context, layer by layer: keys and values, an indexer's keys, recurrent states.

    keys, values   row(type, kv_heads · head_dim) · cells · streams, each
    a latent       row(type_k, latent + rope) · cells · streams: it is key and value at once; older builds and files
                   add row(type_v, latent), or hold keys and values of every head
    an indexer     row(type_k, index_dim) · cells · streams, of as many vectors as `INDEX_ROWS` says
    a state        4 · ((columns − 1) · channels + heads · key_dim · value_dim) · n_seq_max · (1 + n_rs_seq)

Without flash attention values lie transposed, and every layer has the width of the widest. The order of the dimensions
of a row does not matter: rows are whole blocks of 32, as `checks` sees to.

Source: llama.cpp b11434, src/llama-kv-cache.cpp (constructor), src/llama-kv-cache-dsa.cpp, src/llama-kv-cache-dsv4.cpp,
src/llama-memory-recurrent.cpp, src/llama-hparams.cpp `n_embd_r`, `n_embd_s`
"""

from dataclasses import dataclass

from kvplan.core.dtypes import DType
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.llamacpp.architectures import INDEX_ROWS, architecture_of, honoured_window, latent_cache
from kvplan.core.engines.llamacpp.cells import Cells
from kvplan.core.mixers import (
    ChunkedAttention,
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    ShortConvolution,
    SlidingAttention,
)
from kvplan.core.model import Layer, ModelSpec

STATE_BYTES = 4
"""States and convolutions' columns are F32, whatever the formats of weights and cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one layer holds in one of the context's caches."""

    kind: str
    bytes_per_cell: int = 0
    window: int | None = None
    """Tokens of a sequence that it keeps besides those of a micro-batch; None = all."""
    ratio: int = 1
    """Tokens of one cell."""
    bytes_per_sequence: int = 0
    own_streams: bool = False
    """Every sequence has its own cells even in a unified context (DeepSeek V4)."""

    def cells(self, context: Cells) -> int:
        """Cells of one stream."""
        if self.window is not None:
            return context.sliding(self.window, unified=False if self.own_streams else None)
        return context.folded(self.ratio) if self.ratio > 1 else context.n_ctx_seq

    def bytes_for(self, context: Cells) -> int:
        """Bytes of all sequences."""
        streams = context.n_seq_max if self.own_streams else context.n_stream
        grown = self.bytes_per_cell * self.cells(context) * streams if self.bytes_per_cell else 0
        return grown + self.bytes_per_sequence * context.n_seq_max * (1 + context.n_rs_seq)


def held_by(model: ModelSpec, deployment: Deployment) -> tuple[tuple[Held, ...], ...]:
    """What each distinct layer of `model.layers` holds, in their order."""
    return tuple(_layer(model, layer, deployment) for layer in model.layers)


def held_by_draft(model: ModelSpec, deployment: Deployment) -> tuple[Held, ...]:
    """What the layers of multi-token prediction hold where they draft: a context of their own, with as many cells."""
    switches = deployment.switches
    if model.draft is None or switches.speculative_method != "mtp" or not switches.num_speculative_tokens:
        return ()
    return tuple(held for layer in model.draft.layers for held in _layer(model, layer, deployment))


def _layer(model: ModelSpec, layer: Layer, deployment: Deployment) -> tuple[Held, ...]:
    return tuple(held for mixer in layer.mixers for held in _held(model, layer, mixer, deployment))


def _held(model: ModelSpec, layer: Layer, mixer: Mixer, deployment: Deployment) -> tuple[Held, ...]:
    """Nothing for an encoder's layer, for one that reads another's keys, and for cross-attention, computed anew."""
    if isinstance(mixer, LinearAttention):
        return (Held(kind=mixer.kind, bytes_per_sequence=STATE_BYTES * state_elements(mixer)),)
    if isinstance(mixer, ShortConvolution):
        return _convolution(layer, mixer)
    if isinstance(mixer, LatentAttention):
        return _latent(model, mixer, deployment)
    if isinstance(mixer, CompressedAttention):
        return _compressed(mixer, deployment.key_dtype, honoured_window(model, mixer))
    if isinstance(mixer, FullAttention):
        held = Held(kind="full", bytes_per_cell=_kv_bytes(model, mixer, deployment)) if mixer.cached else None
        return (*((held,) if held else ()), *_indexer(model, mixer.index_dim, deployment.key_dtype))
    if isinstance(mixer, SlidingAttention | ChunkedAttention):
        window = honoured_window(model, mixer)
        kind = "full" if window is None else mixer.kind
        return (Held(kind=kind, bytes_per_cell=_kv_bytes(model, mixer, deployment), window=window),)
    return ()


def _kv_bytes(
    model: ModelSpec,
    mixer: FullAttention | SlidingAttention | ChunkedAttention | LatentAttention,
    deployment: Deployment,
) -> int:
    """Bytes of one cell's keys and values."""
    width = mixer.num_kv_heads * mixer.value_dim
    if deployment.switches.flash_attention is False:
        width = max(width, widest_values(model))
    return deployment.key_dtype.vector_bytes(mixer.num_kv_heads * mixer.key_dim) + deployment.value_dtype.vector_bytes(
        width
    )


def widest_values(model: ModelSpec) -> int:
    """Elements of the values of the widest layer that caches any."""
    cached = (FullAttention, SlidingAttention, ChunkedAttention)
    return max(
        (m.num_kv_heads * m.value_dim for layer in model.layers for m in layer.mixers if isinstance(m, cached)),
        default=0,
    )


def _latent(model: ModelSpec, mixer: LatentAttention, deployment: Deployment) -> tuple[Held, ...]:
    """One vector of latent and rotary key, a second one of the latent, or every head's: as `latent_cache` says."""
    layout = latent_cache(model, deployment)
    if layout == "expanded":
        return (Held(kind="full", bytes_per_cell=_kv_bytes(model, mixer, deployment)),)
    index = _indexer(model, mixer.index_dim, deployment.key_dtype)
    width = mixer.latent_dim + mixer.rope_dim
    if not mixer.latent_dim:
        return index
    values = deployment.value_dtype.vector_bytes(mixer.latent_dim) if layout == "with_values" else 0
    return (Held(kind="latent", bytes_per_cell=deployment.key_dtype.vector_bytes(width) + values), *index)


def _indexer(model: ModelSpec, index_dim: int, dtype: DType) -> tuple[Held, ...]:
    """Keys of an indexer lie in a cache of their own, in the format of keys."""
    if not index_dim:
        return ()
    rows = INDEX_ROWS.get(architecture_of(model) or "", 1)
    return (Held(kind="indexer", bytes_per_cell=dtype.vector_bytes(rows * index_dim)),)


def _compressed(mixer: CompressedAttention, dtype: DType, window: int | None) -> tuple[Held, ...]:
    """DeepSeek V4: a window of vectors; entries, and their keys; what is open of an entry, and its weights, in F32.

        state = 2 · 4 bytes · (2 · ratio · 2 · width where entries overlap, else ratio · width)

    All of it once for every sequence, unified or not. Source: src/llama-kv-cache-dsv4.cpp
    """
    raw = Held(
        kind="full" if window is None else "sliding",
        bytes_per_cell=dtype.vector_bytes(mixer.head_dim),
        window=window,
        own_streams=True,
    )
    if not mixer.ratio:
        return (raw,)
    twice = 2 if mixer.overlaps else 1
    open_elements = 2 * (twice * mixer.ratio) * (twice * (mixer.head_dim + mixer.index_dim))
    entry = dtype.vector_bytes(mixer.head_dim) + (dtype.vector_bytes(mixer.index_dim) if mixer.index_dim else 0)
    folded = Held(kind="compressed", bytes_per_cell=entry, ratio=mixer.ratio, own_streams=True)
    return raw, folded, Held(kind="linear", bytes_per_sequence=STATE_BYTES * open_elements)


def state_elements(mixer: LinearAttention) -> int:
    """n_embd_r + n_embd_s: of a convolution's columns the newest is not kept, as it is the token's own."""
    columns = mixer.conv_columns if mixer.recurrence == "rwkv" else max(mixer.conv_columns - 1, 0)
    return columns * mixer.conv_channels + mixer.num_heads * mixer.key_dim * mixer.value_dim + mixer.vector_elements


def _convolution(layer: Layer, mixer: ShortConvolution) -> tuple[Held, ...]:
    """A short convolution's columns but the newest; beside a state (Qwen4-Exp's n-grams) all that it reads of earlier
    tokens, while the tokens themselves stay with the host."""
    if mixer.bits == 64:
        return ()
    beside = any(isinstance(other, LinearAttention) for other in layer.mixers)
    columns = mixer.columns if beside else mixer.columns - 1
    return (Held(kind="linear", bytes_per_sequence=STATE_BYTES * columns * mixer.channels),)
