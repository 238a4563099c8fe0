"""A config, however it was found, to a ModelSpec: what all sources and families share."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kvplan.core.dtypes import BF16, DType
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.model import SET_BY_USER, Assumption, ModelSpec, Quantization, Source, stack
from kvplan.core.text import printable
from kvplan.sources.class_defaults import class_defaults
from kvplan.sources.facts import LANGUAGE_MODELS, MAX_LAYERS, Facts
from kvplan.sources.families.bricks.parts import Reading
from kvplan.sources.families.table import doubt_of, reader_of
from kvplan.sources.params_json import CONFIG_NAMES, config_from_params, is_params
from kvplan.sources.quantization import apply_quantization

Store = Callable[[Reading, Mapping[str, Any], DType], tuple[Reading, Quantization | None]]
"""(reading, config, dtype) → the reading with what is stored for each weight, and the scheme's name."""


def spec_from_raw(
    raw: Mapping[str, Any],
    *,
    id: str,
    source: Source,
    overrides: Mapping[str, Any] | None = None,
    completed: Mapping[str, Any] | None = None,
    stored_weight_bytes: int | None = None,
    assume: str | None = None,
    store: Store = apply_quantization,
) -> ModelSpec:
    """The architecture that a config.json or params.json describes, with the user's facts over it.

    `completed` are facts that the catalog adds because the repository leaves them out. `assume="full"` plans an
    architecture that is not understood between two bounds; `store` says how the weights are stored. Raises
    InputError for an override that nothing reads: a slip of the pen must not pass for an answer.
    """
    if assume not in (None, "full"):
        raise InputError(f"`{printable(str(assume))}` is nothing that can be assumed", hint="`--assume full`")
    overrides, completed = overrides or {}, completed or {}
    config, set_by_user = apply_overrides({**raw, **completed}, overrides)
    origins = dict.fromkeys(completed, "catalog (the repository leaves it out)") | set_by_user
    asked = {"model_type", "quantization_config"}
    original = is_params(config)
    if original:
        config, asked_of_params = config_from_params(config, given=overrides.keys())
        asked |= asked_of_params
        origins = {CONFIG_NAMES.get(key, key): origin for key, origin in origins.items()}
    facts = _facts(config, source, origins)
    try:
        model = _made(_reading(facts, config), config, facts, id, source, stored_weight_bytes, store)
    except UnsupportedError as error:
        if assume is None:
            error.hint = f"{error.hint}; `--assume full` gives bounds" if error.hint else "`--assume full` gives bounds"
            raise
        model = _bounded(config, facts, error, id=id, source=source, stored_weight_bytes=stored_weight_bytes)
    if not original:
        asked |= facts.asked
    for key in overrides:
        if key not in asked and not key.startswith("quantization_config."):
            raise _unused(key, asked, model.model_type)
    return model


def spec_from_config(
    config: Mapping[str, Any], *, id: str, source: Source, origins: Mapping[str, str] | None = None
) -> ModelSpec:
    """The architecture that a config describes; `origins` says which keys did not come from the file.

    Raises InputError naming a key that is missing or wrong, UnsupportedError naming an unknown `model_type`.
    """
    facts = _facts(config, source, origins or {})
    return _made(_reading(facts, config), config, facts, id, source, None, apply_quantization)


def _reading(facts: Facts, config: Mapping[str, Any]) -> Reading:
    """What the reader of the class, or else of the model type, makes of the facts."""
    names = config.get("architectures")
    named = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    return reader_of(facts.model_type, named)(facts)


def _facts(config: Mapping[str, Any], source: Source, origins: Mapping[str, str]) -> Facts:
    model_type = _model_type(config)
    defaults = class_defaults(model_type).at_top()
    return Facts(config, model_type=model_type, origin=_origin(source), origins=origins, defaults=defaults)


