"""The attention that others ship, on the same inputs: what our kernels are compared with.

A builder makes calls out of problems, one call per input set; a call returns its output, B × Q × H × E, so that it is
checked against the oracle before it is timed. Where a library cannot do a problem, its builder says so
(`Unsupported`), or its first call fails: both end as a reason in the record.

Each library is used as its users would for speed, and what it does not read is prepared before: masks, block masks,
expanded heads. For a single query, `folded` makes a KV head's query heads the rows of one matrix, so that every key is
read once whatever the backend knows of grouped heads, and a window becomes a slice of the cache.

To add a baseline: a builder, and a line in `BUILDERS`.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.suite.timing import Call, Failure, Guard


@dataclass(frozen=True)
class Pages:
    """The keys and values of a problem once more, in pages; the table has no evicted pages."""

    keys_PNKD: Tensor
    values_PNKE: Tensor
    table_BM: Tensor
    """int32, the pages of every sequence in order."""


@dataclass(frozen=True)
class Problem:
    """Attention of the last Q of T tokens of each of B sequences; decode if Q is 1.

    window W: a query sees the keys less than W positions away. `k_BTKD` and `v_BTKE` are contiguous.
    """

    q_BQHD: Tensor
    k_BTKD: Tensor
    v_BTKE: Tensor
    scale: float
    causal: bool = True
    window: int | None = None
    pages: Pages | None = None

    @property
    def num_queries(self) -> int:
        return self.q_BQHD.shape[1]

    @property
    def num_keys(self) -> int:
        return self.k_BTKD.shape[1]

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.q_BQHD.shape[2] // self.k_BTKD.shape[2]

    @property
    def device(self) -> torch.device:
        return self.q_BQHD.device

    @property
    def needs_mask(self) -> bool:
        """Neither all keys for all queries nor the square triangle that every backend knows."""
        if self.window is not None:
            return True
        return self.causal and self.num_queries not in (1, self.num_keys)

    @property
    def is_triangle(self) -> bool:
        return self.causal and self.num_queries > 1 and not self.needs_mask

    def without_window(self) -> Problem:
        """For a single query, the last position: the same on a slice of the cache. Others stay as they are."""
        if self.num_queries > 1 or self.window is None:
            return self
        first = max(self.num_keys - self.window, 0)
        return replace(self, k_BTKD=self.k_BTKD[:, first:], v_BTKE=self.v_BTKE[:, first:], window=None)


Builder = Callable[[Sequence[Problem]], list[Call]]


def build(
    problems: Sequence[Problem], guard: Guard, names: Sequence[str] | None = None
) -> dict[str, list[Call] | Failure]:
    """The calls of every baseline (or of `names`), one per problem; problems differ in their numbers only.

    Building compiles nothing: that is the first call's doing. What was compiled for earlier problems is forgotten, so
    finish with one `build` before the next.
    """
    return {
        name: guard.attempt(name, partial(BUILDERS[name], problems)) for name in (BUILDERS if names is None else names)
    }


def _sdpa(backend: SDPBackend, folded: bool, problems: Sequence[Problem]) -> list[Call]:
    """One backend of `torch.nn.functional.scaled_dot_product_attention`."""
    problems = [problem.without_window() for problem in problems]
    one = problems[0]
    if folded and one.num_queries > 1:
        raise Unsupported("only a single query can be folded")
    if backend == SDPBackend.FLASH_ATTENTION and one.needs_mask:
        raise Unsupported("torch's flash backend takes no mask")
    if backend == SDPBackend.MATH:
        _require_memory(_math_bytes(one), one.device)
    mask = _dense_mask(one) if one.needs_mask else None
    expand = backend == SDPBackend.EFFICIENT_ATTENTION and not folded and one.group > 1
    if expand:
        _require_memory(len(problems) * one.group * (one.k_BTKD.nbytes + one.v_BTKE.nbytes), one.device)
    return [_sdpa_call(backend, folded, expand, problem, mask) for problem in problems]


def _sdpa_call(backend: SDPBackend, folded: bool, expand: bool, problem: Problem, mask: Tensor | None) -> Call:
    q_BHQD, k_BKTD, v_BKTE = (x.transpose(1, 2) for x in (problem.q_BQHD, problem.k_BTKD, problem.v_BTKE))
    B, H, Q, D = q_BHQD.shape
    if folded:
        q_BHQD = q_BHQD.reshape(B, H // problem.group, problem.group, D)
    if expand:
        k_BKTD, v_BKTE = (x.repeat_interleave(problem.group, dim=1) for x in (k_BKTD, v_BKTE))
    grouped = q_BHQD.shape[1] != k_BKTD.shape[1]

    def call() -> Tensor:
        with sdpa_kernel(backend):
            out = scaled_dot_product_attention(
                q_BHQD,
                k_BKTD,
                v_BKTE,
                attn_mask=mask,
                is_causal=problem.is_triangle,
                scale=problem.scale,
                enable_gqa=grouped,
            )
        return out.reshape(B, H, Q, -1).transpose(1, 2)

    return call


def _flex(mode: str | None, problems: Sequence[Problem]) -> list[Call]:
    """FlexAttention, compiled on a GPU, as it is on a CPU: there it writes the scores out, which a test may.

    fullgraph: past its limit of recompilations torch would fall back to the uncompiled form, in silence.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    one = problems[0]
    attend: Callable[..., Any] = flex_attention
    if one.device.type == "cuda":
        torch._dynamo.reset()  # its memory of earlier problems counts towards that limit
        attend = torch.compile(flex_attention, mode=mode, dynamic=False, fullgraph=True)
    elif mode is not None:
        raise Unsupported("there is nothing to tune on a CPU")
    mask = None
    if one.needs_mask or one.is_triangle:
        visible = _visible(one)
        mask = create_block_mask(visible, None, None, one.num_queries, one.num_keys, device=str(one.device))

    def call(problem: Problem) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (problem.q_BQHD, problem.k_BTKD, problem.v_BTKE))
        out: Tensor = attend(q, k, v, block_mask=mask, scale=problem.scale, enable_gqa=problem.group > 1)
        return out.transpose(1, 2)

    return [partial(call, problem) for problem in problems]


