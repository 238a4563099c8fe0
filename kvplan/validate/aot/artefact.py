"""What a compiled kernel is made of, read off the binary with the disassembler that Triton's wheel carries."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

from kvplan.validate.kernels.machine import MACHINES

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

# Innermost loops are told by these: a loop without matrix work (a sweep over partial results, say) counts too.
_MATRIX = re.compile(r"\b(?:HGMMA|QGMMA|HMMA|QMMA|IMMA|UTCHMMA|UTCQMMA)\b")


@dataclass(frozen=True)
class Artefact:
    """One kernel compiled for one target.

    spills: accesses to local memory in the machine code. blocks_per_sm 0: not known (AMD). wide, half, narrow copies:
    of 16, of 8 and of fewer bytes (the compiler stages 8-bit values, which the matrix units take transposed, by 8).
    buffers: the tiles in shared memory, as depth × rows × columns × type. loop_instructions: per warp, of the innermost
    loop that does the matrix work; tile_bytes: what one turn of it reads from the cache. warpgroup_batch: warpgroup
    products that run between two waits; the assembler may serialise them without a word.
    """

    target: str
    kernel: str
    registers: int
    stack_bytes: int
    spills: int
    shared_bytes: int
    num_warps: int
    blocks_per_sm: int
    wide_copies: int
    half_copies: int
    narrow_copies: int
    wide_stores: int
    tma_loads: int
    warpgroup_mma: int
    warp_mma: int
    register_moves: int
    buffers: tuple[str, ...]
    loop_instructions: int
    warpgroup_batch: int
    tile_bytes: int

    @property
    def buffer_depth(self) -> int:
        """How many tiles of the least buffered operand are in flight; 0 where nothing goes through shared memory.

        Warp-specialised, the queries too are handed over in shared memory, once: those buffers do not count.
        """
        depths = [int(buffer.split("x")[0]) for buffer in self.buffers]
        if self.register_moves:
            depths = [depth for depth in depths if depth > 1] or depths
        return min(depths, default=0)

    @property
    def issue_ratio(self) -> float | None:
        """Cycles to issue the loop's instructions over cycles in which memory delivers its bytes; 4 warps issue.

        Above about 0.6 the memory waits for the instructions. None where the loop, or what it reads, was not counted.
        """
        if not self.loop_instructions or not self.tile_bytes:
            return None
        return self.loop_instructions * self.num_warps / 4 / MACHINES[self.target].hbm_cycles(self.tile_bytes)


def read(target: str, name: str, compiled: Any, tile_bytes: int = 0) -> Artefact:
    """The artefact of a compiled kernel, whichever vendor's."""
    reader = _read_amd if target.startswith("gfx") else _read_nvidia
    return reader(target, name, compiled, tile_bytes)


def _read_nvidia(target: str, name: str, compiled: Any, tile_bytes: int) -> Artefact:
    ptx, meta = compiled.asm["ptx"], compiled.metadata
    with _binary(compiled.asm["cubin"]) as path:
        usage = _tool("cuobjdump", "--dump-resource-usage", path)
        sass = _tool("nvdisasm", "-c", path)
    registers, stack = _number(r"REG:(\d+)", usage), _number(r"STACK:(\d+)", usage)
    copies = [int(size, 0) for size in re.findall(r"cp\.async\.c[ag]\.[^\n;]*?, (0x[0-9a-f]+|\d+)", ptx)]
    return Artefact(
        target=target,
        kernel=name,
        registers=registers,
        stack_bytes=stack,
        spills=_count(r"\b(?:LDL|STL)\b", sass),
        shared_bytes=meta.shared,
        num_warps=meta.num_warps,
        blocks_per_sm=MACHINES[target].blocks_per_sm(registers, meta.shared, meta.num_warps),
        wide_copies=sum(size == 16 for size in copies) + _count(r"\bLDG\.E\.(?:\w+\.)*128", sass),
        half_copies=copies.count(8),
        narrow_copies=sum(size < 8 for size in copies),
        wide_stores=_count(r"\bSTG\.E\.(?:\w+\.)*128", sass),
        tma_loads=_count(r"\bUTMALDG", sass),
        warpgroup_mma=_count(r"\b(?:HGMMA|QGMMA|UTCHMMA|UTCQMMA)\b", sass),
        warp_mma=_count(r"\b(?:HMMA|QMMA|IMMA)\b", sass),
        register_moves=_count(r"\bUSETMAXREG", sass),
        buffers=_buffers(compiled.asm["ttgir"]),
        loop_instructions=_loop_instructions(sass),
        warpgroup_batch=_warpgroup_batch(sass),
        tile_bytes=tile_bytes,
    )


