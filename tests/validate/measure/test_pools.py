"""Pools that are really allocated: as many pages as the calculator says, as many bytes, and only the taken ones written."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvplan.validate import predict
from kvplan.validate.case import Case
from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.measure import pools
from kvplan.validate.measure.pools import allocate, append_numbers, grow, paged, pages_held, states, steps, write_bytes

FULL = Case(name="f", kind="full", num_heads=4, num_kv_heads=2, key_dim=16, value_dim=16, seq_len=40, chunk=12)
LATENT = replace(FULL, kind="latent", num_kv_heads=4, key_dim=24, latent_dim=32, rope_dim=8)
LINEAR = replace(FULL, kind="linear", num_kv_heads=4, conv_channels=40, conv_columns=4)
# Jiang et al. 2023, https://arxiv.org/abs/2310.06825: a window of 4096, 8 KV heads of 128
MISTRAL = Case(
    name="m", kind="sliding", num_heads=32, num_kv_heads=8, key_dim=128, value_dim=128, window=4096, seq_len=10_000,
    chunk=512,
)  # fmt: skip


def test_steps_are_the_prompt_in_chunks_and_then_one_by_one():
    assert list(steps(replace(FULL, seq_len=29, decode_steps=3))) == [12, 12, 2, 1, 1, 1]
    assert list(steps(replace(FULL, seq_len=12, decode_steps=0))) == [12]
    assert list(steps(replace(FULL, seq_len=2, decode_steps=2))) == [1, 1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # a chunk arrives while the 4095 tokens before it are seen: 4095 + 512 = 4607 tokens, 287.9 pages
        ({}, 288),
        ({"batch": 5}, 5 * 288),
        # 4096 and a token in turn: at most 257 pages, of which the first is left by degrees
        ({"chunk": 1}, 257),
        ({"chunk": 1, "page_size": 1}, 4096),
        # the whole prompt at once: nothing has left when it arrives
        ({"chunk": 9984}, 624),
        ({"seq_len": 1000, "decode_steps": 8}, 63),
        ({"kind": "full", "window": None}, 625),
    ],
)
def test_pages_worked_by_hand(changes, expected):
    assert pages_held(replace(MISTRAL, **changes)) == expected


@st.composite
def growing(draw):
    seq_len = draw(st.integers(1, 200))
    return replace(
        FULL,
        seq_len=seq_len,
        decode_steps=draw(st.integers(0, min(seq_len, 30))),
        chunk=draw(st.integers(1, 80)),
        page_size=draw(st.sampled_from([1, 2, 3, 16, 24, 64])),
        window=draw(st.one_of(st.none(), st.integers(1, 120))),
        batch=draw(st.integers(1, 3)),
    )


@given(growing())
def test_what_the_bookkeeping_comes_to_hold_is_what_was_planned(case):
    case = replace(case, kind="full" if case.window is None else "sliding")
    assert pages_held(case) == predict.pages(case)


@given(growing())
def test_pages_come_back_as_they_leave_the_window(case):
    """What is left at the end is what the next query would see, and no page is twice."""
    cache = paged(case, pages_held(case), "meta")
    grow(cache, case)
    held = [page for pages in cache._pages for page in pages if page >= 0]
    assert sorted(held + cache.free_pages) == list(range(cache.keys.shape[0]))
    if case.window is None:
        assert not cache.free_pages
    else:
        cache.evict(case.window)
        first_seen = max(case.seq_len - case.window + 1, 0) // case.page_size
        assert [pages.count(-1) for pages in cache._pages] == [min(first_seen, len(pages)) for pages in cache._pages]


KINDS = [
    FULL,
    replace(FULL, batch=3, page_size=24),
    replace(FULL, value_dim=24),
    replace(FULL, kind="sliding", window=7, page_size=4, chunk=5),
    replace(FULL, kind="cross", decode_steps=0, chunk=40),
    LATENT,
    LINEAR,
    replace(LINEAR, state_bits=16, dtype="fp16", batch=2),
    replace(LINEAR, conv_channels=0, conv_columns=0),
]


@pytest.mark.parametrize("kv_dtype", ["fp32", "bf16", "fp16", "fp8", "int8"])
@pytest.mark.parametrize("case", KINDS, ids=lambda case: f"{case.kind}{KINDS.index(case)}")
def test_a_pool_is_as_large_as_planned(case, kv_dtype):
    case = replace(case, kv_dtype="fp8" if case.kind == "latent" and kv_dtype == "int8" else kv_dtype)
    assert allocate(case, "cpu").storage_bytes == predict.pool_bytes(case) > 0


def test_bytes_worked_by_hand():
    """40 tokens in 3 pages of 16. int8 has one fp32 scale per token and head for keys and one for values."""
    assert allocate(FULL, "cpu").storage_bytes == 48 * 2 * (16 + 16) * 2
    assert allocate(replace(FULL, kv_dtype="fp8"), "cpu").storage_bytes == 48 * 2 * 32
    assert allocate(replace(FULL, kv_dtype="int8"), "cpu").storage_bytes == 48 * 2 * (32 + 2 * 4)
    assert allocate(LATENT, "cpu").storage_bytes == 48 * (32 + 8) * 2
    # a state of 16 × 16 in fp32 for each of 4 heads, and 40 channels of 4 columns in bf16
    assert allocate(LINEAR, "cpu").storage_bytes == 4 * 16 * 16 * 4 + 40 * 4 * 2


@pytest.mark.parametrize("kind", ["encoder", "sparse"])
def test_what_only_computes_keeps_nothing(kind):
    case = replace(FULL, kind=kind, window=8 if kind == "sparse" else None)
    assert allocate(case, "cpu") is None
    assert predict.pool_bytes(case) == 0


def test_as_many_pages_as_are_asked_for():
    assert allocate(FULL, "cpu", 7).storage_bytes == 7 * 16 * 128


def test_a_type_that_no_kernel_reads_is_refused():
    with pytest.raises(Unsupported, match="no kernel reads a cache of int4; choose one of fp32, bf16"):
        allocate(replace(FULL, kv_dtype="int4"), "cpu")
    with pytest.raises(Unsupported, match="no kernel reads a latent of int8; choose one of bf16, fp16, fp8"):
        allocate(replace(LATENT, kv_dtype="int8"), "cpu")
    with pytest.raises(Unsupported, match="a state of 8 bits; 32 and 16"):
        states(replace(LINEAR, state_bits=8), "cpu")
    with pytest.raises(Unsupported, match=r"no kernel reads a state of torch\.int8"):
        states(replace(LINEAR, dtype="int8"), "cpu")


def touched(cache) -> torch.Tensor:
    """Which slots of the pool hold another byte than zero, in keys and in values."""
    both = (cache.keys,) if cache.is_latent else (cache.keys, cache.values)
    return torch.stack([pool.view(torch.uint8).flatten(2).flatten(0, 1).ne(0).any(1) for pool in both])


@pytest.mark.parametrize("write", [write_bytes, append_numbers], ids=lambda write: write.__name__)
@pytest.mark.parametrize(
    ("case", "kv_dtype"), [(FULL, "bf16"), (FULL, "fp8"), (FULL, "int8"), (LATENT, "bf16"), (LATENT, "fp8")]
)
def test_only_slots_that_were_taken_are_written(case, kv_dtype, write, monkeypatch):
    monkeypatch.setattr(pools, "AT_ONCE", 5)
    torch.manual_seed(1)
    cache = paged(replace(case, kv_dtype=kv_dtype, batch=2), 7, "cpu", seed=3)
    slots = cache.take([13, 13])
    write(cache, slots)
    expected = torch.zeros(7 * 16, dtype=torch.bool)
    expected[slots] = True
    assert torch.equal(touched(cache), expected.expand(1 if cache.is_latent else 2, -1))
    for scales in (cache.key_scales, cache.value_scales):
        assert scales is None or torch.equal(scales.ne(0).all(2).flatten(), expected)


def test_every_byte_of_a_token_is_touched():
    """A slot drawn again and again has held more than one value at each of its places."""
    cache = paged(FULL, 3, "cpu")
    slots = cache.take([5])
    seen = []
    for _ in range(4):
        write_bytes(cache, slots)
        seen.append(cache.keys.view(torch.uint8).flatten(2).flatten(0, 1)[slots].clone())
    assert torch.stack(seen).float().var(0).gt(0).all()


def test_growth_in_a_pool_of_the_least_size_never_lacks_a_page():
    case = replace(FULL, kind="sliding", window=9, page_size=4, chunk=7, seq_len=60, batch=2)
    cache = paged(case, pages_held(case), "cpu", seed=0)
    written = []
    assert grow(cache, case, lambda cache, slots: written.append(slots)) == pages_held(case)
    assert sum(len(slots) for slots in written) == 2 * 60
    assert cache.block_table.tolist() == [[*pages, *[-1] * (15 - len(pages))] for pages in cache._pages]
    with pytest.raises(MemoryError, match="are free"):
        grow(paged(case, pages_held(case) - 1, "cpu"), case)
