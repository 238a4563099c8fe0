"""`kvplan inspect`: the model as it was read."""

from typing import Any

import click

from kvplan.cli import options
from kvplan.cli.group import examples
from kvplan.cli.output import note, say, show

_EXAMPLES = examples(
    "kvplan inspect google/gemma-3-12b-it",
    "kvplan inspect ./config.json --tensors",
    "kvplan inspect meta-llama/Llama-2-70b --json",
)


@click.command(short_help="The layers of MODEL as they were read.", epilog=_EXAMPLES)
@click.option("--tensors", is_flag=True, help="List the weights of each distinct layer too.")
@options.source_options
@options.format_options("text", "json", "md")
def inspect(format: str | None, as_json: bool, tensors: bool, **how: Any) -> None:
    """The layers of MODEL as they were read: kinds, heads, windows, parameters, and where each fact came from."""
    from kvplan.report.data import dump_json
    from kvplan.report.inspect import inspect_document, inspect_page

    format = options.chosen_format(format, as_json)
    model = options.load(**how)
    if format == "json":
        say(dump_json(inspect_document(model)))
    else:
        show(inspect_page(model, tensors=tensors), format)
    note(model.source.notes)
