"""The one door: paths, names, and what is said when neither leads anywhere."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from small_hub import Repo, SmallHub

from kvplan import estimate, load_model
from kvplan.core.errors import HubError, InputError, UnsupportedError
from tests.models import LLAMA

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """A model's folder, as `save_pretrained` leaves it."""
    home = tmp_path / "my-model"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(LLAMA))
    return home


def write_safetensors(path, shape):
    size = 2
    for extent in shape:
        size *= extent
    header = json.dumps({"w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * size)


def test_a_folder_its_config_and_a_string_path_are_the_same_model(folder):
    models = [load_model(folder), load_model(folder / "config.json"), load_model(str(folder))]
    assert [model.id for model in models] == ["my-model"] * 3
    assert [model.source.kind for model in models] == ["directory", "config", "directory"]
    assert len({estimate(model).weights.num_parameters for model in models}) == 1


def test_a_config_of_any_name_is_read(tmp_path):
    path = tmp_path / "llama.json"
    path.write_text(json.dumps(LLAMA))
    assert load_model(path).id == "llama"


def test_a_params_json_is_read_with_the_vocabulary_that_the_user_sets(tmp_path):
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "vocab_size": -1}))
    with pytest.raises(InputError, match="vocab_size"):
        load_model(path)
    model = load_model(path, overrides={"vocab_size": "32000"})
    assert model.source.kind == "params"
    assert estimate(model).weights.num_parameters == 6_738_415_616


def test_a_relative_name_that_only_a_folder_has_is_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load_model("my-model").source.kind == "directory"
    assert load_model("./my-model").source.kind == "directory"


def test_a_catalog_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model("gpt2").source.kind == "catalog"


@pytest.mark.parametrize(
    "name",
    [
        "hf://openai/gpt-oss-20b",
        "hf://openai/gpt-oss-20b/config.json",
        "https://huggingface.co/openai/gpt-oss-20b",
        "huggingface.co/openai/gpt-oss-20b/",
        "openai/GPT-OSS-20B",
    ],
)
def test_addresses_of_a_catalog_model_need_no_network(name):
    assert load_model(name).source.kind == "catalog"


def test_an_address_of_a_file_is_no_path():
    with pytest.raises(HubError, match="offline"):
        load_model("https://huggingface.co/someone/thing/blob/main/config.json", offline=True)


def test_a_folder_with_a_slash_behind_it_is_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load_model("my-model/").source.kind == "directory"


def test_a_scheme_that_stands_in_a_file_of_its_own_is_not_missed(folder):
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    write_safetensors(folder / "model.safetensors", [3, 5])
    plan = estimate(load_model(folder))
    assert plan.weights.quantization == "modelopt"
    assert plan.weights.total_bytes == 30
    assert plan.evidence["weights"] == "derived"


@pytest.mark.parametrize("name", ["", "  ", "a" * 300, "x/" + "y" * 300])
def test_names_that_cannot_be(name):
    with pytest.raises(InputError):
        load_model(name)


def test_infinity_where_nobody_looks_is_no_obstacle(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "time_step_limit": [0.0, float("inf")]}))
    assert load_model(path).num_layers == 32
    path.write_text(json.dumps({**LLAMA, "num_hidden_layers": float("inf")}))
    with pytest.raises(InputError, match="`num_hidden_layers`"):
        load_model(path)


def test_a_storage_format_is_no_dtype_and_dtype_rescues_it(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "torch_dtype": "float8_e4m3fn"}))
    assert estimate(load_model(path)).evidence["weights"] == "assumed"
    assert estimate(load_model(path), dtype="bf16").evidence["weights"] == "exact"


def test_the_stored_size_is_read_from_headers_beside_the_config(folder):
    write_safetensors(folder / "model.safetensors", [3, 5])
    assert load_model(folder).stored_weight_bytes == 30
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 77}, "weight_map": {}}))
    assert load_model(folder).stored_weight_bytes == 77


def test_a_nested_key_can_be_set(folder):
    model = load_model(folder, overrides={"num_key_value_heads": "8", "architectures": "null"})
    assert model.layers[0].mixers[0].num_kv_heads == 8
    with pytest.raises(InputError):
        load_model(folder, overrides={"vocab_size.x": "1"})
    with pytest.raises(InputError):
        load_model(folder, overrides={"": "1"})


