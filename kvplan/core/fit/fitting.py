"""The inverse of a plan: lengths, requests, GPUs, shares and formats, by search over how the engine starts."""

from collections.abc import Iterator
from dataclasses import replace

from kvplan.core.boot import boot_with, overhang
from kvplan.core.errors import InputError
from kvplan.core.evidence import PlanWarning, warnings
from kvplan.core.fit.answer import Bound, Change, CurvePoint, Fit, Share, Wanted
from kvplan.core.fit.changes import changes
from kvplan.core.fit.places import NODE, counts, fewest, formats, layouts
from kvplan.core.fit.search import least_share, longest, most_requests, point, safe_share
from kvplan.core.fit.trial import UNLIMITED, Case, Trial
from kvplan.core.hardware import Gpu
from kvplan.core.layout import MAX_SEARCHED_GPUS, as_loaded
from kvplan.core.model import ModelSpec
from kvplan.core.serving import DEFAULT_SEQ_LEN, Serving
from kvplan.core.units import format_bytes, rounded_down

SHORTEST_OF_CURVE = 256


def fit(
    model: ModelSpec,
    serving: Serving,
    want: Wanted,
    *,
    kv_memory_bytes: int | None = None,
    on_gpu: bool = False,
    bigger: tuple[Gpu, ...] = (),
) -> Fit:
    """What `want` leaves open, found by search over `core.boot.boot`; exact to one token, one request, 0.01 of a share.

    `serving` is held but for its length, and its layout or cache format where `want` says so. `kv_memory_bytes` is a
    pool of a known size instead of a GPU, or with `on_gpu` one that the engine is told and that has to fit on the GPU;
    `bigger` are GPUs to name where it does not fit, from small to large. Raises InputError for an engine without a
    pool, a GPU of unknown memory, and a model that keeps no cache.
    """
    _check(model, serving, want, kv_memory_bytes)
    model = as_loaded(model, serving.engine)
    base = Case(
        model=model, serving=serving, kv_memory_bytes=kv_memory_bytes, on_gpu=on_gpu, hold_limit=want.hold_limit
    )
    case = _chosen(base, want)
    trial = _answer(case, want)
    asked = want.concurrency or 1
    length_is_open = want.max_model_len is None
    fits = trial is not None and trial.concurrency >= asked
    shown = trial if trial is not None and fits else point(case, _shown_length(case, want), want.concurrency)
    bound, reason = _bound(case, want, shown, fits=fits)
    if not fits and want.search_layout and want.num_gpus is None and not _is_of_the_share(shown):
        reason += f"; nor do {MAX_SEARCHED_GPUS} GPUs hold it"
    if fits and _length_is_left(want) and shown.length < _target(case, want):
        reason += (
            f"; no more than {NODE} GPUs were tried, since not even {MAX_SEARCHED_GPUS} hold the model's own length"
        )
    sure = longest(replace(case, at_low_end=True), want.concurrency) if fits and length_is_open else None
    return Fit(
        model=model,
        want=want,
        fits=fits,
        serving=shown.serving,
        boot=shown.boot,
        max_model_len=shown.length,
        concurrency=shown.concurrency,
        max_concurrency=shown.max_concurrency,
        concurrency_range=_range(case, shown),
        sure_max_model_len=sure.length if sure is not None and shown.boot.accounts else None,
        bound=bound,
        reason=reason,
        share=_shares(case, want, shown),
        curve=_curve(case, shown),
        changes=_changes(case, want, shown, bigger, fits=fits),
        kv_memory_bytes=kv_memory_bytes,
        notes=_notes(model, shown),
        warnings=_warnings(model, shown.serving),
    )


