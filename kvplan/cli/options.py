"""Option types and the options that commands share; each completes itself in a shell."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from kvplan.cli.output import FORMATS, say
from kvplan.core.errors import InputError
from kvplan.core.units import parse_bytes, parse_count

if TYPE_CHECKING:
    from kvplan.core.hardware import Gpu
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


def serving_options(engine: str) -> Callable[[Command], Command]:
    """How a model is served: engine, formats, layout, GPU, the engine's options; `engine` is named as the default."""

    def decorate(command: Command) -> Command:
        for option in reversed(_serving_options(engine)):
            command = option(command)
        return command

    return decorate


def _serving_options(engine: str) -> list[Callable[[Command], Command]]:
    from kvplan.cli.engine_option import read_option

    own = f"Engine: exact, transformers, vllm, sglang, trtllm or llamacpp, with a version as in vllm@0.19 [{engine}]."
    counted = "tp · pp" if engine == "exact" else "tp · pp, else the fewest that hold it"
    another = "Another option of the engine, e.g. enforce_eager=true."
    return [
        click.option("--engine", type=ENGINE, help=own),
        click.option("--dtype", type=DTYPE, help="Weights and activations: fp32, bf16, fp16 [as the checkpoint]."),
        click.option("--kv-dtype", type=KV_DTYPE, help="KV cache: those, fp8, int8, q8_0 …, or K/V [as --dtype]."),
        click.option("--quant", type=QUANT, help="Plan weights in fp8, int8, int4 or none [as the checkpoint]."),
        click.option("--tp", type=COUNT, help="GPUs of one tensor-parallel stage [all]."),
        click.option("--pp", type=COUNT, help="Pipeline stages [1]."),
        click.option("--dp", type=COUNT, default="1", help="Replicas, or ranks of attention over data [1]."),
        click.option("--ep", "expert_parallel", is_flag=True, help="Deal out whole experts over the ranks."),
        click.option("--dcp", type=COUNT, default="1", help="Ranks of decode context parallelism, within tp [1]."),
        click.option("--pcp", type=COUNT, default="1", help="Ranks of prefill context parallelism [1]."),
        click.option("--gpu", type=GPU, help="A GPU, e.g. H100 (`kvplan gpus` lists them), or a size, e.g. 80GiB."),
        click.option("--gpus", "num_gpus", type=COUNT, help=f"How many of them [{counted}]."),
        click.option("--gpu-memory", type=SIZE, help="Memory of one GPU, instead of what its driver reports."),
        click.option("--gpu-memory-utilization", type=float, help="The share that may be used [the engine's, else 1]."),
        click.option("--block-size", type=COUNT, help="Tokens of a block [the engine's]."),
        click.option("--max-num-seqs", type=COUNT, help="Requests at once at most [the engine's default]."),
        click.option("--max-num-batched-tokens", type=COUNT, help="Tokens of one pass [the engine's default]."),
        click.option(
            "--option", "engine_options", type=Parsed("name=value", read_option), multiple=True, metavar="NAME=VALUE",
            help=another,
        ),
    ]  # fmt: skip


def merged(given: dict[str, Any]) -> dict[str, Any]:
    """All options under the names of `kvplan.fit`: those of --option among the others; what was not said left out.

    Raises UsageError where one is said twice.
    """
    told = {name: value for name, value in given.items() if name not in ("engine_options", "expert_parallel")}
    found = {name: value for name, value in told.items() if value is not None}
    if given.get("expert_parallel"):
        found["expert_parallel"] = True
    for name, value in given.get("engine_options", ()):
        if name in found and not (name in ("dp", "dcp", "pcp") and found[name] == 1):
            raise click.UsageError(f"`{name}` is said twice")
        found[name] = value
    return found


def named_gpu(name: str | None, memory_bytes: int | None) -> "Gpu | None":
    """The GPU that --gpu names, with --gpu-memory in the place of what its driver reports."""
    if name is None and memory_bytes is None:
        return None
    from dataclasses import replace

    from kvplan.core.hardware import Gpu
    from kvplan.core.units import format_bytes
    from kvplan.sources.records import named_gpu

    if memory_bytes is None:
        return named_gpu(name or "")
    if name is None:
        return Gpu(name=f"GPU of {format_bytes(memory_bytes)}", memory_bytes=memory_bytes, memory_note="as given")
    return replace(named_gpu(name), memory_bytes=memory_bytes, visible_bytes=None, memory_note="as given")


def format_options(*formats: str) -> Callable[[Command], Command]:
    """--format and --json."""

    def decorate(command: Command) -> Command:
        choice = click.option(
            "--format", "format", type=click.Choice(formats or FORMATS), help="How to print the answer [text]."
        )
        shorthand = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
        return choice(shorthand(command))

    return decorate


def schema_option(name: str) -> Callable[[Command], Command]:
    """--json-schema: prints the published schema `kvplan/NAME/1` and exits."""

    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            from importlib.resources import files

            say((files("kvplan.report") / "schemas" / f"{name}-1.json").read_text(encoding="utf-8"))
            ctx.exit()

    return click.option(
        "--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=show,
        help="Print the JSON Schema of the answer and exit.",
    )  # fmt: skip


def chosen_format(format: str | None, as_json: bool) -> str:
    """The one format that --format and --json mean together."""
    if as_json and format not in (None, "json"):
        raise click.UsageError(f"--json and --format {format} contradict each other")
    return "json" if as_json else format or "text"


def where(how: dict[str, Any]) -> dict[str, Any]:
    """Of the source options those that say where models are read from: the same for the one that drafts."""
    return {name: how[name] for name in ("offline", "hub", "timeout_seconds")}


def load_draft(asked: dict[str, Any], how: dict[str, Any]) -> "ModelSpec | None":
    """The model that drafts, read from where the source options say; None where nothing drafts apart."""
    from kvplan.api import read_draft, read_switches

    switches = read_switches({name: asked.get(name) for name in ("draft_model", "speculative_method")})
    return read_draft(asked.get("engine", "exact"), switches, **where(how))


def load(model: str, facts: tuple[tuple[str, str], ...], **how: Any) -> "ModelSpec":
    """The ModelSpec that MODEL and the source options mean."""
    from kvplan.sources.load import load_model

    return load_model(model, overrides=dict(facts), **how)
