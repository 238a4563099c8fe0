"""How many splits: numbers worked by hand, and what must hold for any case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.validate.kernels.splits import MAX_SPLITS, MIN_TILES, choose_splits

#: batch, programs, tiles, slots → splits.
KNOWN = {
    "the grid fills the machine as it is": ((64, 8, 64, 512), 1),
    "8 programs for 64 slots: all 8 parts, of 8 tiles": ((1, 8, 64, 64), 8),
    "a short window is not worth cutting": ((1, 8, 4, 396), 1),
    "no keys at all": ((4, 8, 0, 396), 1),
    "16 programs, 24 slots: 3 parts in 2 full waves beat 2 in 1⅓": ((1, 16, 12, 24), 3),
}


@pytest.mark.parametrize(("case", "expected"), KNOWN.values(), ids=KNOWN)
def test_worked_by_hand(case, expected):
    assert choose_splits(*case) == expected


@given(st.integers(1, 256), st.integers(1, 64), st.integers(0, 4096), st.integers(1, 2048))
def test_every_split_has_work_worth_its_start(batch, programs, tiles, slots):
    splits = choose_splits(batch, programs, tiles, slots)
    assert 1 <= splits <= MAX_SPLITS
    assert splits == 1 or tiles // splits >= MIN_TILES


@given(st.integers(1, 64), st.integers(1, 64), st.integers(8, 1024), st.integers(1, 2048))
def test_a_grid_that_fills_a_whole_number_of_waves_is_not_cut(waves, programs, tiles, slots):
    assert choose_splits(waves * slots, programs, tiles, slots) == 1
