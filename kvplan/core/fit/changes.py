"""What would make it fit: each change that does alone, the cheapest first, and the cheap ones together."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from kvplan.core.boot import overhang
from kvplan.core.fit.answer import Change
from kvplan.core.fit.places import fewest, formats
from kvplan.core.fit.search import least_share, longest, most_requests, point, safe_share, with_share
from kvplan.core.fit.trial import Case, Trial
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving
from kvplan.core.units import MIB
from kvplan.core.weights import parse_quant

SMALLER_STEPS = (4096, 2048, 1024, 512)
"""Tokens of one pass that are tried; fewer read prompts in too slowly."""
FEW_REQUESTS = 16
"""A limit of requests at once that takes next to no memory, where nobody asked for a number."""
Found = Iterator[Change]
Options = Mapping[str, object]
Step = tuple[Options, Callable[[Serving], Serving]]
"""(options, what they make of a serving)."""


def changes(case: Case, length: int, requests: int | None, bigger: tuple[Gpu, ...]) -> tuple[Change, ...]:
    """Each change after which `requests` of `length` tokens (None: one) are held, from the cheapest."""
    asked = _Asked(case, length, requests)
    at_safe = _at_the_safe_share(asked)
    if at_safe is not None and at_safe.holds(at_safe.serving):
        trial = at_safe.start(at_safe.serving)
        return (at_safe.change("share", {}, "what lies outside the share finds room", trial),)

    def found(kind: Callable[[_Asked], Found]) -> list[Change]:
        """With the share as it is where that does on as few GPUs, else with the one that is safe."""
        ways = [list(kind(way)) for way in (asked, at_safe) if way is not None]
        return min((way for way in ways if way), key=lambda way: way[0].serving.num_gpus, default=[])

    cheap = [change for kind in (_pool, _share, _limit, _steps, _eager, _images, _format) for change in found(kind)]
    if not any(change.code != "kv_dtype" for change in cheap):
        cheap += found(_together)
    dear = [change for kind in (_shorter, _fewer, _weights, _on_the_cpu, _gpus) for change in found(kind)]
    return (*cheap, *dear, *found(lambda asked: _bigger(asked, bigger)))


class _Asked:
    """What has to be held, and how a start is judged by it; `told` is what each change takes besides its own."""

    def __init__(self, case: Case, length: int, requests: int | None, told: Options | None = None) -> None:
        self.case, self.length, self.requests, self.told = case, length, requests, told or {}

    @property
    def serving(self) -> Serving:
        return self.case.serving

    @property
    def model(self) -> ModelSpec:
        return self.case.model

    @property
    def may_limit(self) -> bool:
        """Whether the limit of requests is not searched already, and is not their number in one context."""
        pooled = self.serving.engine.pooled
        return (self.requests is None or self.case.limit_is_held) and not (pooled and pooled.shares_length)

    def start(self, serving: Serving) -> Trial:
        return point(replace(self.case, serving=serving), self.length, self.requests)

    def holds(self, serving: Serving) -> bool:
        return self.start(serving).concurrency >= (self.requests or 1)

    def has(self, switch: str) -> bool:
        pooled = self.serving.engine.pooled
        return pooled is not None and switch in pooled.switches

    def change(self, code: str, options: Options, cost: str, trial: Trial) -> Change:
        """What a start yields, with the limit of requests where it had to be told."""
        limit, options = trial.serving.switches.max_num_seqs, {**self.told, **options}
        if limit != self.serving.switches.max_num_seqs:
            options = {**options, "max_num_seqs": limit}
        return Change(
            code=code, options=options, cost=cost, max_model_len=trial.length, concurrency=trial.concurrency,
            serving=trial.serving,
        )  # fmt: skip


def _switched(serving: Serving, **values: object) -> Serving:
    return replace(serving, switches=replace(serving.switches, **values))  # type: ignore[arg-type]


def _first(asked: _Asked, code: str, cost: str, tried: Iterator[tuple[Options, Serving]]) -> Found:
    """The first of several settings that does."""
    for options, serving in tried:
        if asked.holds(serving):
            yield asked.change(code, options, cost, asked.start(serving))
            return


def _at_the_safe_share(asked: _Asked) -> _Asked | None:
    """The same with the share that is safe, where the one that is asked for leaves no room for what lies outside."""
    trial = asked.start(asked.serving)
    if trial.boot.starts or not any(overhang(account) for account in trial.boot.accounts):
        return None
    safe = safe_share(asked.case, trial)
    if safe is None:
        return None
    return _Asked(with_share(asked.case, safe), asked.length, asked.requests, {"gpu_memory_utilization": safe / 100})


def _pool(asked: _Asked) -> Found:
    """A pool that there is room for, in the place of one whose size is set: at the room's low end, if that does."""
    case, found = asked.case, asked.start(asked.serving).boot
    sizes: list[tuple[Options, Case]] = []
    if found.sized_by == "num_gpu_blocks_override":
        sizes = [
            ({found.sized_by: None}, replace(case, serving=_switched(asked.serving, num_gpu_blocks_override=None)))
        ]
    elif found.sized_by is not None:
        tightest = min(found.accounts, key=lambda account: account.kv_memory_bytes)
        room = tightest.kv_memory_bytes
        steps = [left // MIB * MIB for left in (room - tightest.spread_bytes, room) if left >= MIB]
        sizes = [({found.sized_by: size}, replace(case, kv_memory_bytes=size)) for size in steps]
    held = [(told, point(sized, asked.length, asked.requests)) for told, sized in sizes]
    held = [(told, trial) for told, trial in held if trial.concurrency >= (asked.requests or 1)]
    for told, trial in held[:1]:
        yield asked.change("pool", told, "a pool that the memory holds", trial)
    for told, sized in [] if held else sizes[:1]:
        shorter = longest(sized, asked.requests)
        if shorter is not None:
            told = {**told, "max_model_len": shorter.serving.seq_len}
            yield asked.change("pool", told, "a pool that the memory holds, and shorter requests", shorter)


def _share(asked: _Asked) -> Found:
    """A larger share, up to what is safe."""
    trial = asked.start(asked.serving)
    safe = safe_share(asked.case, trial)
    found = None if safe is None else least_share(asked.case, asked.length, asked.requests, safe)
    if found is not None:
        options = {"gpu_memory_utilization": found.serving.gpu_memory_utilization}
        yield asked.change("share", options, "less room for other processes", found)


def _limit(asked: _Asked) -> Found:
    """Fewer requests at once, where their limit is held: just those that were asked for, else the most that do."""
    pooled, held = asked.serving.engine.pooled, asked.serving.switches.max_num_seqs
    if held is None and pooled is not None and pooled.runs_at_once is not None and asked.case.hold_limit:
        held = pooled.runs_at_once(asked.serving.deployment)
    if held is None or not asked.has("max_num_seqs"):
        return
    wanted = [asked.requests] if asked.requests else [1 << power for power in range(held.bit_length() - 1, -1, -1)]
    tried = ((_told(limit), _switched(asked.serving, **_told(limit))) for limit in wanted if limit != held)
    yield from _first(asked, "max_num_seqs", "another limit of requests at once", tried)


def _told(limit: int) -> Options:
    return {"max_num_seqs": limit}


def _steps(asked: _Asked) -> Found:
    """Shorter passes."""
    if not asked.has("max_num_batched_tokens"):
        return
    now = asked.serving.switches.max_num_batched_tokens or asked.serving.engine.max_pass_tokens or 0
    tried = (
        ({"max_num_batched_tokens": n}, _switched(asked.serving, max_num_batched_tokens=n))
        for n in SMALLER_STEPS
        if n < now and n >= (asked.requests or 1)
    )
    yield from _first(asked, "max_num_batched_tokens", "prompts are read in more slowly", tried)


def _eager(asked: _Asked) -> Found:
    if asked.has("enforce_eager") and not asked.serving.switches.enforce_eager:
        tried = iter([({"enforce_eager": True}, _switched(asked.serving, enforce_eager=True))])
        yield from _first(asked, "enforce_eager", "no CUDA graphs: slower steps of few requests", tried)


def _images(asked: _Asked) -> Found:
    sees = any(weight.part == "vision" for weight in asked.model.embeddings)
    if sees and asked.has("no_images") and not asked.serving.switches.no_images:
        tried = iter([({"no_images": True}, _switched(asked.serving, no_images=True))])
        yield from _first(asked, "no_images", "text alone", tried)


def _format(asked: _Asked) -> Found:
    tried = (({"kv_dtype": told.kv_dtype.name}, told) for told in formats(asked.model, asked.serving))
    yield from _first(asked, "kv_dtype", "a coarser cache", tried)


def _together(asked: _Asked) -> Found:
    """The cheap changes one after another until they do; those that turn out not to be needed are left out again."""
    steps = _cheap_steps(asked)
    if not asked.holds(_after(asked.serving, steps)):
        return
    for step in reversed(list(steps)):
        fewer = [other for other in steps if other is not step]
        if asked.holds(_after(asked.serving, fewer)):
            steps = fewer
    if len(steps) > 1:
        options: dict[str, object] = {name: value for told, _ in steps for name, value in told.items()}
        trial = asked.start(_after(asked.serving, steps))
        if "gpu_memory_utilization" in options:
            most = round(100 * trial.serving.gpu_memory_utilization)
            case = replace(asked.case, serving=_after(asked.serving, steps))
            trial = least_share(case, asked.length, asked.requests, most) or trial
            options["gpu_memory_utilization"] = trial.serving.gpu_memory_utilization
        yield asked.change("together", options, "all of these together", trial)


def _cheap_steps(asked: _Asked) -> list[Step]:
    """The safe share, shorter passes, few requests at once, no graphs, a narrower cache: where they change anything."""
    steps: list[Step] = []
    held, trial = asked.serving.switches, asked.start(asked.serving)
    safe = safe_share(asked.case, trial)
    if safe is not None and trial.boot.accounts[0].usable_bytes < trial.boot.accounts[0].device_bytes * safe // 100:
        share = safe / 100
        told = {"gpu_memory_utilization": share}
        steps.append((told, lambda serving: replace(serving, gpu_memory_utilization=share, share_stated=True)))
    tokens, few = max(2048, asked.requests or 1), asked.requests or FEW_REQUESTS
    if asked.has("max_num_batched_tokens") and (held.max_num_batched_tokens or 2 * tokens) > tokens:
        steps.append(_step(max_num_batched_tokens=tokens))
    if asked.has("max_num_seqs") and (held.max_num_seqs or 2 * few) > few and asked.may_limit:
        steps.append(_step(max_num_seqs=few))
    if asked.has("enforce_eager") and not held.enforce_eager:
        steps.append(_step(enforce_eager=True))
    narrow = next(formats(asked.model, asked.serving), None)
    if narrow is not None:
        dtype = narrow.kv_dtype
        steps.append(
            (
                {"kv_dtype": dtype.name},
                lambda serving: replace(serving, kv_dtype=dtype, value_dtype=dtype, kv_dtype_stated=True),
            )
        )
    return steps


def _step(**values: object) -> Step:
    return values, lambda serving: _switched(serving, **values)


def _after(serving: Serving, steps: list[Step]) -> Serving:
    for _, change in steps:
        serving = change(serving)
    return serving


def _shorter(asked: _Asked) -> Found:
    found = longest(asked.case, asked.requests)
    if found is not None and found.length < asked.length:
        yield asked.change("shorter", {"max_model_len": found.serving.seq_len}, "shorter requests", found)


def _fewer(asked: _Asked) -> Found:
    found = most_requests(asked.case, asked.length)
    if found is not None and asked.requests and found.concurrency < asked.requests:
        yield asked.change("fewer", {"concurrency": found.concurrency}, "fewer requests at once", found)


def _weights(asked: _Asked) -> Found:
    """Quantised weights, where the checkpoint has none. What a GGUF may be stored in is not among these schemes."""
    pooled = asked.serving.engine.pooled
    if asked.serving.quant is not None or (pooled is not None and pooled.splits_layers):
        return
    tried = (
        ({"quant": name}, replace(asked.serving, quant=parse_quant(name), quant_planned=True))
        for name in ("fp8", "int4")
    )
    yield from _first(asked, "quant", "coarser weights: another checkpoint, or quantised when loaded", tried)


def _on_the_cpu(asked: _Asked) -> Found:
    """Weights that the CPU keeps and computes with: of as few layers as will do, experts alone where that is enough."""
    if not asked.has("num_gpu_layers") or not asked.case.is_on_gpu:
        return
    count, held = asked.model.num_layers, asked.serving.switches
    on_gpu = min(count + 1 if held.num_gpu_layers is None else held.num_gpu_layers, count + 1)
    if asked.model.has_experts:
        kept = _least(asked, "num_cpu_moe_layers", range(held.num_cpu_moe_layers + 1, count + 1))
        if kept is not None:
            cost = f"the CPU computes the experts of {kept} of {count} layers: slower"
            yield from _first(asked, "num_cpu_moe_layers", cost, iter([_option(asked, num_cpu_moe_layers=kept)]))
            return
    left = _least(asked, "num_gpu_layers", range(on_gpu - 1, -1, -1))
    if left is not None:
        cost = f"the CPU computes {count + 1 - left} of {count} layers: slower"
        yield from _first(asked, "num_gpu_layers", cost, iter([_option(asked, num_gpu_layers=left)]))


def _least(asked: _Asked, name: str, tried: range) -> int | None:
    """The first of a row of values that does, where each after it does too."""
    place = bisect_left(tried, True, key=lambda number: asked.holds(_switched(asked.serving, **{name: number})))
    return tried[place] if place < len(tried) else None


def _option(asked: _Asked, **values: object) -> tuple[Options, Serving]:
    return values, _switched(asked.serving, **values)


def _gpus(asked: _Asked) -> Found:
    """The next layout over more GPUs that does."""
    if not asked.case.is_on_gpu:
        return
    tried = (
        ({"num_gpus": laid.num_gpus, "tp": laid.tp, "pp": laid.pp}, laid)
        for laid in fewest(asked.model, asked.serving, above=asked.serving.num_gpus)
    )
    yield from _first(asked, "num_gpus", "more GPUs", tried)


def _bigger(asked: _Asked, gpus: tuple[Gpu, ...]) -> Found:
    """The smallest of other GPUs that does."""
    if not asked.case.is_on_gpu:
        return
    tried = (({"gpu": gpu.name}, replace(asked.serving, gpu=gpu)) for gpu in gpus)
    yield from _first(asked, "gpu", "a bigger GPU", tried)