def _varlen(paged: bool, problems: Sequence[Problem]) -> list[Call]:
    """`torch.nn.attention.varlen.varlen_attn`: FlashAttention 2 on packed sequences, or on a paged pool.

    Its arguments grew with time: 2.11 has neither `enable_gqa`, though its kernel groups heads, nor a block table.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise Unsupported(f"torch {torch.__version__} has no varlen_attn") from error
    one = problems[0]
    known = inspect.signature(varlen_attn).parameters
    if one.device.type != "cuda":
        raise Unsupported("varlen_attn needs a GPU")
    if paged and "block_table" not in known:
        raise Unsupported(f"varlen_attn of torch {torch.__version__} takes no block table")
    options: dict[str, Any] = {"scale": one.scale, "window_size": _flash_window(one)}
    if "enable_gqa" in known:
        options["enable_gqa"] = one.group > 1
    return [_varlen_call(varlen_attn, problem, paged, options) for problem in problems]


def _varlen_call(varlen_attn: Callable[..., Any], problem: Problem, paged: bool, options: dict[str, Any]) -> Call:
    B, Q, H, D = problem.q_BQHD.shape
    T = problem.num_keys
    starts = torch.arange(B + 1, dtype=torch.int32, device=problem.device)
    starts_q, starts_k = starts * Q, starts * T
    k, v = problem.k_BTKD.flatten(0, 1), problem.v_BTKE.flatten(0, 1)
    if paged:
        pages = problem.pages
        if pages is None:
            raise Unsupported("the problem has no pages")
        k, v = pages.keys_PNKD, pages.values_PNKE
        lengths = torch.full((B,), T, dtype=torch.int32, device=problem.device)
        # split in parts it writes the first sequence only: https://github.com/pytorch/pytorch/issues/194167
        options = {**options, "block_table": pages.table_BM, "seqused_k": lengths, "num_splits": 1}

    def call() -> Tensor:
        q = problem.q_BQHD.reshape(B * Q, H, D)
        out: Tensor = varlen_attn(q, k, v, starts_q, starts_k, Q, T, **options)
        return out.reshape(B, Q, H, -1)

    return call


def _xformers(op_name: str | None, problems: Sequence[Problem]) -> list[Call]:
    """xformers' `memory_efficient_attention_forward`: its own choice of operator, or its Triton split-KV kernel."""
    try:
        from xformers.ops import fmha
        from xformers.ops.fmha import attn_bias
    except ImportError as error:
        raise Unsupported("xformers is not installed") from error
    problems = [problem.without_window() for problem in problems]
    one = problems[0]
    bias = None
    if one.window is not None and one.causal:
        bias = attn_bias.LowerTriangularFromBottomRightLocalAttentionMask(one.window)
    elif one.window is not None:
        raise Unsupported("a window without causality is not tried with xformers")
    elif one.causal and one.num_queries > 1:
        bias = attn_bias.LowerTriangularFromBottomRightMask()
    op = getattr(fmha, op_name).FwOp if op_name else None

    def call(problem: Problem) -> Tensor:
        B, Q, H, D = problem.q_BQHD.shape
        q = problem.q_BQHD.reshape(B, Q, H // problem.group, problem.group, D)
        k, v = (x.unsqueeze(3).expand(-1, -1, -1, problem.group, -1) for x in (problem.k_BTKD, problem.v_BTKE))
        out: Tensor = fmha.memory_efficient_attention_forward(q, k, v, attn_bias=bias, scale=problem.scale, op=op)
        return out.reshape(B, Q, H, -1)

    return [partial(call, problem) for problem in problems]


BUILDERS: dict[str, Builder] = {
    "sdpa-flash": partial(_sdpa, SDPBackend.FLASH_ATTENTION, False),
    "sdpa-flash-folded": partial(_sdpa, SDPBackend.FLASH_ATTENTION, True),
    "sdpa-cudnn": partial(_sdpa, SDPBackend.CUDNN_ATTENTION, False),
    "sdpa-cudnn-folded": partial(_sdpa, SDPBackend.CUDNN_ATTENTION, True),
    "sdpa-efficient": partial(_sdpa, SDPBackend.EFFICIENT_ATTENTION, False),
    "sdpa-efficient-folded": partial(_sdpa, SDPBackend.EFFICIENT_ATTENTION, True),
    "sdpa-math": partial(_sdpa, SDPBackend.MATH, False),
    "flex": partial(_flex, None),
    "flex-max-autotune": partial(_flex, "max-autotune-no-cudagraphs"),
    "varlen": partial(_varlen, False),
    "varlen-paged": partial(_varlen, True),
    "xformers": partial(_xformers, None),
    "xformers-splitk": partial(_xformers, "triton_splitk"),
}


def _visible(problem: Problem) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The mask as FlexAttention takes it. Sums are of queries only: a short vector, while the matrix stays boolean."""
    causal, window = problem.causal, problem.window
    offset = problem.num_keys - problem.num_queries if causal or window is not None else 0

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        position = query + offset
        if window is None:
            return position >= key
        if causal:
            return (position >= key) & (position - window < key)
        return (position + window > key) & (position - window < key)

    return visible


def _dense_mask(problem: Problem) -> Tensor:
    """Q × T, True where a query sees a key."""
    query = torch.arange(problem.num_queries, device=problem.device)[:, None]
    key = torch.arange(problem.num_keys, device=problem.device)[None, :]
    nothing = torch.zeros((), device=problem.device)
    return _visible(problem)(nothing, nothing, query, key)


def _flash_window(problem: Problem) -> tuple[int, int]:
    """FlashAttention counts the keys to the left and to the right of the query's own; -1 is all of them."""
    reach = -1 if problem.window is None else problem.window - 1
    return (reach, 0) if problem.causal else (reach, reach)


def _math_bytes(problem: Problem) -> int:
    """About what the math backend holds at once: fp32 keys and values of all query heads, three score matrices."""
    B, Q, H, D = problem.q_BQHD.shape
    T, E = problem.num_keys, problem.v_BTKE.shape[3]
    return 4 * B * H * (3 * Q * T + (T + Q) * (D + E))


def _require_memory(needed: int, device: torch.device) -> None:
    """Half of what is free may be taken: captured graphs and their neighbours want some too."""
    free = _free_bytes(device)
    if needed > free / 2:
        raise Unsupported(f"would take about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")


def _free_bytes(device: torch.device) -> float:
    """Memory that torch can still hand out, what it keeps in reserve included."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + idle)
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return math.inf
