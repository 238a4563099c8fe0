"""The group that turns every error into one sentence, a hint and an exit code."""

import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from kvplan.cli.output import complain, discard_stdout
from kvplan.core.errors import KvplanError

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
EXIT_BUG = 101
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""128 + SIGPIPE, what a shell shows for a program whose reader has gone."""


def examples(*lines: str) -> str:
    """The block of examples under a command's help; \\b keeps click from joining its lines."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


class KvplanGroup(click.Group):
    """Errors are caught here and nowhere else; no command has a try of its own."""

    def main(  # type: ignore[override]  # click declares overloads; this is what they amount to
        self, args: "Sequence[str] | None" = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run, and exit with the code that the contract promises."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        if sys.stderr is None:  # closed by the caller: what would be said there is lost, the exit code is not
            sys.stderr = io.StringIO()
        if sys.stdout is None:
            complain("stdout is closed", hint="the answer has nowhere to go")
            sys.exit(2)
        sys.exit(self._run(args, **extra))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that has gone is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            discard_stdout()
            ctx.exit(EXIT_PIPE)

    def _run(self, args: "Sequence[str] | None", **extra: Any) -> int:
        try:
            code = super().main(args, standalone_mode=False, **extra)
            return code if isinstance(code, int) else 0
        except click.Abort:
            return EXIT_INTERRUPTED
        except Exception as error:
            if os.environ.get("KVPLAN_DEBUG") == "1":
                import traceback

                traceback.print_exc()
            return _report(error)


def _report(error: Exception) -> int:
    """Say what happened; the exit code for it."""
    if isinstance(error, KvplanError):
        complain(str(error), hint=error.hint)
        return error.exit_code
    if isinstance(error, click.ClickException):
        complain(_usage_sentence(error), hint=_usage_hint(error))
        return 2
    if isinstance(error, OSError) and error.filename is None:
        discard_stdout()
        complain(f"the output cannot be written: {error.strerror}", hint="check the disk, or where stdout leads")
        return 2
    complain(
        f"a bug in kvplan: {type(error).__name__}: {error}",
        hint="please report it with the command and what `KVPLAN_DEBUG=1` shows",
    )
    return EXIT_BUG


def _usage_sentence(error: click.ClickException) -> str:
    """click's message in the house's form: no capital, no full stop."""
    message = error.format_message().strip().removesuffix(".")
    return message[:1].lower() + message[1:]


def _usage_hint(error: click.ClickException) -> str:
    if hint := getattr(error, "hint", ""):
        return str(hint)
    ctx = getattr(error, "ctx", None)
    return f"`{ctx.command_path if ctx else 'kvplan'} --help` shows what it takes"
