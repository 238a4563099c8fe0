import subprocess
import sys
from pathlib import Path

import pytest

from kvplan.core.errors import InputError
from kvplan.sources.hub import HubRef, parse_ref

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

NAMED = {
    "meta-llama/Llama-2-70b": ("meta-llama/Llama-2-70b", None),
    " Qwen/Qwen3-0.6B \n": ("Qwen/Qwen3-0.6B", None),
    "Qwen/Qwen3-0.6B/": ("Qwen/Qwen3-0.6B", None),
    "gpt2": ("gpt2", None),
    "gpt2@main": ("gpt2", "main"),
    f"a/b@{COMMIT}": ("a/b", COMMIT),
    "a/b@refs/pr/1": ("a/b", "refs/pr/1"),
    "hf://a/b": ("a/b", None),
    "hf://gpt2": ("gpt2", None),
    "hf://gpt2@v1": ("gpt2", "v1"),
    "hf://models/a/b@v1/config.json": ("a/b", "v1"),
    "hf://a/b@refs/pr/1/config.json": ("a/b", "refs/pr/1"),
    "hf://a/b@refs%2Fpr%2F1/config.json": ("a/b", "refs/pr/1"),
    "hf://a/b/some/folder": ("a/b", None),
    "https://huggingface.co/a/b": ("a/b", None),
    "https://huggingface.co/a/b/": ("a/b", None),
    "http://www.huggingface.co/a/b?not-for-all-audiences=true#x": ("a/b", None),
    "huggingface.co/a/b/tree/main": ("a/b", "main"),
    "https://hf.co/a/b/tree/refs%2Fpr%2F3": ("a/b", "refs/pr/3"),
    "https://huggingface.co/a/b/tree/refs/pr/3/folder": ("a/b", "refs/pr/3"),
    "https://huggingface.co/a/b/blob/v1.0/config.json": ("a/b", "v1.0"),
    "https://huggingface.co/a/b/resolve/main/config.json?download=true": ("a/b", "main"),
    f"https://huggingface.co/a/b/commit/{COMMIT}": ("a/b", COMMIT),
    "https://huggingface.co/a/b/discussions/4": ("a/b", None),
    "https://huggingface.co/gpt2/tree/main": ("gpt2", "main"),
    "https://mirror.example:8443/hub/a/b/tree/x": ("a/b", "x"),
}


@pytest.mark.parametrize(("text", "expected"), NAMED.items(), ids=NAMED)
def test_what_names_a_repository(text: str, expected: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443/hub/")
    assert parse_ref(text) == HubRef(repo_id=expected[0], revision=expected[1])


OTHER = [
    "", ".", "..", "./a/b", "../a", "/etc/hostname", "~/models/x", "a/..", "a/.", "a/b/c", r"C:\models\x",
    "config.json", "models/config.json", "llama.gguf", "spec.yaml", "two words", "https://example.org/a/b",
    "a--b", "-a", "x\ny", "ftp://huggingface.co/a/b",
]  # fmt: skip


@pytest.mark.parametrize("text", OTHER)
def test_what_has_another_shape(text: str) -> None:
    assert parse_ref(text) is None


WRONG = {
    "https://huggingface.co/datasets/a/b": "`datasets`",
    "hf://datasets/a/b@main/x.parquet": "`datasets`",
    "https://huggingface.co/spaces/a/b": "`spaces`",
    "https://huggingface.co/": "no repository",
    "hf://": "no repository",
    "hf://a b/c": "no valid name",
    "https://huggingface.co/a/../b": "no valid name",
    "a/b--c": "no valid name",
    "a/" + "b" * 97: "no valid name",
    "a/b.git": "no valid name",
    "a/b@": "no valid revision",
    "a/b@../../x": "no valid revision",
    "a/b@/etc/hostname": "no valid revision",
    "a/b@x y": "no valid revision",
    "a/b@--help": "no valid revision",
    "a/b@x\x1b[2J": "no valid revision",
    "https://huggingface.co/a/b/tree/%2e%2e%2fx": "no valid revision",
    "a/b@" + "x" * 256: "no valid revision",
}


@pytest.mark.parametrize(("text", "problem"), WRONG.items(), ids=range(len(WRONG)))
def test_what_has_the_shape_but_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        parse_ref(text)
    assert caught.value.hint
    assert "\x1b" not in str(caught.value)


def test_naming_a_model_loads_no_client() -> None:
    code = (
        "import sys; from kvplan.sources.hub import parse_ref; parse_ref('hf://a/b@refs%2Fpr%2F1');"
        "print([name for name in sys.modules if name in ('huggingface_hub', 'httpx', 'httpx2', 'requests', 'yaml')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
