"""The command line's manners: exit codes, streams, hostile strings, pipes, completion."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from inline_snapshot import snapshot

from kvplan.cli import cli
from tests.command import MODEL, config, run, start


def test_exit_1_where_it_does_not_fit() -> None:
    result = run("estimate", MODEL, "--gpu", "H100")
    assert result.exit_code == 1
    assert "does not fit: " in result.stdout
    assert run("estimate", MODEL, "--gpu", "H100", "--gpus", "4").exit_code == 0
    assert run("estimate", MODEL, "--gpu", "H100", "--json").exit_code == 1


ERRORS = {
    "count": (("--seq", "4q"), "error: invalid value for '--seq' / '--context' / '-c': `4q` is not a count"),
    "zero": (("--batch", "0"), "error: `batch_size` is 0, not a whole number from 1 to"),
    "fact": (("--set", "vocab_size"), "error: invalid value for '--set': `vocab_size` is not KEY=VALUE"),
    "seconds": (("--timeout", "nan"), "error: invalid value for '--timeout': `nan` is not a number of seconds"),
    "formats": (("--json", "--format", "csv"), "error: --json and --format csv contradict each other"),
    "format": (("--format", "xml"), "error: invalid value for '--format': 'xml' is not one of"),
    "dtype": (("--dtype", "int4"), "error: `int4` is not a dtype that kvplan knows"),
    "engine": (("--engine", "magic"), "error: `magic` is not an engine that kvplan knows"),
    "attention": (("--attention", "magic"), "error: `magic` is not an attention backend"),
    "gpu": (("--gpu", "no-such-gpu"), "error: no GPU named `no-such-gpu` is known"),
    "layout": (("--gpus", "3", "--tp", "2"), "error: 3 GPUs cannot be laid out as tp 2 × pp 1"),
    "utilization": (("--gpu", "H100", "--gpu-memory-utilization", "nan"), "error: `gpu_memory_utilization` is nan"),
    "option": (("--no-such-option",), "error: no such option"),
    "contradiction": (("--hub", "--offline"), "error: `--hub` and `--offline` contradict each other"),
}


@pytest.mark.parametrize(("args", "sentence"), ERRORS.values(), ids=ERRORS)
def test_exit_2_with_one_sentence_and_a_hint(args: tuple[str, ...], sentence: str) -> None:
    result = run("estimate", MODEL, *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    error, hint = result.stderr.splitlines()
    assert error.startswith(sentence)
    assert not error.endswith(".")
    assert hint.startswith("hint: ")


def test_exit_2_for_a_missing_argument_and_an_unknown_command() -> None:
    for args in (("estimate",), ("estimat",), ("estimate", MODEL, "more")):
        result = run(*args)
        assert result.exit_code == 2
        assert result.stderr.splitlines()[1].startswith("hint: `kvplan")


def test_exit_3_for_an_unknown_architecture(tmp_path: Path) -> None:
    result = run("estimate", config(tmp_path, model_type="hyena_of_tomorrow"))
    assert result.exit_code == 3
    assert "hyena_of_tomorrow" in result.stderr


def test_exit_4_where_the_hub_is_not_asked() -> None:
    pytest.importorskip("huggingface_hub")
    result = run("estimate", "nobody/nothing-of-this-name", "--offline")
    assert result.exit_code == 4
    assert result.stdout == ""


def test_a_bug_is_one_sentence_and_exit_101(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **how: object) -> None:
        raise RuntimeError("\x1b[2Jboom")

    monkeypatch.setattr("kvplan.api.estimate", fail)
    result = run("estimate", MODEL)
    assert result.exit_code == 101
    assert result.stderr == snapshot("""\
error: a bug in kvplan: RuntimeError: \\x1b[2Jboom
hint: please report it with the command and what `KVPLAN_DEBUG=1` shows
""")
    debugging = CliRunner(env={"KVPLAN_DEBUG": "1"}).invoke(cli, ["estimate", MODEL])
    assert debugging.exit_code == 101
    assert "Traceback" in debugging.stderr


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **how: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kvplan.api.estimate", interrupt)
    result = run("estimate", MODEL)
    assert result.exit_code == 130
    assert result.stdout == ""


def test_warnings_go_to_stderr_and_data_to_stdout(tmp_path: Path) -> None:
    path = config(tmp_path, torch_dtype=None)
    for format in ("text", "json", "csv", "md"):
        result = run("estimate", path, "--seq", "8192", "--format", format)
        assert result.exit_code == 0
        assert "warning: the source names no dtype" in result.stderr
        assert "warning: " not in result.stdout
    document = json.loads(run("estimate", path, "--seq", "8192", "--json").stdout)
    assert [warning["code"] for warning in document["warnings"]] == ["dtype-assumed", "beyond-max-positions"]


def test_hostile_names_and_facts_cannot_steer_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "evil\x1b[2J\u202e"
    folder.mkdir()
    path = config(folder)
    for args in (("estimate", path), ("inspect", path), ("estimate", path, "--format", "md")):
        result = run(*args)
        assert result.exit_code == 0, result.stderr
        assert not set(result.output) & set("\x1b\u202e")
    refused = {"\x1b[2J.json": 2, config(folder, architectures=["Llama\x1b]0;owned\x07ForCausalLM"]): 3}
    for model, code in refused.items():
        result = run("estimate", model)
        assert result.exit_code == code
        assert not set(result.output) & set("\x1b\x07\u202e")


def test_the_same_input_is_the_same_bytes() -> None:
    for format in ("text", "json", "csv", "md"):
        assert len({run("estimate", MODEL, "--gpu", "A100", "--format", format).stdout_bytes for _ in range(2)}) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_KVPLAN_COMPLETE={shell}_complete" in result.stdout


COMPLETIONS = {
    "model": ("kvplan estimate meta-llama/Llama-2-7", "meta-llama/Llama-2-70b"),
    "gpu": ("kvplan estimate x --gpu h100-s", "H100-SXM5-80GB"),
    "engine": ("kvplan estimate x --engine tr", "transformers"),
    "format": ("kvplan estimate x --format c", "csv"),
    "kv dtype": ("kvplan estimate x --kv-dtype fp8", "fp8"),
    "command": ("kvplan est", "estimate"),
    "path": ("kvplan estimate ./", "./"),
}


@pytest.mark.parametrize(("line", "word"), COMPLETIONS.values(), ids=COMPLETIONS)
def test_completion(line: str, word: str) -> None:
    words = line.split()
    env = {"_KVPLAN_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner(env=env).invoke(cli, [], prog_name="kvplan")
    assert word in [found.partition(",")[2] for found in result.stdout.splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
def test_a_reader_that_has_gone_is_no_error() -> None:
    with start("estimate", MODEL, "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_plainly() -> None:
    with Path("/dev/full").open("wb") as full, start("estimate", MODEL, stdout=full) as process:
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"error: the output cannot be written: ")
    assert process.returncode == 2


def test_an_ascii_terminal_gets_ascii() -> None:
    env = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    with start("estimate", MODEL, stdout=subprocess.PIPE, env=env) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.isascii()
    assert b"####" in out
