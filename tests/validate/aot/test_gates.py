"""The gates on artefacts made by hand: each fails for its own reason and for no other."""

from dataclasses import replace

import pytest

from kvplan.validate.aot.artefact import Artefact, _buffers, _loop_instructions, _warpgroup_batch
from kvplan.validate.aot.cases import Case
from kvplan.validate.aot.gates import failures

GOOD = Artefact(
    target="sm_90",
    kernel="decode",
    registers=96,
    stack_bytes=0,
    spills=0,
    shared_bytes=71_680,
    num_warps=4,
    blocks_per_sm=3,
    wide_copies=48,
    half_copies=0,
    narrow_copies=0,
    wide_stores=2,
    tma_loads=4,
    warpgroup_mma=8,
    warp_mma=32,
    register_moves=2,
    buffers=("2x64x128xbf16", "2x64x128xbf16"),
    loop_instructions=477,
    warpgroup_batch=8,
    tile_bytes=64 * 512,
)
CASE = Case("decode", list, key_bytes=512, tma=True, warpgroup_mma=True, warp_specialized=True, wide_stores=True)

BROKEN = {
    "spills: 3 accesses": {"spills": 3},
    "64 bytes of stack": {"stack_bytes": 64},
    "232449 bytes of shared memory, 232448 are allowed": {"shared_bytes": 232_449},
    "no matrix instruction": {"warp_mma": 0, "warpgroup_mma": 0},
    "no warpgroup matrix instruction": {"warpgroup_mma": 0},
    "no TMA load": {"tma_loads": 0},
    "no 16-byte load": {"tma_loads": 0, "wide_copies": 0},
    "60 copies of fewer than 8 bytes, 48 of 16": {"narrow_copies": 60},
    "no 16-byte store": {"wide_stores": 0},
    "warpgroup products are serialised, 1 between two waits": {"warpgroup_batch": 1},
    "not warp-specialised": {"register_moves": 0},
    "tiles are not double-buffered: 1x64x128xbf16": {"buffers": ("1x64x128xbf16",)},
    "none in shared memory": {"buffers": ()},
    "issue / HBM is 0.61, less than 0.6 is allowed": {"loop_instructions": 1375},
    "no loop was found to count": {"loop_instructions": 0},
}


def test_a_good_artefact_passes():
    assert failures(CASE, GOOD) == []


@pytest.mark.parametrize(("sentence", "changes"), BROKEN.items(), ids=BROKEN)
def test_a_broken_one_is_told(sentence, changes):
    assert any(sentence in failure for failure in failures(CASE, replace(GOOD, **changes)))


def test_queries_handed_over_between_warps_are_no_tiles():
    specialised = replace(GOOD, buffers=("1x64x128xbf16", "3x64x128xbf16", "3x64x128xbf16"))
    assert specialised.buffer_depth == 3
    assert replace(specialised, register_moves=0).buffer_depth == 1


def test_what_a_case_does_not_ask_for_is_not_judged():
    plain = Case("decode", list, matrix=False, buffered=False)
    bare = replace(GOOD, tma_loads=0, warp_mma=0, warpgroup_mma=0, register_moves=0, buffers=(), loop_instructions=0)
    assert failures(plain, bare) == []


def test_the_ratio_worked_by_hand():
    """477 instructions · 4 warps / 4 per clock; 32,768 bytes at 3.35e12 / 132 bytes/s and 1.755 GHz are 2,266 clocks."""
    assert GOOD.issue_ratio == pytest.approx(477 / 2266, rel=1e-3)


def test_buffers_are_read_off_the_dialect():
    text = """
    %k = ttg.local_alloc : () -> !ttg.memdesc<2x64x128xbf16, #shared, #smem, mutable>
    %v = ttg.local_alloc : () -> !ttg.memdesc<3x32x64xf8E4M3FN, #shared1, #smem, mutable>
    %barrier = ttg.local_alloc : () -> !ttg.memdesc<3x1xi64, #shared2, #smem, mutable>
    """
    assert _buffers(text) == ("2x64x128xbf16", "3x32x64xf8E4M3FN")


def _sass(*lines: str) -> str:
    return "\n".join(line if line.startswith(".L") else f"        /*0010*/  {line} ;" for line in lines)


LOOPS = {
    "the inner of two": (
        [".L_x_0:", "NOP", ".L_x_1:", "HMMA.16816.F32 R0, R1", "FADD R1, R2", "@P0 BRA `(.L_x_1)", "@P1 BRA `(.L_x_0)"],
        3,
    ),
    "the one with matrix work": (
        [".L_x_0:", "BRA `(.L_x_0)", ".L_x_1:", "FADD R1, R2", "HMMA.16816.F32 R0, R1", "BRA `(.L_x_1)"],
        3,
    ),
    "the one without masks": (
        [
            *(".L_x_0:", "HMMA.16816.F32 R0, R1", "FSEL R1, R2, !P1", "BRA `(.L_x_0)"),
            *(".L_x_1:", "HMMA.16816.F32 R0, R1", "BRA `(.L_x_1)"),
        ],
        2,
    ),
    "the one with TMA, whatever others take": (
        [
            *(".L_x_0:", "UTMALDG.2D [R1]", "HGMMA.64x64x16.F32.BF16 R0", "BRA `(.L_x_0)"),
            *(".L_x_1:", "HMMA.16816.F32 R0, R1", "BRA `(.L_x_1)"),
        ],
        3,
    ),
    "a branch forward is no loop": (["BRA `(.L_x_1)", "HMMA.16816.F32 R0, R1", ".L_x_1:", "EXIT"], 0),
}


def test_serialised_products_are_counted_per_wait():
    arrive, product = "WARPGROUP.ARRIVE", "HGMMA.64x64x16.F32.BF16 R0"
    good = [".L_x_0:", arrive, *[product] * 8, "BRA `(.L_x_0)"]
    bad = [".L_x_1:", *[arrive, product] * 8, "BRA `(.L_x_1)"]
    assert _warpgroup_batch(_sass(*good)) == 8
    assert _warpgroup_batch(_sass(*good, *bad)) == 1
    assert _warpgroup_batch(_sass("EXIT")) == 0


@pytest.mark.parametrize(("lines", "expected"), LOOPS.values(), ids=LOOPS)
def test_the_hot_loop(lines, expected):
    assert _loop_instructions(_sass(*lines)) == expected
