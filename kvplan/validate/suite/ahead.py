"""Compile what will be timed, on all cores at once and before the GPU waits for it.

A worker compiles through the same call site with a stand-in driver, from shapes alone, into Triton's cache on disk; the
measuring process then finds every kernel there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from kvplan.validate.kernels.select import Choice
from kvplan.validate.suite.bench import Case, plan


def compile_all(target: str, work: Iterable[tuple[Case, Choice]]) -> int:
    """How many of the cases compiled; one that does not will say why where it is run."""
    jobs = [(target, case, choice) for case, choice in work]
    workers = max(1, min(len(jobs), os.cpu_count() or 1))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(_compile, jobs))


def _compile(job: tuple[str, Case, Choice]) -> bool:
    from kvplan.validate.aot.offline import compile_for

    target, case, choice = job
    compile_for(target)
    try:
        for launch in plan(case, case.make(torch.device("meta"), 0), choice)[1]:
            launch.compile()
    except Exception:
        return False
    return True
