"""How a checkpoint stores its weights, read from `quantization_config`.

To add a scheme: a function that returns a `Quantization`, and its line in `_SCHEMES`. A scheme that is not here
is kept with `understood=False`: its weights are counted as unquantised, an upper bound, and the plan says so.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kvplan.core.errors import InputError
from kvplan.core.model import Quantization

# One scale for a whole matrix: a block that no matrix outgrows.
_WHOLE_MATRIX = (2**48, 2**48)


def read_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """The scheme that the config names, None for plain weights."""
    raw = config.get("quantization_config")
    if not raw:
        return None
    if not isinstance(raw, Mapping):
        raise InputError("`quantization_config` is not an object", hint="pass `--set quantization_config=null`")
    method = raw.get("quant_method")
    name = method if isinstance(method, str) else "unnamed"
    scheme = _SCHEMES.get(name)
    known = scheme(raw) if scheme else None
    return known or Quantization(method=name, bits=0, understood=False)


def _fp8(raw: Mapping[str, Any]) -> Quantization | None:
    """Blocks of 128 × 128 fp8 weights with one fp32 scale each, or one scale for the whole matrix.

    Source: deepseek-ai/DeepSeek-V3 README_WEIGHTS.md; transformers 5.23, integrations/finegrained_fp8.py
    """
    block = raw.get("weight_block_size", _WHOLE_MATRIX)
    if not (isinstance(block, list | tuple) and len(block) == 2 and all(_is_size(size) for size in block)):
        return None
    return Quantization(
        method="fp8",
        bits=8,
        scale_bits=32,
        block=(block[0], block[1]),
        skip=_names(raw.get("modules_to_not_convert")),
        understood=True,
    )


def _mxfp4(raw: Mapping[str, Any]) -> Quantization:
    """Experts in 4-bit floats, 32 along a row sharing one 8-bit exponent; everything else plain.

    Source: OCP Microscaling Formats 1.0; transformers 5.23, integrations/mxfp4.py
    """
    return Quantization(method="mxfp4", bits=4, scale_bits=8, block=(1, 32), parts=("experts",), understood=True)


_SCHEMES: dict[str, Callable[[Mapping[str, Any]], Quantization | None]] = {"fp8": _fp8, "mxfp4": _mxfp4}


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _names(value: object) -> tuple[str, ...]:
    """Module names as fragments of our weight names: `model.layers.0.mlp.gate` becomes `mlp.gate.`."""
    if not isinstance(value, list):
        return ()
    found = []
    for name in value:
        pieces = str(name).split(".")
        numbers = [i for i, piece in enumerate(pieces) if piece.isdigit()]
        found.append(".".join(pieces[numbers[-1] + 1 :] if numbers else pieces) + ".")
    return tuple(dict.fromkeys(found))
