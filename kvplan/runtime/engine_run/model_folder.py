"""The folder that an engine is given instead of a checkpoint: a config.json, and no weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BESIDE = frozenset({".json", ".jinja", ".model", ".tiktoken", ".txt"})
"""Files beside a config.json that are no weights and no code: tokenizer, processor, templates."""
_NOT_BESIDE = frozenset({"config.json", "params.json"})
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")


def write_model_folder(folder: Path, config: Mapping[str, Any], beside: Path | None) -> bool:
    """A folder that engines take for the model's; whether it has a tokenizer.

    `beside` is the user's own folder: its tokenizer and processor are linked, its weights and its code are not.
    `auto_map`, which names that code, is left out: an engine that does not know the architecture by itself refuses it.
    """
    told = {key: value for key, value in config.items() if key != "auto_map"}
    (folder / "config.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    for path in sorted(beside.iterdir()) if beside is not None else ():
        if path.suffix in _BESIDE and path.name not in _NOT_BESIDE and not path.name.endswith(".index.json"):
            (folder / path.name).symlink_to(path.resolve())
    return any((folder / name).exists() for name in _TOKENIZERS)
