"""Why an engine did not start, and what would have: the longest length, the share, a cache of half the bytes …

What an engine lacked shows in what it had printed by then: no weights, and it ran out while loading; no memory for the
cache, and it ran out in its trial run; else while it captured graphs or warmed up. Every remedy is tried before it is
told: the engine's own check passes with it, on what the log says is left.
"""

from dataclasses import replace
from math import floor

from kvplan.core.boot import Boot, boot
from kvplan.core.dtypes import parse_kv_dtype
from kvplan.core.engines.llamacpp.pool import longest_n_ctx
from kvplan.core.errors import KvplanError
from kvplan.core.fit.places import accepts
from kvplan.core.serving import Serving
from kvplan.core.units import format_bytes
from kvplan.runtime.explain.account import Case
from kvplan.runtime.explain.answer import Failure
from kvplan.runtime.explain.observed import number, total, whole
from kvplan.runtime.observation import Observation

HIGHEST_SHARE = 98
"""A share, in hundredths, above which a context and graphs find no room."""
MOST_GPUS = 64
_SHARES = {
    "vllm": "--gpu-memory-utilization",
    "sglang": "--mem-fraction-static",
    "trtllm": "--kv_cache_free_gpu_memory_fraction",
}
_LENGTHS = {"vllm": "--max-model-len", "sglang": "--context-length", "trtllm": "--max_seq_len"}


def explain_failure(observation: Observation, case: Case | None) -> Failure | None:
    """None where the log tells of no error."""
    if not observation.errors:
        return None
    remedies = _of_the_device(observation) + _of_states(observation)
    reasons: list[str] = []
    if case is None:
        remedies += _of_the_log(observation)
    if case is not None and case.serving.engine.name == "llamacpp":
        remedies += _of_a_context(observation, case)
    elif case is not None:
        reasons = [*case.boot.reasons] if case.boot else _of_the_weights(observation, case)
        remedies += _of_the_cache(observation, case) + _of_the_rest(observation, case)
    return Failure(errors=observation.errors, reasons=tuple(reasons), remedies=tuple(dict.fromkeys(remedies)))


def _of_the_device(observation: Observation) -> list[str]:
    """Where less was free than the engine wanted."""
    free, device = number(observation, "device_free"), number(observation, "device_total")
    allowed = number(observation, "requested")
    if free is None or device is None or allowed is None or free[0] >= allowed[0]:
        return []
    share = floor(100 * free[0] / device[0]) / 100
    held = format_bytes(round(device[0] - free[0]))
    return [f"{held} of the GPU were taken already: end what holds them, or ask for a share of {share:g}"]


def _of_states(observation: Observation) -> list[str]:
    """vLLM refuses more requests at once than it has blocks for recurrent states."""
    slots = whole(observation, "state_slots")
    if not slots or not any("Mamba cache blocks" in error for error in observation.errors):
        return []
    return [f"--max-num-seqs {slots} is as many requests as there are blocks for recurrent states"]


def _of_the_log(observation: Observation) -> list[str]:
    """What follows without a model: the length that vLLM itself says would fit, the share that its own sum leaves."""
    if observation.engine != "vllm":
        return []
    longest = whole(observation, "estimated_max_len")
    found = [f"--max-model-len {longest} is what the engine says would fit"] if longest else []
    device, allowed, left = (number(observation, name) for name in ("device_total", "requested", "kv_memory"))
    if device is not None and device[0] > 0 and allowed is not None and left is not None and left[0] <= 0:
        share = floor(100 * (allowed[0] - left[0]) / device[0] + 1) / 100
        if share <= HIGHEST_SHARE / 100:
            found.append(f"a share of {share:g} is the least that leaves anything for the cache")
    return found


def _of_the_weights(observation: Observation, case: Case) -> list[str]:
    """Why torch ran out of memory while it loaded; the account says it where the GPU is known."""
    if not _ran_out_while_loading(observation):
        return []
    weights = max(sum(item.num_bytes for item in items) for items in case.weights())
    return [f"weights take {format_bytes(weights)} of each GPU"]


def _ran_out_while_loading(observation: Observation) -> bool:
    return _ran_out(observation) and not observation.figures.keys() & {"weights", "torch_after_load"}


def _ran_out(observation: Observation) -> bool:
    return any("out of memory" in error.lower() or "OutOfMemory" in error for error in observation.errors)


def _of_the_cache(observation: Observation, case: Case) -> list[str]:
    """Where one request did not fit into what was left, or nothing was left."""
    left = _left(observation, case)
    if left is None or not _lacks_cache(observation, case, left):
        return []
    return [
        *_longest(case, left),
        *_higher_share(observation, case, left),
        *_half_the_bytes(case, left),
        *_more_gpus(case),
    ]


def _left(observation: Observation, case: Case) -> int | None:
    """Bytes for the cache, as the log states or else as predicted; below 0 where weights and the rest take more."""
    stated = number(observation, "kv_memory")
    if stated is not None:
        return round(stated[0])
    return min((account.kv_memory_bytes for account in case.accounts()), default=None)


def _lacks_cache(observation: Observation, case: Case, left: int) -> bool:
    """Whether the cache is what did not fit: the engine says so, or kvplan's own check of what was left does."""
    words = ("KV cache", "KV Cache", "cache blocks", "mem-fraction-static", "insufficient GPU memory")
    if any(word in error for error in observation.errors for word in words):
        return True
    found = _boot(case, case.serving, left) if left > 0 else None
    return left <= 0 or (found is not None and not found.starts)


