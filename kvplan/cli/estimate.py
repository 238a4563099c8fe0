"""`kvplan estimate`: what serving a model takes, per GPU, and whether it fits."""

from typing import TYPE_CHECKING, Any

import click

from kvplan.cli import options
from kvplan.cli.group import examples
from kvplan.cli.output import note, say, show

if TYPE_CHECKING:
    from kvplan.core.plan import Plan

_EXAMPLES = examples(
    "kvplan estimate meta-llama/Llama-2-70b --seq 4096",
    "kvplan estimate mistralai/Mixtral-8x7B-v0.1 --seq 32K --batch 8 --gpu H100 --gpus 4",
    "kvplan estimate ./config.json --kv-dtype fp8 --quant int4 --json",
    "kvplan estimate Qwen/Qwen3-8B --gpu 24GiB --gpu-memory-utilization 0.9",
)


@click.command(short_help="What MODEL takes per GPU, and whether it fits.", epilog=_EXAMPLES)
@click.option("--seq", "--context", "-c", "seq_len", type=options.COUNT, help="Tokens held per sequence [4096].")
@click.option("--batch", "batch_size", type=options.COUNT, default="1", help="Sequences at once [1].")
@click.option("--encoder-seq", "encoder_seq_len", type=options.COUNT, help="Tokens of the encoder [as --seq].")
@options.serving_options("exact")
@click.option(
    "--attention", type=options.BACKEND, default="flash", help="Backend: eager, math, efficient, flash [flash]."
)
@options.schema_option("estimate")
@options.source_options
@options.format_options()
@click.pass_context
def estimate(ctx: click.Context, /, format: str | None, as_json: bool, **given: Any) -> None:
    """What serving MODEL takes: weights, KV cache, activations, per GPU; with --gpu, whether it fits.

    MODEL is OWNER/NAME[@REV], a Hub address, a name from `kvplan models`, a folder, a GGUF, a config.json or a
    params.json. Counts may be written 8k (8000) or 8K (8192), sizes 80GB or 80GiB.
    """
    from kvplan import api

    format = options.chosen_format(format, as_json)
    how = {key: given.pop(key) for key in ("model", "facts", "assume", "offline", "hub", "timeout_seconds")}
    gpu = options.named_gpu(given.pop("gpu"), given.pop("gpu_memory"))
    asked = options.merged(given)
    plan = api.estimate(options.load(**how), gpu=gpu, draft=options.load_draft(asked, how), **asked)
    _print(plan, format)
    note(plan.model.source.notes)
    note((warning.message for warning in plan.warnings), label="warning")
    if gpu is not None and gpu.memory_bytes is None:
        note([f"say how much {gpu.name} has for a model, e.g. `--gpu-memory 96GiB`, to see whether it fits"])
    ctx.exit(1 if plan.fits is False else 0)


def _print(plan: "Plan", format: str) -> None:
    from kvplan.report import data

    if format == "json":
        say(data.dump_json(data.plan_to_dict(plan)))
    elif format == "csv":
        say(data.dump_csv(data.plan_rows(plan)))
    else:
        from kvplan.report.estimate import plan_page

        show(plan_page(plan), format)
