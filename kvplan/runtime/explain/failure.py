"""Why an engine did not start, and what would have: the longest length, the share, a cache of half the bytes …"""

from dataclasses import replace
from math import ceil, floor

from kvplan.core.boot import Boot, boot
from kvplan.core.dtypes import parse_kv_dtype
from kvplan.core.errors import KvplanError
from kvplan.core.serving import Serving
from kvplan.core.units import format_bytes
from kvplan.runtime.explain.account import Case
from kvplan.runtime.explain.answer import Failure
from kvplan.runtime.explain.observed import number, whole
from kvplan.runtime.observation import Observation

HIGHEST_SHARE = 0.98
"""A share above this leaves no room for a context and graphs."""
MOST_GPUS = 64
_SHARES = {"vllm": "--gpu-memory-utilization", "sglang": "--mem-fraction-static"}
_LENGTHS = {"vllm": "--max-model-len", "sglang": "--context-length", "trtllm": "--max_seq_len"}


def explain_failure(observation: Observation, case: Case | None) -> Failure | None:
    """None where the log tells of no error."""
    if not observation.errors:
        return None
    remedies = _of_the_device(observation)
    reasons: list[str] = []
    if case is not None:
        reasons = [*case.boot.reasons] if case.boot else []
        remedies += _of_the_cache(observation, case)
    return Failure(errors=observation.errors, reasons=tuple(reasons), remedies=tuple(remedies))


def _of_the_device(observation: Observation) -> list[str]:
    """Where less was free than the engine wanted."""
    free, total = number(observation, "device_free"), number(observation, "device_total")
    allowed = number(observation, "requested")
    if free is None or total is None or allowed is None or free[0] >= allowed[0]:
        return []
    share = floor(100 * free[0] / total[0]) / 100
    held = format_bytes(round(total[0] - free[0]))
    return [f"{held} of the GPU were taken already: end what holds them, or ask for a share of {share:g}"]


def _of_the_cache(observation: Observation, case: Case) -> list[str]:
    """Where one request did not fit into what was left, or nothing was left."""
    left = number(observation, "kv_memory")
    kv_memory = round(left[0]) if left else (case.boot.kv_memory_bytes if case.boot else None)
    if kv_memory is None:
        return []
    found = _longest(case, kv_memory) if kv_memory > 0 else []
    if kv_memory > 0 and not found and not _lacks_cache(observation):
        return []  # the cache was not what failed
    return [*found, *_higher_share(observation, case, kv_memory), *_half_the_bytes(case, kv_memory), *_more_gpus(case)]


def _lacks_cache(observation: Observation) -> bool:
    return any("KV cache" in error or "cache blocks" in error for error in observation.errors)


def _longest(case: Case, kv_memory: int) -> list[str]:
    pool = _boot(case, case.serving, kv_memory)
    if pool is None or pool.pool is None or pool.pool.fits_one or not pool.pool.longest_request:
        return []
    flag = _LENGTHS.get(case.serving.engine.name, "the length")
    return [f"{flag} {pool.pool.longest_request} is the longest request that fits into {format_bytes(kv_memory)}"]


def _higher_share(observation: Observation, case: Case, kv_memory: int) -> list[str]:
    """The least share that leaves what one request needs."""
    flag = _SHARES.get(case.serving.engine.name)
    total = number(observation, "device_total")
    device = total[0] if total else (case.boot.accounts[0].device_bytes if case.boot and case.boot.accounts else None)
    needed = _needed(observation, case, kv_memory)
    if flag is None or device is None or needed is None or needed <= kv_memory:
        return []
    share = ceil(100 * (case.serving.gpu_memory_utilization + (needed - kv_memory) / device)) / 100
    if share > HIGHEST_SHARE:
        return []
    return [f"{flag} {share:g} gives the {format_bytes(needed - kv_memory)} that are missing"]


def _needed(observation: Observation, case: Case, kv_memory: int) -> int | None:
    """Bytes of one request: with the block that newer versions hold back."""
    found = _boot(case, case.serving, max(1, kv_memory))
    if found is None or found.pool is None:
        return whole(observation, "needed")
    return (found.pool.blocks_per_request + 1) * found.pool.bytes_per_block


def _half_the_bytes(case: Case, kv_memory: int) -> list[str]:
    serving = eight_bit(case.serving)
    found = None if serving is None or kv_memory <= 0 else _boot(case, serving, kv_memory)
    if found is None or not found.starts:
        return []
    return [f"an fp8 KV cache (`--kv-cache-dtype fp8`) holds one request of {case.serving.seq_len:,} tokens in it"]


def _more_gpus(case: Case) -> list[str]:
    """The fewest tensor-parallel ranks, in doublings, with which the engine starts."""
    serving = case.serving
    if serving.gpu is None or serving.engine.name == "llamacpp" or serving.switches.stage_layers:
        return []
    tp = 2 * serving.tp
    while tp * serving.pp <= MOST_GPUS:
        found = _boot(case, replace(serving, tp=tp), None)
        if found is not None and found.starts:
            return [f"tensor parallelism over {tp} GPUs leaves {format_bytes(found.kv_memory_bytes)} of each"]
        tp *= 2
    return []


def eight_bit(serving: Serving) -> Serving | None:
    """The same with an fp8 cache; None where it has 8 bits or fewer already, or the engine or the GPU has no fp8."""
    known = serving.engine.kv_dtypes
    arch = serving.gpu.arch if serving.gpu else ""
    old = arch.replace(".", "").isdigit() and float(arch) < 8.9
    if serving.kv_dtype.bits <= 8 or old or (known is not None and "fp8" not in known):
        return None
    return replace(serving, kv_dtype=parse_kv_dtype("fp8"), value_dtype=parse_kv_dtype("fp8"))


def _boot(case: Case, serving: Serving, kv_memory: int | None) -> Boot | None:
    """The engine's check of another way to serve; None where it refuses that."""
    try:
        if serving.engine.pooled is not None:
            serving.engine.pooled.check(case.model, serving.deployment)
        return boot(case.model, serving, kv_memory)
    except KvplanError:
        return None
