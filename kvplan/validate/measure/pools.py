"""The caches of a case, really there: how many pages its sequences come to hold, the pools, and their filling.

How many pages a layer needs is not computed but found out: the bookkeeping of a paged cache goes through prompt and
decode without memory behind it, and what it held at most is what is then allocated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kvplan.validate.case import Case
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.launch import Unsupported, run_all
from kvplan.validate.kernels.state import StatePool

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
}
STATE_DTYPES = {32: torch.float32, 16: torch.bfloat16}
INDEX_DTYPES = {32: torch.float32, 16: torch.bfloat16, 8: torch.float8_e4m3fn}
AT_ONCE = 8192
"""Tokens that are written at once: what is drawn for them stays small, and its offsets fit into 32 bits."""
Write = Callable[[PagedCache, Tensor], None]
"""Puts new tokens into given slots."""


def stored_type(name: str) -> torch.dtype:
    """The type of a cache by its name in a case. Raises `Unsupported` for one that no kernel reads."""
    if name not in DTYPES:
        raise Unsupported(f"no kernel reads a cache of {name}; choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def steps(case: Case) -> Iterator[int]:
    """Tokens of each step of a sequence: its prompt in chunks, then one by one."""
    left = case.prompt_len
    while left > 0:
        yield min(left, case.chunk)
        left -= case.chunk
    yield from [1] * case.decode_steps


def grow(cache: PagedCache, case: Case, write: Write | None = None) -> int:
    """Lead all sequences through their steps, giving pages back as they leave the window; the most pages ever held."""
    most, pages = 0, len(cache.free_pages)
    for count in steps(case):
        if case.window is not None:
            cache.evict(case.window)
        slots = cache.take([count] * case.batch)
        most = max(most, pages - len(cache.free_pages))
        if write is not None:
            write(cache, slots)
    return most


def grow_entries(cache: PagedCache, case: Case, write: Write | None = None) -> int:
    """The same for entries, of which one comes whenever so many tokens wait, and none goes; the most pages held."""
    waiting = 0
    for count in steps(case):
        new, waiting = divmod(waiting + count, case.tokens_per_entry)
        slots = cache.take([new] * case.batch)
        if write is not None and new:
            write(cache, slots)
    return cache.held_pages


def pages_held(case: Case) -> int:
    """The most pages that one layer's sequences hold at once, found by leading them through without memory."""
    return _found(*_schedule(case), case.window, None)


def entry_pages_held(case: Case) -> int:
    """Likewise of the entries that tokens are folded into."""
    return _found(*_schedule(case), None, case.tokens_per_entry)


def _schedule(case: Case) -> tuple[int, int, int, int, int, int]:
    return case.batch, case.seq_len, case.prefix_tokens, case.decode_steps, case.chunk, case.page_size


