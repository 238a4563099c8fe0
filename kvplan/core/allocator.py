"""What torch's CUDA caching allocator takes for a sequence of requests, block by block.

    requested   what tensors ask for
    allocated   the blocks that serve them: rounded up to 512 bytes, or more where a rest is too small to split off
    reserved    the segments that the blocks are cut from, kept until `empty_cache` finds them wholly free

One stream of one device with default settings (no `max_split_size_mb`, `roundup_power2_divisions` or garbage
collection; `expandable_segments` on demand), graphs' private pools apart. Memory has no end here: what torch gives back
before it runs out is not modelled. New segments lie at rising addresses, which decides only between blocks of one size.

Source: torch 2.13, c10/core/AllocatorConfig.h:17-25, 340 (sizes) and c10/cuda/CUDACachingAllocator.cpp (rules, here by
the function's name)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kvplan.core.errors import InputError
from kvplan.core.units import MIB, round_up

BLOCK = 512
SMALL_REQUEST = 1 * MIB
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB
HUGE_REQUEST = 10 * MIB
HUGE_STEP = 2 * MIB
_ADDRESS_SPACE = 2**60
"""An expandable segment's: torch reserves 9/8 of the GPU's memory, here there is room for any request."""


def block_bytes(num_bytes: int) -> int:
    """A request rounded up to whole 512 bytes; nothing for nothing.

    Source: `round_size`; `NativeCachingAllocator::allocate` takes no block for zero bytes
    """
    return round_up(num_bytes, BLOCK)


def segment_bytes(num_bytes: int) -> int:
    """What the driver is asked for when no cached block serves the request.

        block ≤ 1 MiB    2 MiB
        block < 10 MiB   20 MiB
        else             block rounded up to 2 MiB

    Source: `get_allocation_size`
    """
    block = block_bytes(num_bytes)
    if block <= SMALL_REQUEST:
        return SMALL_SEGMENT if block else 0
    return LARGE_SEGMENT if block < HUGE_REQUEST else round_up(block, HUGE_STEP)


class CachingAllocator:
    """The allocator's state after the requests so far, and the highest that each figure has been.

    `free_small` and `free_large` are the sizes of the free blocks that the process had before, in the order of their
    addresses: the `inactive` blocks of `torch.cuda.memory_snapshot()`, read after `torch.cuda.empty_cache()`, so that
    each lies in a segment which something else uses in part and which is therefore never returned. They count as
    reserved from the start: what a sequence of requests adds is a difference.
    """

    def __init__(
        self, *, free_small: Sequence[int] = (), free_large: Sequence[int] = (), expandable_segments: bool = False
    ) -> None:
        """Raises InputError for a size that no free block can have, and for free blocks of expandable segments."""
        if expandable_segments and (free_small or free_large):
            message = "free blocks of expandable segments do not say what can be mapped behind them"
            raise InputError(message, hint="start without free blocks, or without expandable segments")
        for sizes, limit in ((free_small, SMALL_SEGMENT), (free_large, _ADDRESS_SPACE)):
            if wrong := [size for size in sizes if size <= 0 or size % BLOCK or size >= limit]:
                message = f"no part of a segment is a free block of {wrong[0]:,} bytes"
                raise InputError(message, hint="read the snapshot after `torch.cuda.empty_cache()`")
        self._small = _Pool(SMALL_SEGMENT, free_small, expandable=expandable_segments, splits_finely=True)
        self._large = _Pool(
            LARGE_SEGMENT, free_large, expandable=expandable_segments, splits_finely=expandable_segments
        )
        self._used: dict[int, tuple[_Pool, _Block, int] | None] = {}
        self._next_handle = 0
        self.requested_bytes = 0
        self.allocated_bytes = 0
        self.peak_requested_bytes = 0
        self.peak_allocated_bytes = 0
        self.peak_reserved_bytes = self.reserved_bytes

    @property
    def reserved_bytes(self) -> int:
        """Bytes of all segments, or those mapped of expandable ones."""
        return self._small.reserved_bytes + self._large.reserved_bytes

    def allocate(self, num_bytes: int) -> int:
        """Serve one request and return its handle. Raises InputError for a negative size.

        Source: `malloc`, `get_pool`
        """
        if num_bytes < 0:
            raise InputError(f"a request cannot be of {num_bytes} bytes", hint="zero or more")
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._used[handle] = None
        if num_bytes:
            size = block_bytes(num_bytes)
            pool = self._small if size <= SMALL_REQUEST else self._large
            block = pool.take(size)
            self._used[handle] = (pool, block, num_bytes)
            self.requested_bytes += num_bytes
            self.allocated_bytes += block.num_bytes
            self.peak_requested_bytes = max(self.peak_requested_bytes, self.requested_bytes)
            self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
            self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        return handle

    def free(self, handle: int) -> None:
        """Give a block back to its pool; its segment stays reserved. Raises InputError for a handle not in use."""
        if handle not in self._used:
            raise InputError(f"nothing is allocated under handle {handle}", hint="free each handle once")
        used = self._used.pop(handle)
        if used is not None:
            pool, block, num_bytes = used
            self.requested_bytes -= num_bytes
            self.allocated_bytes -= block.num_bytes
            pool.give(block)

    def empty_cache(self) -> None:
        """Return to the driver what is wholly free: segments, or whole pages of expandable ones."""
        self._large.release()
        self._small.release()


@dataclass(eq=False, slots=True)
class _Block:
    """A stretch of a segment, free or used; of an expandable one also a stretch without memory behind it."""

    address: int
    num_bytes: int
    segment: int
    free: bool = True
    mapped: bool = True


class _Pool:
    """All blocks for small requests, or for large ones, in the order of their addresses."""

    def __init__(self, page_bytes: int, free_blocks: Sequence[int], *, expandable: bool, splits_finely: bool) -> None:
        self._page_bytes = page_bytes
        self._expandable = expandable
        self._smallest_rest = BLOCK if splits_finely else SMALL_REQUEST + BLOCK
        self._blocks: list[_Block] = []
        self.reserved_bytes = 0
        for size in free_blocks:
            self._add_segment(size)
        self._first_own_segment = len(self._blocks)
        if expandable:
            self._blocks.append(_Block(address=0, num_bytes=_ADDRESS_SPACE, segment=0, mapped=False))

    def take(self, size: int) -> _Block:
        """The block that serves a request of `size`, its rest split off where that is large enough.

        Source: `should_split`: at least 512 bytes in the small pool and in expandable segments, else more than 1 MiB
        """
        block = self._best_fit(size)
        if block is None:
            block = self._grow(size) if self._expandable else self._add_segment(segment_bytes(size))
        if block.num_bytes - size >= self._smallest_rest:
            self._split(block, size)
        block.free = False
        return block

    def give(self, block: _Block) -> None:
        """Free a block and merge it with the free blocks beside it. Source: `free_block`."""
        block.free = True
        self._merge(block)

    def release(self) -> None:
        """Source: `release_blocks`, `unmap_block`."""
        for block in [block for block in self._blocks if block.free and block.mapped]:
            if self._expandable:
                self._unmap(block)
            elif block.segment >= self._first_own_segment and not self._neighbours(block):
                self._blocks.remove(block)
                self.reserved_bytes -= block.num_bytes

    def _best_fit(self, size: int) -> _Block | None:
        """The smallest free block that is large enough, the lowest of equals.

        In an expandable segment a block counts with what can be mapped behind it, so that its end is taken last.

        Source: `get_free_block`, `BlockComparatorSize`
        """
        found = [block for block in self._blocks if block.free and block.mapped and block.num_bytes >= size]
        found.sort(key=lambda block: (block.num_bytes, block.address))
        for block, following in pairwise(found):
            if self._room(following) >= self._room(block):
                return block
        return found[-1] if found else None

    def _room(self, block: _Block) -> int:
        after = self._blocks.index(block) + 1
        behind = self._blocks[after] if after < len(self._blocks) else block
        return block.num_bytes if behind.mapped else block.num_bytes + behind.num_bytes

    def _add_segment(self, num_bytes: int) -> _Block:
        """A new segment, one free block. Source: `alloc_block`."""
        last = self._blocks[-1] if self._blocks else _Block(address=0, num_bytes=0, segment=-1)
        block = _Block(address=last.address + last.num_bytes, num_bytes=num_bytes, segment=last.segment + 1)
        self._blocks.append(block)
        self.reserved_bytes += num_bytes
        return block

    def _grow(self, size: int) -> _Block:
        """Map pages at the lowest address where free and unmapped stretches together hold `size`.

        Source: `find_expandable_block`, `try_allocate_expandable_block`
        """
        block = self._lowest_stretch(size)
        if not block.mapped:
            block = self._map(block, min(block.num_bytes, size))
        while block.num_bytes < size:
            gap = self._blocks[self._blocks.index(block) + 1]
            block = self._map(gap, min(gap.num_bytes, size - block.num_bytes))
        return block

    def _lowest_stretch(self, size: int) -> _Block:
        for i, gap in enumerate(self._blocks):
            if gap.mapped:
                continue
            start = i - 1 if i and self._blocks[i - 1].free else i
            room = 0
            for block in self._blocks[start:]:
                if not block.free or room >= size:
                    break
                room += block.num_bytes
            if room >= size:
                return self._blocks[start]
        raise InputError(f"no address space holds {size:,} bytes", hint="use a smaller request")

    def _map(self, gap: _Block, size: int) -> _Block:
        """Put whole pages behind the start of an unmapped stretch. Source: `map_block`."""
        mapped = round_up(size, self._page_bytes)
        if mapped < gap.num_bytes:
            self._split(gap, mapped)
        gap.mapped = True
        self.reserved_bytes += mapped
        return self._merge(gap)

    def _unmap(self, block: _Block) -> None:
        """Take away the whole pages of a free block; what is left of pages in use stays."""
        start = round_up(block.address, self._page_bytes)
        stop = (block.address + block.num_bytes) // self._page_bytes * self._page_bytes
        if start >= stop:
            return
        if block.address < start:
            block = self._split(block, start - block.address)
        if block.num_bytes > stop - start:
            self._split(block, stop - start)
        block.mapped = False
        self.reserved_bytes -= stop - start
        self._merge(block)

    def _split(self, block: _Block, size: int) -> _Block:
        """Cut a block after `size` bytes; returns the rest, as free and as mapped as the block is."""
        rest = _Block(block.address + size, block.num_bytes - size, block.segment, block.free, block.mapped)
        block.num_bytes = size
        self._blocks.insert(self._blocks.index(block) + 1, rest)
        return rest

    def _merge(self, block: _Block) -> _Block:
        """Join a free block with those beside it. Source: `try_merge_blocks`."""
        for other in self._neighbours(block):
            if other.free and other.mapped == block.mapped:
                block.address = min(block.address, other.address)
                block.num_bytes += other.num_bytes
                self._blocks.remove(other)
        return block

    def _neighbours(self, block: _Block) -> list[_Block]:
        """The blocks beside it in its segment."""
        i = self._blocks.index(block)
        beside = self._blocks[max(i - 1, 0) : i] + self._blocks[i + 1 : i + 2]
        return [other for other in beside if other.segment == block.segment]
