"""The paged KV cache of one layer: a pool of pages, a block table, the kernel that appends, pages given back.

One allocation holds everything (keys, values, scales), as engines do it, so that its bytes are one number that the
framework's allocator can confirm.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvplan.validate.kernels.launch import Launch, Unsupported
from kvplan.validate.kernels.tile import narrow

FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
CACHE_DTYPES = (torch.bfloat16, torch.float16, torch.float32, *FP8_DTYPES, torch.int8)
EVICTED = -1


@triton.jit
def append_kernel(
    new_ptr,
    pool_ptr,
    scales_ptr,
    slots_ptr,
    inverse_scale,
    stride_new,
    num_heads,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    LIMIT: tl.constexpr,
    TOKEN_SCALES: tl.constexpr,
):
    """Write one head of one new token into its slot of the pool, quantised if the pool is.

    LIMIT: the largest magnitude of the stored type, 0 where nothing is clamped. TOKEN_SCALES: int8 with one scale per
    token and head, absmax / 127. A slot below zero is not written.
    """
    token = tl.program_id(0)
    head = tl.program_id(1)
    slot = tl.load(slots_ptr + token)
    if slot >= 0:
        d = tl.arange(0, DIM_PADDED)
        inside = d < DIM
        x = tl.load(new_ptr + token * stride_new + head * DIM + d, mask=inside, other=0.0).to(tl.float32)
        row = slot * num_heads + head
        if TOKEN_SCALES:
            scale = tl.maximum(tl.max(tl.abs(x), 0) / 127.0, 1e-30)
            tl.store(scales_ptr + row, scale)
            x = tl.floor(x / scale + 0.5)
        else:
            x = x * inverse_scale
        if LIMIT > 0:
            x = tl.minimum(tl.maximum(x, -LIMIT), LIMIT)
        tl.store(pool_ptr + row * DIM + d, narrow(x, pool_ptr.dtype.element_ty), mask=inside)


def _limit(dtype: torch.dtype) -> float:
    if dtype in FP8_DTYPES:
        return float(torch.finfo(dtype).max)
    return 127.0 if dtype == torch.int8 else 0.0


@dataclass
class PagedCache:
    """Keys and values of one layer for several sequences, in pages of `page_size` tokens.

    keys P × N × K × D, values P × N × K × E; a latent cache (MLA) has one head, and its values are the first E numbers
    of its keys. block_table B × (most pages of a sequence), int32, `EVICTED` where no page is. lengths B, int32.
    int8 carries one fp32 scale per token and head, fp8 one scale per tensor. index P × N × I: an indexer's key of every
    token, which no kernel reads.
    """

    keys: Tensor
    values: Tensor
    block_table: Tensor
    lengths: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None
    key_scale: float = 1.0
    value_scale: float = 1.0
    index: Tensor | None = None
    index_scales: Tensor | None = None
    free_pages: list[int] = field(default_factory=list)
    _lengths: list[int] = field(default_factory=list)
    _pages: list[list[int]] = field(default_factory=list)

    @classmethod
    def allocate(
        cls,
        *,
        num_pages: int,
        page_size: int,
        num_kv_heads: int,
        key_dim: int,
        value_dim: int,
        dtype: torch.dtype,
        num_seqs: int,
        max_tokens: int,
        device: torch.device | str,
        latent: bool = False,
        key_scale: float = 1.0,
        value_scale: float = 1.0,
        index: tuple[int, torch.dtype] | None = None,
        shuffle: random.Random | None = None,
    ) -> PagedCache:
        """A zeroed pool of exactly the bytes that its shape says, in one allocation.

        `latent`: values are a view of the keys. `index`: (width, type) of an indexer's key. `shuffle`: hand out
        pages in random order, as a busy engine does. Raises `Unsupported` for a dtype that no kernel reads.
        """
        if dtype not in CACHE_DTYPES:
            raise Unsupported(f"no kernel reads a cache of {dtype}; choose one of {', '.join(map(str, CACHE_DTYPES))}")
        rows = (num_pages, page_size, num_kv_heads)
        shapes: list[tuple[tuple[int, ...], torch.dtype]] = [((*rows, key_dim), dtype)]
        if not latent:
            shapes.append(((*rows, value_dim), dtype))
        if dtype == torch.int8:
            shapes += [(rows, torch.float32)] * (1 if latent else 2)
        num_parts = len(shapes)
        parts = carve(shapes + _index_shapes(rows[:2], index), device)
        keys, values = parts[0], parts[0][..., :value_dim] if latent else parts[1]
        scales, indexed = parts[1 if latent else 2 : num_parts], parts[num_parts:]
        free = list(range(num_pages))[::-1]
        if shuffle is not None:
            shuffle.shuffle(free)
        max_pages = -(-max_tokens // page_size)
        return cls(
            keys=keys,
            values=values,
            block_table=torch.full((num_seqs, max_pages), EVICTED, dtype=torch.int32, device=device),
            lengths=torch.zeros(num_seqs, dtype=torch.int32, device=device),
            key_scales=scales[0] if scales else None,
            value_scales=scales[-1] if scales else None,
            key_scale=key_scale,
            value_scale=value_scale,
            index=indexed[0] if indexed else None,
            index_scales=indexed[1] if indexed[1:] else None,
            free_pages=free,
            _lengths=[0] * num_seqs,
            _pages=[[] for _ in range(num_seqs)],
        )

    @property
    def page_size(self) -> int:
        return self.keys.shape[1]

    @property
    def num_kv_heads(self) -> int:
        return self.keys.shape[2]

    @property
    def is_latent(self) -> bool:
        return self.values.data_ptr() == self.keys.data_ptr()

    @property
    def storage_bytes(self) -> int:
        """Bytes of the pool as the framework holds them; shared storage counts once."""
        parts = [self.keys, self.values, self.key_scales, self.value_scales, self.index]
        return sum(
            {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in parts if t is not None}.values()
        )

    @property
    def held_pages(self) -> int:
        """Pages that sequences hold at this moment."""
        return sum(page != EVICTED for pages in self._pages for page in pages)

    def length(self, sequence: int) -> int:
        """Tokens that a sequence has seen, evicted ones included."""
        return self._lengths[sequence]

    def append(self, k_TKD: Tensor, v_TKE: Tensor | None, counts: Sequence[int]) -> None:
        """Give the next `counts[b]` tokens of every sequence b their slots and write them, one sequence after another.

        `v_TKE` is None for a latent cache. Raises MemoryError when the pool has no page left.
        """
        slots = self.take(counts)
        for launch in self.plan_append(k_TKD, v_TKE, slots):
            launch.run()

    def plan_append(self, k_TKD: Tensor, v_TKE: Tensor | None, slots_T: Tensor) -> list[Launch]:
        """The launches that write tokens into given slots (page · page_size + place), a program per token and head."""
        halves = [(k_TKD, self.keys, self.key_scales, self.key_scale)]
        if v_TKE is not None and not self.is_latent:
            halves.append((v_TKE, self.values, self.value_scales, self.value_scale))
        launches = []
        for new, pool, scales, scale in halves:
            tokens, heads, dim = new.shape
            args = {
                "new_ptr": new.contiguous(),
                "pool_ptr": pool,
                "scales_ptr": scales,
                "slots_ptr": slots_T,
                "inverse_scale": 1.0 / scale,
                "stride_new": heads * dim,
                "num_heads": heads,
                "DIM": dim,
                "DIM_PADDED": triton.next_power_of_2(dim),
                "LIMIT": _limit(pool.dtype),
                "TOKEN_SCALES": scales is not None,
            }
            launches.append(Launch(append_kernel, (tokens, heads), args, num_warps=1))
        return launches

    def evict(self, window: int) -> int:
        """Give back the pages that the next query, at position `length`, cannot see; how many there were.

        The next query sees the keys from length - window + 1 on. Call it after attention and before the next append.
        """
        returned = 0
        for sequence, pages in enumerate(self._pages):
            gone = min(max(self._lengths[sequence] - window + 1, 0) // self.page_size, len(pages))
            before = gone  # what has gone already lies in front, and a long sequence is not searched for it each time
            while before and pages[before - 1] != EVICTED:
                before -= 1
            if before < gone:
                self.free_pages += pages[before:gone]
                returned += gone - before
                pages[before:gone] = [EVICTED] * (gone - before)
                self.block_table[sequence, before:gone] = EVICTED
        return returned

    def take(self, counts: Sequence[int]) -> Tensor:
        """Slots for the next `counts[b]` tokens of every sequence b, not yet written, in pages taken from the pool.

        Raises MemoryError, before anything is taken, when the pool has too few pages.
        """
        missing = [
            max(-(-(self._lengths[b] + count) // self.page_size) - len(self._pages[b]), 0)
            for b, count in enumerate(counts)
        ]
        if sum(missing) > len(self.free_pages):
            raise MemoryError(f"{sum(missing)} pages are needed and {len(self.free_pages)} are free")
        slots = []
        for sequence, count in enumerate(counts):
            pages, start = self._pages[sequence], self._lengths[sequence]
            if missing[sequence]:
                held = len(pages)
                pages += [self.free_pages.pop() for _ in range(missing[sequence])]
                self.block_table[sequence, held : len(pages)] = torch.tensor(pages[held:], dtype=torch.int32)
            position = torch.arange(start, start + count)
            first = start // self.page_size  # earlier pages take nothing
            own = torch.tensor(pages[first:], dtype=torch.int64)
            slots.append(own[position // self.page_size - first] * self.page_size)
            slots[-1] += position % self.page_size
            self._lengths[sequence] = start + count
        self.lengths.copy_(torch.tensor(self._lengths, dtype=torch.int32))
        return torch.cat(slots).to(self.keys.device)


def _index_shapes(
    places: tuple[int, int], index: tuple[int, torch.dtype] | None
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """An indexer's key of every place, and its scale where it is int8; nothing where there is no indexer."""
    if index is None:
        return []
    width, dtype = index
    scales: list[tuple[tuple[int, ...], torch.dtype]] = [(places, torch.float32)] if dtype == torch.int8 else []
    return [((*places, width), dtype), *scales]


def carve(shapes: Sequence[tuple[tuple[int, ...], torch.dtype]], device: torch.device | str) -> list[Tensor]:
    """Tensors of these shapes out of one zeroed allocation, without a byte between them; the widest types lie first."""
    sizes = [prod(shape) * dtype.itemsize for shape, dtype in shapes]
    storage = torch.zeros(sum(sizes), dtype=torch.uint8, device=device)
    widest_first = sorted(range(len(shapes)), key=lambda part: -shapes[part][1].itemsize)  # so that each lies aligned
    split = storage.split([sizes[part] for part in widest_first])
    parts = dict(zip(widest_first, split, strict=True))
    return [parts[part].view(dtype).view(shape) for part, (shape, dtype) in enumerate(shapes)]
