"""`python -m kvplan.validate.suite.adopt RECORD`: take a record's sweep into the table of choices, as measured rows.

The three fastest of each case stay, with their time relative to its fastest as cost; rows measured on the same device
before are replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from kvplan.validate.kernels import select
from kvplan.validate.suite.problems import DECODE, PREFILL
from kvplan.validate.suite.record import Record, read_record

KEPT = 3


def measured_rows(record: Record) -> list[dict[str, Any]]:
    """The table's rows that a record's sweep speaks for."""
    problems = {case.name: case.problem for case in (*DECODE, *PREFILL)}
    rows: list[dict[str, Any]] = []
    for name, problem in problems.items():
        timed = [row for row in record.sweep if row["case"] == name and row["timing"]]
        timed.sort(key=lambda row: float(row["timing"]["median_seconds"]))
        for row in timed[:KEPT]:
            rows.append(_row(row, problem, record, timed[0]["timing"]["median_seconds"]))
    return rows


def _row(row: dict[str, Any], problem: select.Problem, record: Record, fastest: float) -> dict[str, Any]:
    config = row["choice"]["config"]
    return {
        "kernel": row["choice"]["kernel"],
        "target": select.target_of(int(record.device["compute_capability"].split(".")[0])),
        "stored_bits": problem.stored_bits,
        "dim": problem.dim,
        "rows": problem.rows,
        **{name: config[name] for name in ("block_m", "block_n", "num_warps", "num_stages")},
        "blocks_per_sm": _slots(config["num_splits"], problem, record.device["num_sms"], config),
        "basis": "measured",
        "device": record.device["name"],
        "triton": record.device["triton"],
        "date": record.device["date"],
        "cost": round(row["timing"]["median_seconds"] / fastest, 4),
    }


def _slots(splits: int, problem: select.Problem, num_sms: int, config: dict[str, Any]) -> int:
    """Blocks per SM that make the chooser come to about the splits that were fastest."""
    if problem.num_queries > 1:
        return 1
    return max(1, min(16, round(problem.batch * problem.programs(config["block_m"]) * splits / num_sms)))


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
def main(path: Path) -> None:
    """Write the measured rows of the record at PATH into the kernels' table."""
    record = read_record(path)
    rows = measured_rows(record)
    kept = [row for row in json.loads(select.TABLE.read_text())["rows"] if not _same(row, record)]
    select.write_table([*kept, *rows])
    click.echo(f"{len(rows)} rows measured on {record.device['name']}, {len(kept)} kept")


def _same(row: dict[str, Any], record: Record) -> bool:
    return bool(row["basis"] == "measured" and row["device"] == record.device["name"])


if __name__ == "__main__":
    main()
