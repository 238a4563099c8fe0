"""The config.json behind a model: what its authors wrote, for frameworks that build their own classes from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_hub import Repo, SmallHub

from kvplan import load_model
from kvplan.core.errors import InputError
from kvplan.sources import catalog
from kvplan.sources.load import raw_config
from tests.models import LLAMA

ROOT = Path(__file__).parents[2]
PARAMS = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "vocab_size": 32000}


def test_a_catalog_name_gives_the_repositorys_keys_and_none_of_ours():
    raw = raw_config(load_model("tiiuae/falcon-40b"))
    written = json.loads((catalog.root() / "tiiuae/falcon-40b.json").read_text())
    assert raw == {key: value for key, value in written.items() if key != "kvplan"}
    assert "max_position_embeddings" not in raw, "the catalog adds it, the repository leaves it out"


def test_an_alias_gives_the_file_it_stands_on():
    alias = catalog.read_entry(catalog.root() / "openai-community/gpt2.json").aliases[0]
    assert raw_config(load_model(alias)) == raw_config(load_model("openai-community/gpt2"))


@pytest.mark.parametrize("name", ["config.json", "llama.json"])
def test_a_path_gives_the_file_whole(tmp_path, name):
    written = LLAMA | {"auto_map": {"AutoModel": "x.Y"}, "rope_theta": 1e6}
    (tmp_path / name).write_text(json.dumps(written))
    assert raw_config(load_model(tmp_path / name)) == written
    if name == "config.json":
        assert raw_config(load_model(tmp_path)) == written


def test_what_the_user_set_is_not_in_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    model = load_model(tmp_path, overrides={"num_hidden_layers": "2"})
    assert (model.num_layers, raw_config(model)["num_hidden_layers"]) == (2, 32)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("meta-llama/Llama-2-70b", "meta-llama/Llama-2-70b-hf is the same model with one"),
        ("mistralai/Mistral-7B-v0.3", "name a repository that has one"),
    ],
)
def test_a_catalog_entry_in_metas_format_names_the_way_on(name, hint):
    with pytest.raises(InputError, match=f"`{name}` has no config.json that a framework reads") as refused:
        raw_config(load_model(name))
    assert refused.value.hint == hint


def test_a_folder_in_metas_format_is_refused(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    for path in (tmp_path, tmp_path / "params.json"):
        with pytest.raises(InputError, match="that a framework reads"):
            raw_config(load_model(path))


def test_the_hub_is_not_asked_again(tmp_path):
    program = """
import json, sys
from kvplan import load_model, KvplanError
from kvplan.sources.load import raw_config
models = [load_model(name) for name in sys.argv[1:]]
print("loaded", flush=True)
sys.stdin.readline()
for model in models:
    try:
        print(json.dumps(raw_config(model)))
    except KvplanError as error:
        print(json.dumps(str(error)))
"""
    written = LLAMA | {"rope_theta": 5}
    repos = {
        "someone/new": Repo({"config.json": json.dumps(written).encode()}),
        "someone/old": Repo({"params.json": json.dumps(PARAMS).encode()}),
    }
    with SmallHub(repos) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        environment.pop("HF_HUB_OFFLINE", None)
        with subprocess.Popen(
            [sys.executable, "-c", program, *repos],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout.readline() == "loaded\n"
            asked = len(hub.requests)
            answers, _ = process.communicate("\n", timeout=60)
        assert asked > 0
        assert len(hub.requests) == asked
    first, second = map(json.loads, answers.splitlines())
    assert first == written
    assert second == "`someone/old` has no config.json that a framework reads"
