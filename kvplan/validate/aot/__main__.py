"""`python -m kvplan.validate.aot`: compile every case for every target, judge it, print the table."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import triton

from kvplan.validate.aot.artefact import Artefact, read
from kvplan.validate.aot.cases import Case
from kvplan.validate.aot.gates import failures
from kvplan.validate.aot.offline import TARGETS, compile_for
from kvplan.validate.aot.table import HEADER, into_page, line
from kvplan.validate.kernels.launch import INTERPRETED


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What one case became on one target; `artefact` is missing where the compiler refused."""

    case: Case
    target: str
    artefact: Artefact | None
    failures: list[str]


def judge(case: Case, target: str) -> Verdict:
    """Compile a case for a target and hold it to the gates; a compiler's refusal is a failure."""
    compile_for(target)
    try:
        launch = case.plan()[case.launch]
        tile_bytes = case.key_bytes * launch.args["BLOCK_N"] if case.key_bytes else 0
        artefact = read(target, case.name, launch.compile(), tile_bytes)
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        return Verdict(case, target, None, [f"does not compile: {type(error).__name__}: {said[0]}"])
    return Verdict(case, target, artefact, failures(case, artefact))


def judge_all(targets: tuple[str, ...], only: str) -> Iterator[Verdict]:
    """Every case whose name contains `only`, on those of its targets that are asked for."""
    from kvplan.validate.aot.cases.all import CASES

    for target in targets:
        for case in CASES:
            if target in case.targets and only in case.name:
                yield judge(case, target)


@click.command()
@click.option("--target", "targets", multiple=True, type=click.Choice(list(TARGETS)), help="Default: all.")
@click.option("--only", default="", help="Only the cases whose name contains this.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the artefacts here.")
@click.option("--page", is_flag=True, help="Also put the table into the kernels' README.")
def main(targets: tuple[str, ...], only: str, json_file: Path | None, page: bool) -> None:
    """Compile the kernels with no GPU, print what they are made of; exit 1 if one fails a gate."""
    if INTERPRETED:
        click.echo("error: TRITON_INTERPRET is set\n\nhint: unset it: the compiler is what this runs", err=True)
        sys.exit(2)
    bad = 0
    lines = [HEADER]
    artefacts = []
    click.echo(f"Triton {triton.__version__}; nothing here was measured on a GPU")
    click.echo(HEADER)
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("TRITON_CACHE_DIR", cache)
        for verdict in judge_all(targets or tuple(TARGETS), only):
            lines.append(line(verdict.target, verdict.case, verdict.artefact))
            click.echo(lines[-1])
            for failure in verdict.failures:
                bad += 1
                click.echo(f"  FAILED {verdict.target} {verdict.case.name}: {failure}")
            if verdict.artefact:
                artefacts.append({**dataclasses.asdict(verdict.artefact), "issue_ratio": verdict.artefact.issue_ratio})
    if page:
        into_page(lines)
    if json_file:
        json_file.write_text(json.dumps({"triton": triton.__version__, "artefacts": artefacts}, indent=1) + "\n")
    click.echo(f"{len(artefacts)} kernels compiled, {bad} gates failed")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
