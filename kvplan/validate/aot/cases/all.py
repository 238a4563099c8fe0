"""Every case of every kernel, in the order of the table."""

from __future__ import annotations

from kvplan.validate.aot.cases import Case
from kvplan.validate.aot.cases.decode import CASES as DECODE
from kvplan.validate.aot.cases.linear import CASES as LINEAR
from kvplan.validate.aot.cases.mla import CASES as MLA
from kvplan.validate.aot.cases.prefill import CASES as PREFILL
from kvplan.validate.aot.cases.prefill_tma import CASES as PREFILL_TMA

CASES: tuple[Case, ...] = (*DECODE, *MLA, *PREFILL, *PREFILL_TMA, *LINEAR)
