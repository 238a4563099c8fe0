"""The log's own sums: whether its figures agree with each other, whatever the model.

Ranks print sums of their own; those of the tightest one are looked at.
"""

from kvplan.core.engines.versions import release
from kvplan.core.engines.vllm.measured import SUBTRACTS_GRAPHS
from kvplan.runtime.explain.answer import Number, Row, make_row
from kvplan.runtime.explain.observed import number, of_rank, tightest, whole
from kvplan.runtime.explain.served import kv_memory_option
from kvplan.runtime.observation import Observation

_GROUPED = (0, 9, 2), (0, 21)
"""vLLM's releases from which on, and up to which, tokens are blocks // groups · block size."""


def arithmetic_rows(observation: Observation) -> list[Row]:
    """A row for each sum whose parts the log states; bounds are what the parts' rounding leaves open."""
    found = [_allowed(observation), _left(observation), _trial(observation), _tokens(observation)]
    return [row for row in found if row is not None]


def _row(
    name: str, observed: tuple[Number, Number], value: Number, slack: Number, why: str, unit: str = "bytes"
) -> Row:
    bounds = (value, value - slack, value + slack)
    return make_row("arithmetic", name, observed, bounds, unit=unit, basis="exact", rounding=True, why=why)


def _allowed(observation: Observation) -> Row | None:
    rank = tightest(observation, "requested")
    total, share, seen = (of_rank(observation, name, rank) for name in ("device_total", "utilization", "requested"))
    if total is None or share is None or seen is None:
        return None
    slack = round(total[1] * share[0] + total[0] * share[1])
    return _row("allowed", seen, round(total[0] * share[0]), slack, "device · share")


def _left(observation: Observation) -> Row | None:
    """vLLM: what the share allows less what was taken before the pool was sized."""
    rank = tightest(observation, "kv_memory")
    seen, allowed = of_rank(observation, "kv_memory", rank), of_rank(observation, "requested", rank)
    if observation.engine != "vllm" or seen is None or kv_memory_option(observation) is not None:
        return None
    total, share = of_rank(observation, "device_total", rank), of_rank(observation, "utilization", rank)
    if allowed is None and total is not None and share is not None:
        allowed = round(total[0] * share[0]), round(total[1] * share[0])
    parts = _parts(observation, rank)
    if allowed is None or not parts:
        return None
    slack = allowed[1] + sum(half for _, half in parts.values())
    left = allowed[0] - sum(value for value, _ in parts.values())
    return _row("left for the cache", seen, round(left), round(slack), f"allowed − {' − '.join(parts)}")


def _parts(observation: Observation, rank: str | None) -> dict[str, tuple[Number, Number]]:
    """What was taken, as far as one set of figures is whole."""
    sets = (
        ("weights", "activation_peak", "non_torch"),
        ("consumed", "activation_peak"),
        ("torch_peak", "non_torch"),
        ("non_kv",),
    )
    for names in sets:
        found = {name.replace("_", " "): of_rank(observation, name, rank) for name in names}
        if all(value is not None for value in found.values()):
            parts = {name: value for name, value in found.items() if value is not None}
            # What is printed beside all that was consumed has the estimate in it.
            estimate = of_rank(observation, "graph_estimate", rank) if "consumed" not in names else None
            if estimate is not None and release(observation.version or "") >= SUBTRACTS_GRAPHS:
                parts["graph estimate"] = estimate
            return parts
    return {}


def _trial(observation: Observation) -> Row | None:
    """TensorRT-LLM: (device − peak + the trial's own cache) · share."""
    rank = tightest(observation, "kv_memory")
    names = ("kv_memory", "device_total", "peak", "utilization")
    seen, total, peak, share = (of_rank(observation, name, rank) for name in names)
    if observation.engine != "trtllm" or seen is None or total is None or peak is None or share is None:
        return None
    trial = of_rank(observation, "profile_cache", rank) or (0, 0)
    value = round((total[0] - peak[0] + trial[0]) * share[0])
    slack = round((total[1] + peak[1] + trial[1]) * share[0] + total[0] * share[1])
    return _row("left for the cache", seen, value, slack, "(device − peak + the trial's cache) · share")


def _tokens(observation: Observation) -> Row | None:
    """Requests times their length; from vLLM 0.9.2 to 0.20 only where all layers share one group, which is not told."""
    if _GROUPED[0] <= release(observation.version or "0.9.2") < _GROUPED[1]:
        return None
    tokens, length = whole(observation, "num_tokens"), whole(observation, "concurrency_len")
    requests = number(observation, "max_concurrency")
    if tokens is None or length is None or requests is None:
        return None
    slack = requests[1] * length + 1
    return _row("tokens", (tokens, 0), round(requests[0] * length), slack, "requests · their length", unit="tokens")
