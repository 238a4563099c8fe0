"""A config, however it was found, to a ModelSpec: what all sources and families share."""

import json
from collections.abc import Mapping
from typing import Any

from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.model import ModelSpec, Source, stack
from kvplan.sources.facts import Facts
from kvplan.sources.families.table import READERS
from kvplan.sources.json_file import printable
from kvplan.sources.quantization import read_quantization

MAX_LAYERS = 10_000
SET_BY_USER = "--set"


def spec_from_config(
    config: Mapping[str, Any],
    *,
    id: str,
    source: Source,
    origins: Mapping[str, str] | None = None,
    stored_weight_bytes: int | None = None,
) -> ModelSpec:
    """The architecture that a config describes; `origins` says which keys did not come from the file.

    Raises InputError naming a key that is missing or wrong, UnsupportedError naming an unknown `model_type`.
    """
    model_type = _model_type(config)
    facts = Facts(config, model_type=model_type, origin=_origin(source), origins=origins)
    reading = READERS[model_type](facts)
    if not 1 <= len(reading.layers) <= MAX_LAYERS:
        raise InputError(
            f"the config describes {len(reading.layers)} layers, not 1 to {MAX_LAYERS}",
            hint="correct the file",
        )
    layers, order = stack(reading.layers)
    return ModelSpec(
        id=id,
        model_type=model_type,
        source=source,
        hidden_size=reading.hidden_size,
        vocab_size=reading.vocab_size,
        layers=layers,
        layer_order=order,
        embeddings=reading.embeddings,
        head=reading.head,
        tied_embeddings=reading.tied_embeddings,
        dtype=facts.dtype() or facts.nested("text_config").dtype(),
        max_seq_len=reading.max_seq_len,
        quantization=read_quantization(config),
        stored_weight_bytes=stored_weight_bytes,
        architecture=facts.architecture(),
        facts=tuple(facts.read),
    )


def apply_overrides(config: Mapping[str, Any], overrides: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """(config with the user's facts, their origins); a dotted key reaches into a nested object.

    A value is read as JSON where it is JSON (`32000`, `true`, `null`), else as a string.
    """
    changed: dict[str, Any] = dict(config)
    for key, text in overrides.items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *parents, last = key.split(".")
        target = changed
        for parent in parents:
            inner = target.get(parent) or {}
            if not isinstance(inner, Mapping):
                raise InputError(
                    f"`{printable(key)}` reaches into something that is not an object", hint="check the key"
                )
            target[parent] = dict(inner)
            target = target[parent]
        if not last:
            raise InputError(f"`{printable(key)}` is not a key", hint="write it like --set vocab_size=32000")
        target[last] = value
    return changed, dict.fromkeys(overrides, SET_BY_USER)


def _model_type(config: Mapping[str, Any]) -> str:
    model_type = config.get("model_type")
    if model_type is None:
        raise InputError(
            "`model_type` is missing from the config",
            hint="is this a model's config.json? or pass `--set model_type=NAME`",
        )
    if not isinstance(model_type, str) or model_type not in READERS:
        shown = printable(str(model_type))
        raise UnsupportedError(
            f"model type `{shown}` is not supported", hint=f"kvplan reads {', '.join(sorted(READERS))}"
        )
    return model_type


def _origin(source: Source) -> str:
    return {"params": "params.json", "catalog": "catalog"}.get(source.kind, "config.json")
