"""`kvplan validate`: what the calculator says of a model's attention, against what this machine measures."""

import sys
from typing import TYPE_CHECKING, Any

import click

from kvplan.cli import keeping, options, validate_engine
from kvplan.cli.group import examples
from kvplan.cli.output import say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvplan.core.model import ModelSpec
    from kvplan.validate.cases import Load
    from kvplan.validate.levels import Level
    from kvplan.validate.run import Bench, Target

_EXAMPLES = examples(
    "kvplan validate mistralai/Mistral-7B-v0.1 --quick",
    "kvplan validate google/gemma-3-27b-it --against transformers",
    "kvplan validate --variants --device cpu",
    "kvplan validate --case heads=32,kv_heads=8,head_dim=128,window=4096,layers=4",
    "kvplan validate meta-llama/Llama-3.1-8B openai/gpt-oss-120b --full --save",
    "CUDA_VISIBLE_DEVICES=0 kvplan validate Qwen/Qwen3-8B --against vllm --seq 32K --out record.json",
    "torchrun --nproc-per-node 2 -m kvplan.validate meta-llama/Llama-3.1-8B --tp 2",
)


def _print_schema(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.resources import files

        say((files("kvplan.report") / "schemas" / "validate-1.json").read_text(encoding="utf-8"))
        ctx.exit()


@click.command(short_help="Measure MODEL's attention on this machine against the plan.", epilog=_EXAMPLES)
@click.argument("models", type=options.MODEL, nargs=-1, metavar="[MODEL]...")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", help="Where [a GPU if there is one]."
)
@click.option("--quick", "level", flag_value="quick", help="About a minute: fewer loads, less memory.")
@click.option("--full", "level", flag_value="full", help="All loads, as much memory as there is.")
@click.option("--variants", is_flag=True, help="MHA, GQA, MQA, MLA, sliding, sparse and linear at one shape.")
@click.option(
    "--case",
    "by_hand",
    multiple=True,
    metavar="KEY=N,…",
    help="A layer by hand, e.g. heads=32,kv_heads=8,head_dim=128.",
)
@click.option(
    "--against",
    type=click.Choice(["transformers", *validate_engine.ENGINES]),
    help="Also build transformers' own cache; or instead start the engine that is installed here.",
)
@click.option(
    "--seq",
    "--context",
    "-c",
    "seq_len",
    type=options.COUNT,
    help="Tokens held per sequence, or of an engine's longest request [windows are passed, memory allowing].",
)
@click.option("--batch", "batch_size", type=options.COUNT, help="Sequences at once [1; 8 on a GPU].")
@click.option("--encoder-seq", "encoder_seq_len", type=options.COUNT, help="Tokens of the encoder [as --seq].")
@click.option("--dtype", type=options.DTYPE, help="Queries and activations: bf16, fp16 [as the checkpoint].")
@click.option("--kv-dtype", type=options.KV_DTYPE, help="KV cache: bf16, fp16, fp8, int8 [as --dtype].")
@click.option("--block-size", "page_size", type=options.COUNT, default="16", help="Tokens of a page [16].")
@click.option("--tp", type=options.COUNT, help="Under torchrun, or of an engine: tensor-parallel ranks [1].")
@click.option("--pp", type=options.COUNT, help="Under torchrun, or of an engine: pipeline stages [1].")
@click.option("--cp", type=options.COUNT, help="Under torchrun: ranks that share out a sequence's tokens [1].")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Start nothing new after that [2, 15, 60 by level; an engine: 20].",
)
@click.option("--save", is_flag=True, help="Keep the record: `estimate` then uses what was measured of the device.")
@click.option("--out", "out", type=click.Path(), help="Write the record into this file, or folder.")
@click.option("--plot", type=click.Path(), help="Draw predicted against measured (PNG, SVG or PDF).")
@click.option("--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=_print_schema,
              help="Print the JSON Schema of the answer and exit.")  # fmt: skip
