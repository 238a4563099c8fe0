"""How a checkpoint stores its weights, read from `quantization_config`.

To add a scheme: a function that returns a `Quantization`, and its line in `_SCHEMES`. A scheme that is not here,
or that treats the layers of a model differently, is kept with `understood=False`: its weights are counted by the
size of the stored files where that is known, else as unquantised, an upper bound, and the plan says so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kvplan.core.errors import InputError
from kvplan.core.model import Layer, Quantization
from kvplan.core.weights import is_quantised

SIDE_FILE = "hf_quant_config.json"
"""Where NVIDIA's modelopt states the scheme, in repositories whose config.json does not."""

# One scale for a whole matrix: a block that no matrix outgrows.
_WHOLE_MATRIX = (2**48, 2**48)
_EXCLUSIONS = ("modules_to_not_convert", "ignored_layers", "ignore")
_IN_A_LAYER = re.compile(r"(?:.*\.)?(?:layers|h|blocks?)\.(\d+|\*)(?:\.(.*))?")


def with_side_file(config: Mapping[str, Any], side: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The config with the scheme that stands in `hf_quant_config.json`, where it has none of its own."""
    if side is None or config.get("quantization_config"):
        return config
    return {**config, "quantization_config": {"quant_method": "modelopt"}}


def read_quantization(config: Mapping[str, Any], layers: Sequence[Layer] = ()) -> Quantization | None:
    """The scheme that the config names, None for plain weights; `layers` are the model's, in order."""
    raw = config.get("quantization_config") or config.get("compression_config")
    if not raw:
        return None
    if not isinstance(raw, Mapping):
        raise InputError("`quantization_config` is not an object", hint="pass `--set quantization_config=null`")
    method = raw.get("quant_method")
    name = method if isinstance(method, str) else "unnamed"
    scheme = _SCHEMES.get(name)
    known = scheme(raw) if scheme else None
    known = known and _with_exclusions(known, raw, layers)
    if known is None or (layers and not _replaces_anything(known, layers)):
        return Quantization(method=name, bits=0, understood=False)
    return known


def _fp8(raw: Mapping[str, Any]) -> Quantization | None:
    """Blocks of 128 × 128 fp8 weights with one fp32 scale each, or one scale for the whole matrix.

    With static activations every matrix has a scale of its inputs besides.

    Source: deepseek-ai/DeepSeek-V3 README_WEIGHTS.md; transformers 5.23, integrations/finegrained_fp8.py
    """
    block = raw.get("weight_block_size") or _WHOLE_MATRIX
    if not (isinstance(block, list | tuple) and len(block) == 2 and all(_is_size(size) for size in block)):
        return None
    static = raw.get("activation_scheme") == "static" and block is _WHOLE_MATRIX
    return Quantization(
        method="fp8", bits=8, scale_bits=64 if static else 32, block=(block[0], block[1]), understood=True
    )


def _mxfp4(raw: Mapping[str, Any]) -> Quantization:
    """Experts in 4-bit floats, 32 along a row sharing one 8-bit exponent; everything else plain.

    Source: OCP Microscaling Formats 1.0; transformers 5.23, integrations/mxfp4.py
    """
    return Quantization(method="mxfp4", bits=4, scale_bits=8, block=(1, 32), parts=("experts",), understood=True)


_SCHEMES: dict[str, Callable[[Mapping[str, Any]], Quantization | None]] = {"fp8": _fp8, "mxfp4": _mxfp4}


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _replaces_anything(scheme: Quantization, layers: Sequence[Layer]) -> bool:
    return any(is_quantised(weight, scheme) for layer in set(layers) for weight in layer.weights)


def _with_exclusions(scheme: Quantization, raw: Mapping[str, Any], layers: Sequence[Layer]) -> Quantization | None:
    """The scheme without the modules that the checkpoint leaves plain; None where they differ by layer.

    `lm_head` and `model.layers.*.mlp.gate` hold everywhere, and so does `model.layers.3.mlp.gate` where every layer
    that the scheme would touch is listed. A regular expression is not understood.
    """
    everywhere: list[str] = []
    numbered: dict[str, set[int]] = {}
    for key in _EXCLUSIONS:
        for name in raw.get(key) or ():
            if not isinstance(name, str) or name.startswith("re:"):
                return None
            match = _IN_A_LAYER.fullmatch(name)
            if match is None or match[1] == "*":
                everywhere.append(f"{name if match is None else match[2] or ''}.")
            else:
                numbered.setdefault(f"{match[2] or ''}.", set()).add(int(match[1]))
    for fragment, listed in numbered.items():
        touched = {i for i, layer in enumerate(layers) if _touches(layer, fragment, scheme)}
        if touched & listed and not touched <= listed:
            return None
        everywhere.append(fragment)
    return replace(scheme, skip=tuple(dict.fromkeys(everywhere)))


def _touches(layer: Layer, fragment: str, scheme: Quantization) -> bool:
    return any(fragment in weight.name for weight in layer.weights if is_quantised(weight, scheme))
