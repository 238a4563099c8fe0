"""Data to stdout, everything else to stderr, and nothing that could steer a terminal."""

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvplan.report.page import Page

FORMATS = ("text", "json", "csv", "md")


def say(text: str) -> None:
    """Text to stdout as it is, in what its encoding can carry."""
    from kvplan.report.text import encodable

    click.echo(encodable(text, sys.stdout.encoding), nl=False, color=True)


def show(page: "Page", format: str) -> None:
    """A page as text or Markdown."""
    if format == "md":
        from kvplan.report.markdown import draw as draw_markdown

        return say(draw_markdown(page))
    from kvplan.report.text import draw

    return say(draw(page, color=wants_color()))


def complain(message: str, *, hint: str = "") -> None:
    """An error and its next step, to stderr."""
    _to_stderr("error", message)
    if hint:
        _to_stderr("hint", hint)


def note(messages: "Iterable[str]", *, label: str = "note") -> None:
    """What the user should know besides the answer, to stderr."""
    for message in messages:
        _to_stderr(label, message)


def wants_color() -> bool:
    """Colour is for people: a terminal that has not asked for none (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def discard_stdout() -> None:
    """Let nothing more be written, so that the interpreter does not fail on it while it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def _to_stderr(label: str, message: str) -> None:
    from kvplan.core.text import printable
    from kvplan.report.text import encodable

    line = f"{label}: {printable(message, max_length=2000)}"
    click.echo(encodable(line, sys.stderr.encoding), err=True)
