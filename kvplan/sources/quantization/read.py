"""Finds the scheme of a config, and has it applied to what a reader found."""

from collections.abc import Mapping
from typing import Any

from kvplan.core.dtypes import DType
from kvplan.core.errors import InputError
from kvplan.core.model import Quantization
from kvplan.sources.facts import LANGUAGE_MODELS
from kvplan.sources.families.bricks.parts import Reading

SIDE_FILE = "hf_quant_config.json"
"""Where NVIDIA's modelopt states the scheme, in repositories whose config.json does not."""


def with_side_file(config: Mapping[str, Any], side: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The config with the scheme that stands in `hf_quant_config.json`, where it has none of its own."""
    if side is None or config.get("quantization_config"):
        return config
    return {**config, "quantization_config": {**side, "quant_method": "modelopt"}}


def apply_quantization(
    reading: Reading, config: Mapping[str, Any], dtype: DType
) -> tuple[Reading, Quantization | None]:
    """The reading with each weight's stored format, and the scheme that the config names; None for plain weights."""
    raw, nested = _stated(config)
    if not raw:
        return reading, None
    if not isinstance(raw, Mapping):
        raise InputError("`quantization_config` is not an object", hint="pass `--set quantization_config=null`")
    # Most models are plain, and the schemes take a while to import.
    from kvplan.sources.quantization.marker import mark

    expert_dtype = config.get("expert_dtype")
    raw = {"expert_dtype": expert_dtype, **raw} if expert_dtype else raw
    return mark(reading, raw, dtype, text_only=nested)


def _stated(config: Mapping[str, Any]) -> tuple[Any, bool]:
    """(the scheme's object, whether it is the language model's own)."""
    stated = config.get("quantization_config") or config.get("compression_config") or config.get("quantization")
    if stated or "quantization_config" in config:
        return stated, False
    for key in LANGUAGE_MODELS:
        inner = config.get(key)
        if isinstance(inner, Mapping) and (found := _stated(inner)[0]):
            return found, True
    return None, False