def _bounded(
    config: Mapping[str, Any],
    facts: Facts,
    error: UnsupportedError,
    *,
    id: str,
    source: Source,
    stored_weight_bytes: int | None,
) -> ModelSpec:
    """The most that a config allows which is not understood, with the least beside it."""
    from kvplan.sources.families.generic import read_bounds

    # What a reader noted before it gave up is not what the bounds rest on.
    facts = Facts(config, model_type=facts.model_type, origin=_origin(source))
    bounds = read_bounds(facts)
    least, most = (
        _made(reading, config, facts, id, source, stored_weight_bytes, apply_quantization)
        for reading in (bounds.least, bounds.most)
    )
    return replace(most, assumed=Assumption(least=least, reasons=(str(error), *bounds.reasons)))


def _made(
    reading: Reading,
    config: Mapping[str, Any],
    facts: Facts,
    id: str,
    source: Source,
    stored_weight_bytes: int | None,
    store: Store,
) -> ModelSpec:
    """What a reader returned, as a spec."""
    if not 1 <= len(reading.layers) <= MAX_LAYERS:
        raise InputError(
            f"the config describes {len(reading.layers)} layers, not 1 to {MAX_LAYERS}", hint="correct the file"
        )
    dtype = facts.dtype() or _inner_dtype(facts)
    reading, quantization = store(reading, config, dtype or BF16)
    layers, order = stack(reading.layers)
    return ModelSpec(
        id=id,
        model_type=facts.model_type,
        source=source,
        hidden_size=reading.hidden_size,
        vocab_size=reading.vocab_size,
        layers=layers,
        layer_order=order,
        embeddings=reading.embeddings,
        head=reading.head,
        tied_embeddings=reading.tied_embeddings,
        dtype=dtype,
        max_seq_len=reading.max_seq_len,
        encoder_seq_len=reading.encoder_seq_len,
        max_encoder_seq_len=reading.max_encoder_seq_len,
        tokens_per_image=reading.tokens_per_image,
        quantization=quantization,
        stored_weight_bytes=stored_weight_bytes,
        architecture=facts.architecture(),
        facts=tuple(facts.read),
        draft=reading.draft,
        doubt=doubt_of(facts.model_type),
    )


def _inner_dtype(facts: Facts) -> DType | None:
    """The dtype that the language model states, under any name of its nested config."""
    for key in LANGUAGE_MODELS:
        if facts.has(key) and (dtype := facts.nested(key).dtype() or _inner_dtype(facts.nested(key))):
            return dtype
    return None


def _unused(key: str, asked: set[str], model_type: str) -> InputError:
    from difflib import get_close_matches

    close = [ours for ours, theirs in CONFIG_NAMES.items() if theirs == key and ours in asked]
    close = close or get_close_matches(key, sorted(asked), n=1)
    hint = f"did you mean `{close[0]}`?" if close else "`kvplan inspect` lists the facts that were read"
    return InputError(f"`{printable(key)}` is set, but nothing reads it for model type `{model_type}`", hint=hint)


def apply_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(config with the user's facts, their origins); a dotted key reaches into a nested object.

    A string is read as JSON where it is JSON (`32000`, `true`, `null`), else as it stands.
    """
    changed: dict[str, Any] = dict(config)
    for key, text in overrides.items():
        value = _parsed(text)
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


def _parsed(value: object) -> object:
    """A string as JSON where it is JSON; anything else is a value already."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _model_type(config: Mapping[str, Any]) -> str:
    model_type = config.get("model_type")
    if model_type is None:
        raise InputError(
            "`model_type` is missing from the config",
            hint="is this a model's config.json? or pass `--set model_type=NAME`",
        )
    if not isinstance(model_type, str):
        raise InputError("`model_type` is not a string", hint="correct the file, or pass `--set model_type=NAME`")
    return model_type


def _origin(source: Source) -> str:
    return {"params": "params.json", "catalog": "catalog"}.get(source.kind, "config.json")
