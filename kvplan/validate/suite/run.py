"""The stages of the suite, one after another, each leaving its block in the record whatever happens to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from kvplan.validate.kernels import select
from kvplan.validate.suite import report
from kvplan.validate.suite.ahead import compile_all
from kvplan.validate.suite.bench import Case, Input, Row, benchmark, candidates_for, make_inputs
from kvplan.validate.suite.ceilings import Ceilings, measure_ceilings
from kvplan.validate.suite.correctness import CHECKS, Check, check_all
from kvplan.validate.suite.device import describe
from kvplan.validate.suite.problems import DECODE, PREFILL, STATE, StateCase
from kvplan.validate.suite.record import Record
from kvplan.validate.suite.sweep import configurations, sweep
from kvplan.validate.suite.timing import Effort, Failure, Guard, stopwatch_for

CASES: tuple[Case, ...] = (*DECODE, *PREFILL, *STATE)


def has_gpu() -> bool:
    """Whether torch sees one."""
    return torch.cuda.is_available()


@dataclass
class Suite:
    """One run on one device; `say` prints a line, `deadline` is a reading of the monotonic clock."""

    name: str
    deadline: float
    say: Callable[[str], None] = print
    checks: Sequence[Check] = CHECKS
    cases: Sequence[Case] = CASES
    guard: Guard = field(init=False)
    ceilings: Ceilings | None = None
    effort: Effort | None = None

    def __post_init__(self) -> None:
        self.device = torch.device(self.name)
        self.guard = Guard(stopwatch_for(self.device))
        self.record = Record(device=describe(self.device))

    def run(self, stages: Iterable[str]) -> Record:
        """Run these stages; a CPU has correctness alone."""
        self.say(report.device(self.record.device))
        for stage in stages:
            if self.device.type == "cpu" and stage != "correctness":
                self.say(f"{stage}: not without a GPU")
                continue
            start = time.monotonic()
            self.say(f"\n{stage}")
            getattr(self, f"_{stage}")()
            self.say(f"  {time.monotonic() - start:.0f} s")
        if self.device.type != "cpu":
            self.record.device = describe(self.device)  # with the clocks as they are after work
        return self.record

    def _correctness(self) -> None:
        for check in self.checks:
            if self._late(check.name):
                return
            for verdict in check_all(self.device, self.guard, [check]):
                self.record.correctness.append(verdict)
                self.say(report.verdict(verdict))
                if not verdict.ok:
                    self.record.failures.append({"where": check.name, "what": verdict.failure or "wrong"})

    def _ceilings(self) -> None:
        self.ceilings = measure_ceilings(self.device, guard=self.guard)
        self.record.ceilings = self.ceilings
        self.say(report.ceilings(self.ceilings))

    def _sweep(self) -> None:
        tuned = [case for case in self.cases if not isinstance(case, StateCase) and case.tuned]
        self._compile_ahead((case, choice) for case in tuned for choice in configurations(case, self.device))
        work = partial(sweep, guard=self.guard, ceilings=self.ceilings)
        for case in tuned:
            self.record.sweep += self._case(case, work)

    def _benchmark(self) -> None:
        machine = select.machine_of(torch.empty(0, device=self.device))
        cases = [case for case in self.cases if not isinstance(case, StateCase)]
        kernels = ((case, name) for case in cases for name in select.VARIANTS[case.problem.operation])
        chosen = ((case, select.best(name, case.problem, machine)) for case, name in kernels)
        self._compile_ahead((case, choice) for case, choice in chosen if choice)
        # what the table is measured from comes first, should the time run out
        for case in sorted(self.cases, key=lambda case: isinstance(case, StateCase) or not case.tuned):
            rows = self._case(case, self._beside_others)
            self.record.benchmarks += rows
            self.record.failures += [
                {"where": f"{row.case}: {row.candidate}", "what": row.failure}
                for row in rows
                if row.failure and row.choice
            ]

    def _beside_others(self, case: Case, inputs: Sequence[Input]) -> list[Row]:
        candidates = candidates_for(case, inputs, self.guard)
        return benchmark(case, candidates, inputs, self.guard, self.ceilings, self.effort)

    def _case(self, case: Case, work: Callable[[Case, Sequence[Input]], list[Row]]) -> list[Row]:
        """Rows of one case; its inputs are freed before the next one's are made."""
        if self._late(case.name):
            return []
        self.say(f"  {case.name}")
        inputs = self.guard.attempt(f"inputs of {case.name}", lambda: make_inputs(case, self.device, self._l2_bytes()))
        if isinstance(inputs, Failure):
            self.record.failures.append({"where": case.name, "what": inputs})
            return []
        rows = work(case, inputs)
        for row in rows:
            self.say(report.row(row))
        del inputs
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return rows

    def _compile_ahead(self, work: Iterable[tuple[Case, select.Choice]]) -> None:
        if self.device.type == "cpu":
            return  # interpreted: there is nothing to compile
        target = select.machine_of(torch.empty(0, device=self.device)).target
        jobs = list(dict.fromkeys(work))
        self.say(f"  {compile_all(target, jobs)} of {len(jobs)} configurations compiled")

    def _late(self, what: str) -> bool:
        late = time.monotonic() > self.deadline
        if late:
            self.say(f"  {what}: not started, the time is up")
            self.record.failures.append({"where": what, "what": Failure.not_run("the time was up")})
        return late

    def _l2_bytes(self) -> int:
        """Input sets outgrow this four times; interpreted, one set does."""
        return 0 if self.device.type == "cpu" else self.record.device.l2_bytes or 64 << 20