@lru_cache(maxsize=4096)
def _found(
    batch: int, seq_len: int, prefix: int, decoded: int, chunk: int, page: int, window: int | None, ratio: int | None
) -> int:
    """Pages of a schedule: it knows nothing of heads and dimensions, so that layers of many models share the answer."""
    case = Case(
        name="", kind="compressed" if ratio else "full", num_heads=1, num_kv_heads=1, key_dim=1, value_dim=1,
        batch=batch, seq_len=seq_len, prefix_tokens=prefix, decode_steps=decoded, chunk=chunk, page_size=page,
        window=window, ratio=ratio or 0,
    )  # fmt: skip
    cache = paged(case, -(-case.held_len // page) * batch, "meta")
    return grow_entries(cache, case) if ratio else grow(cache, case)


def paged(case: Case, num_pages: int, device: torch.device | str, seed: int | None = None) -> PagedCache:
    """A pool of so many pages for one layer; with a seed, pages are handed out shuffled.

    Raises `Unsupported` for a type that no kernel reads.
    """
    _check_vector(case)
    each = case.index_dim and not case.tokens_per_entry
    return PagedCache.allocate(
        num_pages=num_pages,
        page_size=case.page_size,
        num_kv_heads=1 if case.one_vector else case.num_kv_heads,
        key_dim=case.token_dim,
        value_dim=case.latent_dim if case.is_latent else case.value_dim,
        dtype=stored_type(case.kv_dtype),
        num_seqs=case.batch,
        max_tokens=case.held_len,
        device=device,
        latent=case.one_vector,
        index=(case.index_dim, _index_type(case)) if each else None,
        shuffle=None if seed is None else random.Random(seed),
    )


def entries(case: Case, num_pages: int, device: torch.device | str) -> PagedCache:
    """A pool of so many pages of entries: vectors with an indexer's key each, or those keys alone."""
    _check_vector(case)
    compressed = case.kind == "compressed"
    return PagedCache.allocate(
        num_pages=num_pages,
        page_size=case.page_size,
        num_kv_heads=1,
        key_dim=case.key_dim if compressed else case.index_dim,
        value_dim=case.value_dim if compressed else case.index_dim,
        dtype=stored_type(case.kv_dtype) if compressed else _index_type(case),
        num_seqs=case.batch,
        max_tokens=case.seq_len // case.tokens_per_entry,
        device=device,
        latent=True,
        index=(case.index_dim, _index_type(case)) if compressed and case.index_dim else None,
    )


def _check_vector(case: Case) -> None:
    if case.one_vector and case.kv_dtype == "int8":
        what = "latent" if case.is_latent else "vector that is key and value"
        raise Unsupported(f"no kernel reads a {what} of int8; choose one of bf16, fp16, fp8")


def _index_type(case: Case) -> torch.dtype:
    return stored_type(case.kv_dtype) if case.index_bits is None else INDEX_DTYPES[case.index_bits]


def open_entries(case: Case, device: torch.device | str) -> StatePool:
    """What waits to be an entry: a weighted sum and its weights in fp32, twice where an entry overlaps the next."""
    width = case.index_dim + (case.key_dim if case.kind == "compressed" else 0)
    return StatePool.allocate(
        num_slots=case.batch, device=device, num_heads=2 if case.overlaps else 1, head_state=(2, width)
    )


def states(case: Case, device: torch.device | str) -> StatePool:
    """A slot for every sequence in one layer's pool of recurrent states and convolution columns.

    Raises `Unsupported` for a state of other than 32 or 16 bits.
    """
    linear, own = case.kind == "linear", stored_type(case.dtype)
    if case.state_bits is not None and case.state_bits not in STATE_DTYPES:
        raise Unsupported(f"no kernel reads a state of {case.state_bits} bits; 32 and 16 are supported")
    columns = own if case.conv_bits is None else {64: torch.int64, **STATE_DTYPES}[case.conv_bits]
    return StatePool.allocate(
        num_slots=case.batch,
        device=device,
        num_heads=case.num_kv_heads if linear else 0,
        head_state=(case.key_dim, case.value_dim) if linear else (0, 0),
        state_dtype=own if case.state_bits is None else STATE_DTYPES[case.state_bits],
        vector_elements=case.vector_elements,
        channels=case.conv_channels,
        columns=case.conv_columns,
        conv_dtype=columns,
    )


@dataclass(frozen=True, slots=True)
class LayerCache:
    """All that one layer holds: pages of tokens, pages of entries, and what does not grow."""

    tokens: PagedCache | None = None
    entries: PagedCache | None = None
    states: StatePool | None = None

    @property
    def paged(self) -> list[PagedCache]:
        """The pools that come in pages."""
        return [pool for pool in (self.tokens, self.entries) if pool is not None]

    @property
    def storage_bytes(self) -> int:
        """Of all pools."""
        return sum(pool.storage_bytes for pool in (*self.paged, self.states) if pool is not None)

    def grow(self, case: Case, write: Write | None = None, write_entries: Write | None = None) -> None:
        """Lead the case's sequences through their steps."""
        if self.tokens is not None:
            grow(self.tokens, case, write)
        if self.entries is not None:
            grow_entries(self.entries, case, write_entries or write)


def allocate(case: Case, device: torch.device | str, num_pages: int | None = None) -> LayerCache | None:
    """One layer's cache, its tokens in so many pages, by default as many as it needs; None for what keeps nothing."""
    if case.keeps_nothing:
        return None
    if case.keeps_states:
        return LayerCache(states=states(case, device))
    tokens = paged(case, pages_held(case) if num_pages is None else num_pages, device) if case.paged else None
    if not case.tokens_per_entry:
        return LayerCache(tokens)
    return LayerCache(tokens, entries(case, entry_pages_held(case), device), open_entries(case, device))


def write_bytes(cache: PagedCache, slots: Tensor) -> None:
    """Random bytes into the slots: every byte of a token is touched, whatever its type."""
    for pool in (cache.keys,) if cache.is_latent else (cache.keys, cache.values):
        _write_rows(pool.flatten(2).flatten(0, 1), slots)
    _write_index(cache, slots)
    for scales in (cache.key_scales, cache.value_scales):
        if scales is not None:
            scales.flatten(0, 1)[slots] = 1.0


def _write_index(cache: PagedCache, slots: Tensor) -> None:
    """An indexer's keys, as bytes: no kernel of ours writes them."""
    if cache.index is not None:
        _write_rows(cache.index.flatten(0, 1), slots)
    if cache.index_scales is not None:
        cache.index_scales.flatten()[slots] = 1.0


def _write_rows(rows: Tensor, slots: Tensor) -> None:
    rows = rows.view(torch.uint8)
    for part in slots.split(AT_ONCE):
        rows[part] = torch.randint(256, (len(part), rows.shape[1]), dtype=torch.uint8, device=rows.device)


def append_numbers(cache: PagedCache, slots: Tensor) -> None:
    """Random numbers into the slots by the append kernel, quantised as the pool is."""
    for part in slots.split(AT_ONCE):
        if not cache.keys.numel():  # an indexer's keys alone
            break
        k_TKD = _numbers(part, cache.keys)
        v_TKE = None if cache.is_latent else _numbers(part, cache.values)
        run_all(cache.plan_append(k_TKD, v_TKE, part))
    _write_index(cache, slots)


def _numbers(slots: Tensor, pool_PNKD: Tensor) -> Tensor:
    """One token of a pool's shape for every slot."""
    return torch.randn(len(slots), *pool_PNKD.shape[2:], dtype=torch.bfloat16, device=slots.device)
