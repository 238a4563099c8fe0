"""The model and the GPU that an engine's log names: a Hub id, a folder, a snapshot in the Hub's cache, a GGUF file.

A model is tried in this order: the path itself; `OWNER/NAME` where the path lies in the Hub's cache; the name at the
door (`load_model`: catalog, cache, Hub); its last part in the catalog, where one model only has it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kvplan.core.errors import InputError, KvplanError
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec, Source
from kvplan.core.text import printable
from kvplan.sources import catalog
from kvplan.sources.config import spec_from_raw
from kvplan.sources.load import load_model
from kvplan.sources.records import named_gpu

_CACHED = re.compile(r"models--([\w.\-]+?)--([\w.\-]+)/snapshots/")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_QUANT = re.compile(r"[-._](?:UD[-_])?(?:I?Q\d+(?:_\w+)*|F16|BF16|F32|FP16|MXFP4\w*|TQ\d\w*|GGUF)$", re.IGNORECASE)
"""What a GGUF file's name ends in besides the model's."""


def model_of_log(name: str, *, title: str | None = None, **how: Any) -> tuple[ModelSpec, str]:
    """(the model, how it was found: "" where the log's own name says it) of what a log calls a model.

    `title` is what a GGUF file calls itself; `how` is what `load_model` takes. Raises what that raises where nothing
    of the order above leads to a model.
    """
    first: KvplanError | None = None
    for candidate, note in _candidates(name):
        try:
            return load_model(candidate, **how), note
        except KvplanError as error:
            first = first or error
    for part in _last_parts(name, title):
        found = catalog.find(part)
        model = catalog.load(found[0]) if found else None
        if model is not None:
            said = f"`{printable(name, max_length=60)}`" if name else "the model"
            how_found = "by its last part" if part in name else f"as it calls itself `{printable(title or '')}`"
            return model, f"{said} is taken as {model.id} of the catalog, {how_found}"
    raise first or InputError(f"`{printable(name, max_length=60)}` names no model", hint="`--model` says which it is")


_DENSE = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "command-r": "cohere"}
"""Architectures whose layers are all alike, each with keys and values of every token: a few numbers describe them."""
_NUMBERS = {
    "n_vocab": "vocab_size", "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
    "n_head_kv": "num_key_value_heads", "n_embd_head_k": "head_dim", "n_ff": "intermediate_size",
    "n_ctx_train": "max_position_embeddings",
}  # fmt: skip


def model_of_numbers(facts: Mapping[str, str], name: str | None) -> tuple[ModelSpec, str] | None:
    """(the model that llama.cpp's own numbers describe, how it was found); None where they do not suffice.

    llama.cpp prints what it reads of a file's metadata (`print_info: n_layer = 32`). That is all of a dense model whose
    layers are alike; keys and values must be of one width, and no layer may have a window or experts.
    """
    model_type = _DENSE.get(facts.get("architecture", ""))
    numbers = {key: int(facts[key]) for key in _NUMBERS if facts.get(key, "").isdigit()}
    other = [facts.get(key, "0") for key in ("n_expert", "n_swa")]
    if model_type is None or numbers.keys() != _NUMBERS.keys() or any(value != "0" for value in other):
        return None
    if facts.get("n_embd_head_v", facts["n_embd_head_k"]) != facts["n_embd_head_k"]:
        return None
    title = facts.get("name") or name or model_type
    config = {_NUMBERS[key]: value for key, value in numbers.items()} | {"model_type": model_type}
    source = Source(kind="config", location=name or title)
    try:
        model = spec_from_raw(config, id=title, source=source)
    except KvplanError:
        return None
    return model, f"{printable(title)} is planned by the numbers that the log prints of its file: {model_type}"


def _candidates(name: str) -> Iterator[tuple[str, str]]:
    """What to give `load_model`, and the note that goes with it."""
    if _is_local(name):
        if _exists(name):
            yield name, f"read from {printable(name)}"
        cached = _CACHED.search(name + "/")
        if cached:
            repo = f"{cached[1]}/{cached[2]}"
            yield repo, f"`{printable(name, max_length=60)}` lies in the Hub's cache: taken as {repo}"
    else:
        yield name, ""


def _is_local(name: str) -> bool:
    return (
        name.startswith(("/", "./", "../", "~", ".\\"))
        or re.match(r"[A-Za-z]:[\\/]", name) is not None
        or (name.endswith(".gguf") and name.count("/") != 1)
    )


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError):
        return False


def _last_parts(name: str, title: str | None) -> Iterator[str]:
    """Names of a model alone, from the fullest to the barest."""
    parts = [part for part in re.split(r"[\\/]", name) if part]
    seen = []
    for text in (*parts[-1:], *parts[-2:-1], title or ""):
        bare = _SHARD.sub("", text.strip().partition(":")[0].removesuffix(".gguf"))
        shorter = _QUANT.sub("", bare)
        seen += [bare, shorter, _QUANT.sub("", shorter), shorter.replace(" ", "-")]
    return iter(part for part in dict.fromkeys(seen) if part and not part.startswith("sha256"))


def gpu_of_log(name: str | None) -> tuple[Gpu | None, str]:
    """(the device, a note where it is not settled) of what a log calls its GPUs, ` + ` between unlike ones."""
    if not name:
        return None, ""
    if " + " in name:
        return None, f"the log names unlike GPUs, {printable(name)}: `--gpu` names the one that decides"
    try:
        return named_gpu(name), ""
    except InputError as error:
        if "may mean" in str(error):
            return None, f"the log's {error}: `--gpu` says which"
        return None, f"the log names a GPU that kvplan does not know, {printable(name)}: `--gpu` says its like"
