"""How many ranks served a model, as the prefixes of a log's lines tell it where no flag does.

    tp = highest TP + 1, up to what divides the attention's heads; pp = highest PP + 1; tp = processes / pp

vLLM and SGLang name a rank's place along a dimension only where that dimension has several (SGLang to 0.4.5 names TP0
always). A log may lack ranks: those of other nodes, or all but the first. What then is taken is no ground to judge on.

Sources: vLLM, v1/executor/multiproc_executor.py `setup_proc_title_and_log_prefix`; SGLang, managers/scheduler.py
`run_scheduler_process`; TensorRT-LLM, cpp/tensorrt_llm/runtime/utils/mpiUtils.cpp
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from kvplan.core.model import ModelSpec
from kvplan.core.text import join_words
from kvplan.runtime.observation import Observation

_PLACE = re.compile(r"([A-Z]+(?:_[A-Z]+)?)(\d+)")
_ENGINE = re.compile(r"DP\d+")
_DENSE = {"TP", "PP", "DP"}
"""Places that tell all where replicas share nothing."""
_NUMBERED = re.compile(r"rank (\d+)")
_NO_FLAG = "no flag in the log says tp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """What the prefixes tell of tensor, pipeline and data parallelism."""

    options: dict[str, Any] = field(default_factory=dict)
    """Under kvplan's names; empty where flags say it, or no rank is named."""
    notes: tuple[str, ...] = ()
    is_settled: bool = True
    """False where another number of ranks would print the same."""


def degrees_of(observation: Observation, told: Mapping[str, Any], model: ModelSpec | None) -> Degrees:
    """The degrees that the log's ranks show where `told`, the options, do not say `tp`.

    Without a model it is not known what divides its heads: tp is what is seen.
    """
    if observation.engine not in ("vllm", "sglang", "trtllm") or told.get("tp") is not None:
        return Degrees()
    places = _places(_without_the_one_engine(observation))
    if observation.engine == "trtllm":
        return _of_processes(observation.num_gpus or 1, told, "the log tells of {} processes")
    if numbers := [int(found[1]) for rank in observation.ranks if (found := _NUMBERED.fullmatch(rank))]:
        return _of_processes(max(numbers) + 1, told, f"{_named('rank ', numbers)} are seen, {{}} processes")
    if any(rank.startswith("pid ") for rank in observation.ranks):
        return Degrees(notes=(f"{_NO_FLAG}, and the workers bear no numbers: taken as tp 1",), is_settled=False)
    return _of_places(observation, places, told, model) if places else Degrees()


def _of_processes(count: int, told: Mapping[str, Any], words: str) -> Degrees:
    """tp · pp processes: which of both is not told where `pp` is not."""
    stages = told.get("pp")
    pp = stages if isinstance(stages, int) and stages > 0 and count % stages == 0 else 1
    if count <= 1:
        return Degrees()
    note = f"{_NO_FLAG}: {words.format(count)}, taken as tp {count // pp}" + (f" and pp {pp}" if pp > 1 else "")
    return Degrees(options={"tp": count // pp}, notes=(note,), is_settled=stages is not None)


def _of_places(
    observation: Observation, places: Mapping[str, set[int]], told: Mapping[str, Any], model: ModelSpec | None
) -> Degrees:
    """Ranks that are named by their place along each dimension."""
    options: dict[str, Any] = {}
    is_settled = places.keys() <= ({"TP", "PP"} if _has_experts(model) or observation.engine != "vllm" else _DENSE)
    for name, indices in places.items():
        option = {"TP": "tp", "PP": "pp", "DP": "dp", "PCP": "pcp", "DCP": "dcp"}.get(name)
        if option is None or told.get(option) is not None:
            continue
        seen = _at_least(observation, name, max(indices) + 1)
        options[option] = _dividing(seen, model) if name == "TP" else seen
        is_settled = is_settled and (name == "DP" or len(indices) == options[option] > 1)
    if observation.engine == "sglang" and _is_attention_over_dp(observation.ranks):
        options["attention_dp"] = True
    if "EP" in places and observation.engine in ("vllm", "sglang"):
        options["expert_parallel"] = True
    options.setdefault("tp", 1)
    seen_as = join_words(_named(name, indices) for name, indices in sorted(places.items()))
    degrees = ", ".join(f"{name} {value}" for name, value in options.items() if not isinstance(value, bool))
    number = "are" if "," in seen_as or " to " in seen_as or " and " in seen_as else "alone is"
    note = f"{_NO_FLAG}: {seen_as} {number} seen, taken as {degrees}"
    return Degrees(options=options, notes=(note,), is_settled=is_settled)


def _without_the_one_engine(observation: Observation) -> list[str]:
    """The ranks without vLLM's engine: where it has no replicas, it is called DP0, too."""
    engines = {rank for rank in observation.ranks if _ENGINE.fullmatch(rank)}
    alone = engines if observation.engine == "vllm" and len(engines) == 1 else set()
    return [rank for rank in observation.ranks if rank not in alone]


def _has_experts(model: ModelSpec | None) -> bool:
    """Whether replicas of vLLM share weights: the experts', and those alone."""
    return model is None or model.has_experts


def _places(ranks: Iterable[str]) -> dict[str, set[int]]:
    """The indices that are named along each dimension: `{"TP": {0, 1, 2, 3}}`."""
    found: dict[str, set[int]] = {}
    for rank in ranks:
        for name, index in _PLACE.findall(rank):
            found.setdefault(name, set()).add(int(index))
    return found


def _at_least(observation: Observation, name: str, seen: int) -> int:
    """A dimension that vLLM names has two ranks at least."""
    return max(seen, 2) if observation.engine == "vllm" or name != "TP" else seen


def _dividing(seen: int, model: ModelSpec | None) -> int:
    """The least number from `seen` on that divides the heads of every attention; `seen` where none does."""
    heads = 0
    for layer in () if model is None else model.layers:
        for mixer in layer.mixers:
            heads = gcd(heads, getattr(mixer, "num_heads", 0))
    return next((count for count in range(seen, heads + 1) if heads % count == 0), seen)


def _is_attention_over_dp(ranks: Iterable[str]) -> bool:
    """Whether replicas of SGLang share one count of TP ranks: none of them is in two replicas."""
    replicas: dict[str, set[str]] = {}
    for rank in ranks:
        place = dict(_PLACE.findall(rank))
        if "DP" in place and "TP" in place:
            replicas.setdefault(place["TP"], set()).add(place["DP"])
    alone = all(len(found) == 1 for found in replicas.values())
    return alone and len({dp for found in replicas.values() for dp in found}) > 1


def _named(name: str, indices: Iterable[int]) -> str:
    """`TP0 to TP3`, `TP0, TP10 and TP14`, `TP0`."""
    known = sorted(set(indices))
    if len(known) > 2 and known == list(range(known[0], known[-1] + 1)):
        return f"{name}{known[0]} to {name}{known[-1]}"
    return join_words(f"{name}{index}" for index in known)