def _check(model: ModelSpec, serving: Serving, want: Wanted, kv_memory_bytes: int | None) -> None:
    """Raises InputError for what cannot be answered."""
    pooled = serving.engine.pooled
    if pooled is None:
        message = f"engine `{serving.engine.name}` reserves no pool, so there is nothing to fit"
        raise InputError(message, hint="vllm, sglang, trtllm and llamacpp do")
    if kv_memory_bytes is None and serving.gpu is None:
        raise InputError("a fit needs a GPU, or the bytes of the pool", hint="`--gpu H100`, or `--kv-memory 20GiB`")
    if kv_memory_bytes is None and serving.capacity_bytes is None:
        name = serving.gpu.name if serving.gpu else ""
        raise InputError(f"no memory is known of {name}", hint="say how much it has, e.g. `--gpu-memory 96GiB`")
    if want.max_model_len is not None and want.longest:
        raise InputError("a length is given, and the longest is asked for", hint="leave one of them out")
    if serving.switches.num_gpu_layers == 0:
        raise InputError("no layer is on a GPU, and no cache", hint="`-ngl` 1 or more, or leave it out")
    if not sum(pooled.held(model, replace(serving, tp=1, pp=1, dcp=1, pcp=1).deployment, 16, 1)):
        gpu = f" --gpu {serving.gpu.name}" if serving.gpu is not None else ""
        raise InputError(
            f"`{model.id}` keeps no cache, so no number of requests fills it",
            hint=f"`kvplan estimate {model.id} --engine {serving.engine.name}{gpu}` says whether it fits",
        )


def _target(case: Case, want: Wanted) -> int:
    """The length that is asked for: given, or the model's own."""
    open_ended = want.longest or case.model.max_seq_len is None
    return want.max_model_len or (1 if open_ended else case.longest)


def _shown_length(case: Case, want: Wanted) -> int:
    """The length that is told where nothing fits: the target, or a usual one where any would have done."""
    usual = min(DEFAULT_SEQ_LEN, case.longest)
    return (
        usual
        if want.max_model_len is None and (want.longest or case.model.max_seq_len is None)
        else _target(case, want)
    )


def _is_of_the_share(trial: Trial) -> bool:
    """Whether it is the share that stops a start, which more GPUs do not change."""
    return not trial.boot.starts and any(overhang(account) for account in trial.boot.accounts)


def _chosen(base: Case, want: Wanted) -> Case:
    """The first place, from few GPUs to many and from wide formats to narrow ones, where what is asked for is held.

    Where none does, the first; of a given number of GPUs the widest tp. Where requests are given and no number of GPUs
    holds them at the model's own length, the place within one node that holds the longest.
    """
    target, first = _target(base, want), None
    node: list[Case] = []
    for serving in _places(base, want):
        case = replace(base, serving=serving)
        first = first or case
        node += [case] if serving.num_gpus <= NODE else []
        if point(case, target, want.concurrency or _open(want)).concurrency >= (want.concurrency or 1):
            return case
    if first is None:
        message = f"no layout over {want.num_gpus} GPUs is one that {base.serving.engine.name} accepts"
        raise InputError(message, hint="another number of GPUs: heads and matrices have to divide over tp")
    if _length_is_left(want) and node:
        return max(node, key=lambda case: _reach(case, want))
    return first


def _length_is_left(want: Wanted) -> bool:
    """Whether requests are given, and the GPUs are searched, but the length is not."""
    return want.max_model_len is None and want.num_gpus is None and want.search_layout and want.concurrency is not None


def _reach(case: Case, want: Wanted) -> tuple[int, int]:
    """The longest length that is held; of equal ones that on fewer GPUs counts for more."""
    trial = longest(case, want.concurrency)
    return (0 if trial is None else trial.length, -case.serving.num_gpus)


def _open(want: Wanted) -> int | None:
    """One request where their number is searched for a given length, so that the limit may be lowered to it."""
    return 1 if want.max_model_len is not None else None


def _places(base: Case, want: Wanted) -> Iterator[Serving]:
    for laid in _layouts(base, want):
        yield laid
        if want.best_kv_dtype:
            yield from formats(base.model, laid)


def _layouts(base: Case, want: Wanted) -> Iterator[Serving]:
    if not want.search_layout:
        yield base.serving
        return
    if want.num_gpus is None:
        yield from fewest(base.model, base.serving)
    else:
        yield from layouts(base.model, base.serving, want.num_gpus)