@validate_engine.engine_options
@options.source_flags
@options.format_options()
@click.pass_context
def validate(
    ctx: click.Context, /, models: "Sequence[str]", format: str | None, as_json: bool, **given: Any
) -> None:  # fmt: skip
    """Run attention over MODEL's real KV cache on this machine, and set what is measured beside the plan.

    On a GPU: memory as torch and the driver see it, time against a model fitted on half of the loads. Without one:
    the real caches in main memory, the kernels interpreted, and no GPU figure. Without a MODEL: the variants.

    --against vllm or sglang starts the engine that is installed here, with random weights of MODEL's geometry, and sets
    what its log says beside the plan; nothing is downloaded, and nothing of it is left running.

    Exit code 1 means that something is out of tolerance. --json prints one document, of several models an array.
    """
    format = options.chosen_format(format, as_json)
    if given["against"] and not models:
        raise click.UsageError("--against builds a model's own cache: name a MODEL")
    _check_counts(given)
    if given["against"] in validate_engine.ENGINES:
        ctx.exit(validate_engine.against_engine(ctx, models, given, format))
    validate_engine.refuse_engine_options(ctx)
    how = {key: given.pop(key) for key in ("facts", "assume", "offline", "hub", "timeout_seconds")}
    specs = [options.load(model, **how) for model in models]
    dealt_out = any((given[name] or 1) > 1 for name in ("tp", "pp", "cp"))
    documents = (_together if dealt_out or _is_started_by_torchrun() else _alone)(specs, given)
    _print(documents, format)
    keeping.keep(documents, given)
    ctx.exit(1 if any(document["verdict"] == "off" for document in documents) else 0)


def _check_counts(given: dict[str, Any]) -> None:
    from math import isfinite

    from kvplan.core.serving import positive

    if given["minutes"] is not None and not isfinite(given["minutes"]):
        raise click.UsageError(f"--minutes is {given['minutes']}, which has no end")
    for name in ("seq_len", "batch_size", "encoder_seq_len", "page_size", "tp", "pp", "cp"):
        if given[name] is not None:
            positive(name, given[name])


def _is_started_by_torchrun() -> bool:
    from kvplan.validate.together import num_processes

    return num_processes() > 1


def _together(specs: "Sequence[ModelSpec]", given: dict[str, Any]) -> list[dict[str, Any]]:
    """Several processes: the first has the document, the others have nothing to say."""
    from kvplan.validate.isolate import require_torch
    from kvplan.validate.together import require_world, validate_together

    layout = {name: given[name] or 1 for name in ("tp", "pp", "cp")}
    if len(specs) != 1:
        raise click.UsageError("several processes try one model at a time: name one MODEL")
    unused = [name for name in ("against", "variants", "by_hand", "level", "minutes") if given[name]]
    if unused:
        raise click.UsageError(
            f"several processes take no --{unused[0].replace('by_hand', 'case').replace('level', 'quick')}"
        )
    keeping.check(given, 1)
    require_world(**layout)
    require_torch()
    device = given["device"] if given["device"] != "auto" else _seen_device()
    load = _load(specs[0], given, seq_len=given["seq_len"] or 64, batch=given["batch_size"] or 2)
    document = validate_together(specs[0], load, device=device, **layout)
    return [] if document is None else [document]


def _seen_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _alone(specs: "Sequence[ModelSpec]", given: dict[str, Any]) -> list[dict[str, Any]]:
    """One process, which starts others: a target after another on one bench."""
    from kvplan.validate import run

    bench = _bench(given)
    targets = _targets(specs, given, bench)
    keeping.check(given, len(targets))
    total = sum(run.num_jobs(target, bench) for target in targets)
    bar: Any = click.progressbar(
        length=total, label="measuring", file=sys.stderr, show_eta=False, width=24, item_show_func=lambda name: name
    )
    with bar:
        bench.say = lambda name: bar.update(1, name)
        return [run.validate(target, bench) for target in targets]


def _bench(given: dict[str, Any]) -> "Bench":
    """The device at hand, asked in a process of its own: this one stays free of torch."""
    from kvplan.core.errors import InputError
    from kvplan.validate import isolate
    from kvplan.validate.levels import LEVELS
    from kvplan.validate.run import Bench

    isolate.require_torch()
    level = LEVELS[given["level"] or "standard"]
    found = isolate.run_job({"job": "probe", "device": given["device"]}, timeout_seconds=300)
    if isolate.is_failure(found):
        raise InputError(
            f"the device cannot be asked: {found['failure']['message']}", hint="`--device cpu` does without a GPU"
        )
    if found["device"] is None:
        raise InputError("torch sees no GPU here", hint="`--device cpu` measures what can be measured without one")
    return Bench(
        device=found["device"], free_bytes=found["free_bytes"], level=level, deadline=_deadline(level, given),
        expected_context=_expected_context(found["device"]["name"]),
    )  # fmt: skip


