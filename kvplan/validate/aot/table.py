"""The printed table of artefacts, a Markdown row each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import triton

import kvplan.validate.kernels
from kvplan.validate.aot.artefact import Artefact
from kvplan.validate.aot.cases import Case

HEADER = "\n".join(
    [
        "| target | kernel | warps | regs | spills | shared bytes | blocks/SM | tiles | matrix | loads | issue/HBM |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|---|--:|",
    ]
)


def line(target: str, case: Case, artefact: Artefact | None) -> str:
    """One row; a kernel that did not compile has dashes."""
    if artefact is None:
        return f"| {target} | {case.name} | - | - | - | - | - | - | - | - | - |"
    cells = [
        target,
        case.name,
        str(artefact.num_warps),
        str(artefact.registers),
        str(artefact.spills),
        f"{artefact.shared_bytes:,}",
        str(artefact.blocks_per_sm or "-"),
        str(artefact.buffer_depth or "-"),
        _matrix(artefact),
        _loads(artefact),
        _ratio(artefact),
    ]
    return "| " + " | ".join(cells) + " |"


def _matrix(artefact: Artefact) -> str:
    kinds = [("warpgroup", artefact.warpgroup_mma), ("warp", artefact.warp_mma)]
    said = [name for name, count in kinds if count]
    return ", ".join(said + ["specialised"] * bool(artefact.register_moves)) or "-"


def _loads(artefact: Artefact) -> str:
    kinds = [
        ("TMA", artefact.tma_loads),
        ("16-byte", artefact.wide_copies),
        ("8-byte", artefact.half_copies),
        ("narrow", artefact.narrow_copies),
    ]
    return ", ".join(name for name, count in kinds if count) or "-"


def _ratio(artefact: Artefact) -> str:
    ratio = artefact.issue_ratio
    return "-" if ratio is None else f"{ratio:.2f}"


PAGE = Path(kvplan.validate.kernels.__file__).with_name("README.md")
_MARKS = ("<!-- table: python -m kvplan.validate.aot --page -->", "<!-- end of table -->")


def into_page(lines: Sequence[str]) -> None:
    """Replace the table between the page's marks."""
    before, rest = PAGE.read_text().split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    text = "\n".join([f"Triton {triton.__version__}:", "", *lines])
    PAGE.write_text(f"{before}{_MARKS[0]}\n{text}\n{_MARKS[1]}{after}")
