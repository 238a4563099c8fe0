"""`--engine-option NAME=VALUE`: an option of an engine under kvplan's name, its value as its kind wants it."""

import re

from kvplan.core.errors import InputError
from kvplan.core.text import printable

_KINDS = {
    "max_model_len": "int", "kv_memory_bytes": "int", "tp": "int", "pp": "int", "dp": "int", "dcp": "int", "pcp": "int",
    "gpu_memory_utilization": "float", "dtype": "str", "kv_dtype": "str", "quant": "str",
}  # fmt: skip
"""Of options that are no switches."""
_EXPECTED = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "tuple[int": "a list like 16,32",
    "tuple[float": "a list like 1,1.5", "tuple[str": "a list like 0,sliding_window", "str": "a word",
}  # fmt: skip
_BOOLS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_NUMBERS = {"int": int, "float": float}


def read_option(text: str) -> tuple[str, object]:
    """`enforce_eager=true` → an option with its value. Raises InputError for what is none."""
    name, sign, value = (part.strip() for part in text.partition("="))
    name = name.removeprefix("--").replace("-", "_")
    if not sign or not value:
        raise InputError(f"`{printable(text, max_length=40)}` is not NAME=VALUE", hint="e.g. enforce_eager=true")
    kinds = _kinds()
    if name not in kinds:
        hint = f"one of {', '.join(sorted(kinds))}"
        raise InputError(f"`{printable(name, max_length=40)}` is no option of any engine", hint=hint)
    try:
        return name, _value(kinds[name], value)
    except (KeyError, ValueError):
        message = f"`{name}` cannot be `{printable(value, max_length=40)}`"
        raise InputError(message, hint=f"it is {_EXPECTED[kinds[name]]}") from None


def _kinds() -> dict[str, str]:
    """The kind of value of each option, by the annotations of `Switches`."""
    from kvplan.core.engines.deployment import Switches

    kinds = {}
    for name, field in Switches.__dataclass_fields__.items():
        found = re.match(r"(?:<class ')?(tuple\[\w+|bool|int|float)", str(field.type))
        kinds[name] = found[1] if found else "str"
    return kinds | _KINDS


def _value(kind: str, text: str) -> object:
    if kind.startswith("tuple"):
        number = _NUMBERS.get(kind.removeprefix("tuple["), str)
        return tuple(number(part.strip()) for part in text.split(","))
    return _BOOLS[text.lower()] if kind == "bool" else _NUMBERS.get(kind, str)(text)