def _deadline(level: "Level", given: dict[str, Any]) -> float:
    import time

    return time.monotonic() + 60 * (given["minutes"] or level.minutes)


def _expected_context(device_name: str) -> tuple[int, str] | None:
    """What an earlier record of such a device says of its context."""
    from kvplan.sources.records import measured_by_driver

    found = measured_by_driver(device_name)
    return None if found is None else (found.context_bytes, found.source)


def _targets(specs: "Sequence[ModelSpec]", given: dict[str, Any], bench: "Bench") -> "list[Target]":
    from kvplan.core.errors import InputError
    from kvplan.validate.cases import Load, apart, case_by_hand, cases_of, variants
    from kvplan.validate.run import Target, chosen_load, require_room

    targets = []
    for model in specs:
        load = _load(model, given, **chosen_load(model, bench, seq_len=given["seq_len"], batch=given["batch_size"]))
        identity = {"id": model.id, "model_type": model.model_type, "num_layers": model.num_layers}
        config = _framework_config(model, given["against"])
        targets.append(
            Target(
                name=model.id, cases=cases_of(model, load), model=identity, framework_config=config,
                encoder_seq_len=model.encoder_seq_len,
            )
        )  # fmt: skip
    tokens = given["seq_len"] or (8192 if bench.on_gpu else 2048)
    shape: Load = _load(None, given, seq_len=tokens, batch=given["batch_size"] or bench.batch, chunk=bench.chunk)
    if given["by_hand"]:
        targets.append(
            Target(name="layers by hand", cases=apart(case_by_hand(text, shape) for text in given["by_hand"]))
        )
    if given["variants"] or not targets:
        targets.append(Target(name="variants", cases=variants(shape)))
    for target in targets:
        require_room(target, bench)
        if any(case.one_vector and case.kv_dtype == "int8" for case in target.cases):
            raise InputError(
                f"no kernel reads a latent cache of int8, and `{target.name}` has one",
                hint="`--kv-dtype` bf16, fp16 or fp8",
            )
    if given["encoder_seq_len"] and not any(case.kind in ("encoder", "cross") for t in targets for case in t.cases):
        raise InputError("nothing here has an encoder, so `--encoder-seq` has no meaning", hint="use `--seq` alone")
    return targets


def _framework_config(model: "ModelSpec", against: str | None) -> Any:
    if against is None:
        return None
    from kvplan.sources.load import raw_config

    return raw_config(model)


def _load(model: "ModelSpec | None", given: dict[str, Any], **chosen: Any) -> "Load":
    """The load that the options name; a type that no kernel multiplies is refused here."""
    from kvplan.core.dtypes import parse_dtype, parse_kv_dtype
    from kvplan.core.errors import InputError
    from kvplan.validate.cases import Load

    stated = model.dtype.name if model is not None and model.dtype is not None else "bf16"
    dtype = parse_dtype(given["dtype"]).name if given["dtype"] else "bf16" if stated == "fp32" else stated
    kv_dtype = dtype if given["kv_dtype"] in (None, "auto") else parse_kv_dtype(given["kv_dtype"]).name
    if dtype == "fp32" or kv_dtype in ("fp32", "int4"):
        wrong = dtype if dtype == "fp32" else kv_dtype
        raise InputError(
            f"the kernels do not run in {wrong}", hint="`--dtype bf16` or fp16; `--kv-dtype` also fp8, int8"
        )
    return Load(
        encoder_seq_len=given["encoder_seq_len"], page_size=given["page_size"], dtype=dtype, kv_dtype=kv_dtype, **chosen
    )


def _print(documents: "Sequence[dict[str, Any]]", format: str) -> None:
    from kvplan.report import data
    from kvplan.report.validation import validation_page, validation_rows

    if not documents:
        return  # one of several processes: the first speaks for all
    if format == "json":
        say(data.dump_json(documents[0] if len(documents) == 1 else list(documents)))
    elif format == "csv":
        say(data.dump_csv([row for document in documents for row in validation_rows(document)]))
    else:
        for document in documents:
            show(validation_page(document), format)
