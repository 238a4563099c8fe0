"""Parameters to bytes: per dtype, per quantisation scheme, per rank of tensor parallelism."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from kvplan.core.dtypes import BF16, DType
from kvplan.core.errors import InputError
from kvplan.core.model import PARTS, Layer, ModelSpec, Part, Quantization, Weight
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.core.units import ceil_div


def _planned(name: str, bits: int, *beside: StoredTensor) -> Quantization:
    planned = StoredFormat(name, (StoredTensor("weight", bits), *beside))
    return Quantization(method=name, bits=bits, understood=True, planned=planned)


# What `--quant` plans with. The scheme is the planner's, not a checkpoint's, so the row rests on an assumption:
# one fp32 scale per output row for 8 bits (as compressed-tensors' channel strategy), and for 4 bits groups of 128
# with an fp16 scale and a 4-bit zero point (as GPTQ and AWQ store them).
PLANNED_QUANTS = {
    "fp8": _planned("fp8", 8, StoredTensor("scale", 32, (1, 0))),
    "int8": _planned("int8", 8, StoredTensor("scale", 32, (1, 0))),
    "int4": _planned("int4", 4, StoredTensor("scale", 16, (1, 128)), StoredTensor("zero_point", 4, (1, 128))),
}
_PLANNED_PARTS = ("attention", "mlp", "experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSize:
    """How much of the model one part is."""

    parameters: int
    total_bytes: int


def parse_quant(text: str) -> Quantization:
    """The scheme that `--quant` names: fp8, int8 or int4."""
    try:
        return PLANNED_QUANTS[text.strip().lower()]
    except KeyError:
        hint = f"one of {', '.join(PLANNED_QUANTS)}, or leave it out to plan the weights as they are stored"
        raise InputError(f"`{text[:40]}` is not a weight quantisation that kvplan plans", hint=hint) from None


def weight_bytes(weight: Weight, dtype: DType, quant: Quantization | None = None, tp: int = 1) -> int:
    """Bytes of all copies of a weight on the fullest of `tp` ranks.

    plain      copies · ⌈elements · bits / 8⌉
    quantised  copies · Σ the tensors of its format (`core.stored`)
    """
    shape = weight.rank_shape(tp)
    stored = stored_as(weight, quant)
    if stored is None:
        return weight.copies * ceil_div(prod(shape) * (weight.fixed_bits or dtype.bits), 8)
    rows, columns = shape
    return weight.copies * stored.bytes_of(rows, columns)


def stored_as(weight: Weight, quant: Quantization | None) -> StoredFormat | None:
    """The format that replaces this weight; None where it stays plain."""
    if quant is None or not quant.understood:
        return None
    if quant.planned is None:
        return weight.stored
    return quant.planned if weight.linear and weight.part in _PLANNED_PARTS else None


def layer_bytes(layer: Layer, dtype: DType, quant: Quantization | None, tp: int) -> int:
    """Bytes of a layer's weights on one rank."""
    return sum(weight_bytes(weight, dtype, quant, tp) for weight in layer.weights)


def all_weights(model: ModelSpec) -> Iterable[tuple[Weight, int]]:
    """Every weight of the model with the number of times that it stands there."""
    yield from ((weight, 1) for weight in (*model.embeddings, *model.head))
    for layer, count in model.layer_counts():
        yield from ((weight, count) for weight in layer.weights)


def computed_weight_bytes(model: ModelSpec, dtype: DType, quant: Quantization | None) -> int:
    """Bytes of all weights, before they are shared out."""
    return sum(count * weight_bytes(weight, dtype, quant) for weight, count in all_weights(model))


def num_parameters(model: ModelSpec) -> int:
    """All parameters; a tied output head is the token table and counts once."""
    return sum(count * weight.num_parameters for weight, count in all_weights(model))


def draft_parameters(model: ModelSpec) -> int:
    """Parameters that the checkpoint stores for multi-token prediction beside the model; part of no other figure."""
    return 0 if model.draft is None else sum(weight.num_parameters for weight in model.draft.weights)


def draft_bytes(model: ModelSpec, dtype: DType, quant: Quantization | None) -> int:
    """Bytes of these, in the dtype and scheme of a plan."""
    return 0 if model.draft is None else sum(weight_bytes(weight, dtype, quant) for weight in model.draft.weights)


def active_parameters(model: ModelSpec) -> int:
    """Parameters that serve one token: everything but the experts that it is not routed to."""
    return sum(count * weight.active_parameters for weight, count in all_weights(model))


def sizes_by_part(model: ModelSpec, dtype: DType, quant: Quantization | None) -> dict[Part, PartSize]:
    """Parameters and bytes of each part that the model has; they sum to the whole."""
    sums: dict[Part, list[int]] = {}
    for weight, count in all_weights(model):
        entry = sums.setdefault(weight.part, [0, 0])
        entry[0] += count * weight.num_parameters
        entry[1] += count * weight_bytes(weight, dtype, quant)
    return {part: PartSize(parameters=p, total_bytes=b) for part in PARTS if part in sums for p, b in [sums[part]]}


def stored_formats(model: ModelSpec) -> dict[str, PartSize]:
    """Parameters and bytes of each format that the checkpoint stores weights in, the largest first; plain ones last."""
    quant, dtype = model.quantization, model.dtype or BF16
    sums: dict[str, list[int]] = {}
    for weight, count in all_weights(model):
        stored = stored_as(weight, quant)
        entry = sums.setdefault(stored.name if stored else "plain", [0, 0])
        entry[0] += count * weight.num_parameters
        entry[1] += count * weight_bytes(weight, dtype, quant)
    order = sorted(sums.items(), key=lambda item: (item[0] == "plain", -item[1][0], item[0]))
    return {name: PartSize(parameters=parameters, total_bytes=size) for name, (parameters, size) in order}
