"""`kvplan validate MODEL --against vllm`: the engine installed here, started with random weights, beside the plan."""

import os
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kvplan.cli import keeping, options
from kvplan.cli.engine_option import read_option
from kvplan.cli.output import note, say, show
from kvplan.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kvplan.core.hardware import Gpu
    from kvplan.core.model import ModelSpec
    from kvplan.runtime.engine_run.devices import SeenGpu

ENGINES = ("vllm", "sglang")
MINUTES = 20.0
"""How long an engine may take to start, unless told otherwise: random weights and no download, but compilation."""
_SAME_NAME = ("dtype", "kv_dtype", "tp", "pp", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens")
_OWN = ("gpu", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "engine_options", "engine_command")
_FOREIGN = (
    "device", "level", "variants", "by_hand", "batch_size", "encoder_seq_len", "cp", "save", "plot", "facts", "assume"
)  # fmt: skip


def engine_options(command: options.Command) -> options.Command:
    """What is for the engines alone."""
    for decorate in (
        click.option("--engine-command", help="The program, e.g. 'python -m vllm.entrypoints.cli.main'."),
        click.option(
            "--engine-option", "--option", "engine_options", type=options.Parsed("name=value", read_option),
            multiple=True, metavar="NAME=VALUE", help="Another option of the engine, e.g. enforce_eager=true.",
        ),
        click.option("--max-num-batched-tokens", type=options.COUNT, help="Tokens of one pass of the engine."),
        click.option("--max-num-seqs", type=options.COUNT, help="Requests at once of the engine."),
        click.option("--gpu-memory-utilization", type=float, help="What the engine may use of a GPU's memory."),
        click.option("--gpu", type=options.GPU, help="The GPU that is here [as nvidia-smi says]."),
    ):  # fmt: skip
        command = decorate(command)
    return command


def refuse_engine_options(ctx: click.Context) -> None:
    """Raises UsageError for an engine's option where no engine is started."""
    if used := _used(ctx, _OWN):
        raise click.UsageError(f"{used} is for --against {' and '.join(ENGINES)}")


def _used(ctx: click.Context, names: "Sequence[str]") -> str | None:
    """The flag of the first of these parameters that the user gave."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    flags = {
        param.name: param.opts[0]
        for param in ctx.command.params
        if param.name and ctx.get_parameter_source(param.name) in given and _is_its_value(param, ctx.params[param.name])
    }
    return next((flags[name] for name in names if name in flags), None)


def _is_its_value(param: click.Parameter, value: object) -> bool:
    """Of flags that share a parameter, the one that gave it its value."""
    return not (isinstance(param, click.Option) and param.is_flag) or param.flag_value == value


def against_engine(ctx: click.Context, models: "Sequence[str]", given: dict[str, Any], format: str) -> int:
    """Start the engine for the model, print and keep the record; the exit code."""
    if used := _used(ctx, _FOREIGN):
        raise click.UsageError(f"--against {given['against']} takes no {used}")
    if len(models) != 1:
        raise click.UsageError(f"--against {given['against']} starts one engine: name one MODEL")
    keeping.check(given, 1)
    told = _told(ctx, given)
    how = {key: given[key] for key in ("facts", "assume", "offline", "hub", "timeout_seconds")}
    found = _run(options.load(models[0], **how), given, told)
    _print(found, format)
    return 0 if found["verdict"] == "ok" else 1


def _told(ctx: click.Context, given: "Mapping[str, Any]") -> dict[str, object]:
    """The engine's options in kvplan's words, without what was left open."""
    told: dict[str, object] = {name: given[name] for name in _SAME_NAME if given[name] is not None}
    if given["seq_len"] is not None:
        told["max_model_len"] = given["seq_len"]
    if _used(ctx, ["page_size"]):
        told["block_size"] = given["page_size"]
    for name, value in given["engine_options"]:
        if name in told:
            raise click.UsageError(f"`{name}` is given twice")
        told[name] = value
    return told


def _run(model: "ModelSpec", given: "Mapping[str, Any]", told: "Mapping[str, object]") -> dict[str, Any]:
    """The document. What can be refused is refused before the engine is started."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from kvplan.runtime.engine_run import document, program
    from kvplan.runtime.engine_run.model_folder import write_model_folder
    from kvplan.runtime.engine_run.run import Order, run_engine
    from kvplan.sources.engine_config import engine_config

    engine, config = given["against"], engine_config(model)
    words = program.find_program(engine, given["engine_command"])
    gpu, seen = _gpu(given["gpu"], _num_gpus(told))
    with TemporaryDirectory(prefix="kvplan-") as temporary:
        folder, log = Path(temporary, "model"), Path(temporary, "engine.log")
        folder.mkdir()
        has_tokenizer = write_model_folder(folder, config, _folder(model))
        order = Order(
            engine=engine, program=words, model_folder=folder, has_tokenizer=has_tokenizer, options=told,
            timeout_seconds=60 * (given["minutes"] or MINUTES), log=log, say=lambda line: note([f"running {line}"]),
        )  # fmt: skip
        run = run_engine(order)
        version = program.installed_version(engine, words)
        unlike = sorted({one.name for one in seen} - {seen[0].name if seen else ""})
        notes = (f"planned for the first GPU; there are others: {', '.join(unlike)}",) if unlike else ()
        setting = document.Setting(model=model, gpu=gpu, seen=seen, version=version, notes=notes)
        found = document.engine_run_to_dict(run, order, setting)
        _keep(found, given["out"], log)
    return found


def _folder(model: "ModelSpec") -> "Path | None":
    """The user's own folder, with tokenizer and processor."""
    from pathlib import Path

    return Path(model.source.location).parent if model.source.kind == "directory" else None


def _num_gpus(told: "Mapping[str, object]") -> int:
    """tp · pp · pcp · replicas, as far as told; attention over dp ranks takes no GPUs of its own."""
    number = 1
    for name in ("tp", "pp", "pcp") if told.get("attention_dp") else ("tp", "pp", "pcp", "dp"):
        degree = told.get(name)
        number *= degree if isinstance(degree, int) else 1
    return number


def _gpu(named: str | None, needed: int) -> "tuple[Gpu, tuple[SeenGpu, ...]]":
    """The GPU to plan with, and what is here. Raises InputError where there are too few."""
    from kvplan.core.hardware import Gpu
    from kvplan.runtime.engine_run.devices import has_other_gpu, seen_gpus
    from kvplan.sources.records import named_gpu

    seen = seen_gpus()
    if seen and len(seen) < needed:
        raise InputError(f"{needed} GPUs are needed, and {len(seen)} are here", hint="a smaller `--tp` or `--pp`")
    if named is not None:
        return named_gpu(named), seen
    if not seen:
        if has_other_gpu():
            raise InputError("nvidia-smi names no GPU here", hint="`--gpu` names it, e.g. `--gpu MI300X`")
        hint = "`--gpu` names it where nvidia-smi is not installed; `kvplan explain LOG` reads a log from elsewhere"
        raise InputError("no GPU is here: nvidia-smi lists none", hint=hint)
    first = seen[0]
    try:
        return named_gpu(first.name), seen
    except InputError:
        return Gpu(name=first.name, memory_bytes=first.memory_bytes, memory_note="nvidia-smi"), seen


def _keep(document: dict[str, Any], out: str | None, log: "Path") -> None:
    """The record where --out says, and the log beside it; without it, the log of a run that went wrong."""
    from pathlib import Path
    from shutil import copyfile
    from tempfile import gettempdir

    from kvplan.runtime.engine_run.document import file_name
    from kvplan.validate import record

    name = file_name(document)
    if out is None:
        if document["verdict"] == "ok" and document["ended"] == "complete":
            return
        kept = Path(gettempdir(), name).with_suffix(".log")
    else:
        path = Path(out, name) if out.endswith(os.sep) or Path(out).is_dir() else Path(out)
        record.write(document, path)
        note([f"record written to {path}"])
        kept = path.with_name(f"{path.stem}.log")
    copyfile(log, kept)
    note([f"the engine's log is in {kept}"])


def _print(document: dict[str, Any], format: str) -> None:
    from kvplan.report import data

    if format == "json":
        say(data.dump_json(document))
    elif format == "csv":
        say(data.dump_csv(document["start"]["rows"] if document["start"] else []))
    else:
        from kvplan.report.engine_run import engine_run_page

        show(engine_run_page(document), format)