def _read_amd(target: str, name: str, compiled: Any, tile_bytes: int) -> Artefact:
    code, meta = compiled.asm["amdgcn"], compiled.metadata
    return Artefact(
        target=target,
        kernel=name,
        registers=_number(r"\.vgpr_count:\s+(\d+)", code),
        stack_bytes=_number(r"\.private_segment_fixed_size:\s+(\d+)", code),
        spills=_number(r"\.vgpr_spill_count:\s+(\d+)", code),
        shared_bytes=meta.shared,
        num_warps=meta.num_warps,
        blocks_per_sm=0,
        wide_copies=_count(r"(?:global|buffer)_load_dwordx4", code),
        half_copies=0,
        narrow_copies=0,
        wide_stores=_count(r"(?:global|buffer)_store_dwordx4", code),
        tma_loads=0,
        warpgroup_mma=0,
        warp_mma=_count(r"\bv_mfma", code),
        register_moves=0,
        buffers=_buffers(compiled.asm["ttgir"]),
        loop_instructions=0,
        warpgroup_batch=0,
        tile_bytes=tile_bytes,
    )


def _buffers(ttgir: str) -> tuple[str, ...]:
    """Shared-memory tiles with a pipeline depth, from the allocations of Triton's GPU dialect; barriers left out."""
    found = re.findall(r"ttg\.local_alloc\s*:\s*\(\)\s*->\s*!ttg\.memdesc<(\d+(?:x\d+){2,}x\w+)", ttgir)
    return tuple(found)


def _loop_instructions(sass: str) -> int:
    """Instructions per warp of the hot loop: the smallest innermost with TMA loads, else with matrix work, else any.

    Of a kernel's loops the larger ones apply masks, to a tile or two per program; where there are TMA loads, a loop
    without them does.
    """
    bodies = _inner_loops(sass)
    matrix = [body for body in bodies if any(_MATRIX.search(text) for text in body)]
    tma = [body for body in matrix if any("UTMALDG" in text for text in body)]
    return min((len(body) for body in tma or matrix or bodies), default=0)


def _warpgroup_batch(sass: str) -> int:
    """Warpgroup products per start of a batch, in the loop where they are fewest; 0 where there are none."""
    batches = []
    for body in _inner_loops(sass):
        products = sum("HGMMA" in text or "QGMMA" in text for text in body)
        starts = sum("WARPGROUP.ARRIVE" in text for text in body)
        if products:
            batches.append(products // max(starts, 1))
    return min(batches, default=0)


def _inner_loops(sass: str) -> list[list[str]]:
    """The instructions of each innermost loop: a branch back to an earlier label closes one that holds no other."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in sass.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.search(r"/\*[0-9a-f]{4,6}\*/\s+(.*?)\s*;", line):
            instructions.append(found[1])
    spans = []
    for index, text in enumerate(instructions):
        back = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", text)
        if back and labels.get(back[1], index + 1) <= index:
            spans.append((labels[back[1]], index + 1))
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return [instructions[first:last] for first, last in inner if last - first > 1]


@contextmanager
def _binary(code: bytes) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)
        yield str(path)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([str(_TOOLS / name), *arguments], capture_output=True, text=True, check=True).stdout


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the compiler's report has no `{pattern}`")
    return int(found[1])


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))
