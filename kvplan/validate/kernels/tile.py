"""What every attention kernel does with one tile of scores, in base 2.

Scores are kept multiplied by log2(e), so that the softmax is `exp2`: the host folds that factor, the softmax scale and
a per-tensor key scale into one number (`score_factor`), which costs the kernel nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from kvplan.validate.kernels.launch import INTERPRETED

LOG2E = math.log2(math.e)

#: Types of queries → the types of the matrix products.
OPERANDS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def operand_type(queries: torch.dtype, stored: torch.dtype) -> Any:
    """The type of the matrix products: fp16 for 8-bit caches (exact, a native conversion), else the queries'."""
    if stored.itemsize == 1 and queries != torch.float32:
        return tl.float16
    return OPERANDS[queries]


def score_factors(scale: float, softcap: float | None) -> dict[str, float]:
    """What the host folds: score = factor · product in base 2, or `capped(factor · product, cap)`."""
    if softcap is None:
        return {"factor": scale * LOG2E, "cap": 0.0, "log2e": LOG2E}
    return {"factor": 2.0 * scale * LOG2E / softcap, "cap": softcap * LOG2E, "log2e": LOG2E}


# Triton's interpreter keeps bf16 as bit patterns and multiplies those (3.4 to 3.9): there, and only there, go by fp32.
_UPCAST = tl.constexpr(INTERPRETED)
_NVIDIA_ASSEMBLY = tl.constexpr(not INTERPRETED)


@triton.jit
def dot(a, b, acc):
    """acc + a · b, accumulated in fp32; full precision for fp32 operands."""
    if _UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        return tl.dot(a, b, acc, input_precision="ieee")


# Four int8 in a register → four fp16 in two. 0x6400 | u is the fp16 number 1024 + u for u in 0..255, so a byte made
# unsigned (+ 128) and joined to 0x64 is the byte + 1152 (0x6480). Five instructions, where plain conversion takes nine.
_INT8_TO_FP16 = tl.constexpr("""{
    .reg .b32 u, magic;
    mov.b32 magic, 0x64806480;
    xor.b32 u, $2, 0x80808080;
    prmt.b32 $0, u, 0x64646464, 0x4140;
    prmt.b32 $1, u, 0x64646464, 0x4342;
    sub.rn.f16x2 $0, $0, magic;
    sub.rn.f16x2 $1, $1, magic;
}""")


@triton.jit
def operand(stored, dtype: tl.constexpr):
    """A tile of the cache as a matrix operand of `dtype`; exact for every stored type that the cache offers."""
    if stored.dtype == tl.int8 and _NVIDIA_ASSEMBLY and tl.target_info.is_cuda():
        half = tl.inline_asm_elementwise(_INT8_TO_FP16, "=r,=r,r", [stored], dtype=tl.float16, is_pure=True, pack=4)
        return half.to(dtype)
    else:
        return stored.to(dtype)


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """fp32 → a narrower type, to nearest even. The interpreter's own cast drops bits (bf16) or the carry (fp8)."""
    if _UPCAST and (dtype == tl.bfloat16 or dtype == tl.float8e4nv or dtype == tl.float8e5):
        DROPPED: tl.constexpr = 16 if dtype == tl.bfloat16 else (20 if dtype == tl.float8e4nv else 21)
        bits = x.to(tl.uint32, bitcast=True)
        bits = bits + ((1 << (DROPPED - 1)) - 1) + ((bits >> DROPPED) & 1)
        x = ((bits >> DROPPED) << DROPPED).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def reciprocal(x):
    """1 / x of a number from 1 to infinity: one instruction, where a division guards its range with ten."""
    if _NVIDIA_ASSEMBLY and tl.target_info.is_cuda():
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 / x


@triton.jit
def capped(scores, cap):
    """cap · tanh(x) by one exp2; `scores` hold 2 · log2(e) · x, `cap` and the result are multiplied by log2(e)."""
    return cap * (1.0 - 2.0 * reciprocal(tl.exp2(scores) + 1.0))


@triton.jit
def fold(scores, top, total):
    """One step of the online softmax: (weights, rescale, new top, new total), rows with no key so far kept at zero.

    `top` is each row's largest score so far, `total` the sum of its weights relative to it (Milakov and Gimelshein,
    https://arxiv.org/abs/1805.02867). A row that has seen no key has top = -inf: -inf - -inf must not become NaN.
    """
    new_top = tl.maximum(top, tl.max(scores, 1))
    anchor = tl.where(new_top == -float("inf"), 0.0, new_top)
    weights = tl.exp2(scores - anchor[:, None])
    rescale = tl.exp2(top - anchor)
    return weights, rescale, new_top, total * rescale + tl.sum(weights, 1)


@triton.jit
def settle(acc, top, total, sinks_ptr, heads, real, value_scale, log2e, SINKS: tl.constexpr):
    """A block's output: divided by the sum of weights, to which a sink adds; no key and no sink yield zeros."""
    if SINKS:
        sink = tl.load(sinks_ptr + heads, mask=real, other=-float("inf")).to(tl.float32) * log2e
        new_top = tl.maximum(top, sink)
        anchor = tl.where(new_top == -float("inf"), 0.0, new_top)
        rescale = tl.exp2(top - anchor)
        total = total * rescale + tl.exp2(sink - anchor)
        value_scale = value_scale * rescale
    return acc * (value_scale / tl.where(total > 0.0, total, 1.0))[:, None]
