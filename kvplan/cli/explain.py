"""`kvplan explain`: an engine's start-up log beside the prediction, line by line."""

import sys
from typing import TYPE_CHECKING, Any

import click

from kvplan.cli import options
from kvplan.cli.engine_option import read_option
from kvplan.cli.group import examples
from kvplan.cli.output import FORMATS, note, say, show
from kvplan.core.errors import InputError

if TYPE_CHECKING:
    from kvplan.core.model import ModelSpec
    from kvplan.runtime.explain import Explanation

_EXAMPLES = examples(
    "kvplan explain vllm.log",
    "kvplan explain vllm.log.gz --gpu L4 --tolerance 2%",
    "docker logs my-engine 2>&1 | kvplan explain - --model Qwen/Qwen3-8B",
    "kvplan explain sglang.log --engine sglang@0.5.23 --json",
)


def parse_tolerance(text: str) -> float:
    """A share of what the log states: `2%`, `0.02`."""
    number = text.strip()
    try:
        share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"`{text[:40]}` is not a share", hint="write it like 2% or 0.02")
    return share


TOLERANCE = options.Parsed("share", parse_tolerance)


def _print_schema(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.resources import files

        say((files("kvplan.report") / "schemas" / "explain-1.json").read_text(encoding="utf-8"))
        ctx.exit()


@click.command(short_help="An engine's start-up log beside the prediction.", epilog=_EXAMPLES)
@click.argument("log", type=click.Path(allow_dash=True))
@click.option("--model", type=options.MODEL, help="The model, where the log does not say or names a folder.")
@click.option("--gpu", type=options.GPU, help="The GPU, where the log does not name it.")
@click.option("--engine", type=options.ENGINE, help="Only starts of this engine; NAME@VERSION stands over the log's.")
@click.option("--tp", type=options.COUNT, help="GPUs of one tensor-parallel stage; stands over the log, as do these:")
@click.option("--pp", type=options.COUNT, help="Pipeline stages.")
@click.option("--kv-dtype", type=options.KV_DTYPE, help="KV cache: bf16, fp8, q8_0 …, or K/V.")
@click.option(
    "--option", "engine_options", type=options.Parsed("name=value", read_option), multiple=True, metavar="NAME=VALUE",
    help="An option of the engine, e.g. max_num_seqs=256.",
)  # fmt: skip
@click.option(
    "--tolerance",
    type=TOLERANCE,
    help="How far the memory for the cache may be off, from flags alone [6%, and not judged where its account rests "
    "on assumptions].",
)
@click.option("--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=_print_schema,
              help="Print the JSON Schema of the answer and exit.")  # fmt: skip
@options.source_flags
@options.format_options(*FORMATS)
@click.pass_context
def explain(ctx: click.Context, /, log: str, format: str | None, as_json: bool, **given: Any) -> None:
    """What an engine printed when it started beside what kvplan predicts for the same model, GPU and flags.

    LOG is a file, plain or .gz, or - for standard input: of vLLM, SGLang, TensorRT-LLM or llama.cpp (Ollama's
    too), whatever Docker, Kubernetes or a logger put before its lines. Each start gets a page, and the last one decides
    the exit code: 0 where what is exact is equal and the memory for the cache within the tolerance, 1 where not, 2
    where nothing could be compared. Differences are kvplan's figure less the log's: below 0 kvplan says too little.
    """
    from kvplan import api

    format = options.chosen_format(format, as_json)
    how = {key: given.pop(key) for key in ("facts", "assume", "offline", "hub", "timeout_seconds")}
    model = _model(given.pop("model"), how)
    names = ("tp", "pp", "kv_dtype", "engine_options")
    overrides = options.merged({name: given.pop(name) for name in names})
    source = sys.stdin.buffer if log == "-" else log
    online = {name: how[name] for name in ("offline", "timeout_seconds")}
    answers = api.explain(source, model=model, **online, **given, **overrides)
    _print(answers, format)
    last = answers[-1]
    ctx.exit(1 if last.outside else 0 if last.is_compared else 2)


def _model(name: str | None, how: dict[str, Any]) -> "ModelSpec | None":
    """The model that --model names; without one, what is said of its facts would be lost."""
    if name is not None:
        return options.load(name, **how)
    if how["facts"] or how["assume"] or how["hub"]:
        raise InputError("`--set`, `--assume` and `--hub` speak of a model, and none is named", hint="give `--model`")
    return None


def _print(answers: "list[Explanation]", format: str) -> None:
    from kvplan._version import __version__
    from kvplan.report import data
    from kvplan.runtime.explain.document import csv_rows, explanations_to_dict

    if format == "csv":
        note(text for answer in answers for text in answer.notes)
        return say(data.dump_csv(csv_rows(answers)))
    document = explanations_to_dict(answers, __version__)
    if format == "json":
        return say(data.dump_json(document))
    from kvplan.report.explain import start_pages

    for index, page in enumerate(start_pages(document)):
        if index:
            say("\n")
        show(page, format)
    return None
