"""Configurations of our kernels against each other on the device at hand: the measured rows of the table of choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from kvplan.validate.aot.candidates import CANDIDATES
from kvplan.validate.kernels import select
from kvplan.validate.kernels.launch import Config
from kvplan.validate.kernels.machine import Machine
from kvplan.validate.kernels.select import Choice
from kvplan.validate.kernels.splits import choose_splits
from kvplan.validate.suite.bench import AttentionCase, Candidate, Row, benchmark, ours
from kvplan.validate.suite.ceilings import Ceilings
from kvplan.validate.suite.timing import Effort, Failure, Guard

EFFORT = Effort(rounds=5, replays_per_round=2)


def sweep(case: AttentionCase, inputs: Sequence[Any], guard: Guard, ceilings: Ceilings | None) -> list[Row]:
    """Every candidate configuration of every kernel that runs the case, timed in turns."""
    candidates: dict[str, Candidate | Failure] = {}
    for choice in configurations(case, inputs[0].device):
        name = f"{choice.kernel} {choice.config}"
        calls = guard.attempt(name, lambda choice=choice: ours(case, inputs, choice))  # type: ignore[misc]
        candidates[name] = calls if isinstance(calls, Failure) else Candidate(calls, choice)
    return benchmark(case, candidates, inputs, guard, ceilings, EFFORT)


def configurations(case: AttentionCase, device: torch.device) -> Iterator[Choice]:
    """The tuner's candidates for the case's shape; a decode with the static model's splits and with twice as many."""
    problem = case.problem
    machine = select.machine_of(torch.empty(0, device=device))
    for kernel in select.VARIANTS[problem.operation]:
        for candidate in CANDIDATES[kernel](machine.target):
            same = (candidate.stored_bits, candidate.dim) == (problem.stored_bits, problem.dim)
            if not same or (problem.num_queries == 1 and candidate.rows != problem.rows):
                continue
            for config in _with_splits(candidate.config, problem, machine):
                choice = Choice(kernel, config, "sweep")
                if select.can_run(kernel, config.block_n, problem):
                    yield choice


def _with_splits(config: Config, problem: select.Problem, machine: Machine) -> Iterator[Config]:
    if problem.num_queries > 1:
        yield config
        return
    tiles = -(-problem.num_keys // config.block_n)
    few = choose_splits(problem.batch, problem.programs(config.block_m), tiles, machine.num_sms * 2)
    for splits in sorted({few, min(2 * few, tiles)}):
        yield replace(config, num_splits=splits)
