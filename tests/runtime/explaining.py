"""Observations worked by hand, and what `kvplan.runtime.explain` makes of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kvplan.runtime.explain import Explanation, Row, explain
from kvplan.runtime.observation import Figure, Observation
from kvplan.sources.gpus import find_gpu, load_gpus
from kvplan.sources.load import load_model

DATA = Path(__file__).parents[1] / "data"
LOGS = DATA / "logs"
GIB = 2**30
H100 = find_gpu("H100")
UNITS = {"num_tokens": "tokens", "concurrency_len": "tokens", "needed_len": "tokens", "estimated_max_len": "tokens"}
UNITS |= {"num_blocks": "blocks", "max_concurrency": "x", "full_tokens": "tokens", "swa_tokens": "tokens"}
UNITS |= {"state_slots": "seqs", "cells": "cells", "swa_cells": "cells", "utilization": "share"}


def figure(value: float, unit: str = "GiB", *, rank: str | None = None) -> Figure:
    whole = unit in ("tokens", "blocks", "seqs", "cells", "share")
    return Figure(value=value, unit=unit, half_step=0.0 if whole else 0.005, line_number=1, rank=rank)


def observed(engine: str = "vllm", version: str | None = "0.19.0", **given: Any) -> Observation:
    """An observation; numbers among the arguments are its figures, a tuple is one rank's each."""
    names = {"model", "options", "facts", "errors", "gpu", "num_gpus", "unread"}
    about = {name: given.pop(name) for name in list(given) if name in names}
    figures = {}
    for name, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        unit = UNITS.get(name, "GiB")
        figures[name] = tuple(
            figure(one, unit, rank=None if len(values) == 1 else f"TP{i}") for i, one in enumerate(values)
        )
    return Observation(engine=engine, version=version, figures=figures, **about)


# Qwen/Qwen3-8B on H100, vLLM 0.19.0 (llm-d-incubation/llm-d-planner): 36 layers · 8 heads · 128 · 2 · 2 = 147,456 bytes
# a token, a block of 16 is 2,359,296; 57.50 GiB are 26,168.9 of them, and 26,168 // 512 a request is 51.109.
QWEN = observed(
    model="Qwen/Qwen3-8B",
    options={"max_model_len": 8192, "gpu_memory_utilization": 0.95, "max_num_batched_tokens": 8192, "tp": 1},
    device_total=79.19, utilization=0.95, requested=75.23,
    weights=15.27, activation_peak=2.21, non_torch=0.25, graph_estimate=0.84, graphs=0.96,
    kv_memory=57.5, num_blocks=26168, num_tokens=418688, max_concurrency=51.11, concurrency_len=8192,
)  # fmt: skip


def explained(observation: Observation = QWEN, gpu: str | None = "H100", **how: Any) -> Explanation:
    model = load_model(how.pop("model", observation.model), offline=True)
    return explain(observation, model, gpu=find_gpu(gpu) if gpu else None, known_gpus=load_gpus(), **how)


def row(explanation: Explanation, section: str, name: str, rank: str | None = None) -> Row:
    found = [one for one in explanation.rows if (one.section, one.name, one.rank) == (section, name, rank)]
    assert len(found) == 1, [(one.section, one.name, one.rank) for one in explanation.rows]
    return found[0]


def changed(observation: Observation = QWEN, **figures: float | None) -> Observation:
    """The same with figures replaced, or left out."""
    kept = dict(observation.figures)
    for name, value in figures.items():
        kept.pop(name, None)
        if value is not None:
            kept[name] = (figure(value, UNITS.get(name, "GiB")),)
    return replace(observation, figures=kept)
