"""From a prefill's tensors to a kernel's arguments: patterns, packed sequences, checks, factors and choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.launch import Config, Unsupported
from kvplan.validate.kernels.machine import Machine
from kvplan.validate.kernels.select import STATIC, Problem, best
from kvplan.validate.kernels.tile import OPERANDS, operand_type, score_factors

_FOREVER = 2**30  # as good as no limit, and twice it still fits into 32 bits


@dataclass(frozen=True)
class Pattern:
    """Which keys a query sees. Positions count from the sequence's end: the last query is at the last key."""

    kind: str
    reach: int = 0
    positions_BM: Tensor | None = field(default=None, compare=False)

    @classmethod
    def causal(cls) -> Pattern:
        """Every key up to the query's own."""
        return cls("causal")

    @classmethod
    def window(cls, reach: int) -> Pattern:
        """The last `reach` keys, the query's own among them."""
        return cls("window", _checked(reach))

    @classmethod
    def chunked(cls, reach: int) -> Pattern:
        """The keys of the query's own block of `reach` positions, up to its own (Llama 4)."""
        return cls("chunked", _checked(reach))

    @classmethod
    def full(cls) -> Pattern:
        """Every key: encoders and cross-attention."""
        return cls("full")

    @classmethod
    def sparse(cls, reach: int, positions_BM: Tensor) -> Pattern:
        """|query − key| < reach, before and after; listed positions see all and are seen by all (Longformer).

        positions: distinct ones per sequence, padded with -1.
        """
        return cls("sparse", _checked(reach), positions_BM.to(torch.int32).contiguous())


TMA_TARGETS = ("sm_90", "sm_100")
#: keys per tile at a band's edges: small, since much of such a tile is masked
EDGE_N = 64

CAUSAL = Pattern.causal()


