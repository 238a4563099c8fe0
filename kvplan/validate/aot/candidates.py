"""What the tuner tries: per kernel, the shapes that the table distinguishes and the configurations worth a compile.

A table's shape is the padded head dimension, the stored width and the rows of a program; a case in between takes the
next larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch

from kvplan.validate.aot.artefact import Artefact
from kvplan.validate.aot.cases import Case
from kvplan.validate.aot.cases import decode as decode_cases
from kvplan.validate.aot.cases import mla as mla_cases
from kvplan.validate.aot.cases import prefill as packed_cases
from kvplan.validate.aot.cases import prefill_tma as prefill_cases
from kvplan.validate.kernels.launch import Config
from kvplan.validate.kernels.mla_decode import DEFAULTS as MLA_CONFIGS
from kvplan.validate.kernels.mla_decode import default_config
from kvplan.validate.kernels.prefill_call import DEFAULTS as PREFILL_CONFIGS

_GFX_TILES = (16, 32, 64)


@dataclass(frozen=True)
class Candidate:
    """One configuration of one kernel for one shape of the table."""

    kernel: str
    stored_bits: int
    dim: int
    rows: int
    config: Config
    case: Case
    tile_products: int = 0  # multiply-adds of one turn of the loop, for kernels bound by the matrix units

    def cycles(self, artefact: Artefact) -> float:
        """Cycles per thousand multiply-adds with tensor work and instruction issue back to back (dense bf16)."""
        tensor = self.tile_products / 2048
        issue = artefact.loop_instructions * artefact.num_warps / 4
        return (tensor + issue) / self.tile_products * 1000


def decode(target: str, *, tma: bool = False) -> Iterator[Candidate]:
    """Decode by pointers at a page of 16 (the hardest), or by TMA at pages that hold the tile."""
    if tma and target not in decode_cases.TMA_TARGETS:
        return
    for dim, stored_bits, rows in product((64, 128, 256), (16, 8), (16, 64)):
        for config in _decode_configs(target, stored_bits, rows):
            kernel = "decode_tma" if tma else "decode"
            dtype = torch.bfloat16 if stored_bits == 16 else torch.int8
            page = config.block_n if tma else 16
            name = f"{kernel} {stored_bits}-bit D{dim} rows {rows} {config}"
            plan = decode_cases.plan(group=rows // 2, key_dim=dim, dtype=dtype, page_size=page, config=config, tma=tma)
            case = Case(name, plan, key_bytes=decode_cases.key_bytes(dim, dtype.itemsize), tma=tma)
            yield Candidate(kernel, stored_bits, dim, rows, config, case)


def _decode_configs(target: str, stored_bits: int, rows: int) -> Iterator[Config]:
    """Tiles × warps × stages; four splits, so that the split path is what is judged."""
    if target.startswith("gfx"):
        tries: Iterable[tuple[int, int, int]] = ((tile, 4, 2) for tile in _GFX_TILES)
    elif rows > 16:
        tries = product((64,), (4, 8), (3,))
    else:
        tiles = (32, 64, 128) if stored_bits == 16 else (64, 128)
        tries = ((tile, warps, stages) for tile in tiles for warps, stages in ((4, 3), (4, 4), (8, 3)))
    for block_n, num_warps, num_stages in tries:
        yield Config(block_n, num_warps, num_stages, num_splits=4)


def decode_tma(target: str) -> Iterator[Candidate]:
    """The TMA variant of decode."""
    return decode(target, tma=True)


def prefill(target: str, *, tma: bool = False) -> Iterator[Candidate]:
    """Prefill with packed rows, by pointers at pages of 16, or by TMA: the kernel's own few configurations."""
    tries = dict.fromkeys(config for *_, config in PREFILL_CONFIGS.get((target, tma), ()))
    for dim, config in product((64, 128, 256), tries):
        kernel = "prefill_packed_tma" if tma else "prefill"
        plan = packed_cases.plan(key_dim=dim, page_size=128 if tma else 16, config=config, tma=tma)
        case = Case(f"{kernel} D{dim} {config}", plan, tma=tma, warpgroup_mma=True)
        products = 2 * config.block_m * config.block_n * dim
        yield Candidate(kernel, 16, dim, 0, config, case, tile_products=products)


def prefill_packed_tma(target: str) -> Iterator[Candidate]:
    """The same by TMA."""
    return prefill(target, tma=True)


def mla_decode(target: str) -> Iterator[Candidate]:
    """Latent decode: the kernel's own few configurations, of which 64 heads may have to take one for 32."""
    for stored_bits, rows in product((16, 8), (16, 32, 64)):
        dtype = torch.bfloat16 if stored_bits == 16 else torch.float8_e4m3fn
        if (target, stored_bits) not in MLA_CONFIGS:
            continue
        tuned, _ = default_config(rows, dtype, target)
        shallower = (tuned, replace(tuned, num_stages=tuned.num_stages - 1)) if tuned.num_stages > 2 else (tuned,)
        for config in shallower:
            plan = mla_cases.plan(heads=rows, dtype=dtype, config=replace(config, num_splits=4))
            key_bytes = mla_cases.BF16 if stored_bits == 16 else mla_cases.FP8
            case = Case(f"mla_decode {stored_bits}-bit rows {rows} {config}", plan, key_bytes=key_bytes)
            yield Candidate("mla_decode", stored_bits, 512, rows, config, case)


def prefill_tma(target: str, *, specialized: bool = False) -> Iterator[Candidate]:
    """Prefill by TMA, plain, or warp-specialised (Hopper alone: on sm_100 it spills)."""
    if target not in (("sm_90",) if specialized else decode_cases.TMA_TARGETS):
        return
    plain = ((128, 128, 8, 2), (128, 128, 8, 3), (128, 64, 8, 3), (128, 64, 8, 2), (64, 64, 4, 3))
    warped = ((128, 64, 4, 3), (128, 64, 4, 2), (128, 128, 4, 2))
    for dim, (block_m, block_n, warps, stages) in product((64, 128, 256), warped if specialized else plain):
        kernel = "prefill_ws" if specialized else "prefill_tma"
        config = Config(block_n, warps, stages, block_m=block_m)
        plan = prefill_cases.by_tma(dim=dim, config=config, specialized=specialized)
        case = Case(f"{kernel} D{dim} {config}", plan, tma=True, warpgroup_mma=True, warp_specialized=specialized)
        yield Candidate(kernel, 16, dim, 0, config, case, tile_products=2 * block_m * block_n * dim)


def prefill_ws(target: str) -> Iterator[Candidate]:
    """The warp-specialised form."""
    return prefill_tma(target, specialized=True)


CANDIDATES: dict[str, Callable[[str], Iterator[Candidate]]] = {
    "decode": decode,
    "decode_tma": decode_tma,
    "mla_decode": mla_decode,
    "prefill": prefill,
    "prefill_packed_tma": prefill_packed_tma,
    "prefill_tma": prefill_tma,
    "prefill_ws": prefill_ws,
}
