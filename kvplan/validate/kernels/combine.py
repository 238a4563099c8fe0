"""Merge the partial results of a split sequence: the second, tiny half of every split-KV decode.

Each split leaves its un-normalised sum acc, the top score it subtracted and its total weight, in fp32; storing those
raw spares the split a division. The merge is the online softmax once more, over splits instead of tiles, and the one
place where an attention sink enters (it adds to the denominator only). Layout: acc B × H × S × E, stats B × H × S × 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvplan.validate.kernels.launch import Launch, Unsupported
from kvplan.validate.kernels.tile import LOG2E, narrow

_BLOCK_E = 128
_BLOCK_S = 16


@triton.jit
def combine_kernel(
    out_ptr,
    acc_ptr,
    stats_ptr,
    sinks_ptr,
    value_scale,
    log2e,
    num_heads,
    num_splits,
    DIM: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_S: tl.constexpr,
    SINKS: tl.constexpr,
):
    """One program per (head, sequence, block of value dimensions), over the splits in blocks."""
    head = tl.program_id(0)
    row = tl.program_id(1) * num_heads + head
    e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    inside = e < DIM
    first = row.to(tl.int64) * num_splits
    top = tl.full([1], -float("inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    acc = tl.zeros([BLOCK_E], tl.float32)
    if SINKS:
        # one more key, of known logit, whose value is zero
        top = tl.zeros([1], tl.float32) + tl.load(sinks_ptr + head).to(tl.float32) * log2e
        total += 1.0
    for start in range(0, num_splits, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        some = s < num_splits
        split_top = tl.load(stats_ptr + (first + s) * 2, mask=some, other=-float("inf"))
        split_total = tl.load(stats_ptr + (first + s) * 2 + 1, mask=some, other=0.0)
        new_top = tl.maximum(top, tl.max(split_top, 0))
        anchor = tl.where(new_top == -float("inf"), 0.0, new_top)
        weight = tl.exp2(split_top - anchor)
        keep = tl.exp2(top - anchor)
        split_acc = tl.load(
            acc_ptr + (first + s)[:, None] * DIM + e[None, :], mask=some[:, None] & inside[None, :], other=0.0
        )
        acc = acc * keep + tl.sum(split_acc * weight[:, None], 0)
        total = total * keep + tl.sum(weight * split_total, 0)
        top = new_top
    share = value_scale / tl.where(total > 0.0, total, 1.0)  # no key at all: the output is zero
    tl.store(out_ptr + row.to(tl.int64) * DIM + e, narrow(acc * share, out_ptr.dtype.element_ty), mask=inside)


def partials(
    num_seqs: int, num_heads: int, num_splits: int, value_dim: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Room for the splits' results: B · H · S · (E + 2) · 4 bytes in all."""
    shape = (num_seqs, num_heads, num_splits)
    acc = torch.empty((*shape, value_dim), dtype=torch.float32, device=device)
    return acc, torch.empty((*shape, 2), dtype=torch.float32, device=device)


def plan_combine(
    out_BHE: Tensor, acc_BHSE: Tensor, stats_BHS2: Tensor, *, value_scale: float = 1.0, sinks_H: Tensor | None = None
) -> Launch:
    """The launch that turns partial results into the (contiguous) output.

    out = Σ 2^(top_s − top) · acc_s · value_scale / (Σ 2^(top_s − top) · total_s + 2^(sink · log2(e) − top))
    """
    num_seqs, num_heads, num_splits, dim = acc_BHSE.shape
    block_e = min(triton.next_power_of_2(dim), _BLOCK_E)
    args = {
        "out_ptr": out_BHE,
        "acc_ptr": acc_BHSE,
        "stats_ptr": stats_BHS2,
        "sinks_ptr": sinks_H,
        "value_scale": value_scale,
        "log2e": LOG2E,
        "num_heads": num_heads,
        "num_splits": num_splits,
        "DIM": dim,
        "BLOCK_E": block_e,
        "BLOCK_S": _BLOCK_S,
        "SINKS": sinks_H is not None,
    }
    return Launch(combine_kernel, (num_heads, num_seqs, triton.cdiv(dim, block_e)), args, num_warps=4)


def unmerged(launches: Sequence[Launch]) -> tuple[Launch, Tensor, Tensor]:
    """(the launch that attends, its acc B × H × S × E, its stats B × H × S × 2): a split decode without its merge.

    For keys of which other devices hold a part: their partial results are further splits, joined along S and merged
    once, sinks with them. Raises `Unsupported` for a plan of one split, which leaves no partial results.
    """
    first = launches[0]
    acc_BHSE, stats_BHS2 = first.args["acc_ptr"], first.args["stats_ptr"]
    if acc_BHSE is None:
        raise Unsupported("a decode of one split leaves no partial results: plan it with `num_splits` of 2 or more")
    return first, acc_BHSE, stats_BHS2
