"""What each row of a plan rests on, and what its reader should know before acting on it.

exact       the architecture's arithmetic, or what a named engine holds, to the byte
derived     a closed formula that leaves something out, or a size known in total only
calibrated  somebody's measurement of an engine, or of a device of this kind
assumed     nobody stated it
"""

from dataclasses import dataclass

from kvplan.core.boot import Boot
from kvplan.core.device import CUDA_CONTEXT
from kvplan.core.dtypes import FP32
from kvplan.core.engines.pool import Budget
from kvplan.core.layout import GpuUse, loads_as_stored, row_of, stored_draft_bytes, total_weight_bytes, tp_accepted
from kvplan.core.mixers import StateMixer
from kvplan.core.model import ModelSpec, Quantization
from kvplan.core.overhead import overheads
from kvplan.core.serving import Serving
from kvplan.core.units import format_bytes, format_count
from kvplan.core.weights import all_weights, computed_weight_bytes, draft_parameters

TIGHT = 0.05
"""A GPU with less than this share free is called tight: the activations are a floor, and graphs are not counted."""
MISMATCH = 0.01
"""Stored files that differ by more than this share from what was counted hold something that was not understood."""


BASES = ("exact", "derived", "calibrated", "assumed")
"""From the firmest to the weakest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWarning:
    """Something that the reader of the plan should know before acting on it."""

    code: str
    message: str


def evidence(model: ModelSpec, serving: Serving, accounts: tuple[Budget, ...] = ()) -> dict[str, str]:
    """The basis of each row; where an engine's account stands behind one, the weakest basis of its items."""
    rows = {
        "weights": _weights(model, serving),
        "kv_cache": _cache(model, serving),
        "attention": "derived",
        "activations": "derived",
        "graphs": "assumed",
        "context": "assumed" if CUDA_CONTEXT in overheads(serving.tp, serving.gpu) else "calibrated",
    }
    for row in ("activations", "graphs", "context"):
        found = [item.basis for account in accounts for item in account.taken if row_of(item.name) == row]
        if found:
            rows[row] = max(found, key=BASES.index)
    return rows


def warnings(
    model: ModelSpec, serving: Serving, uses: list[GpuUse], started: Boot | None = None
) -> tuple[PlanWarning, ...]:
    """Every warning that applies, in a fixed order."""
    found = (
        _engine(serving, started) + _assumed(model) + _doubt(model) + _dtype(model, serving) + _lengths(model, serving)
    )
    found += _images(model, serving) + _kv_format(serving) + _quantization(model, serving)
    found += _idle(model) + _draft(model, serving) + _stored(model, serving)
    found += _parallel(model, serving) + _gpu(serving, uses)
    return tuple(PlanWarning(code=code, message=message) for code, message in found)


def _engine(serving: Serving, started: Boot | None) -> list[tuple[str, str]]:
    """A version that is newer than the profile, and what would keep the engine from starting."""
    engine, found = serving.engine, []
    if engine.newer:
        message = f"{engine.name} {engine.newer} is planned by the rules of {engine.version}, checked on {engine.date}"
        found.append(("engine-version", message))
    if started is not None:
        code = "engine-tight" if started.starts else "engine-does-not-start"
        found += [(code, reason) for reason in started.reasons]
        if not started.certain:
            message = f"whether it starts is within the spread of its account (±{format_bytes(started.spread_bytes)})"
            found.append(("engine-uncertain", message))
    return found


def _weights(model: ModelSpec, serving: Serving) -> str:
    quant = serving.quant
    if model.assumed is not None:
        return "assumed"
    if quant is not None and not quant.understood:
        return "derived" if model.stored_weight_bytes else "assumed"
    if not serving.dtype_stated or serving.quant_planned:
        return "assumed"
    if abs(_stored_surplus(model, serving)) > MISMATCH * total_weight_bytes(model, serving):
        return "derived"
    sized = model.stored_weight_bytes is not None and loads_as_stored(model, serving)
    settled = model.doubt is None and (quant is None or quant.exact)
    return "exact" if settled or sized else "derived"


def _cache(model: ModelSpec, serving: Serving) -> str:
    """Exact for a plain format; a quantised one rests on where its scales stand, which engines differ in.

    Recurrent layers keep a part of theirs in the model's dtype, whatever the cache's.
    """
    recurrent = any(isinstance(mixer, StateMixer) for layer in model.layers for mixer in layer.mixers)
    if model.assumed is not None or not serving.kv_dtype_stated or (recurrent and not serving.dtype_stated):
        return "assumed"
    return "derived" if serving.kv_dtype.scale_bits else "exact"


def _stored_surplus(model: ModelSpec, serving: Serving) -> int:
    """Bytes that the files hold beyond what was counted and the draft; 0 where the two cannot be compared.

    They can where the plan loads the weights as they are stored: in their own dtype and scheme.
    """
    stored, quant = model.stored_weight_bytes, serving.quant
    if stored is None or not loads_as_stored(model, serving) or (quant is not None and not quant.understood):
        return 0
    return stored - computed_weight_bytes(model, serving.dtype, quant) - stored_draft_bytes(model, serving)


def _assumed(model: ModelSpec) -> list[tuple[str, str]]:
    if model.assumed is None:
        return []
    return [("architecture-assumed", f"{model.assumed.reasons[0]}: every figure is the most that its config allows")]


def _doubt(model: ModelSpec) -> list[tuple[str, str]]:
    return [] if model.doubt is None else [("parameters-derived", f"parameters: {model.doubt}")]


