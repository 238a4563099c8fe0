"""Engines' command lines: what a user pastes → kvplan's options, and options → a line to paste."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from kvplan.core.engines.table import find_engine
from kvplan.core.errors import InputError
from kvplan.core.text import join_words, printable
from kvplan.runtime.flags.argument import UnknownValueError
from kvplan.runtime.flags.parse import args_from_words, nearly
from kvplan.runtime.flags.read import options_from_args
from kvplan.runtime.flags.table import find_dialect
from kvplan.runtime.flags.write import words_from_options
from kvplan.runtime.launch import Launch, find_launch
from kvplan.runtime.pasted import config_words, contents
from kvplan.runtime.settings import settings_of
from kvplan.runtime.shell import comments
from kvplan.runtime.visible import num_visible

SETTINGS_FILE = "kvplan.yaml"
"""What `write_command` calls the file for what TensorRT-LLM takes from no flag: a comment holds its content."""

_SETTINGS = re.compile(rf"{re.escape(SETTINGS_FILE)}: *(\{{.*\}})", re.DOTALL)
_SETTINGS_FLAGS = ("config", "extra_llm_api_options")
_REVISION = re.compile(r"([\w.-]+/[\w.-]+)@([\w./-]+)", re.ASCII)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|_KEY$", re.IGNORECASE)
_MODEL_NAMES = {
    "vllm": ("model", "model_tag"),
    "sglang": ("model_path", "model"),
    "trtllm": ("model",),
    "llamacpp": ("m", "model", "hf", "hf_repo", "hfr", "mu", "model_url"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One start of one engine, as its command line tells it."""

    engine: str
    """vllm, sglang, trtllm, llamacpp"""
    version: str | None = None
    """Of the image's tag, or of a pinned package."""
    model: str | None = None
    """As kvplan takes it: `OWNER/NAME[@REV]`, `OWNER/NAME:Q4_K_M`, a path."""
    options: dict[str, object] = field(default_factory=dict)
    """Under the names of `kvplan.fit` and of `core.engines.deployment.Switches`."""
    unread: tuple[str, ...] = ()
    """What may bear on memory and is not understood: flags, variables."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables set for it, without those whose names tell of secrets."""
    arguments: dict[str, object] = field(default_factory=dict)
    """As the engine's parser takes them apart, by its own names."""
    num_devices: int | None = None
    """GPUs that the process sees; None where nothing says it."""
    notes: tuple[str, ...] = ()
    """What a reader of the answer should know of the text."""

    @property
    def profile(self) -> str:
        """The engine as kvplan names it: `vllm@0.19`, `vllm` where nothing tells the version."""
        return f"{self.engine}@{self.version}" if self.version else self.engine


def read_command(text: str, engine: str | None = None) -> Command:
    """The engine, the model and the options of a pasted command, or of a file that holds one; nothing is run.

    Takes environment variables, prompts, continued lines, `sudo`, `nohup … &`, `uv run`, `numactl`, `bash -c '…'` and
    `docker run`; reads the file of vLLM's and SGLang's `--config` where it is on this machine. `engine` is NAME or
    NAME@VERSION, which stands over what the text says of its version. Raises InputError for a text that starts no
    engine, or another one, and a flag without its value; RefusedError for a value that the engine would refuse.
    """
    text = contents(text)
    launch = _of_version(find_launch(text), engine)
    dialect = find_dialect(launch.engine)
    typed, loose = args_from_words(launch.engine, launch.words)
    typed = _from_file(launch.engine, typed, loose) | typed
    settings = _settings(text, launch, typed) if launch.engine == "trtllm" else {}
    named = {dialect.argument_variables.get(name): value for name, value in launch.environment.items()}
    args = {name: value for name, value in named.items() if name is not None} | typed | settings
    dialect.refuse(args)
    told, unclear = _environment(launch)
    options, unread = options_from_args(launch.engine, args)
    model = _model(launch.engine, args, loose)
    return Command(
        engine=launch.engine,
        version=launch.version,
        model=model,
        options=told | options,
        unread=(*unread, *unclear, *(printable(word) for word in loose if word != model and word not in _of(model))),
        environment={name: value for name, value in launch.environment.items() if not _SECRET.search(name)},
        arguments=args,
        num_devices=_num_devices(launch),
        notes=(*_notes(launch), *_misspelt(launch.engine, typed)),
    )


def names_no_model(command: Command) -> InputError:
    """The error for a command without a model."""
    file = command.arguments.get("config")
    hint = "put it in, or give its name as `model`"
    if file is not None:
        hint = f"`{printable(str(file))}` may name it, and is not here: {hint}"
    return InputError("the command names no model", hint=hint)


def _of_version(launch: Launch, engine: str | None) -> Launch:
    if engine is None:
        return launch
    name, _, version = engine.partition("@")
    if find_engine(engine).name != launch.engine:
        message = f"the command starts {launch.engine}, not {printable(name, max_length=40)}"
        raise InputError(message, hint=f"`{launch.engine}@VERSION`, or leave the engine out")
    return replace(launch, version=version or launch.version)


def _from_file(engine: str, typed: dict[str, object], loose: list[str]) -> dict[str, object]:
    """What the file of `--config` says, over which the command line stands; the model that stands without a flag, too.

    Source: vLLM 0.33, utils/argparse_utils.py `_pull_args_from_config`
    """
    words = config_words(str(typed["config"])) if engine in ("vllm", "sglang") and typed.get("config") else None
    if words is None:
        return {}
    typed.pop("config")
    found, _ = args_from_words(engine, words)
    if loose:
        found.pop("model", None)
    return found


