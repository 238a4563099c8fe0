"""The processors that the kernels are compiled for: what bounds occupancy, and the rates that the static model uses.

Limits: CUDA C++ Programming Guide, table of technical specifications per compute capability; AMD CDNA 3 ISA guide.
Rates: the vendors' data sheets (A100 SXM 80 GB, H100 SXM, B200, MI300X); the clock is the boost clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Machine:
    """One processor; bytes, hertz and bytes per second. `target` is the compiler's name of its architecture."""

    name: str
    target: str
    num_sms: int
    clock_hz: float
    hbm_bytes_per_second: float
    max_shared_bytes: int  # of one block
    sm_shared_bytes: int
    sm_registers: int = 65_536
    sm_warps: int = 64
    sm_blocks: int = 32

    def blocks_per_sm(self, registers: int, shared_bytes: int, num_warps: int) -> int:
        """How many blocks fit on one SM at once.

        Registers are given out per warp in units of 256, by each of the SM's four partitions for its own warps; shared
        memory in units of 128 bytes, with 1 KiB per block taken by the system (CUDA's occupancy rules).
        """
        per_warp = ceil(max(registers, 1) * 32 / 256) * 256
        by_registers = self.sm_registers // 4 // per_warp * 4 // num_warps
        by_shared = self.sm_shared_bytes // (ceil((shared_bytes + 1024) / 128) * 128)
        return min(by_registers, by_shared, self.sm_warps // num_warps, self.sm_blocks)

    def hbm_cycles(self, num_bytes: int) -> float:
        """Clock cycles in which one SM's share of the memory bandwidth delivers `num_bytes`."""
        return num_bytes / (self.hbm_bytes_per_second / self.num_sms) * self.clock_hz


MACHINES = {
    "sm_80": Machine("A100 SXM 80 GB", "sm_80", 108, 1.41e9, 2.039e12, 166_912, 167_936),
    "sm_90": Machine("H100 SXM", "sm_90", 132, 1.755e9, 3.35e12, 232_448, 233_472),
    "sm_100": Machine("B200", "sm_100", 148, 1.85e9, 8.0e12, 232_448, 233_472),
    "gfx942": Machine("MI300X", "gfx942", 304, 2.1e9, 5.3e12, 65_536, 65_536),
}