def _longest(case: Case, left: int) -> list[str]:
    found = _boot(case, case.serving, left) if left > 0 else None
    if found is None or found.pool is None or found.pool.fits_one or not found.pool.longest_request:
        return []
    flag = _LENGTHS[case.serving.engine.name]
    return [f"{flag} {found.pool.longest_request} is the longest request that fits into {format_bytes(left)}"]


def _higher_share(observation: Observation, case: Case, left: int) -> list[str]:
    """The least share that leaves what one request needs: each hundredth gives a hundredth of the device."""
    device = _device(observation, case)
    share = case.serving.gpu_memory_utilization
    if device is None:
        return []
    for step in range(floor(100 * share) + 1, HIGHEST_SHARE + 1):
        more = round(device * (step / 100 - share))
        found = _boot(case, case.serving, left + more) if left + more > 0 else None
        if found is not None and found.starts:
            flag = _SHARES[case.serving.engine.name]
            return [f"{flag} {step / 100:g} gives the cache {format_bytes(more)} more"]
    return []


def _device(observation: Observation, case: Case) -> int | None:
    stated = number(observation, "device_total")
    if stated is not None and stated[0] > 0:
        return round(stated[0])
    return case.accounts()[0].device_bytes if case.accounts() else None


def _half_the_bytes(case: Case, left: int) -> list[str]:
    serving = eight_bit(case)
    found = None if serving is None or left <= 0 else _boot(case, serving, left)
    if found is None or not found.starts:
        return []
    return [f"an fp8 KV cache holds one request of {case.serving.seq_len:,} tokens in {format_bytes(left)}"]


def _more_gpus(case: Case) -> list[str]:
    """The fewest tensor-parallel ranks, in doublings, with which the engine starts."""
    serving = case.serving
    if serving.gpu is None or serving.switches.stage_layers:
        return []
    tp = 2 * serving.tp
    while tp * serving.pp <= MOST_GPUS:
        found = _boot(case, replace(serving, tp=tp), None)
        if found is not None and found.starts:
            return [f"tensor parallelism over {tp} GPUs leaves {format_bytes(found.kv_memory_bytes)} of each"]
        tp *= 2
    return []


def _of_the_rest(observation: Observation, case: Case) -> list[str]:
    """Where torch ran out of memory: while loading, in the trial run, or once the pool was made."""
    if not _ran_out(observation):
        return []
    if _ran_out_while_loading(observation):
        return _more_gpus(case)
    if not observation.figures.keys() & {"kv_memory", "num_tokens", "num_blocks"}:
        return ["lower the tokens of a step (max_num_batched_tokens) or the requests at once (max_num_seqs)"]
    return _lower_share(observation, case)


def _lower_share(observation: Observation, case: Case) -> list[str]:
    """The pool has taken what graphs and the first batches want."""
    accounts, device = case.accounts(), _device(observation, case)
    flag = _SHARES[case.serving.engine.name]
    if not accounts or not device:
        return [f"a lower {flag}"]
    beside = sum(item.num_bytes + item.spread_bytes for item in accounts[0].untaken)
    share = floor(100 * (device - beside) / device) / 100
    names = " and ".join(item.name for item in accounts[0].untaken) or "what comes after"
    lower = min(share, floor(100 * case.serving.gpu_memory_utilization - 1) / 100)
    return [f"{flag} {lower:g} leaves {format_bytes(round(device * (1 - lower)))} for {names}, and a step's peaks"]


def _of_a_context(observation: Observation, case: Case) -> list[str]:
    """llama.cpp: the longest context that fits into what the weights leave of its devices."""
    free, weights = total(observation, "device_free"), total(observation, "model_buffer")
    compute = total(observation, "compute_buffer") or (0, 0)
    deployment = case.serving.deployment
    if free is None or weights is None or len(observation.figures["device_free"]) > 1:
        return []
    left = free[0] - weights[0] - compute[0]
    longest = longest_n_ctx(case.model, deployment, left) if left > 0 else 0
    if not 0 < longest < case.serving.seq_len:
        return [] if longest else ["fewer layers on the GPU (-ngl): weights alone take what is free of it"]
    return [f"-c {longest} is the longest context that fits into {format_bytes(left)}"]


def eight_bit(case: Case) -> Serving | None:
    """The same with an fp8 cache; None where it has 8 bits or fewer already, or the engine has no fp8 on such a GPU."""
    serving = case.serving
    known = serving.engine.kv_dtypes
    if serving.kv_dtype.bits <= 8 or (known is not None and "fp8" not in known):
        return None
    told = replace(serving, kv_dtype=parse_kv_dtype("fp8"), value_dtype=parse_kv_dtype("fp8"))
    return told if accepts(case.model, told) else None


def _boot(case: Case, serving: Serving, kv_memory: int | None) -> Boot | None:
    """The engine's check of another way to serve; None where it refuses that."""
    try:
        if serving.engine.pooled is not None:
            serving.engine.pooled.check(case.model, serving.deployment)
        return boot(case.model, serving, kv_memory)
    except KvplanError:
        return None
