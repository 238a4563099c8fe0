"""Our kernels and everybody else's on the same inputs, in turns: first right, then timed.

GB/s counts the bytes of the cache that must be read, not what a program happens to move; TFLOP/s counts the visible
pairs. Shares are of the ceilings measured in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kvplan.validate.kernels import linear, select
from kvplan.validate.kernels.decode import plan_decode
from kvplan.validate.kernels.launch import Launch, run_all
from kvplan.validate.kernels.mla_decode import plan_mla_decode
from kvplan.validate.kernels.prefill import plan_prefill
from kvplan.validate.kernels.prefill_call import Pattern, Ragged
from kvplan.validate.kernels.prefill_tma import plan_prefill_tma
from kvplan.validate.kernels.select import Choice
from kvplan.validate.suite import baselines
from kvplan.validate.suite.ceilings import Ceilings
from kvplan.validate.suite.correctness import TOLERANCE, relative_error
from kvplan.validate.suite.problems import (
    DECODE,
    PREFILL,
    DecodeCase,
    DecodeInput,
    PrefillCase,
    PrefillInput,
    StateCase,
    StateInput,
)
from kvplan.validate.suite.timing import Call, Effort, Failure, Guard, Timing, interleave, num_sets

AttentionCase = DecodeCase | PrefillCase
Case = AttentionCase | StateCase
Input = DecodeInput | PrefillInput | StateInput


@dataclass(frozen=True)
class Row:
    """One candidate on one case; `choice` is None for somebody else's program."""

    case: str
    candidate: str
    choice: Choice | None
    error: float | None
    timing: Timing | None
    failure: Failure | None
    bytes_per_second: float | None = None
    share_of_read: float | None = None
    share_of_copy: float | None = None
    """Of what is written as much as it is read, the share of the copy ceiling; of all else, of the read ceiling."""
    flops_per_second: float | None = None
    share_of_matmul: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A program with one call per input set; a call returns B × H × E, or B × S × H × E of a prefill."""

    calls: Sequence[Call]
    choice: Choice | None = None


def benchmark(
    case: Case,
    candidates: Mapping[str, Candidate | Failure],
    inputs: Sequence[Input],
    guard: Guard,
    ceilings: Ceilings | None,
    effort: Effort | None = None,
) -> list[Row]:
    """Check every candidate's answer on every input set, time those that are right, and put the figures in rows."""
    errors: dict[str, float | Failure] = {
        name: candidate if isinstance(candidate, Failure) else _error(name, candidate, inputs, guard)
        for name, candidate in candidates.items()
    }
    tolerance = TOLERANCE[torch.bfloat16]
    right = {
        name: candidate.calls
        for name, candidate in candidates.items()
        if isinstance(candidate, Candidate) and isinstance(error := errors[name], float) and error <= tolerance
    }
    timings = interleave(right, guard.stopwatch, effort=effort, guard=guard)
    rows = []
    for name, candidate in candidates.items():
        choice = candidate.choice if isinstance(candidate, Candidate) else None
        rows.append(_row(case, name, choice, errors[name], timings.get(name), inputs[0], ceilings))
    return rows


def _error(name: str, candidate: Candidate, inputs: Sequence[Input], guard: Guard) -> float | Failure:
    def worst() -> float:
        return max(
            relative_error(_sampled(call(), one), one.expected)
            for call, one in zip(candidate.calls, inputs, strict=True)
        )

    return guard.attempt(f"check of {name}", worst)


def _sampled(out: Tensor, one: Input) -> Tensor:
    """The rows that the oracle answers for: some sequences of a decode, some queries of a prefill's last sequence."""
    if isinstance(one, PrefillInput):
        return out.reshape(*one.q_BSHD.shape[:3], -1)[-1, one.sample]
    return out.reshape(one.case.batch, one.case.num_heads, -1)[one.sample]


def _row(
    case: Case,
    name: str,
    choice: Choice | None,
    error: float | Failure,
    timing: Timing | Failure | None,
    one: Input,
    ceilings: Ceilings | None,
) -> Row:
    row = Row(case.name, name, choice, error if isinstance(error, float) else None, None, None)
    if isinstance(error, Failure):
        return replace(row, failure=error)
    if timing is None:
        return replace(row, failure=Failure("Wrong", f"error {error:.2g} against the oracle: not timed"))
    if isinstance(timing, Failure):
        return replace(row, failure=timing)
    rate, flops = timing.per_second(one.required_bytes), timing.per_second(case.flops)
    writes = isinstance(one, StateInput)
    read = ceilings.read_bytes_per_second if ceilings and not writes else None
    copy = ceilings.copy_bytes_per_second if ceilings and writes else None
    matmul = ceilings.matmul_flops_per_second if ceilings else None
    return replace(
        row,
        timing=timing,
        bytes_per_second=rate,
        share_of_read=rate / read if read else None,
        share_of_copy=rate / copy if copy else None,
        flops_per_second=flops,
        share_of_matmul=flops / matmul if matmul else None,
    )


