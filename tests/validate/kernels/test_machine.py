"""Blocks per SM, worked by hand from CUDA's rules."""

import pytest

from kvplan.validate.kernels.machine import MACHINES

#: registers, shared bytes, warps → blocks on an H100.
KNOWN = {
    "registers: 4 warps · 4,096 are a quarter of 65,536": ((128, 39_168, 4), 4),
    "shared: 71,712 + 1,024 thrice in 233,472": ((72, 71_712, 4), 3),
    "warps: 64 / 8": ((32, 0, 8), 8),
    "blocks: 32 at most": ((16, 0, 1), 32),
    "registers come in eights: 129 are 136": ((129, 0, 4), 3),
    "single warps: 8 of 2,048 registers in each of 4 partitions": ((58, 0, 1), 32),
    "three warps share four partitions: 20 / 3": ((95, 0, 3), 6),
    "nothing fits twice": ((255, 164_864, 8), 1),
}


@pytest.mark.parametrize(("kernel", "expected"), KNOWN.values(), ids=KNOWN)
def test_blocks_per_sm(kernel, expected):
    assert MACHINES["sm_90"].blocks_per_sm(*kernel) == expected
