"""`kvplan completion`: the script that teaches a shell to complete kvplan."""

import click

from kvplan.cli.group import examples
from kvplan.cli.output import say

_EXAMPLES = examples(
    'eval "$(kvplan completion bash)"                                  in ~/.bashrc',
    'eval "$(kvplan completion zsh)"                                   in ~/.zshrc',
    "kvplan completion fish > ~/.config/fish/completions/kvplan.fish   once",
)


@click.command(short_help="The completion script for a shell.", epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    # bash's own `source` first runs bash to ask for its version; printing a script should run nothing.
    say(ShellComplete.source(kind(ctx.find_root().command, {}, "kvplan", "_KVPLAN_COMPLETE")) + "\n")
