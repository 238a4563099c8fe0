"""The plan: weights, cache, attention, activations and overhead of one way to serve one model, per GPU."""

from dataclasses import dataclass, replace

from kvplan.core.attention import transient_bytes
from kvplan.core.boot import boot
from kvplan.core.cache import caches_of
from kvplan.core.decode import SpeedFloor, speed_floor
from kvplan.core.engines.engine import Pooled
from kvplan.core.engines.pool import Budget, KVPool
from kvplan.core.evidence import PlanWarning, evidence, warnings
from kvplan.core.layout import (
    MAX_SEARCHED_GPUS,
    GpuUse,
    as_loaded,
    layouts,
    pass_shape,
    row_of,
    sequence_cache_bytes,
    stage_uses,
    total_weight_bytes,
)
from kvplan.core.measured import Measured
from kvplan.core.mixers import SoftmaxMixer, StateMixer
from kvplan.core.model import Layer, ModelSpec, Part
from kvplan.core.overhead import overheads
from kvplan.core.serving import Serving
from kvplan.core.units import ceil_div, format_bytes
from kvplan.core.weights import (
    PartSize,
    active_parameters,
    draft_bytes,
    draft_parameters,
    num_parameters,
    sizes_by_part,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPlan:
    """The whole model's weights."""

    num_parameters: int
    active_parameters: int
    total_bytes: int
    dtype: str
    quantization: str | None
    stored_bytes: int | None
    draft_parameters: int
    """What the checkpoint stores for multi-token prediction beside the model, part of no other figure."""
    draft_bytes: int
    """The same in the plan's dtype and scheme."""
    parts: dict[Part, PartSize]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCachePlan:
    """The caches of `count` equal layers, for the whole batch, before tensor parallelism."""

    kind: str
    count: int
    bytes_per_token: int
    """Of all `count` layers, while no window is full; an entry's bytes spread over its tokens."""
    max_tokens: int | None
    tokens_per_entry: int
    """Tokens that share one entry; 1 where each has its own."""
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
    """Transient bytes of the largest softmax attention call of one pass on one GPU, per backend."""

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
class Bounds:
    """What an architecture that is not understood takes at least; the plan itself is what it takes at most."""

    num_parameters: int
    weights_bytes: int
    kv_cache_bytes: int
    """Reserved, for the whole batch."""
    reasons: tuple[str, ...]
    """What is not understood, and what makes the difference."""


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
    speed: SpeedFloor | None
    """None where no GPU was named, and where nothing can be said (`core.decode`)."""
    evidence: dict[str, str]
    overheads: tuple[Measured, ...]
    """What `context_bytes` is the sum of, with spread and source."""
    warnings: tuple[PlanWarning, ...]
    pool: KVPool | None = None
    """What the engine makes of the memory that is left for the cache; None without a GPU or such an engine."""
    accounts: tuple[Budget, ...] = ()
    """The engine's own account of each stage's GPU, that the pool rests on."""
    bounds: Bounds | None = None
    """Where the model is not understood (`--assume full`); None where it is."""

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
    model = as_loaded(model, serving.engine)
    stages = stage_uses(model, serving)
    per_gpu = tuple(replace(use, rank=use.rank + i) for use in stages for i in range(serving.tp))
    fits = _fits(stages)
    started = boot(model, serving) if serving.engine.pooled and serving.capacity_bytes is not None else None
    if started is not None:
        fits = bool(fits) and started.starts
    weights, cache = _plan_weights(model, serving), _plan_cache(model, serving)
    accounts = started.accounts if started else ()
    whole_bytes = weights.total_bytes + cache.reserved_bytes
    return Plan(
        model=model,
        serving=serving,
        weights=weights,
        kv_cache=cache,
        attention=_plan_attention(model, serving),
        per_gpu=per_gpu,
        fits=fits,
        smallest_fit=None if fits is None else _smallest_fit(model, serving, whole_bytes),
        speed=speed_floor(model, serving),
        evidence=evidence(model, serving, accounts),
        overheads=_outside(serving, accounts),
        warnings=warnings(model, serving, stages, started),
        pool=started.pool if started else None,
        accounts=accounts,
        bounds=_bounds(model, serving),
    )


def _outside(serving: Serving, accounts: tuple[Budget, ...]) -> tuple[Measured, ...]:
    """What the row of contexts is the sum of: the engine's items on its fullest GPU, where it has an account."""
    if not accounts:
        return overheads(serving.tp, serving.gpu)
    found = [tuple(item for item in account.taken if row_of(item.name) == "context") for account in accounts]
    return max(found, key=lambda items: sum(item.num_bytes for item in items))


def _bounds(model: ModelSpec, serving: Serving) -> Bounds | None:
    if model.assumed is None:
        return None
    weights, cache = _plan_weights(model.assumed.least, serving), _plan_cache(model.assumed.least, serving)
    return Bounds(
        num_parameters=weights.num_parameters,
        weights_bytes=weights.total_bytes,
        kv_cache_bytes=cache.reserved_bytes,
        reasons=model.assumed.reasons,
    )


def _smallest_fit(model: ModelSpec, serving: Serving, whole_bytes: int) -> SmallestFit | None:
    """The fewest GPUs, up to 512, that hold the plan, by search over the layouts that engines accept.

    Fewer than `whole_bytes`, the weights and the cache, would fill cannot do.
    """
    capacity = serving.capacity_bytes
    if capacity is None:
        return None
    for num_gpus in range(max(1, ceil_div(whole_bytes, capacity)), MAX_SEARCHED_GPUS + 1):
        for tp, pp in layouts(model, num_gpus):
            if _fits(stage_uses(model, replace(serving, tp=tp, pp=pp))):
                return SmallestFit(num_gpus=num_gpus, tp=tp, pp=pp)
    return None


def _fits(uses: list[GpuUse]) -> bool | None:
    free = [use.free_bytes for use in uses]
    return None if None in free else all(left is not None and left >= 0 for left in free)


def _plan_weights(model: ModelSpec, serving: Serving) -> WeightsPlan:
    total = total_weight_bytes(model, serving)
    return WeightsPlan(
        num_parameters=num_parameters(model),
        active_parameters=active_parameters(model),
        total_bytes=total,
        dtype=serving.dtype.name,
        quantization=serving.quant.method if serving.quant else None,
        stored_bytes=model.stored_weight_bytes,
        draft_parameters=draft_parameters(model),
        draft_bytes=draft_bytes(model, serving.dtype, serving.quant),
        parts=_scaled(sizes_by_part(model, serving.dtype, serving.quant), total),
    )


def _scaled(parts: dict[Part, PartSize], total_bytes: int) -> dict[Part, PartSize]:
    """Parts that sum to `total_bytes`: where only the total is known, in proportion, the largest taking the rest."""
    computed = sum(part.total_bytes for part in parts.values())
    if computed == total_bytes:
        return parts
    scaled = {
        name: replace(part, total_bytes=part.total_bytes * total_bytes // computed) for name, part in parts.items()
    }
    largest = max(scaled, key=lambda name: scaled[name].total_bytes)
    rest = total_bytes - sum(part.total_bytes for part in scaled.values())
    return {**scaled, largest: replace(scaled[largest], total_bytes=scaled[largest].total_bytes + rest)}


def _plan_cache(model: ModelSpec, serving: Serving) -> KVCachePlan:
    groups: dict[tuple[str, int, int | None, int, bool], list[int]] = {}
    marginal = fixed = 0
    for layer, count in model.layer_counts():
        for mixer, cache in caches_of(
            layer, serving.kv_dtype, model_dtype=serving.dtype, value_dtype=serving.value_dtype
        ):
            needed = sequence_cache_bytes(cache, serving)
            reserved = sequence_cache_bytes(serving.engine.reserve(cache, mixer), serving)
            tokens_per_entry = cache.tokens_per_entry if cache.entry_bytes else 1
            key = (cache.kind, cache.spread_bytes_per_token, cache.max_tokens, tokens_per_entry, cache.over_encoder)
            group = groups.setdefault(key, [0, 0, 0])
            for i, amount in enumerate((1, needed, reserved)):
                group[i] += count * amount
            if cache.over_encoder:
                fixed += count * needed
            else:
                marginal += count * cache.last_token_bytes(serving.seq_len)
                fixed += count * cache.fixed_bytes
    layers = [
        LayerCachePlan(
            kind=kind,
            count=count,
            bytes_per_token=count * per_token,
            max_tokens=max_tokens,
            tokens_per_entry=tokens_per_entry,
            needed_bytes=needed * serving.batch_size,
            reserved_bytes=reserved * serving.batch_size,
        )
        for (kind, per_token, max_tokens, tokens_per_entry, _), (count, needed, reserved) in groups.items()
    ]
    if serving.engine.pooled is not None:
        layers = _pooled_rows(model, serving, serving.engine.pooled, layers)
    return KVCachePlan(
        needed_bytes=sum(layer.needed_bytes for layer in layers),
        reserved_bytes=sum(layer.reserved_bytes for layer in layers),
        bytes_per_token=marginal,
        fixed_bytes_per_sequence=fixed,
        dtype=serving.kv_dtype.name,
        layers=tuple(layers),
    )


def _pooled_rows(
    model: ModelSpec, serving: Serving, pooled: Pooled, layers: list[LayerCachePlan]
) -> list[LayerCachePlan]:
    """The rows with what the engine's blocks hold of each, and one more for what its blocks waste."""
    alone = replace(
        serving.deployment, tp=1, pp=1, dp=1, dcp=1, pcp=1, switches=replace(serving.switches, stage_layers=())
    )
    if pooled.kinds is None:
        total = sum(pooled.held(model, alone, serving.seq_len, serving.batch_size))
        spread = _share_out(total, [row.needed_bytes for row in layers])
        rows = [replace(row, reserved_bytes=size) for row, size in zip(layers, spread, strict=True)]
        return [*rows, *_padding(total - sum(spread))]
    found = pooled.kinds(model, alone, serving.seq_len, serving.batch_size)
    by_kind = {kind: size for kind, size in found.items() if kind != "padding"}
    known = {row.kind for row in layers}
    lost = sum(size for kind, size in by_kind.items() if kind not in known)
    rows = []
    for kind in dict.fromkeys(row.kind for row in layers):
        same = [row for row in layers if row.kind == kind]
        sizes = _share_out(by_kind.get(kind, 0), [row.needed_bytes for row in same], whole=True)
        rows += [replace(row, reserved_bytes=size) for row, size in zip(same, sizes, strict=True)]
    return [*rows, *_padding(found["padding"] + lost)]


def _share_out(total: int, needs: list[int], *, whole: bool = False) -> list[int]:
    """`total` over rows in proportion to their needs, at most what they need unless it has to be dealt out whole."""
    need = sum(needs)
    if not need or (total >= need and not whole):
        return needs
    shares = [total * size // need for size in needs]
    return [shares[0] + total - sum(shares), *shares[1:]]


def _padding(num_bytes: int) -> list[LayerCachePlan]:
    """A row of what lies in blocks without holding anything; none where nothing does."""
    if not num_bytes:
        return []
    row = LayerCachePlan(
        kind="padding", count=0, bytes_per_token=0, max_tokens=None, tokens_per_entry=1,
        needed_bytes=0, reserved_bytes=num_bytes,
    )  # fmt: skip
    return [row]


def _plan_attention(model: ModelSpec, serving: Serving) -> tuple[AttentionPlan, ...]:
    plans = []
    for phase in ("prefill", "decode"):
        shape = pass_shape(serving, decode=phase == "decode")
        pairs: list[tuple[Layer, SoftmaxMixer]] = [
            (layer, mixer)
            for layer in model.layers
            for mixer in layer.mixers
            if not isinstance(mixer, StateMixer) and not (phase == "decode" and layer.in_encoder)
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
