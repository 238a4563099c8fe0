"""Kinds of values that several engines' arguments have."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from kvplan.core.dtypes import parse_dtype, parse_kv_dtype, parse_kv_dtypes
from kvplan.core.errors import InputError, RefusedError
from kvplan.core.text import printable
from kvplan.core.units import GIB
from kvplan.runtime.flags.argument import UnknownValueError, Value, names

_TRUE = frozenset({"true", "on", "1", "yes"})
_FALSE = frozenset({"false", "off", "0", "no"})


def refused(flag: str, value: object, what: str) -> RefusedError:
    """The error for a value that the engine would refuse."""
    message = f"`{flag} {printable(str(value), max_length=40)}` is not {what}"
    return RefusedError(message, hint=f"give it another value, or leave `{flag}` out")


def whole(value: object) -> int:
    """A whole number, of a word or as a log prints it; ValueError for another."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value) if isinstance(value, (int, float)) else int(str(value).strip())


def positive(value: object) -> int:
    """A whole number above 0."""
    number = whole(value)
    if number <= 0:
        raise ValueError
    return number


def positive_or_default(value: object) -> int | None:
    """A number above 0; 0 and what is less leave the engine its default."""
    return whole(value) if whole(value) > 0 else None


def share(value: object) -> float:
    """A positive number, whole or not."""
    if isinstance(value, bool):
        raise ValueError
    number = float(value) if isinstance(value, (int, float)) else float(str(value).strip())
    if not (math.isfinite(number) and number > 0):
        raise ValueError
    return number


def fraction(value: object) -> float:
    """A positive number, at most 1."""
    number = share(value)
    if number > 1:
        raise ValueError
    return number


def is_on(value: object) -> bool:
    """true, on, 1, yes, or their contraries."""
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE


def word(value: object) -> str:
    """A word that is not empty."""
    text = str(value).strip()
    if not text:
        raise ValueError
    return text


def words(value: object) -> tuple[str, ...]:
    """Several words: a list, or one text of them."""
    parts = value if isinstance(value, (list, tuple)) else str(value).replace(",", " ").split()
    return tuple(str(part) for part in parts)


def count_text(value: object) -> str:
    """A count as it is typed; ValueError for what is none."""
    return str(positive(value))


def switched(args: Mapping[str, object], name: str) -> bool:
    """Whether a flag that stands alone was given; what it is called is its name in logs."""
    value = args.get(name)
    if value is None:
        return False
    try:
        return is_on(value)
    except ValueError:
        raise refused(f"--{name.replace('_', '-')}", value, "on or off") from None


def counted(flag: str, value: object) -> int:
    """A whole number above 0, or the error for what is none."""
    try:
        return positive(value)
    except (ValueError, OverflowError):
        raise refused(flag, value, "a positive whole number") from None


def tree(value: object, flag: str) -> dict[str, Any]:
    """An object in JSON, as a word or as a log prints it."""
    if isinstance(value, Mapping):
        return dict(value)
    try:
        read = json.loads(str(value))
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise InputError(f"`{flag}` has no JSON object as its value", hint="write it like '{\"key\": 1}'")
    return read


def _gibibytes(value: object) -> int | None:
    number = float(value) if isinstance(value, (int, float)) else float(str(value).strip())
    if isinstance(value, bool) or not (math.isfinite(number) and number >= 0):
        raise ValueError
    return int(number * GIB) or None


def _gibibytes_text(value: object) -> str:
    return f"{positive(value) / GIB:g}"


GIBIBYTES = Value(_gibibytes, _gibibytes_text, "a number of GiB")
"""Bytes here, GiB in the flag; 0 says nothing."""


def stages(text: str) -> dict[str, object]:
    """`16,32` → `stage_layers`: the layers of each pipeline stage."""
    try:
        return {"stage_layers": tuple(positive(part) for part in text.split(","))}
    except ValueError:
        raise InputError(f"`{text[:40]}` is not a list of layer counts", hint="write it like 16,32") from None


def stages_text(value: object) -> str:
    """`stage_layers` as a variable has it: 16,32."""
    return ",".join(str(positive(part)) for part in words(value))


def dtype_value(spellings: Mapping[str, str]) -> Value:
    """Formats of weights and activations; `spellings`: kvplan's name → the engine's."""
    return _formats(lambda text: parse_dtype(text).name, spellings)


def state_dtype_value(spellings: Mapping[str, str]) -> Value:
    """Formats of recurrent states; `auto` is the engine's default."""
    value = dtype_value(spellings)
    return Value(lambda text: None if str(text) == "auto" else value.read(text), value.write, value.what)


def kv_dtype_value(spellings: Mapping[str, str]) -> Value:
    """Formats of the cache; `spellings`: kvplan's name → the engine's."""
    return _formats(_cache_format, spellings)


def _cache_format(text: str) -> str:
    """One name; a pair such as `q8_0/fp16` raises InputError, one that goes by a name of its own does not."""
    return (parse_kv_dtype(text) if "/" in text else parse_kv_dtypes(text)[0]).name


def _formats(parse: Callable[[str], str], spellings: Mapping[str, str]) -> Value:
    def read(value: object) -> object:
        text = word(value).lower().removeprefix("torch.")
        if text == "auto":
            return text
        try:
            return parse(text)
        except InputError:
            raise UnknownValueError from None

    def write(value: object) -> str:
        if value == "auto":
            return "auto"
        name = parse(word(value))
        if name not in spellings:
            hint = f"one of auto, {', '.join(spellings)}"
            raise InputError(f"`{name}` is not a number format that this engine can be told", hint=hint)
        return spellings[name]

    return Value(read, write, "a number format")


def _quantization(value: object) -> object:
    text = word(value).lower()
    if text in _AS_STORED:
        return None
    if text == "fp8":
        return text
    raise UnknownValueError


def _written_quantization(value: object) -> str:
    if value == "none":
        return ""
    if value != "fp8":
        hint = "take a checkpoint that is stored so, and leave `quant` out"
        raise InputError(f"this engine cannot be told to quantise weights as `{value}`", hint=hint)
    return "fp8"


# How a checkpoint is stored already: its own config says the same.
_AS_STORED = names(
    "awq awq_marlin gptq gptq_marlin compressed-tensors modelopt modelopt_fp8 modelopt_fp4 modelopt_mxfp8 "
    "modelopt_mixed mxfp4 quark gguf auto-round auto_round auto-round-int8 inc bitblas gptq_bitblas hqq marlin "
    "gptq_marlin_24 fbgemm_fp8 aqlm squeezellm w8a8_int8 w8a8_fp8 w4afp8 moe_wna16 petit_nvfp4 gpt_oss_mxfp4 "
    "deepseek_v4_fp8 unquant"
)

COUNT = Value(positive, count_text, "a positive whole number")
COUNT_OR_DEFAULT = Value(positive_or_default, count_text, "a whole number")
SHARE = Value(share, lambda value: repr(share(value)), "a positive number")
FRACTION = Value(fraction, lambda value: repr(fraction(value)), "a number above 0, at most 1")
WORD = Value(word, word, "a word")
WORDS = Value(words, lambda value: " ".join(words(value)), "a list", many=True)
ON = Value(is_on, lambda value: "", "on or off", bare=True)
"""True where the flag stands."""
OFF = Value(lambda value: not is_on(value), lambda value: "", "on or off", bare=True)
"""False where the flag stands."""
QUANTIZATION = Value(_quantization, _written_quantization, "a quantisation scheme")
"""What an engine makes of a checkpoint in 16 bits; what only names the checkpoint's own scheme says nothing."""
