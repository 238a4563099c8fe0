"""What the kernels must compute: eager, slow, in float64. No kernel imports it, and it imports no kernel.

One function per question, on plain tensors of one sequence. Dimension key: see the package.
"""

from __future__ import annotations

import torch
from torch import Tensor

F64 = torch.float64


def gather(
    pages_PNKD: Tensor, table: Tensor, length: int, scales_PNK: Tensor | float = 1.0, *, first: int = 0
) -> Tensor:
    """The tokens `first` to `length` of one sequence out of a paged pool, dequantised: T × K × D.

    Tokens of an evicted page (-1 in the table) are NaN: whoever reads one is caught.
    """
    page_size = pages_PNKD.shape[1]
    position = torch.arange(first, length, device=table.device)
    page = table[position // page_size].long()
    slot = position % page_size
    tokens = pages_PNKD[page.clamp(min=0), slot].to(F64)
    if isinstance(scales_PNK, Tensor):
        tokens = tokens * scales_PNK[page.clamp(min=0), slot].to(F64)[..., None]
    else:
        tokens = tokens * scales_PNK
    tokens[page < 0] = float("nan")
    return tokens


def visible(
    num_queries: int,
    num_keys: int,
    *,
    causal: bool = True,
    window: int | None = None,
    chunk: int | None = None,
    global_tokens: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Which keys each query sees: num_queries × num_keys, the last query at the last key's position when causal.

    causal          key ≤ query
    window W        query − key < W; without causality |query − key| < W (Longformer's band: its one-sided reach + 1)
    chunk C         both in the same block of C positions (Llama-4's chunked attention)
    global_tokens   positions that see everything and are seen by everything (within causality)
    """
    offset = num_keys - num_queries if causal or window is not None or chunk is not None else 0
    query = torch.arange(num_queries, device=device)[:, None] + offset
    key = torch.arange(num_keys, device=device)[None, :]
    seen = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    if window is not None:
        seen &= (query - key).abs() < window
    if chunk is not None:
        seen &= query // chunk == key // chunk
    if global_tokens is not None:
        seen |= torch.isin(key, global_tokens) | torch.isin(query, global_tokens)
    if causal:
        seen &= key <= query
    return seen


def attention(
    q_QHD: Tensor,
    k_TKD: Tensor,
    v_TKE: Tensor,
    seen_QT: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """softmax(scale · q·kᵀ) · v over the visible keys, in float64: Q × H × E. A query that sees no key yields zeros.

    softcap c   scores become c · tanh(scores / c) before the mask (Gemma 2)
    sinks       one more logit per head, in the denominator only (gpt-oss)
    """
    num_queries, num_heads, _ = q_QHD.shape
    num_kv_heads = k_TKD.shape[1]
    group = num_heads // num_kv_heads
    used = seen_QT.any(dim=0)  # a key that nobody sees may hold anything, NaN included
    k_TKD = torch.where(used[:, None, None], k_TKD.to(F64), 0.0)
    v_TKE = torch.where(used[:, None, None], v_TKE.to(F64), 0.0)
    q_QKGD = q_QHD.to(F64).reshape(num_queries, num_kv_heads, group, k_TKD.shape[-1])
    scores = torch.einsum("qkgd,tkd->qkgt", q_QKGD, k_TKD) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen_QT[:, None, None, :], -float("inf"))
    if sinks_H is not None:
        sink = sinks_H.to(F64).reshape(1, num_kv_heads, group, 1).expand(num_queries, -1, -1, -1)
        scores = torch.cat([scores, sink], dim=-1)
    blind = (scores == -float("inf")).all(dim=-1, keepdim=True)  # no key and no sink: softmax would be 0 / 0
    weights = scores.softmax(dim=-1).masked_fill(blind, 0.0)[..., : k_TKD.shape[0]]
    return torch.einsum("qkgt,tke->qkge", weights, v_TKE).reshape(num_queries, num_heads, v_TKE.shape[-1])
