"""`kvplan models` and `kvplan gpus`: the two catalogs."""

from typing import TYPE_CHECKING

import click

from kvplan.cli import options
from kvplan.cli.group import examples
from kvplan.cli.output import note, say, show
from kvplan.core.errors import InputError
from kvplan.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvplan.report.data import Row
    from kvplan.report.page import Page

TRANSFORMERS, REMOTE_CODE = "transformers 5.23", "remote code"


@click.command(
    short_help="The models of the offline catalog.",
    epilog=examples(
        "kvplan models",
        "kvplan models qwen --max-params 10B",
        "kvplan models --family deepseek --attention latent",
        "kvplan models --quant awq",
        "kvplan models --types",
    ),
)
@click.argument("pattern", default="")
@click.option("--family", help="Only this model type, e.g. qwen3_moe, or this lineage, e.g. qwen.")
@click.option("--min-params", type=options.PARAMETERS, help="Only models of at least so many parameters, e.g. 1B.")
@click.option("--max-params", type=options.PARAMETERS, help="Only models of at most so many parameters, e.g. 10B.")
@click.option("--attention", help="Only models with layers of this kind: full, sliding, latent, linear, cross …")
@click.option("--quant", help="Only models quantised with this method, e.g. fp8 or awq; none = unquantised.")
@click.option("--types", is_flag=True, help="The model types that kvplan reads, instead of the models.")
@options.format_options()
def models(
    pattern: str,
    family: str | None,
    min_params: int | None,
    max_params: int | None,
    attention: str | None,
    quant: str | None,
    types: bool,
    format: str | None,
    as_json: bool,
) -> None:
    """The models of the offline catalog whose name contains PATTERN."""
    from kvplan.report.listing import ATTENTION_KINDS, is_of_family, is_of_kind, models_page, types_page

    format = options.chosen_format(format, as_json)
    if family is not None:
        _check_family(family)
    if types:
        rows = [row for row in _types() if family is None or is_of_family(row["model_type"], family)]
        _print("types", [row for row in rows if pattern.lower() in row["model_type"].lower()], types_page, format)
        return
    if attention is not None:
        _check_one_of("kind of attention", attention, ATTENTION_KINDS)
    rows = [
        row
        for row in _rows(pattern, family)
        if (min_params or 0) <= row["num_parameters"] <= (max_params or row["num_parameters"])
        and (attention is None or is_of_kind(row, attention))
        and quant in (None, row["quantization"] or "none")
    ]
    if quant is not None and not rows:
        _check_one_of("quantisation of the catalog", quant, sorted({row["quantization"] or "none" for row in _rows()}))
    _print("models", rows, models_page, format)


def _rows(pattern: str = "", family: str | None = None) -> "list[Row]":
    """The models of the catalog with a name like that, and of that family; no other is worked out."""
    from kvplan.report.listing import is_of_family, model_row
    from kvplan.sources import catalog

    rows = []
    for entry in catalog.entries():
        if not any(pattern.lower() in name.lower() for name in (entry.id, *entry.aliases)):
            continue
        model_type = entry.config.get("model_type")
        if family is not None and model_type is not None and not is_of_family(model_type, family):
            continue
        row = model_row(catalog.spec_of(entry), aliases=entry.aliases, gated=bool(entry.about.get("gated")))
        if family is None or is_of_family(row["model_type"], family):
            rows.append(row)
    return rows


def _types() -> "list[Row]":
    """Every model type that kvplan reads, how many models of the catalog have it, and what its reader follows."""
    from collections import Counter

    from kvplan.report.listing import type_row
    from kvplan.sources import catalog
    from kvplan.sources.class_defaults import class_defaults
    from kvplan.sources.families.table import READERS

    counts = Counter(entry.config.get("model_type") or catalog.spec_of(entry).model_type for entry in catalog.entries())
    return [
        type_row(name, models=counts[name], follows=TRANSFORMERS if class_defaults(name).fields else REMOTE_CODE)
        for name in sorted(READERS, key=str.lower)
    ]


def _check_family(family: str) -> None:
    """Raises InputError where no model type that kvplan reads is of that family."""
    from kvplan.report.listing import is_of_family, lineages
    from kvplan.sources.families.table import READERS

    if not any(is_of_family(model_type, family) for model_type in READERS):
        raise InputError(
            f"no model type that kvplan reads is of the family `{printable(family)}`",
            hint=f"`kvplan models --types` lists them; lineages of the catalog: {', '.join(lineages(_rows()))}",
        )


def _check_one_of(what: str, word: str, known: "Iterable[str]") -> None:
    """Raises InputError where `word` is none of those that there are."""
    known = tuple(known)
    if word not in known:
        raise InputError(f"`{printable(word)}` is no {what}", hint=f"there are: {', '.join(known)}")


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
