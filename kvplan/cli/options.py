"""Option types and the options that commands share; each completes itself in a shell."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from kvplan.cli.output import FORMATS
from kvplan.core.errors import InputError
from kvplan.core.units import parse_bytes, parse_count

if TYPE_CHECKING:
    from kvplan.core.model import ModelSpec

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic to the type checker only: click 8.1 has no brackets

Command = TypeVar("Command", bound=Callable[..., Any])


class BadValue(click.BadParameter):
    """A value that cannot be read, with its next step."""

    def __init__(self, error: InputError, param: click.Parameter | None, ctx: click.Context | None) -> None:
        super().__init__(str(error), ctx=ctx, param=param)
        self.hint = error.hint


class Parsed(ParamType):
    """A value that a function reads from text."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value; InputError becomes a usage error that names the option."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except InputError as error:
            raise BadValue(error, param, ctx) from error


class Named(ParamType):
    """A name that is checked later, with the names that a shell may complete it to."""

    def __init__(self, name: str, choices: Callable[[str], list[str]]) -> None:
        self.name = name
        self._choices = choices

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin like what is typed; a path completes as one."""
        if incomplete.startswith((".", "/", "~")):
            return [CompletionItem(incomplete, type="file")]
        begun = incomplete.lower()
        return [CompletionItem(name) for name in self._choices(incomplete) if name.lower().startswith(begun)]


def _models(incomplete: str) -> list[str]:
    from kvplan.sources.catalog import names

    return names()


def _gpus(incomplete: str) -> list[str]:
    from kvplan.sources.gpus import load_gpus

    return [gpu.name for gpu in load_gpus()]


def _engines(incomplete: str) -> list[str]:
    from kvplan.core.engines.table import ENGINES

    return list(ENGINES)


def _backends(incomplete: str) -> list[str]:
    from kvplan.core.attention import BACKENDS

    return list(BACKENDS)


def _dtypes(incomplete: str) -> list[str]:
    from kvplan.core.dtypes import MODEL_DTYPES

    return [dtype.name for dtype in MODEL_DTYPES]


def _kv_dtypes(incomplete: str) -> list[str]:
    from kvplan.core.dtypes import KV_DTYPES

    return ["auto", *(dtype.name for dtype in KV_DTYPES)]


def _quants(incomplete: str) -> list[str]:
    from kvplan.core.weights import PLANNED_QUANTS

    return [*PLANNED_QUANTS, "none"]


def parse_parameters(text: str) -> int:
    """A number of parameters as people write it: `7B`, `1.5b`, `350M`, `1T`, or plain."""
    number, unit = text.strip()[:-1], text.strip()[-1:].lower()
    thousands = {"m": 1, "b": 1000, "t": 1000**2}.get(unit)
    return parse_count(text) if thousands is None else parse_count(f"{number}m") * thousands


def parse_seconds(text: str) -> float:
    """Seconds, more than none and less than a day."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise InputError(f"`{text[:40]}` is not a number of seconds", hint="write it like 15 or 0.5")
    return seconds


def parse_fact(text: str) -> tuple[str, str]:
    """`key=value`."""
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise InputError(f"`{text[:40]}` is not KEY=VALUE", hint="write it like --set vocab_size=32000")
    return key, value


COUNT = Parsed("count", parse_count)
SIZE = Parsed("size", parse_bytes)
PARAMETERS = Parsed("parameters", parse_parameters)
SECONDS = Parsed("seconds", parse_seconds)
FACT = Parsed("key=value", parse_fact)
MODEL = Named("model", _models)
GPU = Named("gpu", _gpus)
ENGINE = Named("engine", _engines)
BACKEND = Named("backend", _backends)
DTYPE = Named("dtype", _dtypes)
KV_DTYPE = Named("dtype", _kv_dtypes)
QUANT = Named("scheme", _quants)


def source_options(command: Command) -> Command:
    """MODEL, and how its facts are found."""
    return source_flags(click.argument("model", type=MODEL)(command))


def source_flags(command: Command) -> Command:
    """How a model's facts are found."""
    for decorate in (
        click.option("--timeout", "timeout_seconds", type=SECONDS, default="14", help="Seconds to wait for the Hub."),
        click.option("--hub", is_flag=True, help="Ask the Hub even where the catalog has the model."),
        click.option("--offline", is_flag=True, help="Never ask the Hub."),
        click.option(
            "--assume", type=click.Choice(["full"]), help="Bounds for an architecture that kvplan does not know."
        ),
        click.option(
            "--set", "facts", type=FACT, multiple=True, metavar="KEY=VALUE", help="Set a fact of the config yourself."
        ),
    ):
        command = decorate(command)
    return command


def format_options(*formats: str) -> Callable[[Command], Command]:
    """--format and --json."""

    def decorate(command: Command) -> Command:
        choice = click.option(
            "--format", "format", type=click.Choice(formats or FORMATS), help="How to print the answer [text]."
        )
        shorthand = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
        return choice(shorthand(command))

    return decorate


def chosen_format(format: str | None, as_json: bool) -> str:
    """The one format that --format and --json mean together."""
    if as_json and format not in (None, "json"):
        raise click.UsageError(f"--json and --format {format} contradict each other")
    return "json" if as_json else format or "text"


def load(model: str, facts: tuple[tuple[str, str], ...], **how: Any) -> "ModelSpec":
    """The ModelSpec that MODEL and the source options mean."""
    from kvplan.sources.load import load_model

    return load_model(model, overrides=dict(facts), **how)
