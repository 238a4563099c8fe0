"""`kvplan models` and `kvplan gpus`: the two catalogs."""

from typing import TYPE_CHECKING

import click

from kvplan.cli import options
from kvplan.cli.group import examples
from kvplan.cli.output import note, say, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvplan.report.data import Row
    from kvplan.report.page import Page


@click.command(
    short_help="The models of the offline catalog.",
    epilog=examples("kvplan models", "kvplan models qwen --max-params 10B", "kvplan models --attention latent"),
)
@click.argument("pattern", default="")
@click.option("--family", help="Only this model type, e.g. llama.")
@click.option("--max-params", type=options.PARAMETERS, help="Only models of at most so many parameters, e.g. 10B.")
@click.option("--attention", help="Only models with layers of this kind: full, sliding, latent, linear, cross …")
@options.format_options()
def models(
    pattern: str,
    family: str | None,
    max_params: int | None,
    attention: str | None,
    format: str | None,
    as_json: bool,
) -> None:
    """The models of the offline catalog whose name contains PATTERN."""
    from kvplan.report.listing import model_row, models_page
    from kvplan.sources import catalog

    format = options.chosen_format(format, as_json)
    found = (
        (catalog.spec_of(entry), entry)
        for entry in catalog.entries()
        if any(pattern.lower() in name.lower() for name in (entry.id, *entry.aliases))
    )
    rows = [model_row(model, aliases=entry.aliases, gated=bool(entry.about.get("gated"))) for model, entry in found]
    rows = [
        row
        for row in rows
        if family in (None, row["model_type"])
        and (max_params is None or row["num_parameters"] <= max_params)
        and (attention is None or attention in row["attention"])
    ]
    _print("models", rows, models_page, format)


@click.command(
    short_help="The GPUs that --gpu knows.",
    epilog=examples("kvplan gpus", "kvplan gpus h100", "kvplan gpus --format csv"),
)
@click.argument("pattern", default="")
@options.format_options()
def gpus(pattern: str, format: str | None, as_json: bool) -> None:
    """The GPUs that --gpu knows, with the memory that their drivers report, whose name contains PATTERN."""
    from kvplan.report.listing import gpu_row, gpus_page
    from kvplan.sources.gpus import load_gpus

    format = options.chosen_format(format, as_json)
    rows = [gpu_row(gpu) for gpu in load_gpus() if _folded(pattern) in _folded(f"{gpu.vendor} {gpu.name}")]
    _print("gpus", rows, gpus_page, format)


def _folded(name: str) -> str:
    """Letters and digits only: people write `H100 SXM5` and `h100-sxm5`."""
    return "".join(char for char in name.lower() if char.isalnum())


def _print(name: str, rows: "list[Row]", page: "Callable[[list[Row]], Page]", format: str) -> None:
    from kvplan.report import data
    from kvplan.report.listing import listing_document

    if format == "json":
        say(data.dump_json(listing_document(name, rows)))
    elif format == "csv":
        say(data.dump_csv(rows))
    else:
        show(page(rows), format)
    if not rows:
        note([f"none of the {name} that kvplan knows matches"])
