"""Which engine a command starts, with which words: wrappers, containers and Python's `-m` taken off."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.runtime.flags.argument import names
from kvplan.runtime.manifest import container_commands
from kvplan.runtime.shell import ASSIGNMENT, simple_commands
from kvplan.runtime.visible import num_given

_EXAMPLES = "paste one that starts with `vllm serve`, `sglang serve`, `llama-server` or `trtllm-serve`"
_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.api_server": "vllm",
    "sglang.launch_server": "sglang",
    "tensorrt_llm.commands.serve": "trtllm",
}
_WRAPPERS = frozenset(
    {
        "sudo", "nohup", "env", "exec", "time", "nice", "ionice", "numactl", "taskset", "stdbuf", "setsid", "timeout",
        "uv", "uvx", "pipx", "poetry", "pixi", "pdm", "hatch", "conda", "mamba", "micromamba", "srun", "mpirun",
        "mpiexec", "trtllm-llmapi-launch", "nsys", "screen", "tmux", "command", "export", "docker", "podman",
        "nerdctl", "apptainer", "singularity", "enroot", "kubectl",
    }
)  # fmt: skip
_CONTAINERS = frozenset({"docker", "podman", "nerdctl", "apptainer", "singularity"})
_ALONE = names(
    "-d --detach -i --interactive -t --tty -it -ti -itd -dit -tid --rm --privileged --init --read-only -P "
    "--publish-all --nv --rocm --replace"
)
"""Flags of `docker run` that take no value."""
_SHELLS = frozenset({"bash", "sh", "zsh", "dash", "fish"})
_REMOTE = frozenset({"ssh", "pdsh", "gcloud"})
_IMAGES = (
    (re.compile(r"(?:^|/)vllm/vllm-openai(?:-rocm|-cpu)?(?:[:@]|$)"), "vllm"),
    (re.compile(r"(?:^|/)(?:rocm|nvidia|opea|intel)/vllm[\w.-]*(?:[:@]|$)"), "vllm"),
    (re.compile(r"(?:^|/)vllm-openai[\w.-]*(?:[:@]|$)"), "vllm"),
    (re.compile(r"(?:^|/)lmsysorg/sglang(?:[:@]|$)"), "sglang"),
    (re.compile(r"(?:^|/)(?:ggml-org|ggerganov)/llama\.cpp(?::|@|$)"), "llamacpp"),
    (re.compile(r"(?:^|/)nvidia/tensorrt-llm/[\w.-]+(?:[:@]|$)"), "trtllm"),
)
_OWN_TAGS = re.compile(
    r"(?:vllm-openai[\w-]*|sglang|tensorrt-llm/release):v?(\d+\.\d+(?:\.\d+)*(?:\.?(?:post|rc|dev)\d+)?)"
)
_BUILD = re.compile(r"llama\.cpp:\S*?\b(b\d{3,})\b")
_PINNED = re.compile(r"\b(vllm|sglang|tensorrt[-_]llm)(?:\[[^\]]*\])?==v?(\d[\w.]*)")
_PACKAGES = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "trtllm", "tensorrt_llm": "trtllm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start of one engine."""

    engine: str
    words: list[str]
    """What the engine's own parser sees."""
    version: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    num_devices: int | None = None
    """GPUs that a container is given; None where nothing says it."""
    others: tuple[str, ...] = ()
    """The engines of further starts in the text."""


def find_launch(text: str) -> Launch:
    """The first start of an engine in a pasted text, or in a manifest; InputError where there is none."""
    in_manifest = [launch for command in container_commands(text) for launch in _starts(simple_commands(command), {})]
    commands = simple_commands(text)
    found = in_manifest or list(_starts(commands, {}))
    if found:
        return replace(found[0], others=(*found[0].others, *(other.engine for other in found[1:])))
    if not text.strip():
        raise InputError("an empty text starts no engine", hint=_EXAMPLES)
    shown = printable(" ".join(commands[0]) if commands else text.strip(), max_length=60)
    if any(word in ("ollama", "lms") for words in commands for part in words[:4] for word in part.split()[:2]):
        raise InputError(f"`{shown}` leaves its settings to a server of its own", hint="give its server's log instead")
    raise InputError(f"`{shown}` starts no engine that kvplan knows", hint=_EXAMPLES)


def _starts(commands: list[list[str]], exported: dict[str, str]) -> Iterator[Launch]:
    for words in commands:
        if words[0] == "export" or all(ASSIGNMENT.fullmatch(word) for word in words):
            exported |= _assignments(words)
        elif (launch := _launch(words, exported)) is not None:
            yield launch


def _assignments(words: list[str]) -> dict[str, str]:
    return {found[1]: found[2] for word in words if (found := ASSIGNMENT.fullmatch(word))}