def _answer(case: Case, want: Wanted) -> Trial | None:
    """The start that answers, None where nothing that was asked for can be held.

    Given a length, the most requests; given requests, the longest length; given neither, the model's own length with
    the engine's own limit, else the longest.
    """
    if want.max_model_len is not None:
        if want.concurrency is None:
            return most_requests(case, want.max_model_len)
        return point(case, want.max_model_len, want.concurrency)
    return longest(case, want.concurrency)


def _bound(case: Case, want: Wanted, trial: Trial, *, fits: bool) -> tuple[Bound, str]:
    """What keeps the answer from being larger."""
    if trial.refused:
        return "engine", trial.boot.reasons[0]
    pool = trial.boot.pool
    if pool is None or not trial.boot.starts:
        return "memory", "; ".join(trial.boot.reasons)
    searched = trial.serving.switches.max_num_seqs != case.serving.switches.max_num_seqs
    if fits and want.max_model_len is None and trial.length >= case.longest:
        if case.model.max_seq_len is None:
            return "model", f"the model states no longest length; {UNLIMITED:,} tokens are the most that is searched"
        return "model", f"the model takes requests of {case.longest:,} tokens at most"
    if trial.limit < trial.max_concurrency and not searched:
        most = "1 request runs" if int(trial.limit) == 1 else f"{int(trial.limit):,} requests run"
        return "max_num_seqs", f"{most} at once at most (`max_num_seqs`)"
    found, wanted = trial.boot, "" if fits else f"; {want.concurrency:,} are wanted"
    there = f"{format_bytes(found.kv_memory_bytes)} of each GPU are left for the cache, which holds"
    if found.sized_by is not None:
        there = f"`{found.sized_by}` makes a pool of {format_bytes(pool.allocated_bytes)}, which holds"
    return "cache", f"{there} {rounded_down(trial.max_concurrency)} requests of {trial.length:,} tokens{wanted}"


def _range(case: Case, trial: Trial) -> tuple[float, float]:
    """Requests at once at the low and at the high end of the account's spread."""
    found = trial.boot
    if found.sized_by is not None:
        return trial.max_concurrency if found.certain else 0.0, trial.max_concurrency
    if not found.accounts or found.pool is None:
        return trial.max_concurrency, trial.max_concurrency
    ends = []
    for change in (-found.spread_bytes, found.spread_bytes):
        judged = boot_with(case.model, trial.serving, max(1, found.kv_memory_bytes + change))
        pool = judged.pool if judged.starts else None
        shares = trial.serving.engine.pooled is not None and trial.serving.engine.pooled.shares_length
        held = 0.0 if pool is None else pool.num_tokens / trial.length if shares else pool.max_concurrency
        ends.append(held if found.starts else 0.0)
    return ends[0], ends[1]


def _shares(case: Case, want: Wanted, trial: Trial) -> Share | None:
    """Of the answer as it is started, with the limit of requests that it is told."""
    case = replace(case, serving=trial.serving, hold_limit=True)
    safe = safe_share(case, trial)
    if safe is None:
        return None
    least = least_share(case, trial.length, want.concurrency, safe)
    account = trial.boot.accounts[0]
    pooled = trial.serving.engine.pooled
    stated = trial.serving.share_stated or (pooled is not None and pooled.default_share is not None)
    used = trial.serving.gpu_memory_utilization if stated else account.usable_bytes / account.device_bytes
    return Share(
        least=None if least is None else least.serving.gpu_memory_utilization,
        safe=safe / 100,
        used=round(used, 4),
    )


