"""Into how many parts to cut each sequence's keys, so that a decode fills the machine.

A decode has batch · KV heads programs; a GPU runs SMs · blocks-per-SM of them at once (`slots`). Blocks per SM come
from the compiled kernel, not from a rule: a kernel that runs four blocks per SM needs four times the splits of one that
runs alone.
"""

from __future__ import annotations

from math import ceil

MAX_SPLITS = 128
MIN_TILES = 4  # below that, a split's start and its merge cost more than its share of the keys
GOOD_ENOUGH = 0.9


def choose_splits(batch: int, programs: int, num_tiles: int, slots: int) -> int:
    """The fewest splits within 90 % of the best efficiency.

    programs: of one sequence and split (KV heads × blocks of query heads). num_tiles: of one sequence, inside the
    window if there is one. Efficiency: useful share of the splits (they are whole tiles) × useful share of the waves.
    """
    most = max(1, min(MAX_SPLITS, num_tiles // MIN_TILES))
    scores = [_efficiency(batch * programs, num_tiles, splits, slots) for splits in range(1, most + 1)]
    enough = GOOD_ENOUGH * max(scores)
    return next(splits for splits, score in enumerate(scores, 1) if score >= enough)


def _efficiency(programs: int, num_tiles: int, splits: int, slots: int) -> float:
    per_split = ceil(max(num_tiles, 1) / splits)
    working = ceil(max(num_tiles, 1) / per_split)
    balance = max(num_tiles, 1) / (per_split * working)
    waves = programs * working / slots
    return balance * (waves / ceil(waves))
