"""The configurations that `types.jsonl` speaks of: a class's own defaults, spelt out, and those with a key changed."""

import copy
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
DEFAULTS = {
    row["model_type"]: row
    for row in map(json.loads, (ROOT / "kvplan/sources/families/class_defaults.jsonl").read_text().splitlines())
}
AS_DECODERS = set(
    """bert camembert data2vec-text electra ernie roberta roberta-prelayernorm roc_bert xlm-roberta
    xlm-roberta-xl""".split()  # noqa: SIM905
)
"""Types whose causal class only runs as a decoder where the config says so."""


def default_config(model_type: str, class_name: str | None = None) -> dict[str, Any]:
    """What the class says of itself, nested configs too, nulls left out."""
    row = DEFAULTS.get(model_type, {})
    config = {"model_type": model_type} | {k: v for k, v in row.get("fields", {}).items() if v is not None}
    for key, stated in row.get("objects", {}).items():
        inner = default_config(stated["model_type"]) if "model_type" in stated else {}
        config[key] = inner | {name: value for name, value in stated.items() if name != "fixed"}
    if class_name is not None:
        config["architectures"] = [class_name]
    if model_type in AS_DECODERS and class_name is not None:
        config["is_decoder"] = True
    return config


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The configuration with dotted keys changed, or taken out where they are "left out"."""
    config = copy.deepcopy(config)
    for path, value in changes.items():
        *parents, key = path.split(".")
        target = config
        for parent in parents:
            target = target[parent]
        if value == "left out":
            target.pop(key, None)
        else:
            target[key] = value
    return config
