"""What a reader of the log may want to change: memory left idle, limits that cost, a cache of half the bytes."""

from dataclasses import replace

from kvplan.core.boot import engine_accounts
from kvplan.core.engines.pool import KVPool
from kvplan.core.engines.versions import release
from kvplan.core.engines.vllm.defaults import default_max_num_seqs
from kvplan.core.errors import KvplanError
from kvplan.core.serving import Serving
from kvplan.core.units import GIB, format_bytes
from kvplan.runtime.explain.account import Case
from kvplan.runtime.explain.failure import eight_bit
from kvplan.runtime.explain.observed import number, whole
from kvplan.runtime.explain.pool import pool_of
from kvplan.runtime.observation import Observation

FEWER_REQUESTS = 256
"""What most deployments run at once at most: vLLM's own default on smaller GPUs."""
WORTH_TELLING = GIB // 2
_OWN_CONTEXT = 3 * GIB // 2
"""More than a process's own context takes before it looks at the device."""


def advice(observation: Observation, case: Case | None) -> tuple[str, ...]:
    """Sentences, the most urgent first."""
    found = [_other_process(observation), _overhang(observation, case), _idle(observation, case)]
    if case is not None and not _is_beside_the_point(observation):
        found += [
            _requests_at_once(observation, case),
            _half_the_bytes(observation, case),
            _few_requests(observation, case),
        ]
    return tuple(text for text in found if text)


def _other_process(observation: Observation) -> str:
    """What was taken before the engine took anything; ranks of one GPU each, so the least that was free."""
    free, device = number(observation, "device_free"), number(observation, "device_total")
    if free is None or device is None or observation.engine == "llamacpp":
        return ""
    held = round(device[0] - free[0])
    if held <= _OWN_CONTEXT:
        return ""
    own = "its own context included"
    return f"about {format_bytes(held)} of the GPU were taken at the start, {own}: another process holds most of it"


def _is_beside_the_point(observation: Observation) -> bool:
    """Whether the start failed for what others held, or before its weights were loaded: no limit would have helped."""
    free, allowed = number(observation, "device_free"), number(observation, "requested")
    lacked = free is not None and allowed is not None and free[0] < allowed[0]
    return bool(observation.errors) and (lacked or not observation.figures.keys() & {"weights", "torch_after_load"})


def _graphs(observation: Observation, case: Case | None) -> tuple[int, bool] | None:
    """(bytes of CUDA graphs, whether the log states them)."""
    seen = number(observation, "graphs")
    if seen is not None and seen[0] > 0:
        return round(seen[0]), True
    accounts = case.accounts() if case else ()
    items = [item for account in accounts[:1] for item in account.untaken if item.name == "CUDA graphs"]
    return (items[0].num_bytes, False) if items else None


def _room(observation: Observation, case: Case | None) -> tuple[int, float] | None:
    """(bytes that the share leaves of the device, the share)."""
    device, allowed = number(observation, "device_total"), number(observation, "requested")
    accounts = case.accounts() if case else ()
    share = number(observation, "utilization")
    stated = observation.options.get("gpu_memory_utilization")
    portion = float(share[0]) if share else (float(stated) if isinstance(stated, int | float) else None)
    if portion is None and case is not None:
        portion = case.serving.gpu_memory_utilization
    if portion is None or observation.engine != "vllm":
        return None
    if device is not None:
        return round(device[0] - (allowed[0] if allowed else device[0] * portion)), portion
    return (accounts[0].device_bytes - accounts[0].usable_bytes, portion) if accounts else None


def _context(case: Case | None) -> int:
    accounts = case.accounts() if case else ()
    return sum(item.num_bytes for account in accounts[:1] for item in account.untaken if item.name == "CUDA context")