def _notes(launch: Launch) -> tuple[str, ...]:
    if not launch.others:
        return ()
    return (f"the text starts {join_words(launch.others)}, too: the first alone, {launch.engine}, is judged",)


def _misspelt(engine: str, typed: Mapping[str, object]) -> Iterator[str]:
    """Flags that kvplan does not know and that are nearly one that it knows."""
    for name in typed:
        if meant := nearly(engine, name):
            flag = printable(f"--{name.replace('_', '-')}", max_length=60)
            yield f"`{flag}` is not a flag of {engine} that kvplan knows; perhaps `{meant}` is meant"


def _num_devices(launch: Launch) -> int | None:
    """The fewest of what a container is given and what variables leave visible of it."""
    counts = (launch.num_devices, num_visible(launch.environment))
    return min((count for count in counts if count is not None), default=None)


def _of(model: str | None) -> tuple[str, ...]:
    return () if model is None else (model.partition("@")[0],)


def _settings(text: str, launch: Launch, typed: dict[str, object]) -> dict[str, object]:
    """What TensorRT-LLM's file of settings says, which stands over the command line; its flag is taken out of `typed`.

    Source: TensorRT-LLM 1.2, commands/serve.py `serve`, whose help says that the file overwrites the flags
    """
    named = {name: str(typed[name]) for name in _SETTINGS_FLAGS if typed.get(name)}
    found = _commented(text)
    for name, file in named.items():
        read = found or settings_of(file, text, launch.environment)
        if read is not None:
            del typed[name]
            found = read
    return found


def _commented(text: str) -> dict[str, object]:
    for line in comments(text):
        if found := _SETTINGS.fullmatch(line):
            try:
                read = json.loads(found[1])
            except ValueError:
                message = f"the comment with {SETTINGS_FILE} holds no JSON object"
                raise InputError(message, hint="keep it on one line, as it was written") from None
            return dict(read)
    return {}


def _environment(launch: Launch) -> tuple[dict[str, object], list[str]]:
    known = find_dialect(launch.engine).environment
    options: dict[str, object] = {}
    unread: list[str] = []
    for name, value in launch.environment.items():
        if name in known and value:
            try:
                options |= known[name](value)
            except (UnknownValueError, ValueError):
                unread.append(printable(f"{name}={value}"))
    return options, unread


def _model(engine: str, args: Mapping[str, object], loose: list[str]) -> str | None:
    given = [str(args[name]) for name in _MODEL_NAMES[engine] if args.get(name)]
    model = given[0] if given else loose[0] if loose and engine != "llamacpp" else None
    if model is None:
        return None
    if "$" in model:
        hint = "put its value in its place"
        raise InputError(f"`{printable(model)}` holds a shell variable that kvplan cannot see", hint=hint)
    revision, file = args.get("revision"), args.get("hf_file", args.get("hff"))
    if engine == "llamacpp" and file is not None and "/" not in str(file) and not model.endswith(".gguf"):
        return f"hf://{model.partition(':')[0]}/{file}"
    return f"{model}@{revision}" if revision and re.fullmatch(r"[\w.-]+/[\w.-]+", model) else model


def write_command(engine: str, model: str, options: Mapping[str, object]) -> str:
    """A line to paste that starts the engine so: only options that are not None, in the engine's own words.

    What TensorRT-LLM takes from a file alone stands in a second line, a comment with the file's content. Raises
    InputError for an option, or a value, that the engine cannot be told.
    """
    written = words_from_options(engine, options)
    words = [*_program(engine, _checked(model)), *written.words]
    words += ["--extra_llm_api_options", SETTINGS_FILE] if written.settings else []
    line = [f"{name}={shlex.quote(value)}" for name, value in written.environment.items()]
    line += [shlex.quote(word) for word in words]
    note = f"\n# {SETTINGS_FILE}: {json.dumps(written.settings)}" if written.settings else ""
    return " ".join(line) + note


def _checked(model: str) -> str:
    if not model.strip() or model.startswith("-") or not model.isprintable() or "$" in model:
        raise InputError(f"`{printable(model)}` is no name of a model", hint="give OWNER/NAME or a path")
    return model.strip()


def _program(engine: str, model: str) -> list[str]:
    found = _REVISION.fullmatch(model)
    name, revision = (found[1], ["--revision", found[2]]) if found else (model, [])
    if engine == "vllm":
        return ["vllm", "serve", name, *revision]
    if engine == "sglang":
        return ["python", "-m", "sglang.launch_server", "--model-path", name, *revision]
    if engine == "trtllm":
        return ["trtllm-serve", name, *revision]
    return ["llama-server", *_gguf(model)]


def _gguf(model: str) -> list[str]:
    """A file, or a repository on the Hub; of a repository's file both."""
    if found := re.fullmatch(r"hf://([\w.-]+/[\w.-]+)/([^@]+\.gguf)", model, re.ASCII):
        return ["-hf", found[1], "-hff", found[2]]
    on_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(?::[\w.-]+)?", model, re.ASCII) and not model.endswith(".gguf")
    return ["-hf" if on_hub else "-m", model]
