"""Where the records and the picture of a validation go: looked at before anything is measured, written when it is."""

import os
from typing import TYPE_CHECKING, Any

import click

from kvplan.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Document = dict[str, Any]

_PLOTS = (".png", ".svg", ".pdf")


def check(given: dict[str, Any], num_documents: int) -> None:
    """Raises UsageError for a place that cannot take what would come: an hour's measuring must not be lost there."""
    from pathlib import Path

    if given["plot"]:
        if not given["plot"].lower().endswith(_PLOTS):
            raise click.UsageError(f"--plot draws {', '.join(_PLOTS)} files")
        _check_writable(Path(given["plot"]))
    if given["out"]:
        out = Path(given["out"])
        if num_documents > 1 and out.suffix == ".json" and not out.is_dir():
            raise click.UsageError(f"--out names one file for {num_documents} records; name a folder")
        _check_writable(out)
    if given["save"]:
        from kvplan.sources.records import own_folder

        _check_writable(own_folder() / "record.json")


def _check_writable(path: "Path") -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise click.UsageError(f"`{path}` is neither a file nor a folder")
    standing = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), path)
    if not os.access(standing, os.W_OK) or not (standing == path or standing.is_dir()):
        raise click.UsageError(f"`{path}` cannot be written")


def keep(documents: "Sequence[Document]", given: dict[str, Any]) -> None:
    """Write records and picture where that was asked for, and say where."""
    from pathlib import Path

    from kvplan.sources.records import own_folder
    from kvplan.validate import record
    from kvplan.validate.devices import remember

    taken: set[Path] = set()
    for document in documents:
        if given["out"]:
            _write(document, _place(given["out"], document, len(documents)), taken)
        if given["save"]:
            _write(document, own_folder() / record.file_name(document), taken)
            remember(document, own_folder())
    if given["plot"] and documents:
        from kvplan.report.plots import save_plot
        from kvplan.report.validation_plot import plot_validation

        save_plot(plot_validation(documents), given["plot"])
        note([f"drawn to {given['plot']}"])


def _place(named: str, document: "Document", num_documents: int) -> "Path":
    """The file that is named; in a folder, which is there or ends like one, a file of the record's own name."""
    from pathlib import Path

    from kvplan.validate import record

    is_folder = num_documents > 1 or named.endswith(os.sep) or Path(named).is_dir()
    return Path(named, record.file_name(document)) if is_folder else Path(named)


def _write(document: "Document", path: "Path", taken: "set[Path]") -> None:
    """Two of one name in one run are told apart by a number."""
    from kvplan.validate import record

    wanted, number = path, 1
    while path in taken:
        number += 1
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    taken.add(path)
    record.write(document, path)
    note([f"record written to {path}"])
