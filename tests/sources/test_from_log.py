"""What logs call models and GPUs."""

import json
from pathlib import Path

import pytest

from kvplan.core.errors import KvplanError
from kvplan.sources.from_log import gpu_of_log, model_of_log, model_of_numbers
from tests.models import LLAMA

SNAPSHOT = "/root/.cache/huggingface/hub/models--Qwen--Qwen3-8B/snapshots/b968826d9c46dd6066d109eabc6255188de91218"


@pytest.mark.parametrize(
    ("name", "title", "model", "note"),
    [
        ("Qwen/Qwen3-8B", None, "Qwen/Qwen3-8B", ""),
        (SNAPSHOT, None, "Qwen/Qwen3-8B", "lies in the Hub's cache: taken as Qwen/Qwen3-8B"),
        ("/models/Qwen3-8B", None, "Qwen/Qwen3-8B", "of the catalog, by its last part"),
        ("/models/Qwen3-8B/", None, "Qwen/Qwen3-8B", "of the catalog, by its last part"),
        ("C:\\models\\Qwen3-8B-Q4_K_M.gguf", None, "Qwen/Qwen3-8B", "of the catalog"),
        ("/m/Qwen3-8B-UD-Q4_K_XL-00001-of-00002.gguf", None, "Qwen/Qwen3-8B", "of the catalog"),
        ("/blobs/sha256-667b0c1932bc6ffc", "Qwen3 8B", "Qwen/Qwen3-8B", "as it calls itself `Qwen3 8B`"),
        ("", "Qwen3 8B", "Qwen/Qwen3-8B", "the model is taken as"),
    ],
    ids=["id", "snapshot", "folder", "folder with a slash", "quantised file", "shard", "blob", "title"],
)
def test_names(name: str, title: str | None, model: str, note: str) -> None:
    found, said = model_of_log(name, title=title, offline=True)
    assert found.id == model
    assert note in said
    assert bool(note) == bool(said)


def test_a_path_that_is_there_comes_first(tmp_path: Path) -> None:
    """Even where its last part is a model of the catalog."""
    folder = tmp_path / "Qwen3-8B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA | {"num_hidden_layers": 3}), encoding="utf-8")
    found, said = model_of_log(str(folder), offline=True)
    assert found.num_layers == 3
    assert said.startswith("read from ")


@pytest.mark.parametrize("name", ["/models/nobody-knows", "nobody/nothing", "", "/blobs/sha256-667b0c1932bc6ffc"])
def test_what_leads_nowhere_is_an_error(name: str) -> None:
    with pytest.raises(KvplanError):
        model_of_log(name, offline=True)


def test_a_name_that_several_models_share_is_none() -> None:
    """The catalog's index has short names that one model only has; nothing else is guessed."""
    with pytest.raises(KvplanError):
        model_of_log("/models/model", offline=True)


NUMBERS = {
    "architecture": "llama", "name": "My own", "n_vocab": "128256", "n_embd": "4096", "n_layer": "32", "n_head": "32",
    "n_head_kv": "8", "n_embd_head_k": "128", "n_embd_head_v": "128", "n_ff": "14336", "n_ctx_train": "8192",
    "n_expert": "0", "n_swa": "0",
}  # fmt: skip


def test_a_model_of_the_numbers_that_a_log_prints() -> None:
    found = model_of_numbers(NUMBERS, "/blobs/sha256-ab")
    assert found is not None
    model, note = found
    assert (model.id, model.num_layers, model.vocab_size) == ("My own", 32, 128256)
    widths = {(m.num_kv_heads, m.key_dim, m.value_dim) for layer in model.layers for m in layer.mixers}  # type: ignore[union-attr]
    assert widths == {(8, 128, 128)}
    assert "by the numbers that the log prints" in note


@pytest.mark.parametrize(
    "more",
    [{"n_expert": "8"}, {"n_swa": "4096"}, {"n_layer": "many"}, {"n_embd_head_v": "64"}, {"architecture": "gemma3"}],
    ids=lambda more: next(iter(more)),
)
def test_numbers_that_do_not_suffice(more: dict[str, str]) -> None:
    assert model_of_numbers({**NUMBERS, **more}, None) is None


@pytest.mark.parametrize(
    ("name", "gpu", "note"),
    [
        (None, None, ""),
        ("NVIDIA H100 80GB HBM3", "H100-SXM5-80GB", ""),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", ""),
        ("Tesla T4", "T4", ""),
        ("NVIDIA GeForce RTX 3060 + NVIDIA GeForce RTX 3090", None, "unlike GPUs"),
        ("NVIDIA GeForce RTX 9999", None, "does not know"),
        ("NVIDIA GeForce RTX 4060 Ti", None, "may mean 2 GPUs: `--gpu` says which"),
    ],
    ids=["none", "H100", "RTX 4090", "T4", "two", "unknown", "of two sizes"],
)
def test_gpus(name: str | None, gpu: str | None, note: str) -> None:
    found, said = gpu_of_log(name)
    assert (found.name if found else None) == gpu
    assert note in said
    assert bool(note) == bool(said)
