"""How fast a plan can decode at most: what one step must read, and how long memory takes to give it.

A floor of the time, and so a ceiling of the rate: arithmetic, launches and communication may cost nothing. What a
cache on the chip keeps from step to step is not taken off: some tens of MB, little beside any model that needs a plan.
"""

from dataclasses import dataclass, replace

from kvplan.core.cache import caches_of
from kvplan.core.hardware import Gpu
from kvplan.core.layout import sequence_cache_bytes
from kvplan.core.model import Layer, ModelSpec, Weight
from kvplan.core.serving import Serving
from kvplan.core.stages import stage_bounds
from kvplan.core.weights import weight_bytes

NOT_DECODED = (
    "encoder.",
    "encoder_attn.",
    "EncDecAttention.",
    "encoder_decoder_attention.",
    "crossattention.",
    "cross_attn.",
    "cross_attention.",
)
"""Fragments of the names of weights that a step is not held to read: the encoder's, and those of cross-attention, whose
keys and values are computed once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedFloor:
    """The least time of one decode step, and the most tokens per second of all sequences together."""

    decode_read_bytes: int
    """What is read one after another until every sequence has its next token."""
    decode_seconds_at_least: float
    tokens_per_second_at_most: float
    bandwidth_bytes_per_second: float
    basis: str
    """measured (what a device of this kind read the fastest) or data sheet."""
    source: str


def speed_floor(model: ModelSpec, serving: Serving) -> SpeedFloor | None:
    """seconds ≥ bytes / bandwidth, tokens per second ≤ batch / seconds.

    None where no bandwidth is known, where the model generates no tokens, and where a quantisation is known by its
    name only: what is counted for that is an upper bound.
    """
    rate = _bandwidth(serving.gpu)
    counted = serving.quant is None or serving.quant.understood
    if rate is None or not (counted and model.generates and model.has_vocabulary_head):
        return None
    num_bytes = bytes_in_turn(_stage_reads(model, serving), serving.batch_size)
    seconds = num_bytes / rate[0]
    return SpeedFloor(
        decode_read_bytes=num_bytes,
        decode_seconds_at_least=seconds,
        tokens_per_second_at_most=serving.batch_size / seconds,
        bandwidth_bytes_per_second=rate[0],
        basis=rate[1],
        source=rate[2],
    )


def bytes_in_turn(stages: list[tuple[int, int]], batch_size: int) -> int:
    """What must be read one after another of stages that each read (weights, cache of one sequence).

        max(max over stages (weights + batch · cache), Σ over stages (weights + cache))

    Each GPU reads its weights once at least and the cache of every sequence; each sequence passes through all stages,
    one by one, with its own cache at least. Sequences may be sent through in as many groups as one likes.
    """
    busiest = max(weights + batch_size * cache for weights, cache in stages)
    return max(busiest, sum(weights + cache for weights, cache in stages))


def _bandwidth(gpu: Gpu | None) -> tuple[float, str, str] | None:
    """(bytes per second, basis, source): measured on such a device, else as its maker states it."""
    if gpu is None:
        return None
    if gpu.measured is not None and gpu.measured.read_bytes_per_second is not None:
        return gpu.measured.read_bytes_per_second, "measured", gpu.measured.source
    rate = gpu.bandwidth_bytes_per_second
    return None if rate is None else (rate, "data sheet", gpu.source or "as given")


def _stage_reads(model: ModelSpec, serving: Serving) -> list[tuple[int, int]]:
    """(weights, cache of one sequence) that one GPU of each stage reads in a step."""
    reads = []
    for start, stop in stage_bounds(model.num_layers, serving.pp):
        counts = model.layer_counts(start, stop)
        weights = sum(n * _layer_reads(layer, serving) for layer, n in counts)
        if stop == model.num_layers:
            weights += _head_reads(model, serving)
        reads.append((weights, sum(n * _cache_reads(layer, serving) for layer, n in counts)))
    return reads


def _cache_reads(layer: Layer, serving: Serving) -> int:
    """What attention looks at, whatever an engine reserves: min(n, W) tokens, the encoder's, states once."""
    caches = caches_of(layer, serving.kv_dtype, serving.tp, serving.dtype, serving.value_dtype)
    return sum(sequence_cache_bytes(cache, serving) for _, cache in caches)


def _layer_reads(layer: Layer, serving: Serving) -> int:
    """A layer that looks at images is passed by where there are none."""
    unused = layer.in_encoder or (layer.skipped_without_images and not serving.encoder_seq_len)
    return 0 if unused else sum(_weight_reads(weight, serving) for weight in layer.weights)


def _head_reads(model: ModelSpec, serving: Serving) -> int:
    """The last stage's head, or the token table in its place. Tables at the start are looked up, not read."""
    tied = model.embeddings[:1] if model.tied_embeddings else ()
    return sum(_weight_reads(weight, serving) for weight in (*model.head, *tied))


def _weight_reads(weight: Weight, serving: Serving) -> int:
    """Of experts those that one token uses, as if all sequences took the same."""
    if weight.buffer or any(fragment in weight.name for fragment in NOT_DECODED):
        return 0
    copies = weight.copies if weight.active_copies is None else weight.active_copies
    return weight_bytes(replace(weight, copies=copies), serving.dtype, serving.quant, serving.tp)