def _launch(words: list[str], exported: dict[str, str]) -> Launch | None:
    first = next((index for index, word in enumerate(words) if not ASSIGNMENT.fullmatch(word)), len(words))
    program = _base(words[first]) if first < len(words) else ""
    if program in _REMOTE:
        return _on_another_machine(words[first + 1 :], exported)
    for index in range(first, len(words)):
        if index > first and program not in _WRAPPERS | _SHELLS:
            return None
        if program in _CONTAINERS and (image := _image(words, index)) is not None:
            return _in_container(image, words, index, exported)
        if (found := _program(words, index)) is not None:
            engine, rest = found
            before = words[:index]
            return Launch(
                engine=engine, words=rest, version=_pinned(engine, before), environment=exported | _assignments(before)
            )
        if _base(words[index]) in _SHELLS and (script := _script(words[index:])) is not None:
            variables = exported | _assignments(words[:index])
            return next(_starts(simple_commands(script, variables), variables), None)
    return None


def _on_another_machine(words: list[str], exported: dict[str, str]) -> Launch | None:
    """`ssh HOST 'a command'`, or its words one by one."""
    nested = [word for word in words if " " in word.strip()]
    return next(_starts(simple_commands(" ".join(nested or words[1:])), exported), None) if words else None


def _base(word: str) -> str:
    return re.split(r"[/\\]", word)[-1].removesuffix(".exe")


def _program(words: list[str], index: int) -> tuple[str, list[str]] | None:
    """The engine that is started right here, and its words."""
    name, rest = _base(words[index]), words[index + 1 :]
    if name in ("vllm", "sglang") and rest[:1] == ["serve"]:
        return name, rest[1:]
    if name == "llama-server":
        return "llamacpp", rest
    if name == "trtllm-serve" and rest[:1] != ["disaggregated"]:
        return "trtllm", rest[1:] if rest[:1] == ["serve"] else rest
    if re.fullmatch(r"python[\d.]*", name) and "-m" in rest[:4]:
        module, *after = rest[rest.index("-m") + 1 :] or [""]
        if module in ("vllm", "vllm.entrypoints.cli.main", "sglang.cli.main") and after[:1] == ["serve"]:
            return module.partition(".")[0], after[1:]
        return (_MODULES[module], after) if module in _MODULES else None
    return None


def _script(words: list[str]) -> str | None:
    """What `bash -c '…'` runs."""
    for index, word in enumerate(words[1:4], start=1):
        if re.fullmatch(r"-\w*c", word) and index + 1 < len(words):
            return words[index + 1]
    return None


def _image(words: list[str], index: int) -> str | None:
    """The engine of an image; a word behind a flag is that flag's, such as a volume or a name."""
    flag = words[index - 1]
    if flag.startswith("-") and "=" not in flag and flag not in _ALONE:
        return None
    return next((engine for pattern, engine in _IMAGES if pattern.search(words[index])), None)


def _in_container(image: str, words: list[str], index: int, exported: dict[str, str]) -> Launch:
    before, after = words[:index], words[index + 1 :]
    environment = _passed_variables(before, exported | _assignments(before))
    tag = _OWN_TAGS.search(words[index]) or _BUILD.search(words[index])
    version, devices = tag[1] if tag else None, _devices(before, environment)
    # `--entrypoint python3 IMAGE -m …`
    launch = _launch(["python3", *after] if after[:1] == ["-m"] else after, environment) if after else None
    if launch is None:
        if image == "sglang":
            hint = "put `sglang serve --model-path MODEL` behind the image"
            raise InputError("the image of SGLang is given no command that starts a server", hint=hint)
        after = after[1:] if after[:1] in (["--server"], ["serve"]) else after
        return Launch(engine=image, words=after, version=version, environment=environment, num_devices=devices)
    own = launch.version or (version if launch.engine == image else None)
    return replace(launch, version=own, num_devices=devices)


def _devices(words: list[str], environment: dict[str, str]) -> int | None:
    """GPUs of `--gpus 2`, `--gpus device=0,1`, or of the variable for which they stand; None for `all`, and where
    nothing says it."""
    if not any(word.partition("=")[0] == "--gpus" for word in words):
        return num_given(environment)
    for flag, value in zip(words, [*words[1:], ""], strict=True):
        told = (value if flag == "--gpus" else flag.removeprefix("--gpus=") if "--gpus=" in flag else "").strip("\"'")
        if found := re.fullmatch(r"(?:count=)?(\d+)", told):
            return int(found[1])
        if told.startswith("device="):
            return len(told.removeprefix("device=").split(","))
    return None


def _passed_variables(words: list[str], outside: dict[str, str]) -> dict[str, str]:
    """What a container is given: `-e A=b`, `--env A=b`, `--env=A=b`, `-eA=b`, and `-e A` of what is set outside."""
    passed: dict[str, str] = {}
    for flag, value in zip(words, [*words[1:], ""], strict=True):
        text = value if flag in ("-e", "--env") else re.sub(r"^(?:--env=|-e(?=[A-Za-z_]))", "", flag)
        if text == flag:
            continue
        if found := ASSIGNMENT.fullmatch(text):
            passed[found[1]] = found[2]
        elif text in outside:
            passed[text] = outside[text]
    return passed


def _pinned(engine: str, words: list[str]) -> str | None:
    """The version in `uv run --with vllm==0.19.0 vllm serve …`."""
    found = [match for word in words for match in _PINNED.finditer(word) if _PACKAGES[match[1]] == engine]
    return found[0][2] if found else None