def make_inputs(case: Case, device: torch.device, l2_bytes: int) -> list[Input]:
    """As many input sets as it takes to outgrow the cache four times."""
    first = case.make(device, 0)
    return [first, *(case.make(device, seed) for seed in range(1, num_sets(first.required_bytes, l2_bytes)))]


def candidates_for(case: Case, inputs: Sequence[Any], guard: Guard) -> dict[str, Candidate | Failure]:
    """Ours, the chosen variant first, and every baseline."""
    found: dict[str, Candidate | Failure] = {}
    for name, choice in _choices(case, inputs[0].device):
        built = guard.attempt(name, partial(ours, case, inputs, choice))
        found[name] = built if isinstance(built, Failure) else Candidate(built, choice)
    if not _has_baselines(case):
        return found
    problems = guard.attempt("inputs of the baselines", lambda: [one.for_baselines() for one in inputs])
    if isinstance(problems, Failure):
        return found | {"baselines": problems}
    # FlexAttention's long tuning takes most of a minute: on one decode and one prefill
    names = [name for name in baselines.BUILDERS if name != "flex-max-autotune" or case in (DECODE[0], PREFILL[0])]
    for name, calls in baselines.build(problems, guard, names).items():
        found[name] = calls if isinstance(calls, Failure) else Candidate(calls)
    return found


def _choices(case: Case, device: torch.device) -> Iterator[tuple[str, Choice]]:
    """Every variant of ours that runs the case, the table's choice first."""
    if isinstance(case, StateCase):
        yield "kvplan delta_step", Choice("delta_step", linear.HEAD_TILE, select.STATIC)
        return
    machine = select.machine_of(torch.empty(0, device=device))
    best = select.choose(case.problem, machine)
    yield f"kvplan {best.kernel}", best
    for kernel in select.VARIANTS[case.problem.operation]:
        other = select.best(kernel, case.problem, machine)
        if other is not None and other.kernel != best.kernel:
            yield f"kvplan {kernel}", other


def _has_baselines(case: Case) -> bool:
    """Libraries read neither our 8-bit caches nor a latent one."""
    return isinstance(case, PrefillCase) or (
        isinstance(case, DecodeCase) and case.stored.itemsize == 2 and not case.latent
    )


def ours(case: Case, inputs: Sequence[Any], choice: Choice) -> list[Call]:
    """One call per input set of a kernel of ours."""
    return [_call(*plan(case, one, choice)) for one in inputs]


def plan(case: Case, one: Any, choice: Choice) -> tuple[Tensor, list[Launch]]:
    """(output, launches) of a chosen kernel on an input set."""
    if isinstance(case, StateCase):
        return linear.plan_delta_step(one.state_SHDE, one.slots_B, *one.inputs)
    if isinstance(case, PrefillCase):
        return _plan_prefill(case, one, choice)
    if case.latent:
        return plan_mla_decode(one.q_BHD, one.cache, scale=one.scale, config=choice.config)
    return plan_decode(
        one.q_BHD,
        one.cache,
        scale=one.scale,
        window=case.window,
        softcap=case.softcap,
        sinks_H=one.sinks_H,
        choice=choice,
    )


def _plan_prefill(case: PrefillCase, one: PrefillInput, choice: Choice) -> tuple[Tensor, list[Launch]]:
    if choice.kernel in ("prefill_tma", "prefill_ws"):
        return plan_prefill_tma(
            one.q_BSHD,
            one.k_BSKD,
            one.v_BSKD,
            scale=one.scale,
            causal=case.causal,
            window=case.window,
            warp_specialized=choice.kernel == "prefill_ws",
            config=choice.config,
        )
    return plan_prefill(
        one.q_BSHD.flatten(0, 1),
        one.paged() if case.page_size else (one.k_BSKD.flatten(0, 1), one.v_BSKD.flatten(0, 1)),
        Ragged.pack([case.num_tokens] * case.batch, device=one.device),
        scale=one.scale,
        pattern=_pattern(case, one.device),
        config=choice.config,
        tma=choice.kernel == "prefill_packed_tma",
    )


def _pattern(case: PrefillCase, device: torch.device) -> Pattern:
    if case.window is None:
        return Pattern.causal() if case.causal else Pattern.full()
    if case.causal:
        return Pattern.window(case.window)
    return Pattern.sparse(case.window, torch.zeros((case.batch, 1), dtype=torch.int32, device=device))


def _call(out: Tensor, launches: list[Launch]) -> Callable[[], Tensor]:
    def call() -> Tensor:
        run_all(launches)
        return out

    return call
