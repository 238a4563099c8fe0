"""torch's caching allocator, worked by hand from its source, and what must hold for any sequence of requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.allocator import CachingAllocator, block_bytes, segment_bytes
from kvplan.core.errors import InputError
from kvplan.core.units import MIB, round_up

# Constants: torch 2.13, c10/core/AllocatorConfig.h:17-25, 340. Rules: c10/cuda/CUDACachingAllocator.cpp.
ONE_REQUEST = {
    # request, its block, a new segment for it, what is counted as allocated
    "nothing": (0, 0, 0, 0),  # allocate: `if (size != 0)`
    "a byte": (1, 512, 2 * MIB, 512),  # kMinBlockSize, kSmallBuffer
    "a block": (512, 512, 2 * MIB, 512),
    "a byte more than a block": (513, 1024, 2 * MIB, 1024),
    "the largest small one": (MIB, MIB, 2 * MIB, MIB),  # kSmallSize
    "the smallest large one": (MIB + 1, MIB + 512, 20 * MIB, MIB + 512),  # large_segment_size
    "the largest that shares a segment": (10 * MIB - 512, 10 * MIB - 512, 20 * MIB, 10 * MIB - 512),
    "rounded up to a segment of its own": (10 * MIB - 511, 10 * MIB, 10 * MIB, 10 * MIB),  # kMinLargeAlloc
    "its own segment": (10 * MIB, 10 * MIB, 10 * MIB, 10 * MIB),
    "a rest of 2 MiB less 512": (10 * MIB + 1, 10 * MIB + 512, 12 * MIB, 10 * MIB + 512),  # kRoundLarge
    "a rest of just above 1 MiB": (11 * MIB - 512, 11 * MIB - 512, 12 * MIB, 11 * MIB - 512),
    # should_split: the rest must be more than 1 MiB, else the whole segment is the block
    "a rest of 1 MiB": (11 * MIB, 11 * MIB, 12 * MIB, 12 * MIB),
    "a KV pool of 100 MiB and a byte": (100 * MIB + 1, 100 * MIB + 512, 102 * MIB, 100 * MIB + 512),
}


@pytest.mark.parametrize(("request_", "block", "segment", "allocated"), ONE_REQUEST.values(), ids=ONE_REQUEST)
def test_one_request(request_, block, segment, allocated):
    assert (block_bytes(request_), segment_bytes(request_)) == (block, segment)
    allocator = CachingAllocator()
    allocator.allocate(request_)
    assert (allocator.requested_bytes, allocator.allocated_bytes, allocator.reserved_bytes) == (
        request_,
        allocated,
        segment,
    )


SEQUENCES = {
    # MiB requested one after another, MiB allocated, MiB reserved
    "two small ones share a segment": ((1, 1), 2, 2),
    "the third needs another": ((1, 1, 1), 3, 4),
    "two of 9 share 20": ((9, 9), 18, 20),
    "their rest of 2 serves 2": ((9, 9, 2), 20, 20),
    "a rest of half a MiB is not split off": ((9, 9, 1.5), 20, 20),
    "a rest of half a MiB is split off in the small pool": ((1, 0.5, 0.5), 2, 2),
    "a rest of 512 bytes is split off there": ((1, 1 - 1 / 2048), 2 - 1 / 2048, 2),
    "2 take the rest of 2, and leave that of 11 whole": ((9, 9, 9, 2, 11), 40, 40),
    "small requests take no large rest": ((9, 9, 1), 19, 22),
    "a large one takes a rest that is large enough": ((9, 11), 20, 20),
    "each from 10 on has its own": ((10, 30, 11.5), 10 + 30 + 12, 10 + 30 + 12),
}


@pytest.mark.parametrize(("requests", "allocated", "reserved"), SEQUENCES.values(), ids=SEQUENCES)
def test_sequences(requests, allocated, reserved):
    allocator = CachingAllocator()
    for mib in requests:
        allocator.allocate(int(mib * MIB))
    assert (allocator.allocated_bytes / MIB, allocator.reserved_bytes / MIB) == (allocated, reserved)


def test_a_freed_block_merges_with_its_neighbours_and_only_a_whole_segment_goes_back():
    allocator = CachingAllocator()
    first, second, third = (allocator.allocate(6 * MIB) for _ in range(3))  # one segment of 20
    allocator.free(first)
    allocator.free(third)  # joins the rest of 2: 8 MiB
    allocator.allocate(7 * MIB)
    assert allocator.reserved_bytes == 20 * MIB
    allocator.allocate(7 * MIB)  # the first 6 MiB are too small
    assert allocator.reserved_bytes == 40 * MIB
    allocator.free(second)  # joins the 6 MiB before it
    allocator.allocate(12 * MIB)
    assert allocator.reserved_bytes == 40 * MIB
    allocator.empty_cache()
    assert allocator.reserved_bytes == 40 * MIB


def test_the_lower_of_two_equal_blocks_is_taken():
    # BlockComparatorSize: by size, then by address.
    allocator = CachingAllocator()
    handles = [allocator.allocate(half_mib * MIB // 2) for half_mib in (18, 19, 21)]
    assert allocator.reserved_bytes == (20 + 12) * MIB  # each with a rest of 1.5
    allocator.allocate(3 * MIB // 2)
    for handle in handles:
        allocator.free(handle)
    allocator.empty_cache()
    assert allocator.reserved_bytes == 20 * MIB


def test_peaks_stay_when_everything_has_gone():
    allocator = CachingAllocator()
    handles = [allocator.allocate(11 * MIB), allocator.allocate(1)]
    for handle in handles:
        allocator.free(handle)
    assert (allocator.requested_bytes, allocator.allocated_bytes, allocator.reserved_bytes) == (0, 0, 14 * MIB)
    allocator.empty_cache()
    assert allocator.reserved_bytes == 0
    assert allocator.peak_requested_bytes == 11 * MIB + 1
    assert allocator.peak_allocated_bytes == 12 * MIB + 512
    assert allocator.peak_reserved_bytes == 14 * MIB


def test_blocks_that_were_free_before_serve_first_and_never_go_back():
    # E.g. behind the 32 MiB of a cuBLAS workspace and a few scalars.
    allocator = CachingAllocator(free_small=(2 * MIB - 512,), free_large=(3 * MIB, 5 * MIB))
    start = allocator.reserved_bytes
    assert start == 10 * MIB - 512
    handles = [allocator.allocate(4 * MIB), allocator.allocate(1000), allocator.allocate(2 * MIB)]
    assert allocator.reserved_bytes == start
    # 4 of 5 MiB leave a rest of 1, which is not split off; so do 2 of 3.
    assert allocator.allocated_bytes == 5 * MIB + 1024 + 3 * MIB
    handles.append(allocator.allocate(2 * MIB))
    assert allocator.reserved_bytes == start + 20 * MIB
    for handle in handles:
        allocator.free(handle)
    allocator.empty_cache()
    assert allocator.reserved_bytes == start


def test_expandable_segments_map_pages_and_take_holes_first():
    allocator = CachingAllocator(expandable_segments=True)
    first = allocator.allocate(30 * MIB)
    assert allocator.reserved_bytes == 40 * MIB
    allocator.allocate(30 * MIB)  # 10 MiB of it are there
    assert allocator.reserved_bytes == 60 * MIB
    allocator.free(first)
    allocator.empty_cache()  # the page that both share stays
    assert allocator.reserved_bytes == 40 * MIB
    allocator.allocate(25 * MIB)  # the hole of 20 and the 10 behind it
    assert allocator.reserved_bytes == 60 * MIB
    allocator.allocate(5 * MIB)
    assert allocator.reserved_bytes == 60 * MIB
    allocator.allocate(1)
    assert allocator.reserved_bytes == 62 * MIB


def test_in_an_expandable_segment_the_end_is_taken_last():
    # get_free_block: 4 MiB in the middle before 3 MiB at the end, since the end can grow.
    allocator = CachingAllocator(expandable_segments=True)
    first = allocator.allocate(4 * MIB)
    allocator.allocate(13 * MIB)
    allocator.free(first)
    for size in (5 * MIB // 2, 3 * MIB, 5 * MIB // 4):
        allocator.allocate(size)
    assert allocator.reserved_bytes == 20 * MIB


SIZES = st.one_of(
    st.integers(0, 4 * MIB),
    st.integers(MIB, 40 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB, 11 * MIB, 20 * MIB]),
)
STEPS = st.lists(st.one_of(SIZES, st.tuples(st.integers(0, 30)), st.none()), max_size=40)


@pytest.mark.parametrize("expandable", [False, True])
@given(steps=STEPS)
def test_laws_of_any_sequence(expandable, steps):
    """A number is a request, (i,) frees one of the live handles, None empties the cache."""
    allocator = CachingAllocator(expandable_segments=expandable)
    live = {}
    peak = 0
    for step in steps:
        if step is None:
            before = allocator.reserved_bytes
            allocator.empty_cache()
            assert allocator.reserved_bytes <= before
        elif isinstance(step, tuple):
            if live:
                handle = sorted(live)[step[0] % len(live)]
                allocator.free(handle)
                del live[handle]
        else:
            live[allocator.allocate(step)] = step
        peak = max(peak, allocator.reserved_bytes)
        blocks = sum(map(block_bytes, live.values()))
        assert allocator.requested_bytes == sum(live.values()) <= blocks
        waste = 0 if expandable else MIB * sum(size > MIB for size in live.values())
        assert blocks <= allocator.allocated_bytes <= blocks + waste
        assert allocator.allocated_bytes <= allocator.reserved_bytes == round_up(allocator.reserved_bytes, 2 * MIB)
        assert allocator.peak_reserved_bytes == peak
    for handle in live:
        allocator.free(handle)
    assert (allocator.requested_bytes, allocator.allocated_bytes) == (0, 0)
    allocator.empty_cache()
    assert allocator.reserved_bytes == 0


@given(sizes=st.lists(st.integers(10 * MIB, 200 * MIB), max_size=12), data=st.data())
def test_from_10_mib_on_the_order_does_not_matter(sizes, data):
    allocators = CachingAllocator(), CachingAllocator()
    for allocator, order in zip(allocators, (sizes, data.draw(st.permutations(sizes))), strict=True):
        for size in order:
            allocator.allocate(size)
        assert allocator.reserved_bytes == sum(map(segment_bytes, sizes))
    assert allocators[0].allocated_bytes == allocators[1].allocated_bytes


@given(sizes=st.lists(SIZES, max_size=30))
def test_growing_expandable_segments_leave_no_rest_between(sizes):
    allocator = CachingAllocator(expandable_segments=True)
    for size in sizes:
        allocator.allocate(size)
    blocks = [block_bytes(size) for size in sizes]
    small = sum(block for block in blocks if block <= MIB)
    assert allocator.reserved_bytes == round_up(small, 2 * MIB) + round_up(sum(blocks) - small, 20 * MIB)


@pytest.mark.parametrize("expandable", [False, True])
@given(size=SIZES, data=st.data())
def test_what_fits_a_freed_block_reserves_nothing(expandable, size, data):
    allocator = CachingAllocator(expandable_segments=expandable)
    allocator.free(allocator.allocate(size))
    before = allocator.reserved_bytes
    lowest = MIB + 1 if size > MIB else 0
    allocator.allocate(data.draw(st.integers(min(lowest, size), size)))
    assert allocator.reserved_bytes == before


def test_refusals():
    allocator = CachingAllocator()
    handle = allocator.allocate(0)
    allocator.free(handle)
    for wrong in (
        lambda: allocator.free(handle),
        lambda: allocator.allocate(-1),
        lambda: CachingAllocator(free_small=(2 * MIB,)),  # a whole segment: the cache was not emptied
        lambda: CachingAllocator(free_large=(1000,)),
        lambda: CachingAllocator(free_large=(0,)),
        lambda: CachingAllocator(free_large=(4 * MIB,), expandable_segments=True),
    ):
        with pytest.raises(InputError) as caught:
            wrong()
        assert caught.value.hint
