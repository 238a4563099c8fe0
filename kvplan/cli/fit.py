"""`kvplan fit`: the longest context, the most requests, the fewest GPUs, and the line that starts the engine so."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from kvplan.cli import options
from kvplan.cli.group import examples
from kvplan.cli.output import note, say, show
from kvplan.core.errors import InputError
from kvplan.core.units import parse_count

if TYPE_CHECKING:
    from kvplan.core.model import ModelSpec
    from kvplan.inverse import FitPlan
    from kvplan.runtime.command import Command

_EXAMPLES = examples(
    "kvplan fit Qwen/Qwen3-8B --gpu H100",
    "kvplan fit Qwen/Qwen3-8B --gpu L4 --max-model-len 32K --concurrency 8",
    "kvplan fit meta-llama/Llama-2-70b --gpu H100 --gpus 4 --kv-dtype best -c 4K --concurrency 200",
    "kvplan fit Qwen/Qwen3-8B --engine llamacpp --gpu 'RTX 4090' --gpus 1 --kv-dtype q8_0",
    "kvplan fit openai/gpt-oss-20b --kv-memory 40GiB --max-model-len 128K",
)
_SOURCE = ("facts", "assume", "offline", "hub", "timeout_seconds")


def parse_length(text: str) -> int:
    """A count of tokens; `-1` and `auto` are the longest that fits."""
    return -1 if text.strip().lower() in ("-1", "auto") else parse_count(text)


LENGTH = options.Parsed("length", parse_length)


@click.command(short_help="The longest context, most requests, fewest GPUs for MODEL.", epilog=_EXAMPLES)
@click.argument("model", type=options.MODEL, required=False)
@click.option(
    "--max-model-len", "-c", type=LENGTH, help="Tokens of one request, -1 the longest [the model's, if it fits]."
)
@click.option(
    "--concurrency", type=options.COUNT, help="Requests of that length at once, of each replica [as many as fit]."
)
@click.option("--kv-memory", "kv_memory_bytes", type=options.SIZE, help="A pool of this size, instead of a GPU.")
@click.option("--command", help="Take what is not said here from a command such as 'vllm serve …'.")
@options.serving_options("vllm")
@options.schema_option("fit")
@options.source_flags
@options.format_options()
@click.pass_context
def fit(ctx: click.Context, /, model: str | None, format: str | None, as_json: bool, **given: Any) -> None:
    """What MODEL can be served with: what is given is held, what is not is searched, exact to one token and request.

    Without --gpus the fewest that hold it, of 1, 2, 4, 8 and whole nodes of 8, and of the numbers between over which
    tensor parallelism divides; fewer that hold it over pipeline stages are named, too. --kv-dtype best takes the widest
    format of the cache that fits. The answer rests on the engine's own account of a GPU; it ends with the line that
    starts it so. Exit code 1: it does not fit.
    """
    from kvplan import inverse

    format = options.chosen_format(format, as_json)
    how = {key: given.pop(key) for key in _SOURCE}
    command = _read(given.pop("command"))
    gpu = options.named_gpu(given.pop("gpu"), given.pop("gpu_memory"))
    asked = options.merged(given)
    model = model or (command.model if command is not None else None)
    if model is None:
        raise click.UsageError("missing argument 'MODEL'")
    spec = options.load(model, **how)
    if command is not None:
        asked = _with_command(command, spec, asked)
    answer = inverse.fit(spec, gpu, draft=options.load_draft(asked, how), **asked)
    _print(answer, format)
    _notes(answer, spec)
    ctx.exit(0 if answer.fits else 1)


def _read(text: str | None) -> "Command | None":
    if text is None:
        return None
    from kvplan.inverse import without_automatic
    from kvplan.runtime.command import read_command

    return without_automatic(read_command(text))


def _with_command(command: "Command", spec: "ModelSpec", asked: dict[str, Any]) -> dict[str, Any]:
    """The command's options under those that were said here; its layout stays unless GPUs are counted here.

    Raises InputError for what the engine refuses of the flags whatever the memory, as `serve-check` says.
    """
    from kvplan.core.engines.table import find_engine
    from kvplan.core.engines.versions import release
    from kvplan.runtime.refusals import why_refused, with_model
    from kvplan.runtime.starting import devices_of, options_of

    engine = command.profile
    profile = find_engine(engine)
    numbers = release(profile.version or "")
    command = with_model(command, spec, numbers)
    note((f"not understood, and left out: `{flag}`" for flag in command.unread), label="warning")
    note(command.notes)
    if "engine" in asked and find_engine(asked["engine"]).name != command.engine:
        message = f"the command starts {command.engine}, `--engine` says {asked['engine']}"
        raise InputError(message, hint="leave one of them out")
    stated = {name: value for name, value in asked.items() if value != 1 or name not in ("dp", "dcp", "pcp")}
    refusal = why_refused(replace(command, options={**command.options, **stated}), spec, numbers)
    if refusal is not None:
        raise InputError(refusal, hint="`kvplan serve-check` judges the command as it stands")
    options_told = options_of(command)
    if profile.pooled is not None and profile.pooled.shares_length:
        options_told = _per_request(options_told)
    layout = {} if "num_gpus" in asked else {"tp": 1, "pp": devices_of(command) or 1}
    return {"engine": engine, **layout, **options_told, **stated}


def _per_request(told: dict[str, object]) -> dict[str, object]:
    """llama.cpp's `-c` is what all of `-np` requests have together, `--max-model-len` what one has."""
    length, requests = told.get("max_model_len"), told.pop("max_num_seqs", None)
    requests = requests if isinstance(requests, int) else 1
    one = {"max_model_len": max(1, length // requests)} if isinstance(length, int) and length > 0 else {}
    return {**told, **one, "concurrency": requests}


def _print(answer: "FitPlan", format: str) -> None:
    from kvplan.report import data

    if format == "json":
        say(data.dump_json(answer.to_dict()))
    elif format == "csv":
        from kvplan.report.fit_data import curve_rows

        say(data.dump_csv(curve_rows(answer)))
    else:
        from kvplan.report.fit import fit_page

        show(fit_page(answer, answer.command, answer.flags), format)


def _notes(answer: "FitPlan", spec: "ModelSpec") -> None:
    from kvplan.runtime.starting import start_line

    note(spec.source.notes)
    note((warning.message for warning in answer.warnings), label="warning")
    if answer.fits:
        note(start_line(spec, answer.serving, answer.kv_memory_bytes).notes)
