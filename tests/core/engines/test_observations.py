"""Public start-up logs: given the memory that was printed, blocks, tokens and requests are what the engine printed.

Every row that can be compared is here; those that differ are named with their cause in the table, and must differ still.
"""

import pytest

from benchmarks.engine_log_rows import observations, pool_checks
from kvplan.core.errors import KvplanError

ROWS = {row["id"]: row for row in observations() if row["model"] and row["engine"] != "ik_llama.cpp"}
INEXACT = {"inferred", "rounded", "leak", "unified", "patched", "npu", "overheads-only"}
"""Causes of rows that may come out equal all the same: their model or machine is in doubt, not their arithmetic."""


def differences(row):
    """What differs from the printed figure, beyond the rounding of print; None where nothing can be compared."""
    checks = pool_checks(row)
    return [check for check in checks if not check[1] <= check[3] <= check[2]] if checks else None


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if not row["exception"]])
def test_the_pool_of_a_log(key):
    assert not differences(ROWS[key])


@pytest.mark.parametrize(
    "key", [key for key, row in ROWS.items() if row["exception"] and row["exception"] not in INEXACT]
)
def test_an_exception_is_one(key):
    try:
        found = differences(ROWS[key])
    except KvplanError:
        return
    assert found is None or found


def test_most_rows_can_be_compared():
    compared = [key for key, row in ROWS.items() if not row["exception"] and differences(row) is not None]
    assert len(compared) >= 100
