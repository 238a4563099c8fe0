"""The caches of a case, really there: how many pages its sequences come to hold, the pools, and their filling.

How many pages a layer needs is not computed but found out: the bookkeeping of a paged cache goes through prompt and
decode without memory behind it, and what it held at most is what is then allocated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

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


def pages_held(case: Case) -> int:
    """The most pages that one layer's sequences hold at once, found by leading them through without memory."""
    return grow(paged(case, -(-case.seq_len // case.page_size) * case.batch, "meta"), case)


def paged(case: Case, num_pages: int, device: torch.device | str, seed: int | None = None) -> PagedCache:
    """A pool of so many pages for one layer; with a seed, pages are handed out shuffled.

    Raises `Unsupported` for a type that no kernel reads.
    """
    latent = case.kind == "latent"
    if latent and case.kv_dtype == "int8":
        raise Unsupported("no kernel reads a latent of int8; choose one of bf16, fp16, fp8")
    return PagedCache.allocate(
        num_pages=num_pages,
        page_size=case.page_size,
        num_kv_heads=1 if latent else case.num_kv_heads,
        key_dim=case.latent_dim + case.rope_dim if latent else case.key_dim,
        value_dim=case.latent_dim if latent else case.value_dim,
        dtype=stored_type(case.kv_dtype),
        num_seqs=case.batch,
        max_tokens=case.seq_len,
        device=device,
        latent=latent,
        shuffle=None if seed is None else random.Random(seed),
    )


def states(case: Case, device: torch.device | str) -> StatePool:
    """A slot for every sequence in one layer's pool of recurrent states and convolution columns.

    Raises `Unsupported` for a state of other than 32 or 16 bits.
    """
    if case.state_bits not in STATE_DTYPES:
        raise Unsupported(f"no kernel reads a state of {case.state_bits} bits; 32 and 16 are supported")
    return StatePool.allocate(
        num_slots=case.batch,
        device=device,
        num_heads=case.num_kv_heads,
        head_state=(case.key_dim, case.value_dim),
        state_dtype=STATE_DTYPES[case.state_bits],
        channels=case.conv_channels,
        columns=case.conv_columns,
        conv_dtype=stored_type(case.dtype),
    )


def allocate(case: Case, device: torch.device | str, num_pages: int | None = None) -> PagedCache | StatePool | None:
    """One layer's cache; None for a layer that keeps nothing."""
    if case.keeps_nothing:
        return None
    if case.kind == "linear":
        return states(case, device)
    return paged(case, pages_held(case) if num_pages is None else num_pages, device)


def write_bytes(cache: PagedCache, slots: Tensor) -> None:
    """Random bytes into the slots: every byte of a token is touched, whatever its type."""
    for pool in (cache.keys,) if cache.is_latent else (cache.keys, cache.values):
        rows = pool.view(torch.uint8).flatten(2).flatten(0, 1)
        for part in slots.split(AT_ONCE):
            rows[part] = torch.randint(256, (len(part), rows.shape[1]), dtype=torch.uint8, device=rows.device)
    for scales in (cache.key_scales, cache.value_scales):
        if scales is not None:
            scales.flatten(0, 1)[slots] = 1.0


def append_numbers(cache: PagedCache, slots: Tensor) -> None:
    """Random numbers into the slots by the append kernel, quantised as the pool is."""
    for part in slots.split(AT_ONCE):
        k_TKD = _numbers(part, cache.keys)
        v_TKE = None if cache.is_latent else _numbers(part, cache.values)
        run_all(cache.plan_append(k_TKD, v_TKE, part))


def _numbers(slots: Tensor, pool_PNKD: Tensor) -> Tensor:
    """One token of a pool's shape for every slot."""
    return torch.randn(len(slots), *pool_PNKD.shape[2:], dtype=torch.bfloat16, device=slots.device)
