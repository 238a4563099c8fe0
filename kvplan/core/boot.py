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
    """Whether it would be the same at either end of the spread, of what lies outside the share as well."""
    reasons: tuple[str, ...]
    """Why it does not start, or what is tight; sentences."""
    sized_by: str | None = None
    """The option that says how large the pool is, whatever the account leaves: it is held to the device itself."""


def boot(model: ModelSpec, serving: Serving, kv_memory_bytes: int | None = None, *, on_gpu: bool = False) -> Boot:
    """The engine's own start-up check, for requests of `serving.seq_len` tokens.

    `kv_memory_bytes` is a pool of a known size, instead of what a GPU leaves; `on_gpu` holds it to the GPU, too, where
    it is what the engine is told. Raises InputError for an engine that reserves no pool, and without a GPU or a size.
    """
    if kv_memory_bytes is not None and not on_gpu:
        return _judged(model, _given(serving), (), kv_memory_bytes, 0)
    accounts = engine_accounts(model, serving)
    if not accounts:
        plan_pool(model, serving, None)  # says what is missing
    tightest = min(accounts, key=lambda account: account.kv_memory_bytes)
    left, spread = tightest.kv_memory_bytes, tightest.spread_bytes
    if kv_memory_bytes is not None:
        if serving.engine.pooled is not None and serving.engine.pooled.caps_pool:
            capped = min(left, kv_memory_bytes)
            return _judged(model, serving, accounts, capped, max(0, capped - left + spread))
        found = _judged(model, _given(serving), (), kv_memory_bytes, 0)
        whole = tuple(_of_the_device(account) for account in accounts)
        return _held_to_the_device(replace(found, accounts=whole), accounts, "kv_memory_bytes")
    if serving.switches.num_gpu_blocks_override is not None:
        found = _judged(model, serving, (), max(1, left), 0)
        found = replace(found, accounts=accounts, kv_memory_bytes=max(0, left), spread_bytes=spread)
        return _held_to_the_device(found, accounts, "num_gpu_blocks_override")
    return _judged(model, serving, accounts, left, spread)


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
    held = pool is not None and pool.fits_one
    starts = held and not any(overhang(account) for account in accounts)
    # More memory never stops a start: only the end that could turn the answer round is looked at.
    far = left + (-spread if starts else spread)
    other_end = (_fits(model, serving, far) if spread else held) and not any(
        overhang(account, 1 if starts else -1) for account in accounts
    )
    reasons = [] if held else [_why_not(model, serving, accounts, left, pool)]
    if left > 0:
        reasons += [_no_room(account) for account in accounts if overhang(account)]
    return Boot(
        accounts=accounts,
        kv_memory_bytes=max(0, left),
        spread_bytes=spread,
        pool=pool,
        starts=starts,
        certain=other_end == starts,
        reasons=tuple(dict.fromkeys(reasons)),
    )


def _fits(model: ModelSpec, serving: Serving, left: int) -> bool:
    pooled = serving.engine.pooled
    return pooled is not None and left > 0 and pooled.pool(model, serving.deployment, left).fits_one


def _of_the_device(account: Budget) -> Budget:
    """The account of a pool that no share sizes: all of the device, less all that the engine takes of it."""
    taken = (*account.taken, *account.untaken)
    return replace(account, usable_bytes=account.device_bytes, taken=taken, untaken=())


def _held_to_the_device(found: Boot, accounts: tuple[Budget, ...], option: str) -> Boot:
    """A pool whose size `option` sets: it needs room on the device beside all that is taken, whatever the share is.

    What is there before the engine looks at the device is held to the share nonetheless: vLLM refuses to start where
    the share is more than what is free, and profiles a pass in either case.

    Source: vLLM 0.33, v1/worker/gpu_worker.py 542, 663-689; v1/core/kv_cache_planning.py 1510-1535
    """
    if found.pool is None:
        return found
    whole = min((_of_the_device(account) for account in accounts), key=lambda account: account.kv_memory_bytes)
    room, spread, needed = whole.kv_memory_bytes, whole.spread_bytes, found.pool.allocated_bytes
    early = [account for account in (replace(a, untaken=a.before) for a in accounts) if overhang(account)]
    reasons = [*found.reasons, *(_no_room(account) for account in early)]
    if needed > room:
        taken = sum(item.num_bytes for item in whole.taken)
        beside = f"{format_bytes(room)} are left" if room > 0 else "nothing is left"
        reasons.append(
            f"`{option}` makes a pool of {format_bytes(needed)}, but {_largest(whole)} and the rest take"
            f" {format_bytes(taken)} of the GPU's {format_bytes(whole.device_bytes)}: {beside} for it"
        )
    near = room - spread < needed <= room + spread
    return replace(
        found,
        starts=found.starts and needed <= room and not early,
        certain=not (found.starts and not early and near),
        reasons=tuple(dict.fromkeys(reasons)),
        sized_by=option,
    )


def _why_not(model: ModelSpec, serving: Serving, accounts: tuple[Budget, ...], left: int, pool: KVPool | None) -> str:
    if left <= 0 or pool is None:
        return _nothing_left(min(accounts, key=lambda account: account.kv_memory_bytes)) if accounts else "no memory"
    needed, what = pool.blocks_per_request * pool.bytes_per_block, f"one request of {pool.max_model_len:,} tokens"
    if serving.engine.pooled is not None and serving.engine.pooled.shares_length:
        needed, what = pool.allocated_bytes, f"a context of {pool.num_tokens:,} tokens"
    there = f"{format_bytes(left)} are left"
    if serving.switches.num_gpu_blocks_override is not None:
        there = f"`num_gpu_blocks_override` makes {pool.num_blocks:,} blocks, {format_bytes(pool.allocated_bytes)}"
    longest = f"the longest that this cache holds has {pool.longest_request:,} tokens"
    return f"{what} needs {format_bytes(needed)} of cache and {there}; {longest}"


def _nothing_left(account: Budget) -> str:
    taken = sum(item.num_bytes for item in account.taken)
    if max(item.num_bytes for item in account.taken) > account.usable_bytes:
        whole = account.usable_bytes == account.device_bytes
        room = f"the GPU's {format_bytes(account.device_bytes)}"
        if not whole:
            room = f"the {format_bytes(account.usable_bytes)} that the engine allows itself"
        return f"{_largest(account)} alone do not fit into {room}, nor does the rest, {format_bytes(taken)} in all"
    return (
        f"{_largest(account)} and the rest take {format_bytes(taken)} of the"
        f" {format_bytes(account.usable_bytes)} that the engine allows itself: nothing is left for the cache"
    )


def _largest(account: Budget) -> str:
    most = max(account.taken, key=lambda item: item.num_bytes)
    return f"{most.name} ({format_bytes(most.num_bytes)})"


def overhang(account: Budget, spreads: int = 0) -> int:
    """Bytes that do not fit beside the engine's share although they have to; 0 where all do.

    `spreads` says where in its spread each item lies: 1 at the high end, -1 at the low one.
    """
    beside = sum(max(0, item.num_bytes + spreads * item.spread_bytes) for item in account.untaken)
    return max(0, beside - (account.device_bytes - account.usable_bytes))


def _no_room(account: Budget) -> str:
    room, beside = account.device_bytes - account.usable_bytes, sum(item.num_bytes for item in account.untaken)
    names = join_words(tuple(item.name for item in account.untaken))
    one = len(account.untaken) == 1
    return (
        f"the share leaves {format_bytes(room)} of the GPU for {names}, which need{'s' if one else ''}"
        f" {format_bytes(beside)}: there is no room for {'it' if one else 'them'}"
    )
