"""A layout of several processes, really run: caches dealt out over ranks, a decode step, and what each rank holds.

`torchrun --nproc-per-node N -m kvplan.validate.measure.ranks JOB.json OUT.json`: gloo on CPUs, NCCL on GPUs. The first
rank of every pipeline stage compares with float64 over everything; activations go from stage to stage.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kvplan.validate.kernels.launch import INTERPRETED, Unsupported
from kvplan.validate.measure.deal import Job, output_dim
from kvplan.validate.measure.pools import DTYPES, LayerCache
from kvplan.validate.measure.rank_step import Rank, allocate, attention_step, state_step
from kvplan.validate.suite.correctness import TOLERANCE, relative_error


def step_stage(rank: Rank, layers: Sequence[tuple[int, LayerCache]], hidden: Tensor) -> list[dict[str, Any]]:
    """One step of every distinct case of a stage, its output added to `hidden`; the checks, if this rank compares.

    What no kernel takes is held, with nothing to gather; so are columns of a convolution alone.
    """
    checks = []
    for index, cache in dict(layers).items():
        case, seed = rank.job.cases[index], rank.job.seed + index
        if case.kernel == "delta" and cache.states is not None:
            actual, expected = state_step(rank, case, cache.states, seed)
        elif case.kernel is not None and cache.tokens is not None:
            actual, expected = attention_step(rank, case, cache.tokens, seed)
        else:
            continue
        folded = actual[..., : output_dim(case)].flatten()
        hidden[: len(folded)] += folded
        if expected is not None:
            error, tolerance = relative_error(actual, expected), TOLERANCE[DTYPES[case.dtype]]
            found: dict[str, Any] = {"error": error, "tolerance": tolerance, "ok": error <= tolerance, "failure": None}
            if not math.isfinite(error):
                found |= {"error": None, "failure": {"kind": "Wrong", "message": "what came out is not all numbers"}}
            checks.append({"case": case.name, "stage": rank.place.stage} | found)
    return checks


def pass_through(rank: Rank, layers: Sequence[tuple[int, LayerCache]]) -> dict[str, Any]:
    """This rank's part of the pipeline: activations in, its stage, activations out, with digests of both."""
    apart = rank.job.layout.tp * rank.job.layout.cp
    hidden = torch.zeros(rank.job.hidden_size, dtype=torch.float32, device=rank.device)
    received = sent = None
    if rank.place.stage > 0:
        dist.recv(hidden, rank.rank - apart)
        received = _digest(hidden)
    checks = step_stage(rank, layers, hidden)
    if rank.place.stage < rank.job.layout.pp - 1:
        sent = _digest(hidden)
        dist.send(hidden, rank.rank + apart)
    return {"checks": checks, "received": received, "sent": sent, "sent_bytes": hidden.nbytes}


def _digest(numbers: Tensor) -> str:
    return hashlib.sha256(numbers.cpu().numpy().tobytes()).hexdigest()


def run(found: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The reading of all ranks of a job, the same on each; every rank of the default group calls it with the same job.

    Raises `Unsupported`, on all ranks alike, for what the layout cannot deal out.
    """
    job = Job.from_json(found)
    rank = Rank.of(job, device)
    before = _requested(device)
    held = [(index, allocate(rank, job.cases[index])) for layer in rank.layers for index in layer]
    layers = [(index, pool) for index, pool in held if pool is not None]
    requested = None if before is None else (_requested(device) or 0) - before
    mine = {
        "rank": rank.rank,
        "tp": rank.place.tp,
        "cp": rank.place.cp,
        "stage": rank.place.stage,
        "node": socket.gethostname(),
        "cache_bytes": sum(pool.storage_bytes for _, pool in layers),
        "table_bytes": sum(p.block_table.nbytes + p.lengths.nbytes for _, cache in layers for p in cache.paged),
        "requested_bytes": requested,
        "kv_heads": {job.cases[index].name: _num_heads_held(pool) for index, pool in layers},
    }
    told: list[Any] = [None] * job.layout.world
    dist.all_gather_object(told, (mine, pass_through(rank, layers)))
    head = {"world": job.layout.world, "tp": job.layout.tp, "pp": job.layout.pp, "cp": job.layout.cp}
    return head | {
        "backend": dist.get_backend(),
        "ranks": numbered([one for one, _ in told]),
        "checks": [check for _, passed in told for check in passed["checks"]],
        "transfers": transfers([passed for _, passed in told], job.layout.tp * job.layout.cp),
    }


def numbered(ranks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ranks with their nodes counted from 0: what a machine is called is nobody's business."""
    names = list(dict.fromkeys(rank["node"] for rank in ranks))
    return [rank | {"node": names.index(rank["node"])} for rank in ranks]


def _requested(device: torch.device) -> int | None:
    """Bytes that torch was asked for on a GPU and that are still held."""
    return int(torch.cuda.memory_stats(device)["requested_bytes.all.current"]) if device.type == "cuda" else None


def _num_heads_held(cache: LayerCache) -> int:
    if cache.tokens is not None:
        return cache.tokens.num_kv_heads
    recurrent = None if cache.states is None else cache.states.recurrent
    return 0 if recurrent is None else recurrent.shape[1]


def transfers(passed: Sequence[Mapping[str, Any]], apart: int) -> list[dict[str, Any]]:
    """What went from stage to stage, and whether it arrived as it was sent."""
    return [
        {
            "from": rank,
            "to": rank + apart,
            "bytes": one["sent_bytes"],
            "ok": one["sent"] == passed[rank + apart]["received"],
        }
        for rank, one in enumerate(passed)
        if one["sent"] is not None
    ]


def join() -> torch.device:
    """This process's device, once it has joined the others that torchrun started.

    Raises `Unsupported` where a process has no GPU of its own, or kernels would have to run on a CPU uninterpreted.
    """
    if "LOCAL_RANK" not in os.environ:
        raise Unsupported("these are several processes: start them with torchrun")
    if INTERPRETED:
        dist.init_process_group("gloo")
        return torch.device("cpu")
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= gpus:
        raise Unsupported(f"process {local} of this node has none of its {gpus} GPUs; TRITON_INTERPRET=1 does without")
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return device


def from_first(value: Any) -> Any:
    """What rank 0 has, on every rank: a job is read on one node."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def main(job_path: str, out_path: str) -> None:
    """Run the job of a file, or the list of jobs, and write the reading, or the list of them."""
    device = join()
    first = dist.get_rank() == 0
    found = from_first(json.loads(Path(job_path).read_text(encoding="utf-8")) if first else None)
    readings = [run(job, device) for job in found] if isinstance(found, list) else run(found, device)
    if first:
        Path(out_path).write_text(json.dumps(readings, indent=1) + "\n", encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
