"""What an engine is given of a model: the repository's own keys, and what it keeps beside them."""

import json
from pathlib import Path

import pytest

from kvplan.core.errors import InputError
from kvplan.sources import catalog
from kvplan.sources.config import spec_from_raw
from kvplan.sources.engine_config import engine_config
from kvplan.sources.load import load_model


def test_a_catalog_name_gives_the_keys_of_its_config() -> None:
    config = engine_config(load_model("meta-llama/Llama-3.1-8B"))
    assert (config["model_type"], config["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert "kvplan" not in config


@pytest.mark.parametrize(
    "entry", [one for one in catalog.entries() if "model_type" in one.config], ids=lambda one: one.id
)
def test_what_the_engine_is_given_is_what_was_planned(entry: catalog.CatalogEntry) -> None:
    model = load_model(entry.id)
    config = engine_config(model)
    assert config["architectures"]
    again = spec_from_raw(config, id=model.id, source=model.source)
    assert (again.layers, again.dtype, again.quantization, again.max_seq_len) == (
        model.layers, model.dtype, model.quantization, model.max_seq_len,
    )  # fmt: skip


def test_a_config_without_a_class_is_refused(tmp_path: Path) -> None:
    config = engine_config(load_model("meta-llama/Llama-3.1-8B"))
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="names no `architectures`"):
        engine_config(load_model(tmp_path / "config.json"))


def test_a_params_json_is_refused() -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        engine_config(load_model("meta-llama/Llama-2-7b"))