def _checked(reach: int) -> int:
    if reach < 1:
        raise Unsupported(f"a reach of {reach} keys sees nothing")
    return min(reach, _FOREVER)


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths in packed tensors: int32, one number per sequence.

    key_lengths count the new tokens too; key_starts matter to contiguous keys alone. longest: the most queries of one.
    """

    query_starts: Tensor
    query_lengths: Tensor
    key_starts: Tensor
    key_lengths: Tensor
    longest: int

    @classmethod
    def pack(
        cls, queries: Sequence[int], keys: Sequence[int] | None = None, device: torch.device | str = "cpu"
    ) -> Ragged:
        """Sequences packed one after another, as many keys as queries unless told."""
        query_lengths, key_lengths = (
            torch.tensor(list(counts), dtype=torch.int32) for counts in (queries, queries if keys is None else keys)
        )
        query_starts, key_starts = (n.cumsum(0, dtype=torch.int32) - n for n in (query_lengths, key_lengths))
        numbers = (n.to(device) for n in (query_starts, query_lengths, key_starts, key_lengths))
        return cls(*numbers, longest=max(queries, default=0))  # type: ignore[misc, arg-type]

    @property
    def size(self) -> int:
        """How many sequences."""
        return self.query_lengths.shape[0]


class PrefillCall:
    """One prefill: what the caller gave, checked once, and the arguments that it means."""

    def __init__(
        self,
        q_THD: Tensor,
        kv: PagedCache | tuple[Tensor, Tensor],
        batch: Ragged,
        scale: float,
        pattern: Pattern = CAUSAL,
        softcap: float | None = None,
        sinks_H: Tensor | None = None,
        out_THE: Tensor | None = None,
    ) -> None:
        if isinstance(kv, PagedCache):
            self.cache: PagedCache | None = kv
            self.keys, self.values = kv.keys, kv.values
        else:
            self.cache = None
            self.keys, self.values = _rows(kv[0]), _rows(kv[1])
        self.q_THD, self.batch, self.pattern = _rows(q_THD), batch, pattern
        self.scale, self.softcap, self.sinks_H = scale, softcap, sinks_H
        self._check()
        if out_THE is None:
            out_THE = q_THD.new_empty((*q_THD.shape[:2], self.values.shape[-1]))
        self.out_THE = out_THE

    def _check(self) -> None:
        heads, key_dim = self.q_THD.shape[1:]
        if heads % self.num_kv_heads:
            raise Unsupported(f"{heads} query heads do not share {self.num_kv_heads} KV heads evenly")
        if key_dim != self.keys.shape[-1]:
            raise Unsupported(f"queries have {key_dim} dimensions, keys {self.keys.shape[-1]}")
        if min(key_dim, self.values.shape[-1]) < 16:
            raise Unsupported(
                f"heads of {key_dim} and {self.values.shape[-1]} dimensions; matrix products take 16 or more"
            )
        if self.q_THD.dtype not in OPERANDS:
            raise Unsupported(f"queries are {self.q_THD.dtype}; bf16, fp16 and fp32 are supported")
        if self.scale <= 0:
            raise Unsupported(
                f"the softmax scale is {self.scale}; the kernel takes maxima before it, so it must be positive"
            )
        if self.cache is not None and any(p.stride(0) != p.shape[1] * p.stride(1) for p in (self.keys, self.values)):
            raise Unsupported("the pool's pages do not follow one another")
        table = self.cache.block_table if self.cache else None
        for name, rows in (("global positions", self.pattern.positions_BM), ("a block table", table)):
            if rows is not None and rows.shape[0] != self.batch.size:
                raise Unsupported(f"{name} for {rows.shape[0]} sequences of a batch of {self.batch.size}")

    @property
    def num_kv_heads(self) -> int:
        return self.keys.shape[-2]

    @property
    def group(self) -> int:
        return self.q_THD.shape[1] // self.num_kv_heads

    @property
    def operand(self) -> Any:
        """The type of the matrix products."""
        return operand_type(self.q_THD.dtype, self.keys.dtype)

    def fits_tma(self, config: Config) -> bool:
        """Whether whole tiles can come by TMA: each in one page, of heads side by side whose dimensions are 2^n."""
        page = self.cache.page_size if self.cache else 0
        return page % config.block_n == 0 and all(_has_boxes(pool) for pool in (self.keys, self.values))

    def arguments(self, config: Config, *, tma: bool) -> dict[str, Any]:
        """All arguments but the pattern's kind and the order of the loop. Raises `Unsupported`."""
        block_m = max(config.block_m, triton.next_power_of_2(self.group))
        if block_m > max(config.block_m, 128):
            raise Unsupported(f"{self.group} query heads share a KV head; a block has room for 128 at most")
        if tma and not self.fits_tma(config):
            raise Unsupported(f"TMA needs tiles of {config.block_n} keys to lie in a page, heads of 2^n dimensions")
        chosen = {
            "k_tiles": _tiles(self.keys, config.block_n) if tma else 0,
            "v_tiles": _tiles(self.values, config.block_n) if tma else 0,
            "TMA": tma,
            "BLOCK_M": block_m,
            "BLOCK_N": config.block_n,
            "EDGE_N": min(config.block_n, EDGE_N),
        }
        return self._tensors() | self._numbers() | self._constants() | chosen

    def _tensors(self) -> dict[str, Any]:
        batch, cache = self.batch, self.cache
        return {
            "q": (self.q_THD, *self.q_THD.stride()[:2]),
            "out": (self.out_THE, *self.out_THE.stride()[:2]),
            "k": _pool(self.keys),
            "v": _pool(self.values),
            "scales": _scales(cache),
            "table": (cache.block_table, cache.block_table.stride(0)) if cache else (batch.key_starts, 1),
            "query_starts_ptr": batch.query_starts,
            "query_lengths_ptr": batch.query_lengths,
            "key_lengths_ptr": batch.key_lengths,
            "positions_ptr": self.pattern.positions_BM,
            "num_positions": 0 if self.pattern.positions_BM is None else self.pattern.positions_BM.shape[1],
            "sinks_ptr": self.sinks_H,
        }

    def _numbers(self) -> dict[str, float | int]:
        """The factors that the host folds: score = product · scale · key scale, in base 2, or its soft cap."""
        key_scale = self.cache.key_scale if self.cache else 1.0
        return score_factors(self.scale * key_scale, self.softcap) | {
            "value_scale": self.cache.value_scale if self.cache else 1.0,
            "reach": self.pattern.reach,
        }

    def _constants(self) -> dict[str, Any]:
        return {
            "GROUP": self.group,
            "D": self.keys.shape[-1],
            "E": self.values.shape[-1],
            "PAGE": self.cache.page_size if self.cache else 0,
            "OPERAND": self.operand,
            "CAPPED": self.softcap is not None,
            "SINKS": self.sinks_H is not None,
            "TOKEN_SCALES": self.cache is not None and self.cache.key_scales is not None,
        }


#: (target, by TMA) → largest dimension of keys, of values, configuration; the first row that the case allows is taken.
#: Chosen from compiled code: no spills, warpgroup products that run in one go, then the most keys per turn.
DEFAULTS: dict[tuple[str, bool], tuple[tuple[int, int, Config], ...]] = {
    ("sm_80", False): (
        (128, 128, Config(64, 8, 3, block_m=128)),
        (256, 128, Config(32, 8, 3, block_m=128)),
        (256, 256, Config(32, 8, 3, block_m=64)),
    ),
    ("sm_90", True): (
        (64, 64, Config(128, 8, 3, block_m=128)),
        (128, 128, Config(128, 8, 2, block_m=128)),
        (128, 128, Config(64, 8, 3, block_m=128)),
        (256, 256, Config(64, 8, 2, block_m=128)),
    ),
    ("sm_90", False): (
        (64, 64, Config(128, 8, 3, block_m=128)),
        (256, 128, Config(64, 8, 3, block_m=128)),
        (256, 256, Config(32, 8, 3, block_m=128)),
    ),
    ("sm_100", True): (
        (128, 128, Config(128, 8, 2, block_m=128)),
        (256, 256, Config(64, 8, 2, block_m=128)),
    ),
    ("sm_100", False): (
        (128, 128, Config(128, 8, 2, block_m=128)),
        (256, 128, Config(64, 8, 2, block_m=128)),
        (256, 256, Config(32, 8, 3, block_m=128)),
    ),
    ("gfx942", False): (
        (64, 64, Config(64, 4, 2, block_m=128)),
        (128, 128, Config(64, 8, 2, block_m=128)),
        (256, 128, Config(32, 8, 2, block_m=128)),
        (256, 256, Config(32, 8, 2, block_m=64)),
    ),
}
_FP32 = Config(16, 8, 2, block_m=32)  # products without matrix units: for checks, not for speed


