"""The README shows what the program prints, and its examples run."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvplan.cli import cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def run(line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    return CliRunner().invoke(cli, shlex.split(line, comments=True)[1:])


def test_the_quick_start_shows_what_make_run_prints(monkeypatch):
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    assert run("kvplan estimate meta-llama/Llama-2-70b --seq 4096", monkeypatch).stdout == shown[1]


# `validate` measures for a while: tests/validate/test_validate_cli.py runs it
EXAMPLES = [
    line[2:]
    for line in README.splitlines()
    if line.startswith("$ kvplan") and "./my-model" not in line and " validate " not in line
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_run(line, monkeypatch):
    result = run(line, monkeypatch)
    assert result.exit_code in (0, 1), result.stderr
    assert result.stdout


SHOWN = [
    (command, shown) for command, shown in re.findall(r"^\$ (kvplan .*)\n((?:(?!\$|```).*\n)+)", README, re.MULTILINE)
]


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_is_shown_below_an_example_is_what_it_prints(command, shown, monkeypatch):
    printed = run(command, monkeypatch).stdout.splitlines()
    assert [line for line in shown.splitlines() if line != "…" and line not in printed] == []


def test_there_are_examples_of_every_kind():
    assert {line.split()[1] for line in EXAMPLES} >= {"estimate", "inspect", "models", "gpus"}
