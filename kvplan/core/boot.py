"""Whether an engine starts: its account of each GPU, the pool that is left, and one request that has to fit into it."""

from dataclasses import dataclass, replace

from kvplan.core.engines.pool import Budget, KVPool
from kvplan.core.errors import InputError
from kvplan.core.layout import stage_weights
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving
from kvplan.core.text import join_words
from kvplan.core.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What happens when the engine starts."""

    accounts: tuple[Budget, ...]
    """One a pipeline stage; none where the size of the pool was given."""
    kv_memory_bytes: int
    """What is left of one GPU for the cache, on the tightest stage; 0 where nothing is."""
    spread_bytes: int
    """How far that may be off."""
    pool: KVPool | None
    """None where nothing is left."""
    starts: bool
    certain: bool
    """Whether it would be the same at either end of the spread."""
    reasons: tuple[str, ...]
    """Why it does not start, or what is tight; sentences."""


def boot(model: ModelSpec, serving: Serving, kv_memory_bytes: int | None = None) -> Boot:
    """The engine's own start-up check, for requests of `serving.seq_len` tokens.

    Raises InputError for an engine that reserves no pool, and without a GPU or a size.
    """
    if kv_memory_bytes is not None:
        return _judged(model, _given(serving), (), kv_memory_bytes, 0)
    accounts = engine_accounts(model, serving)
    if not accounts:
        plan_pool(model, serving, None)  # says what is missing
    tightest = min(accounts, key=lambda account: account.kv_memory_bytes)
    return _judged(model, serving, accounts, tightest.kv_memory_bytes, tightest.spread_bytes)


def boot_with(model: ModelSpec, serving: Serving, left: int) -> Boot:
    """The same with `left` bytes of an account: states, where they have a pool of their own, are paid out of them."""
    return _judged(model, serving, (), left, 0)


def engine_accounts(model: ModelSpec, serving: Serving) -> tuple[Budget, ...]:
    """The engine's account of the GPU of each stage; none without such an engine or a GPU whose memory is known."""
    pooled = serving.engine.pooled
    if pooled is None or serving.capacity_bytes is None:
        return ()
    planned = replace(model, quantization=serving.quant) if serving.quant_planned else model
    return pooled.budget(planned, serving.deployment, stage_weights(model, serving))


def engine_pool(model: ModelSpec, serving: Serving, accounts: tuple[Budget, ...]) -> KVPool | None:
    """What the engine makes of what its account leaves, on the tightest stage; None where nothing is left."""
    pooled = serving.engine.pooled
    if pooled is None or not accounts:
        return None
    left = min(account.kv_memory_bytes for account in accounts)
    return pooled.pool(model, serving.deployment, left) if left > 0 else None


def plan_pool(model: ModelSpec, serving: Serving, kv_memory_bytes: int | None) -> KVPool:
    """The engine's pool of so many bytes of each GPU, or of what its account of the GPU leaves.

    Raises InputError for an engine that has no pool, where its size is not known, and where nothing is left for it.
    """
    pooled = serving.engine.pooled
    if pooled is None:
        message = f"engine `{serving.engine.name}` reserves no pool"
        raise InputError(message, hint="vllm, sglang, trtllm and llamacpp do")
    accounts = engine_accounts(model, serving) if kv_memory_bytes is None else ()
    if not accounts:
        return pooled.pool(model, _given(serving).deployment, kv_memory_bytes)
    found = engine_pool(model, serving, accounts)
    if found is None:
        raise InputError(_nothing_left(min(accounts, key=lambda account: account.kv_memory_bytes)), hint="more GPUs")
    return found


def _given(serving: Serving) -> Serving:
    """The serving with a pool whose size is given: that of keys and values, where states have a pool of their own."""
    pooled, switches = serving.engine.pooled, serving.switches
    if pooled is None or "states_apart" not in pooled.switches or switches.states_apart is not None:
        return serving
    return replace(serving, switches=replace(switches, states_apart=True))


def _judged(model: ModelSpec, serving: Serving, accounts: tuple[Budget, ...], left: int, spread: int) -> Boot:
    pooled = serving.engine.pooled
    if pooled is None:
        plan_pool(model, serving, left)  # says that it has no pool
        raise AssertionError("unreachable")
    pool = pooled.pool(model, serving.deployment, left) if left > 0 else None
    starts = pool is not None and pool.fits_one
    # More memory never stops a start: only the end that could turn the answer round is looked at.
    other_end = _fits(model, serving, left + (-spread if starts else spread)) if spread else starts
    certain = other_end == starts
    reasons = [] if starts else [_why_not(model, serving, accounts, left)]
    reasons += [reason for account in accounts if (reason := _overhang(account))]
    if accounts and any("no room" in reason for reason in reasons):
        starts = False
    return Boot(
        accounts=accounts,
        kv_memory_bytes=max(0, left),
        spread_bytes=spread,
        pool=pool,
        starts=starts,
        certain=certain,
        reasons=tuple(reasons),
    )


def _fits(model: ModelSpec, serving: Serving, left: int) -> bool:
    pooled = serving.engine.pooled
    return pooled is not None and left > 0 and pooled.pool(model, serving.deployment, left).fits_one


def _why_not(model: ModelSpec, serving: Serving, accounts: tuple[Budget, ...], left: int) -> str:
    if left <= 0:
        return _nothing_left(min(accounts, key=lambda account: account.kv_memory_bytes)) if accounts else "no memory"
    pool = plan_pool(model, serving, left)
    needed, what = pool.blocks_per_request * pool.bytes_per_block, f"one request of {pool.max_model_len:,} tokens"
    if serving.engine.pooled is not None and serving.engine.pooled.shares_length:
        needed, what = pool.allocated_bytes, f"a context of {pool.num_tokens:,} tokens"
    return (
        f"{what} needs {format_bytes(needed)} of cache and {format_bytes(left)}"
        f" are left; the longest that fits has {pool.longest_request:,} tokens"
    )


def _nothing_left(account: Budget) -> str:
    taken = sum(item.num_bytes for item in account.taken)
    most = max(account.taken, key=lambda item: item.num_bytes)
    return (
        f"{most.name} ({format_bytes(most.num_bytes)}) and the rest take {format_bytes(taken)} of the"
        f" {format_bytes(account.usable_bytes)} that the engine allows itself: nothing is left for the cache"
    )


def _overhang(account: Budget) -> str | None:
    """What does not fit beside the engine's share although it has to."""
    beside = sum(item.num_bytes for item in account.untaken)
    room = account.device_bytes - account.usable_bytes
    if beside <= room:
        return None
    names = join_words(tuple(item.name for item in account.untaken))
    one = len(account.untaken) == 1
    return (
        f"the share leaves {format_bytes(room)} of the GPU for {names}, which need{'s' if one else ''}"
        f" {format_bytes(beside)}: there is no room for {'it' if one else 'them'}"
    )
