"""The config.json that an engine is given to build a model of the same geometry, without its weights."""

from typing import Any

from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec
from kvplan.core.text import printable
from kvplan.sources import catalog
from kvplan.sources.load import raw_config


def engine_config(model: ModelSpec) -> dict[str, Any]:
    """The keys of the model's config.json; of a catalog name with the facts that its repository keeps elsewhere, as
    modelopt keeps its quantisation.

    Raises InputError for a GGUF file, a params.json, and a config that names no class.
    """
    if model.source.kind == "gguf":
        message = f"`{printable(model.id)}` is a GGUF file, and an engine is given a config.json"
        raise InputError(message, hint="name the repository, or the config.json, that it was made from")
    config = dict(raw_config(model))
    found = catalog.find(model.id) if model.source.kind == "catalog" else None
    if found is not None:
        config |= catalog.read_entry(catalog.root() / found[1]).about.get("set") or {}
    if not config.get("architectures"):
        message = f"the config of `{printable(model.id)}` names no `architectures`, by which engines find its class"
        raise InputError(message, hint="add them to the config.json")
    return config
