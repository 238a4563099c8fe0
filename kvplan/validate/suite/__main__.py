"""`python -m kvplan.validate.suite`: everything that a GPU can say of the kernels, in one run and one record.

Correctness, ceilings, sweep, benchmark, in this order, so that what is cut off by the clock is the least needed. With
`--device cpu` the kernels run in Triton's interpreter, correctness alone, and no figure is a GPU's.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

STAGES = ("correctness", "ceilings", "sweep", "benchmark")


@click.command()
@click.option("--device", default="cuda", type=click.Choice(["cuda", "cpu"]), show_default=True)
@click.option("--out", "out", type=click.Path(path_type=Path), help="The record.  [default: kernels-DEVICE.json]")
@click.option("--only", "only", multiple=True, type=click.Choice(STAGES), help="Default: all stages.")
@click.option("--minutes", default=8.0, show_default=True, help="Start nothing new after that.")
def main(device: str, out: Path | None, only: tuple[str, ...], minutes: float) -> None:
    """Check the kernels on this machine's GPU and time them beside others; exit 1 if one is wrong or fails."""
    started = time.monotonic()
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    try:
        from kvplan.validate.suite import run
    except ImportError as error:
        click.echo(f"error: this needs torch and Triton: {error}\n\nhint: pip install 'kvplan[gpu]'", err=True)
        sys.exit(2)
    if device == "cuda" and not run.has_gpu():
        click.echo("error: there is no GPU here\n\nhint: `--device cpu` checks the kernels without one", err=True)
        sys.exit(2)
    stages = [stage for stage in STAGES if not only or stage in only]
    suite = run.Suite(device, deadline=started + 60 * minutes, say=lambda text: click.echo(text))
    record = suite.run(stages)
    record.total_seconds = round(time.monotonic() - started, 1)
    path = out or Path(f"kernels-{record.device.name.replace(' ', '-').lower()}.json")
    record.write(path)
    click.echo(f"{record.total_seconds:.0f} s; written to {path}")
    sys.exit(1 if record.failures else 0)


if __name__ == "__main__":
    main()
