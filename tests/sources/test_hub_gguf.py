"""GGUF files on the Hub: which one is meant, its header by range requests, and the cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gguf_writer import gguf_bytes
from small_hub import COMMIT, Repo, SmallHub

ROOT = Path(__file__).parents[2]
LLAMA = json.loads((Path(__file__).parent.parent / "data" / "gguf" / "models.json").read_text())["llama"]
DATA_BYTES = 3 * 2**20
FILE = gguf_bytes(LLAMA["metadata"], LLAMA["tensors"], data=DATA_BYTES)


def part(index, count=2):
    half = len(LLAMA["tensors"]) // 2
    tensors = LLAMA["tensors"][:half] if index == 0 else LLAMA["tensors"][half:]
    return gguf_bytes((LLAMA["metadata"] if index == 0 else {}) | {"split.no": index, "split.count": count}, tensors)


@pytest.fixture(scope="module")
def hub():
    split = {f"Q4_K_M/m-Q4_K_M-{i + 1:05d}-of-00002.gguf": part(i) for i in range(2)}
    repos = {
        "one/gguf": Repo({"m.Q4_K_M.gguf": FILE, "mmproj-m-f16.gguf": b"GGUF", "README.md": b""}),
        "many/gguf": Repo({"m-Q4_K_M.gguf": FILE, "m-Q8_0.gguf": FILE, "m-IQ4_K_M.gguf": FILE}),
        "flat/split": Repo({name.rpartition("/")[2]: raw for name, raw in split.items()}),
        "both/kinds": Repo({"config.json": json.dumps(LLAMA["config"]).encode(), "m-Q8_0.gguf": FILE}),
        "no/range": Repo({"m.gguf": FILE}, fault="no-range"),
    }
    with SmallHub(repos) as small_hub:
        yield small_hub


def ask(hub, name, home, *options):
    mine = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and not k.lower().endswith("_proxy")
    }
    env = mine | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "kvplan", "inspect", name, "--json", *options]
    done = subprocess.run(command, env=env, cwd=home.parent, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("one/gguf", "m.Q4_K_M.gguf"),
        ("one/gguf@v1", "m.Q4_K_M.gguf"),
        ("one/gguf:q4_k_m", "m.Q4_K_M.gguf"),
        ("many/gguf:Q4_K_M", "m-Q4_K_M.gguf"),
        ("many/gguf@main:Q8_0", "m-Q8_0.gguf"),
        ("hf://many/gguf/m-Q8_0.gguf", "m-Q8_0.gguf"),
        ("https://huggingface.co/many/gguf/blob/main/m-Q8_0.gguf", "m-Q8_0.gguf"),
        ("https://huggingface.co/many/gguf/resolve/main/m-Q8_0.gguf?download=true", "m-Q8_0.gguf"),
        ("flat/split:Q4_K_M", "m-Q4_K_M-00001-of-00002.gguf"),
        ("both/kinds:Q8_0", "m-Q8_0.gguf"),
    ],
)
def test_which_file_is_read(hub, tmp_path, name, file):
    code, document, err = ask(hub, name, tmp_path / "hf")
    assert (code, err) == (0, "")
    assert document["source"] == "gguf"
    assert document["num_parameters"] == LLAMA["num_parameters"]
    assert document["revision"] == COMMIT
    assert f", {file} (hub)" in document["location"]


def test_a_config_comes_first_where_nothing_says_gguf(hub, tmp_path):
    _, document, _ = ask(hub, "both/kinds", tmp_path / "hf")
    assert document["source"] == "hub"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("many/gguf", "`many/gguf` holds 3 GGUF models", "`m-IQ4_K_M.gguf`, `m-Q4_K_M.gguf` and `m-Q8_0.gguf`"),
        ("many/gguf:Q2_K", "no GGUF file called `Q2_K`", "`many/gguf:Q4_K_M`"),
        ("hf://many/gguf/x.gguf", "has no file `x.gguf`", "hf://many/gguf/FILE.gguf"),
    ],
)
def test_a_file_that_is_not_told_apart_is_refused(hub, tmp_path, name, message, hint):
    code, _, err = ask(hub, name, tmp_path / "hf")
    assert code == 2
    assert message in err
    assert hint in err


def test_a_server_without_ranges_is_refused(hub, tmp_path):
    code, _, err = ask(hub, "no/range", tmp_path / "hf")
    assert code == 4
    assert "sent a whole file" in err


def test_only_the_start_of_the_file_is_sent(hub, tmp_path):
    hub.requests.clear()
    ask(hub, "one/gguf", tmp_path / "hf")
    sent = [(r.range, r.sent_bytes) for r in hub.requests_for("one/gguf") if r.filename == "m.Q4_K_M.gguf"]
    assert sent == [("bytes=0-1048575", 2**20)]


def test_a_downloaded_file_is_read_offline(hub, tmp_path):
    folder = tmp_path / "hf" / "hub" / "models--one--gguf"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "snapshots" / COMMIT / "m.Q4_K_M.gguf").write_bytes(FILE)
    code, document, err = ask(hub, "hf://one/gguf/m.Q4_K_M.gguf", tmp_path / "hf", "--offline")
    assert (code, err) == (0, "")
    assert (document["revision"], document["num_parameters"]) == (COMMIT, LLAMA["num_parameters"])
    code, _, err = ask(hub, "one/gguf", tmp_path / "hf", "--offline")
    assert code == 4
