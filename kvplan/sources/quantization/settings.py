"""A quantisation config's own settings, taken one by one: a wrong one is an error that names it."""

from collections.abc import Mapping
from typing import Any

from kvplan.core.errors import InputError
from kvplan.core.text import printable

MAX_GROUP = 2**24
"""Beyond any matrix's side; a bound keeps a damaged file from being taken for a scheme."""


class Settings:
    """The object `quantization_config`, or one inside it."""

    def __init__(self, raw: Mapping[str, Any], path: str = "quantization_config") -> None:
        self.raw = raw
        self.path = path

    def has(self, key: str) -> bool:
        """Whether the key is stated, null counting as unstated."""
        return self.raw.get(key) is not None

    def integer(self, key: str, *, default: int | None = None) -> int:
        """The whole number from 1 at `key`."""
        value = self.raw.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_GROUP:
            raise self.wrong(key, "a whole number from 1")
        return value

    def group(self, key: str = "group_size", *, default: int | None = None) -> int:
        """Elements of a row that share a scale, 0 where the whole row does (stated as -1, 0 or null)."""
        value = self.raw.get(key, default)
        if value in (None, -1, 0):
            return 0
        return self.integer(key, default=default)

    def bits(self, *allowed: int, key: str = "bits", default: int | None = None) -> int:
        """The width of an element, one of `allowed`."""
        value = self.integer(key, default=default)
        if value not in allowed:
            raise self.wrong(key, " or ".join(map(str, allowed)))
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """The true or false at `key`."""
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, *, default: str = "") -> str:
        """The string at `key`."""
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def names(self, *keys: str) -> list[str]:
        """The strings of the lists at `keys`, one after another."""
        found: list[str] = []
        for key in keys:
            value = self.raw.get(key) or []
            if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
                raise self.wrong(key, "a list of names")
            found += value
        return found

    def pair(self, key: str) -> tuple[int, int] | None:
        """The rows × columns at `key`; None where there is none."""
        value = self.raw.get(key)
        if value is None:
            return None
        sizes = isinstance(value, list | tuple) and len(value) == 2
        if not sizes or not all(type(size) is int and 1 <= size <= MAX_GROUP for size in value):
            raise self.wrong(key, "two whole numbers from 1")
        return value[0], value[1]

    def inner(self, key: str) -> "Settings":
        """The object at `key`; an absent one is empty."""
        value = self.raw.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        return Settings(value or {}, f"{self.path}.{key}")

    def objects(self) -> dict[str, "Settings"]:
        """Every entry as an object of its own."""
        return {key: self.inner(key) for key in self.raw}

    def wrong(self, key: str, wanted: str) -> InputError:
        """The error for a setting that is not what is `wanted`."""
        stated = printable(str(self.raw.get(key)), max_length=60)
        return InputError(
            f"`{self.path}.{printable(key)}` is `{stated}`, not {wanted}",
            hint="correct the file, or pass `--set quantization_config=null` to plan the weights unquantised",
        )