def _dtype(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    if not serving.dtype_stated:
        return [("dtype-assumed", f"the source names no dtype; planned in {serving.dtype.name} (`--dtype` sets it)")]
    if serving.dtype == model.dtype == FP32:
        return [("fp32-weights", "the checkpoint is in fp32, which most engines load in 16 bits (`--dtype bf16`)")]
    return []


def _lengths(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    for length, positions in ((serving.seq_len, model.max_seq_len), _encoder_positions(model, serving)):
        if positions and length > positions:
            message = f"{length} tokens are more than the {positions} positions that the model states"
            return [("beyond-max-positions", message)]
    return []


def _encoder_positions(model: ModelSpec, serving: Serving) -> tuple[int, int | None]:
    """(the encoder's tokens, how many it has positions for); images have positions of their own."""
    if model.crosses_images or model.encoder_seq_len is not None:
        return 0, None
    return serving.encoder_seq_len or 0, model.max_encoder_seq_len or model.max_seq_len


def _images(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    if not model.crosses_images or serving.encoder_seq_len:
        return []
    one = model.tokens_per_image
    message = "planned without images; `--encoder-seq N` plans N of their tokens"
    if one is not None:
        message = f"planned without images; each adds up to {one:,} tokens to cross-attention (`--encoder-seq {one}`)"
    return [("images-not-planned", message)]


def _kv_format(serving: Serving) -> list[tuple[str, str]]:
    if not serving.kv_dtype_own:
        return []
    name, scales = serving.kv_dtype.name, serving.quant.kv_cache if serving.quant else None
    why = "the checkpoint has scales for it" if scales == name else f"{serving.engine.name} takes it for this model"
    return [("kv-cache-scheme", f"nobody names the KV cache's format: it is {name}, since {why}")]


def _quantization(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    quant = serving.quant
    if quant is None:
        return []
    if serving.quant_planned:
        return [("quantization-assumed", f"weights are planned in {quant.method}; a real checkpoint may keep more")]
    if quant.understood:
        return _kv_scheme(quant, serving)
    basis = "the size of the stored files" if model.stored_weight_bytes else "unquantised weights, an upper bound"
    return [("quantization-not-modelled", f"`{quant.method}` quantisation is counted by {basis}")]


def _kv_scheme(quant: Quantization, serving: Serving) -> list[tuple[str, str]]:
    if serving.kv_dtype_own or quant.kv_cache is None or serving.kv_dtype.bits <= 8:
        return []
    message = (
        f"the checkpoint has scales for a KV cache in {quant.kv_cache}, which some engines then use;"
        f" the plan holds it in {serving.kv_dtype.name} (`--kv-dtype fp8`)"
    )
    return [("kv-cache-scheme", message)]


def _idle(model: ModelSpec) -> list[tuple[str, str]]:
    """Engines load a model without these; what is left of them here is transformers'."""
    idle = sum(count * weight.num_parameters for weight, count in all_weights(model) if weight.idle)
    if not idle:
        return []
    message = f"{format_count(idle)} of the parameters are made by transformers' class alone: no checkpoint has them"
    return [("idle-weights", message)]


def _draft(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    size = stored_draft_bytes(model, serving)
    if model.draft is None or not size:
        return []
    count = model.draft.num_layers
    layers = f"{count} layer" if count == 1 else f"{count} layers"
    held = f"{format_count(draft_parameters(model))} parameters, {format_bytes(size)}"
    return [("draft-not-loaded", f"the files also hold {layers} for multi-token prediction ({held}), not loaded here")]


def _stored(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    surplus = _stored_surplus(model, serving)
    if not surplus:
        return []
    size, quant = format_bytes(abs(surplus)), serving.quant
    if quant is not None:
        more = "more" if surplus > 0 else "less"
        message = (
            f"the weights are what the files hold, {size} {more} than the `{quant.method}` tensors that were counted:"
            " other layers or heads, other dtypes beside the quantised ones"
        )
    elif surplus > 0:
        message = f"the files store {size} more than the plan loads: other heads, copies, a wider dtype"
    else:
        message = f"the files store {size} less than the plan loads: fewer tensors, or a narrower format"
    return [("stored-differs", message)]


def _parallel(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    tp, found = serving.tp, []
    mixers = [mixer for layer in model.layers for mixer in layer.mixers]
    kv_heads = [mixer.num_kv_heads for mixer in mixers if mixer.kind not in ("latent", "encoder", "linear")]
    if kv_heads and tp > min(kv_heads):
        found.append(("kv-replicated", f"tp {tp} is more than {min(kv_heads)} KV heads: each GPU holds a replica"))
    if tp > serving.dcp and any(mixer.kind == "latent" for mixer in mixers):
        whole = "the whole latent cache" if serving.dcp == 1 else f"1/{serving.dcp} of the latent cache"
        found.append(("latent-replicated", f"every one of {tp} tensor-parallel GPUs holds {whole}"))
    if not tp_accepted(model, tp):
        found.append(("tp-uneven", f"tp {tp} does not divide the heads evenly; most engines refuse it"))
    return found


def _gpu(serving: Serving, uses: list[GpuUse]) -> list[tuple[str, str]]:
    if serving.gpu is None:
        return []
    if serving.capacity_bytes is None:
        return [("gpu-memory-unknown", f"no driver-reported memory is known for {serving.gpu.name}")]
    free = min(use.free_bytes or 0 for use in uses)
    if not 0 <= free < TIGHT * serving.capacity_bytes or serving.engine.pooled is not None:
        return []
    message = f"only {format_bytes(free)} stay free: activations are a floor, and CUDA graphs are not counted"
    return [("tight-fit", message)]
