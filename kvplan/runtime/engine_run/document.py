"""What one start of an installed engine came to, as the document `kvplan/engine-run/1`.

It holds the start as `kvplan explain` has it (what was printed, what was predicted, the difference), and around it what
was run, where and when. The types of its keys are in `kvplan.report.engine_run_schema`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from kvplan._version import __version__
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.runtime.engine_run.devices import SeenGpu
from kvplan.runtime.engine_run.run import EngineRun, Order
from kvplan.runtime.explain import Explanation, explain
from kvplan.runtime.observation import Observation

SCHEMA = "kvplan/engine-run/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a run is about, besides what was run."""

    model: ModelSpec
    gpu: Gpu
    """To plan with."""
    seen: tuple[SeenGpu, ...]
    """As the driver lists them."""
    version: str | None
    """Of the installed package."""
    notes: tuple[str, ...] = ()
    """What is to be said of the GPU."""


def engine_run_to_dict(run: EngineRun, order: Order, setting: Setting) -> dict[str, Any]:
    """The document. Its verdict: ok, off (a figure is beyond tolerance), failed (there is none to judge)."""
    observation = None if run.observation is None else completed(run.observation, order, setting)
    model, gpu, notes = setting.model, setting.gpu, setting.notes
    explained = None if observation is None else explain(observation, model, gpu=gpu, notes=notes)
    return {
        "schema": SCHEMA,
        "kvplan_version": __version__,
        "engine": order.engine,
        "engine_version": setting.version if observation is None else observation.version,
        "model": {"id": model.id, "model_type": model.model_type, "num_layers": model.num_layers},
        "device": _device(setting),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": run.command,
        "options": dict(order.options),
        "ended": run.ended,
        "exit_code": run.exit_code,
        "all_ended": run.all_ended,
        "total_seconds": run.seconds,
        "last_lines": list(run.tail) if run.ended != "complete" else [],
        "start": None if explained is None else explained.to_dict(),
        "verdict": verdict(explained),
    }


def completed(observation: Observation, order: Order, setting: Setting) -> Observation:
    """The same with what is known from elsewhere: the options that were given, the package's version, the driver's
    name of the GPU, and the model instead of the folder that stood for it."""
    return replace(
        observation,
        version=observation.version or setting.version,
        model=setting.model.id,
        options={**order.options, **observation.options},
        gpu=observation.gpu or (setting.seen[0].name if setting.seen else setting.gpu.name),
    )


def verdict(explained: Explanation | None) -> str:
    """ok, off or failed: the log's own sums judge no plan, and an engine that ended early has shown nothing."""
    if explained is None or not any(row.judged and row.section != "arithmetic" for row in explained.rows):
        return "failed"
    return "ok" if explained.is_within_tolerance else "off"


def file_name(document: Mapping[str, Any]) -> str:
    """`nvidia-h100-80gb-hbm3--meta-llama-llama-3.1-8b--vllm-0.33.0--2026-11-22t10-20-30.json`."""
    engine = "-".join(filter(None, (document["engine"], document["engine_version"])))
    parts = (document["device"]["name"], document["model"]["id"], engine, document["date"][:19])
    return "--".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in parts) + ".json"


def _device(setting: Setting) -> dict[str, Any]:
    first = setting.seen[0] if setting.seen else None
    return {
        "name": first.name if first else setting.gpu.name,
        "memory_bytes": first.memory_bytes if first else setting.gpu.memory_bytes,
        "driver": first.driver if first else None,
        "num_gpus": len(setting.seen) or None,
    }