def _outside(observation: Observation, case: Case | None) -> tuple[int, int, float] | None:
    """(what the share leaves, what of it graphs and the context take, the share)."""
    room, graphs = _room(observation, case), _graphs(observation, case)
    if room is None:
        return None
    subtracted = release(observation.version or "99") >= (0, 21)
    taken = _context(case) + (graphs[0] if graphs and not subtracted else 0)
    return room[0], taken, room[1]


def _overhang(observation: Observation, case: Case | None) -> str:
    """Graphs that find no room beside the share."""
    found, graphs = _outside(observation, case), _graphs(observation, case)
    if found is None or graphs is None or found[1] <= found[0]:
        return ""
    context = _context(case)
    besides = f" and the context {format_bytes(context)}" if context else ""
    takes = "take" if graphs[1] else "need about"
    return (
        f"a share of {found[2]:g} leaves {format_bytes(found[0])} of the GPU, where graphs {takes}"
        f" {format_bytes(graphs[0])}{besides}: lower it if the engine runs out of memory"
    )


def _idle(observation: Observation, case: Case | None) -> str:
    """What the share keeps from the engine, and nothing uses."""
    found = _outside(observation, case)
    if found is None or observation.errors:
        return ""
    idle = found[0] - found[1]
    if idle < 2 * WORTH_TELLING:
        return ""
    return f"{format_bytes(idle)} of the GPU are neither used nor allowed (share {found[2]:g})"


def _requests_at_once(observation: Observation, case: Case) -> str:
    """What the sampler of so many requests costs."""
    serving = case.serving
    if serving.engine.name != "vllm" or not case.accounts():
        return ""
    asked = default_max_num_seqs(serving.deployment, release(serving.engine.version or ""))
    if asked <= FEWER_REQUESTS:
        return ""
    fewer = replace(serving, switches=replace(serving.switches, max_num_seqs=FEWER_REQUESTS))
    try:
        accounts = engine_accounts(case.model, fewer)
    except KvplanError:
        return ""
    gain = min(account.kv_memory_bytes for account in accounts) - min(
        account.kv_memory_bytes for account in case.accounts()
    )
    peak = next((item.num_bytes for item in case.accounts()[0].taken if item.name == "activation peak"), 0)
    if gain < WORTH_TELLING:
        return ""
    return (
        f"max_num_seqs {asked:,} is why a step takes {format_bytes(peak)} of activations:"
        f" {FEWER_REQUESTS} would give the cache {format_bytes(gain)} more"
    )


def _half_the_bytes(observation: Observation, case: Case) -> str:
    """Tokens of an fp8 cache in the same memory."""
    serving = eight_bit(case)
    now, then = _stated_pool(observation, case, case.serving), serving and _stated_pool(observation, case, serving)
    if not now or not then or not now.max_concurrency:
        return ""
    factor = then.max_concurrency / now.max_concurrency
    if factor < 1.2:
        return ""
    return (
        f"an fp8 KV cache would hold {factor:.2f} times as many requests of {now.max_model_len:,} tokens"
        f" ({then.max_concurrency:,.2f})"
    )


def _stated_pool(observation: Observation, case: Case, serving: Serving) -> KVPool | None:
    """The pool of the memory that the log states, in another way to serve."""
    memory = number(observation, "kv_memory")
    if observation.engine not in ("vllm", "trtllm") or memory is None or memory[0] <= 0:
        return None
    try:
        if serving.engine.pooled is not None:
            serving.engine.pooled.check(case.model, serving.deployment)
        return pool_of(case.model, serving, round(memory[0]))
    except KvplanError:
        return None


def _few_requests(observation: Observation, case: Case) -> str:
    """Where hardly more than one longest request fits."""
    seen = number(observation, "max_concurrency")
    length = whole(observation, "concurrency_len")
    if seen is None or length is None or seen[0] >= 2 or case.serving.engine.name != "vllm":
        return ""
    tokens = whole(observation, "num_tokens")
    held = f": {tokens:,} tokens in all" if tokens else ""
    return f"{seen[0]:g} requests of {length:,} tokens fit at once{held}; further requests wait"
