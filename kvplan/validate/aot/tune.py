"""`python -m kvplan.validate.aot.tune`: try configurations with the compiler alone, write the table's static rows.

The cost is a static model, not a time. Memory-bound kernels: cycles to issue the loop's instructions over cycles in
which memory delivers its bytes, but not below a quarter, where issue no longer matters; raised where fewer than 64 KiB
per SM can be in flight (Little's law: 3.35 TB/s over 132 SMs for 0.7 to 1 µs is 20 to 32 KiB; twice that keeps memory
busy between waves) and where few blocks share an SM, so that one's start and end are not hidden by another's middle.
Matrix-bound kernels: tensor and issue cycles back to back. Measured rows, which
`python -m kvplan.validate.suite.adopt` writes, are kept.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import click
import triton

from kvplan.validate.aot.__main__ import judge
from kvplan.validate.aot.artefact import Artefact
from kvplan.validate.aot.candidates import CANDIDATES, Candidate
from kvplan.validate.aot.gates import broken
from kvplan.validate.aot.offline import TARGETS
from kvplan.validate.kernels.select import TABLE, write_table

IN_FLIGHT_BYTES = 64 * 1024
ISSUE_FLOOR = 0.25
LONELINESS = 0.5
SHAPE = ("kernel", "target", "stored_bits", "dim", "rows")


def cost(artefact: Artefact, candidate: Candidate) -> float:
    """The static model's cost: lower is better; only rows of one kernel, target and shape compare."""
    if artefact.target.startswith("gfx"):
        return round(1 / candidate.config.block_n, 4)  # its loop is not counted: the largest tile that fits
    ratio = artefact.issue_ratio
    if ratio is None:
        return round(candidate.cycles(artefact), 4)
    in_flight = artefact.blocks_per_sm * artefact.tile_bytes * artefact.buffer_depth
    shortage = max(1.0, IN_FLIGHT_BYTES / max(in_flight, 1))
    return round(max(ratio, ISSUE_FLOOR) * shortage * (1 + LONELINESS / artefact.blocks_per_sm), 4)


def row(candidate: Candidate, target: str) -> dict[str, Any] | None:
    """The table's row of one candidate, or None if it fails a gate."""
    verdict = judge(candidate.case, target)
    artefact = verdict.artefact
    click.echo(f"{target} {candidate.case.name}: {'; '.join(verdict.failures) or 'ok'}", err=True)
    if artefact is None or broken(candidate.case, artefact):
        return None
    config = candidate.config
    return {
        "kernel": candidate.kernel,
        "target": target,
        "stored_bits": candidate.stored_bits,
        "dim": candidate.dim,
        "rows": candidate.rows,
        "block_m": config.block_m,
        "block_n": config.block_n,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        "blocks_per_sm": artefact.blocks_per_sm,
        "shared_bytes": artefact.shared_bytes,
        "basis": "static",
        "triton": triton.__version__,
        "cost": cost(artefact, candidate),
    }


@click.command()
@click.option("--target", "targets", multiple=True, type=click.Choice(list(TARGETS)))
@click.option("--kernel", "kernels", multiple=True, type=click.Choice(list(CANDIDATES)))
def main(targets: tuple[str, ...], kernels: tuple[str, ...]) -> None:
    """Compile every candidate and rewrite the static rows of the kernels' table (of these targets and kernels)."""
    chosen = list(itertools.product(kernels or CANDIDATES, targets or TARGETS))
    kept = [old for old in json.loads(TABLE.read_text())["rows"] if _keep(old, chosen)]
    made = [made for kernel, target in chosen for c in CANDIDATES[kernel](target) if (made := row(c, target))]
    made = _best_per_tile(made)
    write_table(kept + made)
    click.echo(f"{len(made)} rows written, {len(kept)} kept")


def _best_per_tile(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cheapest row of each shape and tile; every tile stays, since a page may not hold the best one."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for made in sorted(rows, key=lambda row: float(row["cost"])):
        best.setdefault(tuple(made[name] for name in (*SHAPE, "block_n")), made)
    return list(best.values())


def _keep(old: dict[str, Any], chosen: list[tuple[str, str]]) -> bool:
    return old["basis"] != "static" or (old["kernel"], old["target"]) not in chosen


if __name__ == "__main__":
    main()
