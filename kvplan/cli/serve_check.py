"""`kvplan serve-check`: whether a command line starts, before it runs."""

from typing import TYPE_CHECKING, Any

import click

from kvplan.cli import options
from kvplan.cli.group import examples
from kvplan.cli.output import note, say, show

if TYPE_CHECKING:
    from kvplan.core.errors import RefusedError
    from kvplan.core.hardware import Gpu
    from kvplan.inverse import ServeCheck
    from kvplan.report.page import Page

_EXAMPLES = examples(
    "kvplan serve-check 'vllm serve Qwen/Qwen3-8B --max-model-len 32768' --gpu L4",
    "kvplan serve-check 'sglang serve --model-path Qwen/Qwen3-8B --tp 2' --gpu A100-80GB",
    "kvplan serve-check 'vllm serve meta-llama/Llama-2-70b -tp 4' --gpu H100 --json",
)


@click.command("serve-check", short_help="Whether a command such as 'vllm serve …' starts.", epilog=_EXAMPLES)
@click.argument("command")
@click.option("--gpu", type=options.GPU, help="What it runs on, e.g. H100; as many as the command's flags ask for.")
@click.option("--gpu-memory", type=options.SIZE, help="Memory of one GPU, instead of what its driver reports.")
@click.option("--model", type=options.MODEL, help="Another name or path of the command's model.")
@click.option("--engine", type=options.ENGINE, help="NAME@VERSION, which stands over the version that COMMAND tells.")
@options.schema_option("serve-check")
@options.source_flags
@options.format_options("text", "json", "md")
@click.pass_context
def serve_check(ctx: click.Context, /, command: str, format: str | None, as_json: bool, **given: Any) -> None:
    """Whether COMMAND starts: the engine's own account and start-up check, from the flags as they stand.

    COMMAND is one argument: a line that starts vLLM, SGLang, TensorRT-LLM or llama.cpp, with `docker run` and the like
    around it, a service of Docker Compose or a container of Kubernetes as its YAML, or the name of a file with one.
    Nothing is run. Exit code 0: it starts; 1: it does not, and what would make it start is said.
    """
    from kvplan import inverse
    from kvplan.core.errors import RefusedError
    from kvplan.runtime.command import names_no_model, read_command

    format = options.chosen_format(format, as_json)
    gpu = options.named_gpu(given.pop("gpu"), given.pop("gpu_memory"))
    try:
        read = read_command(command, given.pop("engine"))
    except RefusedError as error:
        _print_refusal(error, gpu, format)
        ctx.exit(1)
    named = given.pop("model") or read.model
    if named is None:
        raise names_no_model(read)
    spec = options.load(named, **given)
    answer = inverse.judge(read, spec, gpu, **options.where(given))
    _print(answer, format)
    note(spec.source.notes)
    note((warning.message for warning in answer.fit.warnings) if answer.fit is not None else (), label="warning")
    ctx.exit(0 if answer.starts else 1)


def _print(answer: "ServeCheck", format: str) -> None:
    if format == "json":
        from kvplan.report.data import dump_json

        say(dump_json(answer.to_dict()))
    else:
        show(_page(answer), format)


def _page(answer: "ServeCheck") -> "Page":
    from kvplan.report.fit import refusal_page, serve_check_page

    if answer.fit is None:
        return refusal_page(answer.model, answer.gpu, answer.unread, answer.refusal or "", answer.hint)
    return serve_check_page(answer.fit, answer.unread, answer.longest, answer.fit.flags, answer.refusal)


def _print_refusal(error: "RefusedError", gpu: "Gpu | None", format: str) -> None:
    """Of flags that the engine refuses whatever the model is."""
    refusal, hint = str(error), error.hint or None
    if format == "json":
        from kvplan.report.data import dump_json
        from kvplan.report.fit_data import serve_check_to_dict

        document = serve_check_to_dict(None, options={}, unread=(), longest=None, flags=(), refusal=refusal, hint=hint)
        return say(dump_json(document))
    from kvplan.report.fit import refusal_page

    return show(refusal_page(None, gpu, (), refusal, hint), format)
