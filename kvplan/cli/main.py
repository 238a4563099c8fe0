"""All commands, in one look. To add one: a file with a click command, and its line here."""

import click

from kvplan._version import __version__
from kvplan.cli.completion import completion
from kvplan.cli.estimate import estimate
from kvplan.cli.explain import explain
from kvplan.cli.fit import fit
from kvplan.cli.group import CONTEXT, KvplanGroup, examples
from kvplan.cli.inspect import inspect
from kvplan.cli.listing import gpus, models
from kvplan.cli.serve_check import serve_check
from kvplan.cli.validate import validate

_EXAMPLES = examples(
    "kvplan estimate meta-llama/Llama-2-70b --seq 4096",
    "kvplan estimate Qwen/Qwen3-8B --seq 32K --batch 16 --gpu H100",
    "kvplan fit Qwen/Qwen3-8B --gpu L4 --max-model-len 32K --concurrency 8",
    "kvplan inspect ./my-model/config.json",
    "kvplan validate mistralai/Mistral-7B-v0.1 --quick",
)


@click.group(cls=KvplanGroup, invoke_without_command=True, context_settings=CONTEXT, epilog=_EXAMPLES)
@click.version_option(__version__, prog_name="kvplan", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """What serving a language model takes: weights, KV cache and working memory, in exact bytes.

    Exit codes: 0 answered; 1 answered: it does not fit, or is out of tolerance; 2 bad input;
    3 architecture not supported; 4 the Hub was not reached or shows nothing; 101 a bug.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


cli.add_command(estimate)
cli.add_command(fit)
cli.add_command(serve_check)
cli.add_command(explain)
cli.add_command(inspect)
cli.add_command(validate)
cli.add_command(models)
cli.add_command(gpus)
cli.add_command(completion)


def main() -> None:
    """The entry point of the `kvplan` script."""
    cli(prog_name="kvplan")