def _curve(case: Case, trial: Trial) -> tuple[CurvePoint, ...]:
    """Powers of two up to the model's limit, the answer, and where a window is full."""
    top = case.longest if case.model.max_seq_len else max(4 * trial.length, 4096)
    lengths = {1 << power for power in range(SHORTEST_OF_CURVE.bit_length() - 1, top.bit_length())}
    groups = trial.boot.pool.groups if trial.boot.pool else ()
    lengths |= {group.blocks_per_request * group.block_size for group in groups if group.window is not None}
    lengths |= {trial.length, top}
    points = []
    for length in sorted(length for length in lengths if length <= top):
        found = _most(case, trial, length)
        points.append(
            CurvePoint(
                max_model_len=length,
                max_concurrency=found.max_concurrency if found is not None else 0.0,
                concurrency=found.concurrency if found is not None else 0,
            )
        )
    return tuple(points)


def _most(case: Case, trial: Trial, length: int) -> Trial | None:
    """Requests of a length: with the limit of the answer, or with the engine's own where that admits more."""
    pooled = case.serving.engine.pooled
    if pooled is not None and pooled.shares_length:
        return most_requests(case, length)
    limits = {trial.serving.switches.max_num_seqs, case.serving.switches.max_num_seqs}
    return max((case.at(length, limit) for limit in limits), key=lambda found: found.concurrency)


def _changes(case: Case, want: Wanted, trial: Trial, bigger: tuple[Gpu, ...], *, fits: bool) -> tuple[Change, ...]:
    if not fits:
        return changes(case, trial.length, want.concurrency, bigger)
    return _with_fewer(case, want, trial) if want.search_layout and want.num_gpus is None else ()


def _with_fewer(case: Case, want: Wanted, trial: Trial) -> tuple[Change, ...]:
    """What fewer GPUs hold, where the engine starts on them; what is asked for over more stages than are usual."""
    found: list[Change] = []
    for laid in fewest(case.model, case.serving):
        if laid.num_gpus >= case.serving.num_gpus:
            break
        told = [change for change in found if change.serving.num_gpus == laid.num_gpus]
        held = None if told else longest(replace(case, serving=laid), want.concurrency)
        if held is not None:
            found.append(_fewer_gpus(held, {"max_model_len": held.length}, "shorter requests"))
    staged = _staged(case, want, trial)
    return (*found, *([] if staged is None else [_fewer_gpus(staged, {}, "pipeline stages: slower answers")]))


def _staged(case: Case, want: Wanted, trial: Trial) -> Trial | None:
    """All that is asked for on fewer GPUs than `fewest` tries, in the layout with the fewest stages."""
    for count in counts(case.model, case.serving):
        if count >= min(case.serving.num_gpus, NODE):
            return None
        for laid in layouts(case.model, case.serving, count):
            held = point(replace(case, serving=laid), trial.length, want.concurrency or _open(want))
            if held.concurrency >= (want.concurrency or 1):
                return held
    return None


def _fewer_gpus(trial: Trial, options: dict[str, object], cost: str) -> Change:
    laid = trial.serving
    where: dict[str, object] = {"num_gpus": laid.num_gpus, "tp": laid.tp, "pp": laid.pp}
    return Change(
        code="fewer_gpus", options={**where, **options}, cost=cost, max_model_len=trial.length,
        concurrency=trial.concurrency, serving=laid,
    )  # fmt: skip


def _warnings(model: ModelSpec, serving: Serving) -> tuple[PlanWarning, ...]:
    """Those of a plan, but for the GPU's and the length's, which the answer is about."""
    found = warnings(model, replace(serving, gpu=None), [])
    return tuple(warning for warning in found if warning.code != "beyond-max-positions")


def _notes(model: ModelSpec, trial: Trial) -> tuple[str, ...]:
    notes = [reason for reason in trial.boot.reasons if trial.boot.starts]
    if model.max_seq_len is not None and trial.length > model.max_seq_len:
        pooled = trial.serving.engine.pooled
        then = "engines refuse them unless they are told to allow it"
        if pooled is not None and pooled.shares_length:
            then = "a request gets no more than those"
        stated = f"{model.max_seq_len:,} that the model states: {then}"
        notes.append(f"{trial.length:,} tokens are more than the {stated}")
    return tuple(notes)
