"""Files that a pasted text stands for, or names; several starts in one text; slips of the pen."""

from pathlib import Path

import pytest

from kvplan.core.errors import InputError
from kvplan.inverse import serve_check
from kvplan.runtime.command import names_no_model, read_command
from kvplan.runtime.pasted import config_words, contents

TWO = """
services:
  first:
    image: vllm/vllm-openai:v0.19.0
    command: --model Qwen/Qwen3-8B --max-model-len 8192
  second:
    image: lmsysorg/sglang:v0.5.3
    command: sglang serve --model-path Qwen/Qwen3-8B
"""
SETTINGS = """\
# as vLLM's documentation has it
model: Qwen/Qwen3-8B
tensor-parallel-size: 4
max-model-len: "16384"   # tokens
enforce-eager: true
enable-prefix-caching: false
served-model-name: [a, 'b']
api-key:
  - one
  - two
speculative-config: {"method": "ngram", "num_speculative_tokens": 3}
"""


def test_a_file_is_read_where_it_is(tmp_path: Path) -> None:
    manifest = tmp_path / "k8s.yaml"
    manifest.write_text(TWO, encoding="utf-8")
    assert read_command(str(manifest)).options == {"max_model_len": 8192}
    assert contents("vllm serve a/b") == "vllm serve a/b"
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is no text"):
        contents(str(tmp_path / "x.bin"))


def test_a_file_that_says_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    for name, says in (
        ("nope.yaml", "there is no file `nope.yaml`"),
        (str(tmp_path / "run.sh"), "there is no file"),
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "empty.txt"), "is empty"),
        ("", "an empty text"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            read_command(name)
        assert caught.value.hint
    assert read_command("llama-server").model is None


def test_further_starts_are_named() -> None:
    assert read_command(TWO).notes == ("the text starts sglang, too: the first alone, vllm, is judged",)
    found = serve_check(TWO, "H100", offline=True)
    assert found.fit is not None
    assert any("the text starts sglang" in note for note in found.fit.notes)
    pair = read_command("vllm serve a/b &\nllama-server -m x.gguf")
    assert (pair.engine, len(pair.notes)) == ("vllm", 1)
    assert read_command("vllm serve a/b").notes == ()


def test_a_file_of_settings_is_read_and_the_command_line_stands_over_it(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(SETTINGS, encoding="utf-8")
    found = read_command(f"vllm serve --config {file} -tp 2")
    assert (found.model, found.unread) == ("Qwen/Qwen3-8B", ())
    assert found.options == {
        "tp": 2, "max_model_len": 16384, "enforce_eager": True, "prefix_caching": False,
        "speculative_method": "ngram", "num_speculative_tokens": 3,
    }  # fmt: skip
    assert read_command(f"vllm serve a/b --config {file}").model == "a/b"


def test_a_file_of_settings_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    nested = tmp_path / "nested.yaml"
    nested.write_text("model: a/b\ncompilation-config:\n  level: 3\n", encoding="utf-8")
    assert config_words(str(nested)) is None
    assert config_words(str(tmp_path / "none.yaml")) is None
    found = read_command("vllm serve --config none.yaml")
    assert (found.model, found.unread) == (None, ("--config none.yaml",))
    assert "`none.yaml` may name it" in names_no_model(found).hint


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("vllm serve a/b --max-modle-len 8192", "--max-model-len"),
        ("vllm serve a/b --quantisation fp8", "--quantization"),
        ("sglang serve --model-path a/b --context-lenght 8192", "--context-length"),
    ],
)
def test_a_slip_of_the_pen(command: str, meant: str) -> None:
    found = read_command(command)
    assert [f"perhaps `{meant}` is meant" in note for note in found.notes] == [True]
    assert len(found.unread) == 1


def test_a_flag_that_is_like_no_other_is_left_alone() -> None:
    assert read_command("vllm serve a/b --offload-group-size 8 --max-model-len 8192 --tensor-par 2").notes == ()


def test_a_default_of_the_shell_is_filled_in() -> None:
    assert read_command("vllm serve a/b --max-model-len ${LEN:-8192}").options == {"max_model_len": 8192}
    assert read_command("vllm serve ${MODEL:-a/b}").model == "a/b"


SCRIPT = """#!/bin/bash
set -euo pipefail
# start
MODEL=a/b
export LEN=8192 SPEC='{"method": "ngram", "num_speculative_tokens": 3}'
FLAGS="-tp 2 --enforce-eager"
exec vllm serve "$MODEL" $FLAGS \\
  --max-model-len ${LEN:-4096} --speculative-config "$SPEC"
"""


def test_variables_that_the_text_sets_are_put_in() -> None:
    found = read_command(SCRIPT)
    assert (found.model, found.unread) == ("a/b", ())
    assert found.options == {
        "tp": 2, "enforce_eager": True, "max_model_len": 8192, "speculative_method": "ngram",
        "num_speculative_tokens": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("M=a/b; vllm serve $M", "a/b"),
        ("M=a/b && vllm serve ${M}", "a/b"),
        ("OWNER=a\nM=$OWNER/b\nvllm serve $M", "a/b"),
        ("M=a/b\nM=a/b\nvllm serve $M", "a/b"),
        ("M='/my models/b'\nvllm serve \"$M\"", "/my models/b"),
        ("export M=a/b\nbash -c 'vllm serve $M'", "a/b"),
        ("docker run -e M=a/b vllm/vllm-openai bash -c 'vllm serve $M'", "a/b"),
        ("vllm serve ${M:-c/d}\nM=a/b", "c/d"),
    ],
)
def test_a_variable_of_a_model(text: str, model: str) -> None:
    assert read_command(text).model == model


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve $M",
        "M=a/b vllm serve $M",  # the shell puts it in before it sets it
        "vllm serve $M\nM=a/b",
        "M=$1\nvllm serve $M",
        "M=`x`\nvllm serve $M",
        "M=a/b\nM=c/d\nvllm serve $M",
        "if true; then\nM=a/b\nelse\nM=c/d\nfi\nvllm serve $M",
        "M=a/b\nif true; then M=c/d; fi\nvllm serve $M",
        "M=a/b\nvllm serve '$M'",
        "M=a/b\nvllm serve \\$M",
        "docker run -e M=a/b vllm/vllm-openai --model $M",
    ],
)
def test_a_variable_that_the_text_does_not_tell(text: str) -> None:
    with pytest.raises(InputError, match="shell variable"):
        read_command(text)
