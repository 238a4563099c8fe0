"""Every case of every kernel, in the order of the table."""

from __future__ import annotations

from kvplan.validate.aot.cases import Case
from kvplan.validate.aot.cases.decode import CASES as DECODE
from kvplan.validate.aot.cases.linear import CASES as LINEAR

CASES: tuple[Case, ...] = (*DECODE, *LINEAR)
