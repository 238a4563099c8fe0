"""`kvplan validate` under torchrun: a model dealt out over several processes, GPUs or nodes, against its plan per rank.

Every process runs this with the same arguments; the first one has the document.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import Any

from kvplan._version import __version__
from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec
from kvplan.core.stages import stage_bounds
from kvplan.validate.cases import Load, cases_of, order_of
from kvplan.validate.record import SCHEMA, judged

SEED = 3


def num_processes() -> int:
    """How many processes torchrun started; 1 without it, whatever else counts processes in the environment."""
    world = os.environ.get("WORLD_SIZE", "")
    return int(world) if "LOCAL_RANK" in os.environ and world.isdecimal() else 1


def require_world(tp: int, pp: int, cp: int) -> None:
    """Raises InputError where the processes are not as many as the layout has ranks."""
    world, wanted = num_processes(), tp * pp * cp
    if world != wanted:
        raise InputError(
            f"tp {tp} × pp {pp} × cp {cp} are {wanted} ranks, and {world} {'is' if world == 1 else 'are'} running",
            hint=f"torchrun --nproc-per-node {wanted} -m kvplan.validate MODEL --tp {tp} --pp {pp} --cp {cp}",
        )


def validate_together(model: ModelSpec, load: Load, *, tp: int, pp: int, cp: int, device: str) -> dict[str, Any] | None:
    """The document of all ranks on the first one, None on the others. Raises InputError for an impossible layout."""
    started = time.monotonic()
    require_world(tp, pp, cp)
    if device != "cuda":
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    import torch.distributed as dist

    from kvplan.validate.kernels.launch import Unsupported
    from kvplan.validate.measure import ranks
    from kvplan.validate.suite.device import describe

    cases = cases_of(model, load)
    job = {
        "cases": [case.to_json() for case in cases],
        "layer_order": order_of(model, load),
        "stages": [list(bounds) for bounds in stage_bounds(model.num_layers, pp)],
        "tp": tp, "pp": pp, "cp": cp, "seed": SEED,
    }  # fmt: skip
    try:
        torch_device = ranks.join()
        reading = ranks.run(ranks.from_first(job), torch_device)
        first = dist.get_rank() == 0
        described = asdict(describe(torch_device)) if first else None
        dist.destroy_process_group()
    except Unsupported as error:
        raise InputError(str(error), hint="another layout, or another model") from error
    if not first:
        return None
    readings = {"ranks": reading | {"layer_order": job["layer_order"]}}
    document = {
        "schema": SCHEMA,
        "kvplan_version": __version__,
        "device": described,
        "model": {"id": model.id, "model_type": model.model_type, "num_layers": model.num_layers},
        "name": model.id,
        "inputs": {"tp": tp, "pp": pp, "cp": cp, **asdict(load)},
        "cases": job["cases"],
        "readings": readings,
    }
    return document | judged(cases, readings) | {"total_seconds": round(time.monotonic() - started, 1)}
