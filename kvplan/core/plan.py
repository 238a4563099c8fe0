"""The plan: weights, cache, attention, activations and overhead of one way to serve one model, per GPU."""

from dataclasses import dataclass, replace

from kvplan.core.attention import transient_bytes
from kvplan.core.cache import caches_of
from kvplan.core.layout import (
    MAX_SEARCHED_GPUS,
    GpuUse,
    layouts,
    pass_shape,
    sequence_cache_bytes,
    stage_uses,
    total_weight_bytes,
    tp_accepted,
)
from kvplan.core.model import Layer, Mixer, ModelSpec, Part
from kvplan.core.serving import Serving
from kvplan.core.units import ceil_div, format_bytes
from kvplan.core.weights import PartSize, active_parameters, num_parameters, sizes_by_part


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPlan:
    """The whole model's weights."""

    num_parameters: int
    active_parameters: int
    total_bytes: int
    dtype: str
    quantization: str | None
    stored_bytes: int | None
    parts: dict[Part, PartSize]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCachePlan:
    """The caches of `count` equal layers, for the whole batch, before tensor parallelism."""

    kind: str
    count: int
    bytes_per_token: int
    """Of all `count` layers, while no window is full."""
    max_tokens: int | None
    needed_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KVCachePlan:
    """The whole model's cache, for the whole batch, before tensor parallelism."""

    needed_bytes: int
    reserved_bytes: int
    bytes_per_token: int
    """The marginal cost of one sequence's last token."""
    fixed_bytes_per_sequence: int
    """What one sequence holds however long it is: states, and the cross-attention cache of its encoder."""
    dtype: str
    layers: tuple[LayerCachePlan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPlan:
    """Transient bytes of the largest attention call of one pass on one GPU, per backend."""

    phase: str
    batch_size: int
    query_tokens: int
    key_tokens: int
    kind: str
    bytes_per_backend: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallestFit:
    """The fewest GPUs of the same sort that would do, and their layout."""

    num_gpus: int
    tp: int
    pp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWarning:
    """Something that the reader of the plan should know before acting on it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan:
    """What serving the model takes; every byte count is a whole number."""

    model: ModelSpec
    serving: Serving
    weights: WeightsPlan
    kv_cache: KVCachePlan
    attention: tuple[AttentionPlan, ...]
    per_gpu: tuple[GpuUse, ...]
    """One entry a GPU; the ranks of one tensor-parallel stage hold the same."""
    fits: bool | None
    """None where no GPU was named."""
    smallest_fit: SmallestFit | None
    evidence: dict[str, str]
    warnings: tuple[PlanWarning, ...]

    def __repr__(self) -> str:
        serving, weights, cache = self.serving, self.weights.total_bytes, self.kv_cache.reserved_bytes
        shape = f"seq_len={serving.seq_len}, batch_size={serving.batch_size}, num_gpus={serving.num_gpus}"
        sizes = f"weights={format_bytes(weights)}, kv_cache={format_bytes(cache)}"
        return f"{type(self).__name__}({self.model.id!r}, {shape}, {sizes}, fits={self.fits})"

    @property
    def fullest_gpu(self) -> GpuUse:
        """The GPU that runs out first."""
        return max(self.per_gpu, key=lambda use: use.total_bytes)


def plan_memory(model: ModelSpec, serving: Serving) -> Plan:
    """Weights, cache, attention, activations and overhead, per GPU, and whether they fit."""
    stages = stage_uses(model, serving)
    per_gpu = tuple(replace(use, rank=use.rank + i) for use in stages for i in range(serving.tp))
    fits = _fits(stages)
    return Plan(
        model=model,
        serving=serving,
        weights=_plan_weights(model, serving),
        kv_cache=_plan_cache(model, serving),
        attention=_plan_attention(model, serving),
        per_gpu=per_gpu,
        fits=fits,
        smallest_fit=None if fits is None else smallest_fit(model, serving),
        evidence=_evidence(model, serving),
        warnings=tuple(_warnings(model, serving)),
    )


def smallest_fit(model: ModelSpec, serving: Serving) -> SmallestFit | None:
    """The fewest GPUs, up to 512, that hold the plan, by search over the layouts that engines accept."""
    capacity = serving.capacity_bytes
    if capacity is None:
        return None
    whole = total_weight_bytes(model, serving) + _plan_cache(model, serving).reserved_bytes
    for num_gpus in range(max(1, ceil_div(whole, capacity)), MAX_SEARCHED_GPUS + 1):
        for tp, pp in layouts(model, num_gpus):
            if _fits(stage_uses(model, replace(serving, tp=tp, pp=pp))):
                return SmallestFit(num_gpus=num_gpus, tp=tp, pp=pp)
    return None


def _fits(uses: list[GpuUse]) -> bool | None:
    free = [use.free_bytes for use in uses]
    return None if None in free else all(left is not None and left >= 0 for left in free)


def _plan_weights(model: ModelSpec, serving: Serving) -> WeightsPlan:
    return WeightsPlan(
        num_parameters=num_parameters(model),
        active_parameters=active_parameters(model),
        total_bytes=total_weight_bytes(model, serving),
        dtype=serving.dtype.name,
        quantization=serving.quant.method if serving.quant else None,
        stored_bytes=model.stored_weight_bytes,
        parts=sizes_by_part(model, serving.dtype, serving.quant),
    )


def _plan_cache(model: ModelSpec, serving: Serving) -> KVCachePlan:
    groups: dict[tuple[str, int, int | None, bool], list[int]] = {}
    marginal = fixed = 0
    for layer, count in model.layer_counts():
        for mixer, cache in caches_of(layer, serving.kv_dtype):
            needed = sequence_cache_bytes(cache, serving)
            reserved = sequence_cache_bytes(serving.engine.reserve(cache, mixer), serving)
            key = (cache.kind, cache.bytes_per_token, cache.max_tokens, cache.over_encoder)
            group = groups.setdefault(key, [0, 0, 0])
            for i, amount in enumerate((1, needed, reserved)):
                group[i] += count * amount
            if cache.over_encoder:
                fixed += count * needed
            else:
                marginal += count * (needed - cache.bytes_for(serving.seq_len - 1))
                fixed += count * cache.fixed_bytes
    layers = tuple(
        LayerCachePlan(
            kind=kind,
            count=count,
            bytes_per_token=count * per_token,
            max_tokens=max_tokens,
            needed_bytes=needed * serving.batch_size,
            reserved_bytes=reserved * serving.batch_size,
        )
        for (kind, per_token, max_tokens, _), (count, needed, reserved) in groups.items()
    )
    return KVCachePlan(
        needed_bytes=sum(layer.needed_bytes for layer in layers),
        reserved_bytes=sum(layer.reserved_bytes for layer in layers),
        bytes_per_token=marginal,
        fixed_bytes_per_sequence=fixed,
        dtype=serving.kv_dtype.name,
        layers=layers,
    )


def _plan_attention(model: ModelSpec, serving: Serving) -> tuple[AttentionPlan, ...]:
    plans = []
    for phase in ("prefill", "decode"):
        shape = pass_shape(serving, decode=phase == "decode")
        pairs: list[tuple[Layer, Mixer]] = [
            (layer, mixer)
            for layer in model.layers
            for mixer in layer.mixers
            if not (phase == "decode" and layer.in_encoder)
        ]
        if not pairs:
            continue
        calls = [(mixer.kind, shape.call(layer, mixer, serving.dtype, serving.tp)) for layer, mixer in pairs]
        kind, call = max(calls, key=lambda entry: entry[1].num_scores)
        plans.append(
            AttentionPlan(
                phase=phase,
                # A pass that its limit cuts short reaches fewer sequences than there are.
                batch_size=ceil_div(call.total_query_tokens, call.query_tokens),
                query_tokens=call.query_tokens,
                key_tokens=call.key_tokens,
                kind=kind,
                bytes_per_backend=transient_bytes(call),
            )
        )
    return tuple(plans)


def _evidence(model: ModelSpec, serving: Serving) -> dict[str, str]:
    quant = serving.quant
    guessed = not serving.dtype_stated or serving.quant_planned
    weights = "assumed" if guessed else "exact"
    if quant is not None and not quant.understood:
        weights = "derived" if model.stored_weight_bytes else "assumed"
    return {
        "weights": weights,
        "kv_cache": _cache_evidence(serving),
        "attention": "derived",
        "activations": "derived",
        "graphs": "exact",
        "context": "calibrated" if serving.num_gpus > 1 else "assumed",
    }


def _cache_evidence(serving: Serving) -> str:
    """Exact for a plain format; a quantised one rests on where its scales stand, which engines differ in."""
    if not serving.kv_dtype_stated:
        return "assumed"
    return "derived" if serving.kv_dtype.scale_bits else "exact"


def _warnings(model: ModelSpec, serving: Serving) -> list[PlanWarning]:
    found = []
    if not serving.dtype_stated:
        found.append(
            (
                "dtype-assumed",
                f"the source names no dtype; planned in {serving.dtype.name} (`--dtype` sets it)",
            )
        )
    if model.max_seq_len and serving.seq_len > model.max_seq_len:
        message = f"{serving.seq_len} tokens are more than the {model.max_seq_len} positions that the model states"
        found.append(("beyond-max-positions", message))
    found += _quantization_warnings(model, serving)
    found += _parallel_warnings(model, serving)
    if serving.gpu is not None and serving.gpu.memory_bytes is None:
        found.append(("gpu-memory-unknown", f"no driver-reported memory is known for {serving.gpu.name}"))
    return [PlanWarning(code=code, message=message) for code, message in found]


def _quantization_warnings(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    quant, found = serving.quant, []
    if quant is not None and not quant.understood:
        basis = "the size of the stored files" if model.stored_weight_bytes else "unquantised weights, an upper bound"
        found.append(("quantization-not-modelled", f"`{quant.method}` quantisation is counted by {basis}"))
    if quant is not None and serving.quant_planned:
        found.append(
            (
                "quantization-assumed",
                f"weights are planned in {quant.method}; a real checkpoint may keep more",
            )
        )
    stored = model.stored_weight_bytes
    computed = total_weight_bytes(model, serving)
    if stored and stored > computed:
        more = format_bytes(stored - computed)
        message = f"the repository stores {more} more than the plan loads (other heads, copies)"
        found.append(("stored-differs", message))
    return found


def _parallel_warnings(model: ModelSpec, serving: Serving) -> list[tuple[str, str]]:
    tp, found = serving.tp, []
    kv_heads = [c.num_kv_heads for layer in model.layers for c in layer.mixers if c.kind not in ("latent", "encoder")]
    if kv_heads and tp > min(kv_heads):
        found.append(("kv-replicated", f"tp {tp} is more than {min(kv_heads)} KV heads: each GPU holds a replica"))
    if any(mixer.kind == "latent" for layer in model.layers for mixer in layer.mixers) and tp > 1:
        found.append(("latent-replicated", f"every one of {tp} tensor-parallel GPUs holds the whole latent cache"))
    if not tp_accepted(model, tp):
        found.append(("tp-uneven", f"tp {tp} does not divide the heads evenly; most engines refuse it"))
    return found