def test_a_fact_that_nothing_reads_is_a_slip_and_no_answer(folder, tmp_path):
    with pytest.raises(InputError, match="`vocabsize` is set, but nothing reads it") as caught:
        load_model(folder, overrides={"vocabsize": "1"})
    assert "`vocab_size`" in caught.value.hint
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"dim": 64, "multiple_of": 16, "n_heads": 4, "n_layers": 2, "vocab_size": 10}))
    assert load_model(path, overrides={"n_kv_heads": "2"}).layers[0].mixers[0].num_kv_heads == 2
    with pytest.raises(InputError, match="nothing reads it") as caught:
        load_model(path, overrides={"num_key_value_heads": "2"})
    assert "`n_kv_heads`" in caught.value.hint
    with pytest.raises(InputError, match="nothing reads it"):
        load_model("meta-llama/Llama-2-70b", overrides={"num_hidden_layers": "10"})
    assert load_model("meta-llama/Llama-2-70b", overrides={"n_layers": 10}).num_layers == 10


@pytest.mark.parametrize(
    ("name", "word"),
    [("./nowhere", "does not exist"), ("/nowhere/config.json", "does not exist"), ("lama 2 70b", "neither")],
)
def test_a_name_that_leads_nowhere(name, word):
    with pytest.raises(InputError, match=word) as caught:
        load_model(name)
    assert caught.value.hint


def test_did_you_mean():
    with pytest.raises(InputError) as caught:
        load_model("meta llama/Llama-2-70b")
    assert "meta-llama/Llama-2-70b" in caught.value.hint


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json or params\.json"):
        load_model(tmp_path)


def test_offline_and_not_in_the_catalog_says_both(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(HubError) as caught:
        load_model("meta-llama/Llama-2-71b", offline=True)
    assert caught.value.exit_code == 4
    assert "the catalog has " in caught.value.hint
    assert "meta-llama/Llama-2-70b" in caught.value.hint


def test_hub_and_offline_contradict_each_other():
    with pytest.raises(InputError, match="contradict"):
        load_model("openai/gpt-oss-20b", hub=True, offline=True)


def test_an_unknown_architecture_is_named_and_exits_3(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "quantum_transformer"}))
    with pytest.raises(UnsupportedError, match="`quantum_transformer`") as caught:
        load_model(path)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "key", ["model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]
)
def test_a_missing_key_is_named_and_exits_2(tmp_path, key):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({k: v for k, v in LLAMA.items() if k != key}))
    with pytest.raises(InputError, match=f"`{key}`") as caught:
        load_model(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [-1, 0, 1.5, "32", True, [32], 10**30])
def test_an_impossible_number_is_named(tmp_path, value):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "num_hidden_layers": value}))
    with pytest.raises(InputError, match="`num_hidden_layers`"):
        load_model(path)


def test_too_many_layers_are_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "num_hidden_layers": 20_000}))
    with pytest.raises(InputError, match=r"`num_hidden_layers` is .20000"):
        load_model(path)


def test_a_name_is_answered_from_the_hubs_cache_before_the_hub_is_asked(tmp_path):
    program = """
import json, sys
from kvplan import load_model, KvplanError
for name, options in json.loads(sys.argv[1]):
    try:
        source = load_model(name, **options).source
        print(json.dumps([source.kind, source.location, source.revision, list(source.notes)]))
    except KvplanError as error:
        print(json.dumps([str(error), error.hint, error.exit_code]))
"""
    name = "someone/new-model"
    with SmallHub({name: Repo(files={"config.json": json.dumps(LLAMA).encode()})}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        environment.pop("HF_HUB_OFFLINE", None)

        def ask(*calls):
            done = subprocess.run(
                [sys.executable, "-c", program, json.dumps(calls)],
                env=environment, capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            return [json.loads(line) for line in done.stdout.splitlines()]

        first, missing = ask((name, {}), ("someone/nothing", {}))
        assert first[0] == "hub"
        assert first[2] is not None
        assert missing[2] == 4
        asked = len(hub.requests)
        again, offline = ask((name, {}), (name, {"offline": True}))
        assert len(hub.requests) == asked, "the cache should have answered"
        assert again[2] == offline[2] == first[2]
        assert "`--hub` asks the Hub again" in again[3][0]
        ask((name, {"hub": True}))
        assert len(hub.requests) > asked
