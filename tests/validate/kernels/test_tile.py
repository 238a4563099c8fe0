"""The steps of a tile one by one: conversions that must be exact, rounding, the soft cap, the online softmax."""

import re

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from kvplan.validate.kernels import tile
from kvplan.validate.kernels.tile import LOG2E, capped, fold, narrow, operand


@triton.jit
def operand_kernel(stored_ptr, out_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(out_ptr + i, operand(tl.load(stored_ptr + i), tl.float16))


@triton.jit
def narrow_kernel(x_ptr, out_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(out_ptr + i, narrow(tl.load(x_ptr + i), out_ptr.dtype.element_ty))


@triton.jit
def capped_kernel(x_ptr, out_ptr, cap, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(out_ptr + i, capped(tl.load(x_ptr + i), cap))


@triton.jit
def fold_kernel(scores_ptr, out_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr):
    r = tl.arange(0, ROWS)
    c = tl.arange(0, COLUMNS)
    top = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for t in range(TILES):
        scores = tl.load(scores_ptr + r[:, None] * (COLUMNS * TILES) + t * COLUMNS + c[None, :])
        _, _, top, total = fold(scores, top, total)
    tl.store(out_ptr + r, top + tl.log2(tl.where(total > 0, total, 1.0)))


EIGHT_BITS = torch.arange(256, dtype=torch.int32).to(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_stored_byte_is_exact_as_fp16(dtype):
    stored = EIGHT_BITS.view(dtype)
    out = torch.empty(256, dtype=torch.float16)
    operand_kernel[(1,)](stored, out, SIZE=256)
    value = stored.float()
    sure = value.isfinite()
    if dtype == torch.float8_e5m2:  # of its smallest numbers the interpreter loses a bit
        sure &= (value == 0) | (value.abs() >= torch.finfo(dtype).tiny)
    assert torch.equal(out[sure], stored.half()[sure])


def _prmt(a: int, b: int, selector: int) -> int:
    """PTX `prmt.b32`: each digit of the selector picks one of the eight bytes of b:a."""
    both = [(word >> shift) & 0xFF for word in (a, b) for shift in (0, 8, 16, 24)]
    return sum(both[(selector >> (4 * place)) & 7] << (8 * place) for place in range(4))


def _halves(word: int) -> np.ndarray:
    return np.array([word & 0xFFFF, word >> 16], dtype=np.uint16).view(np.float16)


def _assembly(text: str, word: int) -> list[float]:
    """What the int8 conversion's assembly does to one register: the instructions it uses, as PTX's manual has them."""
    registers = {"$2": word}
    for line in (line.strip() for line in text.strip("{}\n ").splitlines()):
        name, _, operands = line.rstrip(";").partition(" ")
        if name == ".reg":
            continue
        target, *sources = [part.strip() for part in operands.split(",")]
        values = [registers[s] if s in registers else int(s, 16) for s in sources]
        if name == "mov.b32":
            registers[target] = values[0]
        elif name == "xor.b32":
            registers[target] = values[0] ^ values[1]
        elif name == "prmt.b32":
            registers[target] = _prmt(*values)
        elif name == "sub.rn.f16x2":
            registers[target] = int.from_bytes((_halves(values[0]) - _halves(values[1])).tobytes(), "little")
        else:
            raise AssertionError(f"unknown instruction: {line}")
    return [float(x) for half in ("$0", "$1") for x in _halves(registers[half])]


def test_the_assembly_that_only_a_gpu_runs_converts_every_int8():
    text = tile._INT8_TO_FP16.value
    assert not re.search(r"[^\x00-\x7f]", text)
    for first in range(0, 256, 4):
        word = int.from_bytes(bytes(range(first, first + 4)), "little")
        assert _assembly(text, word) == [float(np.uint8(byte).view(np.int8)) for byte in range(first, first + 4)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_narrowing_rounds_to_nearest_even(dtype):
    x = torch.cat([torch.randn(1000), torch.tensor([1.0, 1.99999, 7.9, -7.9, 0.0, 240.0, 447.9])])
    x = torch.nn.functional.pad(x, (0, 1024 - x.numel()))
    if dtype.itemsize == 1:  # below the normal numbers the interpreter truncates
        x = torch.where(x.abs() < torch.finfo(dtype).tiny, 0.0, x)
    out = torch.empty(1024, dtype=dtype)
    narrow_kernel[(1,)](x, out, SIZE=1024)
    assert torch.equal(out.float(), x.to(dtype).float())


def test_the_soft_cap_is_cap_times_tanh():
    x, cap = torch.linspace(-300, 300, 256), 30.0
    out = torch.empty(256)
    capped_kernel[(1,)](2 * LOG2E * x / cap, out, cap * LOG2E, SIZE=256)
    torch.testing.assert_close(out / LOG2E, cap * torch.tanh(x / cap), rtol=1e-5, atol=1e-4)


def test_the_online_softmax_of_tiles_is_that_of_the_whole_row():
    scores = torch.randn(4, 64) * 5
    scores[1, :16] = -float("inf")  # nothing in the first tile
    scores[2, 3:] = -float("inf")  # something in the first alone
    scores[3] = -float("inf")  # nothing at all: no NaN
    out = torch.empty(4)
    fold_kernel[(1,)](scores, out, ROWS=4, COLUMNS=16, TILES=4)
    expected = torch.logsumexp(scores.double() / LOG2E, dim=1) * LOG2E
    torch.testing.assert_close(out[:3], expected[:3].float(), rtol=1e-6, atol=1e-5)
    assert out[3] == -float("inf")
