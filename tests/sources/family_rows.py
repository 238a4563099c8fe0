"""The recorded configs that the family tests start from, and what they do to them.

`tests/data/truth/families.jsonl` is written by `make_truth.py` beside it: parameters and cache tensors of the class
that each config names, built in bf16 on torch's meta device.
"""

import json
from pathlib import Path
from typing import Any

from kvplan.core.model import ModelSpec, Source, Weight
from kvplan.core.weights import all_weights
from kvplan.sources.config import spec_from_config

TRUTH = Path(__file__).parent.parent / "data" / "truth" / "families.jsonl"
ROWS = {row["id"]: row for row in map(json.loads, TRUTH.read_text().splitlines())}
REMOVED = object()
FULL, SLIDING = "full_attention", "sliding_attention"


def read(config: dict[str, Any]) -> ModelSpec:
    return spec_from_config(config, id="test/model", source=Source(kind="config", location="tests"))


def changed(row_id: str, **changes: Any) -> dict[str, Any]:
    """A recorded config with some keys changed or removed; `vision_config__image_size` reaches into an object."""
    config = json.loads(json.dumps(ROWS[row_id]["config"]))
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = config
        for parent in parents:
            target = target[parent]
        if value is REMOVED:
            target.pop(key, None)
        else:
            target[key] = value
    return config


def weights_of(spec: ModelSpec) -> dict[str, Weight]:
    return {weight.name: weight for weight, _ in all_weights(spec)}