def default_form(target: str, call: PrefillCall, tma: bool | None = None) -> tuple[Config, bool]:
    """(configuration, whether by TMA) for a case on a target; `tma` leaves only one choice. Raises `Unsupported`."""
    if call.operand == tl.float32 and not tma:
        return _FP32, False
    for by_tma in (True, False) if tma is None else (tma,):
        for key_dim, value_dim, config in DEFAULTS.get((target, by_tma), ()):
            held = call.keys.shape[-1] <= key_dim and call.values.shape[-1] <= value_dim
            # an 8-bit tile is converted in registers: one of 128 × 128 would not be buffered twice
            small = call.keys.itemsize > 1 or config.block_n * call.keys.shape[-1] <= 64 * 128
            if held and (not by_tma or (small and call.fits_tma(config))):
                return config, by_tma
    dims = f"{call.keys.shape[-1]} and {call.values.shape[-1]} dimensions"
    raise Unsupported(f"no prefill{' by TMA' if tma else ''} on {target} for heads of {dims}; 256 are the most")


def chosen_form(machine: Machine, call: PrefillCall, tma: bool | None = None) -> tuple[Config, bool]:
    """What was measured on this very device for such a case, else `default_form`, which knows more of it."""
    if call.operand == tl.float32:
        return default_form(machine.target, call, tma)
    tokens, page_size = call.batch.longest, call.cache.page_size if call.cache else 0
    dims = call.keys.shape[-1], call.values.shape[-1]
    shape = (call.batch.size, call.q_THD.shape[1], call.num_kv_heads, *dims, call.keys.itemsize * 8)
    problem = Problem("prefill", *shape, page_size=page_size, num_keys=tokens, num_queries=tokens)
    measured = [
        (choice.cost, choice.config, by_tma)
        for kernel, by_tma in (("prefill_packed_tma", True), ("prefill", False))
        if tma in (None, by_tma) and (choice := best(kernel, problem, machine)) and choice.basis != STATIC
        if not by_tma or call.fits_tma(choice.config)
    ]
    if not measured:
        return default_form(machine.target, call, tma)
    _, config, by_tma = min(measured, key=lambda form: form[0])
    return config, by_tma


def fits_overlap(target: str, call: PrefillCall, config: Config, tma: bool) -> bool:
    """Whether values should follow one turn later: on Hopper, where a thread has room for weights, scores and sums."""
    value_dim = triton.next_power_of_2(call.values.shape[-1])
    numbers = config.block_m * (2 * config.block_n + value_dim) // (32 * config.num_warps)
    return target == "sm_90" and numbers <= (192 if tma and value_dim <= 128 else 160)  # of 255 registers


def _rows(packed: Tensor) -> Tensor:
    """With dimensions side by side, as 16-byte loads want them."""
    return packed if packed.stride(-1) == 1 else packed.contiguous()


def _pool(pool: Tensor) -> tuple[Tensor, int, int]:
    """(pool, stride of a token, of a head): pages follow one another without a gap, so that a token has a row."""
    return pool, pool.stride(-3), pool.stride(-2)


def _has_boxes(pool: Tensor) -> bool:
    """Whether one head's part of several tokens is a box that TMA reads: 16-byte strides, the width a power of two."""
    dim = pool.shape[-1]
    aligned = pool.stride(-3) * pool.itemsize % 16 == 0 and pool.data_ptr() % 16 == 0
    return aligned and pool.stride(-2) == dim == triton.next_power_of_2(dim)


def _tiles(pool: Tensor, block_n: int) -> TensorDescriptor:
    """The pool as rows of all heads, in boxes of one tile of one head."""
    stride, heads, dim = pool.stride(-3), pool.shape[-2], pool.shape[-1]
    return TensorDescriptor(pool, [pool.shape[:-2].numel(), heads * dim], [stride, 1], [block_n, dim])


def _scales(cache: PagedCache | None) -> tuple[Any, Any, int]:
    """(scales of keys, of values, stride of a token), zeros where the cache has none."""
    if cache is None or cache.key_scales is None or cache.value_scales is None:
        return 0, 0, 0
    return cache.key_scales, cache.value_scales, cache.key_scales.stride(1)
