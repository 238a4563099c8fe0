"""Which kernel runs a case, and with what configuration: one function, `choose`, over one small table, `choices.json`.

A row of the table is a configuration that was tried: on a GPU (`measured`, from a record of the GPU suite) or by the
compiler alone (`static`, from `python -m kvplan.validate.aot.tune`). A row measured on this very device wins over any
static one, and the choice says on which of the two it rests. To add a kernel: its name under its operation in
`VARIANTS`, its condition in `can_run`, its candidates in the tuner.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from kvplan.validate.kernels.launch import INTERPRETED, Config, Unsupported, padded
from kvplan.validate.kernels.machine import MACHINES, Machine
from kvplan.validate.kernels.splits import choose_splits

TABLE = Path(__file__).with_name("choices.json")

#: operation → its kernels. Where nothing was measured, the first that can run the case is taken.
VARIANTS = {
    "decode": ("decode_tma", "decode"),
    "mla_decode": ("mla_decode",),
    "prefill": ("prefill_packed_tma", "prefill_tma", "prefill_ws", "prefill"),
}
_TMA_TARGETS = ("sm_90", "sm_100")


@dataclass(frozen=True)
class Problem:
    """The shape of a case: all that the choice of a kernel depends on.

    page_size 0: contiguous keys. num_keys: what the longest sequence's last query sees, within the window.
    """

    operation: str
    batch: int
    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    stored_bits: int
    page_size: int
    num_keys: int
    num_queries: int = 1

    @property
    def group(self) -> int:
        return self.num_heads // self.num_kv_heads

    @property
    def dim(self) -> int:
        """The larger head dimension, as padded; of a latent cache, the part that both products use."""
        size = self.value_dim if self.operation == "mla_decode" else max(self.key_dim, self.value_dim)
        return padded(size)

    @property
    def rows(self) -> int:
        """Rows of one program's matrix product: the query heads that share a key, padded to 16, at most 64."""
        return min(padded(self.group), 64)

    def programs(self, block_m: int) -> int:
        """Programs of one sequence and split, with blocks of so many query heads (0: as many as `rows`)."""
        return self.num_kv_heads * ceil(self.group / (block_m or self.rows))


@dataclass(frozen=True)
class Choice:
    """A kernel by name, its configuration, and what the choice rests on: `measured on DEVICE` or `static model`.

    cost: the table's; measured, the time relative to the fastest of the same case.
    """

    kernel: str
    config: Config
    basis: str
    cost: float = 0.0


def choose(problem: Problem, machine: Machine) -> Choice:
    """The kernel variant and the configuration for a case. Raises `Unsupported` where no kernel runs it."""
    choices = [found for kernel in VARIANTS[problem.operation] if (found := best(kernel, problem, machine))]
    if not choices:
        raise Unsupported(f"no {problem.operation} kernel for {machine.target} runs {problem}")
    measured = [choice for choice in choices if choice.basis != STATIC]
    return min(measured, key=lambda choice: choice.cost) if measured else choices[0]


STATIC = "static model"


def configure(kernel: str, problem: Problem, machine: Machine) -> Config:
    """The configuration of one given kernel. Raises `Unsupported` where it cannot run the case."""
    choice = best(kernel, problem, machine)
    if choice is None:
        raise Unsupported(f"`{kernel}` does not run {problem} on {machine.target}")
    return choice.config


def machine_of(tensor: Tensor) -> Machine:
    """The processor that a launch on this tensor's device goes to; under the interpreter, a Hopper."""
    if INTERPRETED:
        return MACHINES["sm_90"]
    if tensor.is_cuda:
        found = torch.cuda.get_device_properties(tensor.device)
        known = MACHINES.get(_target_name(), MACHINES["sm_80"])
        shared = int(getattr(found, "shared_memory_per_block_optin", known.max_shared_bytes))
        return replace(known, name=found.name, num_sms=found.multi_processor_count, max_shared_bytes=shared)
    return MACHINES[_target_name()]


def _target_name() -> str:
    target = triton.runtime.driver.active.get_current_target()
    if target.backend == "hip":
        return str(target.arch)
    return target_of(target.arch // 10)


def target_of(major: int) -> str:
    """The compiler's target for an NVIDIA processor of that major compute capability."""
    return {8: "sm_80", 9: "sm_90"}.get(major, "sm_100")


def best(kernel: str, problem: Problem, machine: Machine) -> Choice | None:
    """The table's best configuration of one kernel, None where it cannot run the case."""
    fitting = [row for row in _rows(kernel, problem, machine) if can_run(row["kernel"], row["block_n"], problem)]
    if not fitting:
        return None
    own = [row for row in fitting if row["basis"] == "measured" and row["device"] == machine.name]
    static = [row for row in fitting if row["basis"] == "static"]
    row = min(own or static, key=lambda row: row["cost"])
    config = Config(row["block_n"], row["num_warps"], row["num_stages"], block_m=row["block_m"])
    basis = f"measured on {machine.name}" if own else STATIC
    return Choice(kernel, replace(config, num_splits=_splits(config, row, problem, machine)), basis, row["cost"])


def _rows(kernel: str, problem: Problem, machine: Machine) -> Iterator[dict[str, Any]]:
    """The kernel's rows for this target, of the smallest tabled dimension and row count that hold the problem's."""
    same = [
        row
        for row in _table()
        if row["kernel"] == kernel
        and row["target"] == machine.target
        and row["stored_bits"] == problem.stored_bits
        and row.get("shared_bytes", 0) <= machine.max_shared_bytes
        and row["dim"] >= problem.dim
        and (row["rows"] >= problem.rows or problem.operation == "prefill")
    ]
    nearest = min(((row["dim"], row["rows"]) for row in same), default=None)
    return (row for row in same if (row["dim"], row["rows"]) == nearest)


def can_run(kernel: str, block_n: int, problem: Problem) -> bool:
    """Whether a kernel with tiles of `block_n` keys takes the case at all."""
    exact = all(dim == padded(dim) for dim in (problem.key_dim, problem.value_dim))
    if kernel == "decode_tma":
        return exact and problem.page_size % block_n == 0
    if kernel == "prefill_packed_tma":
        return exact and problem.page_size % block_n == 0
    if kernel in ("prefill_tma", "prefill_ws"):
        return exact and problem.key_dim == problem.value_dim and problem.page_size == 0
    return True


def _splits(config: Config, row: dict[str, Any], problem: Problem, machine: Machine) -> int:
    if problem.num_queries > 1 or problem.operation == "prefill":
        return 1
    tiles = ceil(problem.num_keys / config.block_n)
    return choose_splits(
        problem.batch, problem.programs(config.block_m), tiles, machine.num_sms * max(row["blocks_per_sm"], 1)
    )


@cache
def _table() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(TABLE.read_text())["rows"])


def write_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rewrite the table, a row a line, in an order that does not depend on who wrote what first."""
    ordered = sorted(json.dumps(row, sort_keys=True) for row in rows)
    TABLE.write_text('{"rows": [\n' + ",\n".join(ordered) + "\n]}\n")
    _table.cache_clear()
