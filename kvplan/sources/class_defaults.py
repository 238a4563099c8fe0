"""What the config classes of transformers 5.23 say where a config.json is silent, by model type.

Published configs leave out what equals the class, nested ones as a rule. The table is written by
`tests/data/truth/make_defaults.py`, for another version of transformers anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "families" / "class_defaults.jsonl"

GEOMETRY = frozenset(
    """vocab_size hidden_size d_model n_embd num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers
    num_attention_heads num_heads n_head n_heads encoder_attention_heads decoder_attention_heads intermediate_size d_ff
    ffn_dim encoder_ffn_dim decoder_ffn_dim""".split()  # noqa: SIM905
)
"""What no published config.json of a model leaves out at its top: there, a missing one is a broken file."""


@dataclass(frozen=True, slots=True)
class ClassDefaults:
    """One config class."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """Its values before it works anything out of the others; None where it does."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other spellings, each with the field that it sets."""
    objects: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Nested configs: their `model_type`, whether it is `fixed`, and the fields of one that is left out."""

    def at_top(self) -> "ClassDefaults":
        """What may be left out of a file's own top level: all but the geometry."""
        kept = {key: value for key, value in self.fields.items() if key not in GEOMETRY}
        return ClassDefaults(kept, self.aliases, self.objects)

    def left_out(self, stated: Mapping[str, Any]) -> "ClassDefaults":
        """The defaults of an object that is left out where its owner's class writes `stated` into it."""
        return ClassDefaults({**self.fields, **stated}, self.aliases, self.objects)


@lru_cache(maxsize=64)
def class_defaults(model_type: str) -> ClassDefaults:
    """The defaults of a model type's config class; empty where transformers has none."""
    table = _table()
    start = table.find(b'\n{"model_type":' + json.dumps(model_type).encode() + b",")
    if start < 0:
        return ClassDefaults()
    row = json.loads(table[start : table.index(b"\n", start + 1)])
    return ClassDefaults(row["fields"], row.get("aliases", {}), row.get("objects", {}))


@lru_cache(maxsize=1)
def _table() -> bytes:
    return b"\n" + TABLE.read_bytes()
