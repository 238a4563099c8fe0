"""A config's facts, taken one by one: each is checked, and remembered with where it came from.

The raw dict dies here. A key that is missing is an error that names it, never a default; where a class of
transformers has a default that published configs rely on, the reader passes it and the fact says so.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any, overload

from kvplan.core.dtypes import DType, parse_dtype
from kvplan.core.errors import InputError
from kvplan.core.model import DEFAULTS_FROM, OWN_DEFAULT, WORKED_OUT, Fact
from kvplan.sources.class_defaults import ClassDefaults, class_defaults

LANGUAGE_MODELS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where models that see or hear keep the config of their language model."""
MAX_NUMBER = 2**48
MAX_LAYERS = 10_000
_MISSING: Any = object()


class Facts:
    """The reader's view of one config: typed access by key, with a record of what was read."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        model_type: str,
        origin: str,
        origins: Mapping[str, str] | None = None,
        prefix: str = "",
        defaults: ClassDefaults | None = None,
        bare: bool = False,
    ) -> None:
        self._config = config
        self._defaults = ClassDefaults() if defaults is None else defaults
        self._origin = origin
        self._origins = origins or {}
        self._prefix = prefix
        self.model_type = model_type
        self.bare = bare
        """Whether these are the facts of a part: its owner says which class it has and what stands on top."""
        self.as_class = "Model"
        """What the class of a part is called after its family."""
        self.read: list[Fact] = []
        self.asked: set[str] = set()
        """Every key that was looked for, stated or not."""

    def _raw(self, key: str) -> Any:
        return self._config.get(self._stated(key))

    def _stated(self, key: str) -> str:
        """The spelling under which the config states `key`: an alias of the class, set last, wins.

        An alias that is a field of the class as well is set among the fields, and so loses.
        """
        stated, fields = key, self._defaults.fields
        self.asked.add(f"{self._prefix}{key}")
        for alias, name in self._defaults.aliases.items():
            if name == key:
                self.asked.add(f"{self._prefix}{alias}")
                loses = alias in fields and (key in fields or self._config.get(key) is not None)
                if self._config.get(alias) is not None and not loses:
                    stated = alias
        return stated

    def stated_keys(self) -> frozenset[str]:
        """The keys that the config has."""
        return frozenset(self._config)

    def has(self, key: str) -> bool:
        """Whether the config states the key with a value other than null."""
        return self._raw(key) is not None

    def is_null(self, key: str) -> bool:
        """Whether the config states the key as null, which can mean another thing than leaving it out."""
        return self._raw(key) is None and key in self._config

    def states(self, key: str) -> bool:
        """Whether the config has the key at all, null or not."""
        return key in self._config or self.has(key)

    def knows(self, key: str) -> bool:
        """Whether the config states the key, or its class has a default for it."""
        return self.has(key) or key in self._defaults.fields

    def is_on(self, key: str) -> bool:
        """Whether the config states something at the key that is not null, false, zero or empty."""
        return bool(self._raw(key))

    def is_text(self, key: str) -> bool:
        """Whether the config states a string at `key`, where values of another type mean something too."""
        return isinstance(self._raw(key), str)

    def refuse_null(self, *keys: str) -> None:
        """Raise where one of `keys` is null: transformers types these fields as plain numbers."""
        for key in keys:
            if self.is_null(key):
                raise self.wrong(key, None, "a whole number")

    @overload
    def integer(self, *keys: str) -> int: ...
    @overload
    def integer(self, *keys: str, default: int) -> int: ...
    @overload
    def integer(self, *keys: str, default: int | None) -> int | None: ...
    def integer(self, *keys: str, default: int | None = _MISSING) -> int | None:
        """The whole number at `keys`, spellings of one fact; of several that are stated, the last one counts.

        Source: transformers 5.23, configuration_utils.py `attribute_map`, whose aliases are set last
        """
        key = self._spelling(keys)
        value = self._take((key,), default)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
            raise self.wrong(key, value, "a whole number")
        return value

    def positions(self) -> int | None:
        """The most tokens of a sequence; of a nested config that is silent what its class assumes, else None."""
        assumed = self._defaults.fields.get("max_position_embeddings") if self._prefix else None
        return self.integer("max_position_embeddings", default=assumed)

    def signed(self, key: str, *, default: int = _MISSING) -> int:
        """The whole number at `key`, which may count from the end and so be negative."""
        value = self._take((key,), default)
        if type(value) is not int or abs(value) > MAX_NUMBER:
            raise self.wrong(key, value, "a whole number")
        return value

    def nullable(self, key: str, *, default: int | None = _MISSING) -> int | None:
        """The whole number at `key`, None where the config states null; only a missing key takes the default."""
        if self.is_null(key):
            self._record(key, None, self._origins.get(key, self._origin))
            return None
        return self.integer(key, default=default)

    def positive(self, *keys: str, default: int = _MISSING) -> int:
        """Like `integer`, and at least 1."""
        value = self.integer(*keys, default=default)
        if value is None:
            raise self.missing(keys[0])
        if value < 1:
            raise self.wrong(self._spelling(keys), value, "a number from 1")
        return value

    def layer_count(self, *keys: str) -> int:
        """The number of layers at `keys`, checked before anybody makes a list that long."""
        value = self.positive(*keys)
        if value > MAX_LAYERS:
            raise self.wrong(self._spelling(keys), value, f"a number from 1 to {MAX_LAYERS}")
        return value

    def flag(self, key: str, *, default: bool = _MISSING) -> bool:
        """The true or false at `key`; null counts as unstated only where that makes no difference."""
        fallback = self._defaults.fields.get(key) if default is _MISSING else default
        if fallback is True and self.is_null(key):
            raise self.wrong(key, None, "true or false")
        value = self._take((key,), _MISSING if fallback is None else fallback)
        if value is None:  # the class's own default
            return False
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    @overload
    def text(self, key: str) -> str: ...
    @overload
    def text(self, key: str, *, default: str) -> str: ...
    @overload
    def text(self, key: str, *, default: None) -> str | None: ...
    def text(self, key: str, *, default: str | None = _MISSING) -> str | None:
        """The string at `key`."""
        value = self._take((key,), default)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, value, "a string")
        return value

    def number(self, key: str, *, default: float = _MISSING) -> float:
        """The number at `key`, whole or not."""
        value = self._take((key,), default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.wrong(key, value, "a number")
        return float(value)

    def times(self, key: str, size: int, *, default: float = _MISSING) -> int:
        """⌊size · the number at `key`⌋, at least 1: widths are stated as a ratio to another."""
        ratio = self.number(key, default=default)
        if not 1 <= size * ratio <= MAX_NUMBER:
            raise self.wrong(key, ratio, f"a ratio that leaves at least 1 of {size}")
        return int(size * ratio)

    def strings(self, key: str, *, length: int | None = None) -> tuple[str, ...] | None:
        """The list of strings at `key`, of `length` where that is given; None where there is none."""
        value = self._take((key,), self._defaults.fields.get(key))
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, value, "a list of strings")
        if length is not None and len(value) != length:
            raise self.wrong(key, f"a list of {len(value)}", f"a list of {length}, one for each layer")
        return tuple(value)

    def words(self, key: str, separator: str) -> tuple[str, ...]:
        """The strings at `key`, listed or in one string between separators; empty where there is none."""
        stated = self._raw(key)
        if not isinstance(stated, str):
            return self.strings(key) or ()
        self._record(key, stated, self._origins.get(key, self._origin))
        return tuple(word.strip() for word in stated.split(separator))

    def entries(self, key: str) -> tuple[object, ...] | None:
        """The list at `key`, whose entries the reader checks itself; None where the config has none."""
        value = self._raw(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong(key, value, "a list")
        stated = self._stated(key)
        self._record(stated, str(value), self._origins.get(stated, self._origin))
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """The list of whole numbers at `key`; empty where neither config nor class has one."""
        value = self._take((key,), self._defaults.fields.get(key))
        if value is None:
            return ()
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise self.wrong(key, value, "a list of whole numbers")
        return tuple(value)

    def flags(self, key: str, *, default: tuple[bool, ...]) -> tuple[bool, ...]:
        """The list of true and false at `key`."""
        value = self._take((key,), list(default))
        if not isinstance(value, list) or not all(isinstance(item, bool) for item in value):
            raise self.wrong(key, value, "a list of true and false")
        return tuple(value)

    def nested(self, key: str, *, defaults: Mapping[str, Any] | None = None) -> "Facts":
        """The object at `key` as facts of its own, recorded under `key.`; an absent one is empty.

        `defaults` are the class's own, for an object that published configs write down in part only.
        """
        return self._inner(key, self.model_type, ClassDefaults(defaults or {}), bare=self.bare)

    def part(
        self, key: str, *, model_type: str | None = None, as_class: str = "Model", filled: bool = False
    ) -> "Facts":
        """The nested config at `key` as that of a part of the model: with its own model type and class defaults.

        The type is the one that the owner's class fixes, else what the object states, else `model_type`, else what
        the owner's class assumes. Raises InputError where nothing says which it is.
        """
        value, expected = self._object(key), self._defaults.objects.get(key, {})
        stated = value.get("model_type")
        assumed = model_type or expected.get("model_type")
        known = assumed if expected.get("fixed") or not isinstance(stated, str) else stated
        if known is None:
            raise self.missing(f"{key}.model_type")
        defaults = class_defaults(known)
        if filled or not self.has(key):
            init = {name: value for name, value in expected.items() if name not in ("model_type", "fixed")}
            defaults = defaults.left_out(init)
        inner = self._inner(key, known, defaults, bare=True)
        inner.as_class = as_class
        return inner

    def as_part(self, model_type: str, *, nested: bool = True, bare: bool = True) -> "Facts":
        """These facts as those of a part of another type: one that states a wrong type, or (not `nested`) one whose
        keys stand at the config's own top level; not `bare`, as those of a whole model under another name."""
        defaults = class_defaults(model_type)
        inner = Facts(
            self._config,
            model_type=model_type,
            origin=self._origin,
            origins=self._origins,
            prefix=self._prefix,
            defaults=defaults if nested else defaults.at_top(),
            bare=bare,
        )
        inner.read, inner.asked = self.read, self.asked
        return inner

    def _object(self, key: str) -> Mapping[str, Any]:
        value = self._raw(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(key, value, "an object")
        return value or {}

    def _inner(self, key: str, model_type: str, defaults: ClassDefaults, *, bare: bool) -> "Facts":
        stated = self._stated(key)
        inner = Facts(
            self._object(key),
            model_type=model_type,
            origin=self._origin,
            origins={k.removeprefix(f"{stated}."): v for k, v in self._origins.items() if k.startswith(f"{stated}.")},
            prefix=f"{self._prefix}{stated}.",
            defaults=defaults,
            bare=bare,
        )
        inner.read, inner.asked = self.read, self.asked
        return inner

    def each(self, key: str) -> tuple["Facts", ...]:
        """The objects of the list at `key`, each as facts of its own, recorded under `key.0.` and so on."""
        value = self._raw(key)
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise self.wrong(key, value, "a list of objects")
        inners = []
        for i, item in enumerate(value):
            prefix = f"{self._prefix}{key}.{i}."
            inner = Facts(item, model_type=self.model_type, origin=self._origin, prefix=prefix, bare=self.bare)
            inner.read, inner.asked = self.read, self.asked
            inners.append(inner)
        return tuple(inners)

    def one_or_more(self, key: str) -> tuple[int, ...]:
        """The whole numbers at `key`, which may be one or a list."""
        value = self._take((key,), _MISSING)
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(type(item) is int and abs(item) <= MAX_NUMBER for item in numbers):
            raise self.wrong(key, value, "a whole number, or a list of them")
        return tuple(numbers)

    def numbers(self, key: str) -> tuple[float, ...]:
        """The list of numbers at `key`, whole or not."""
        value = self._take((key,), _MISSING)
        if not isinstance(value, list) or any(
            isinstance(item, bool) or not isinstance(item, int | float) for item in value
        ):
            raise self.wrong(key, value, "a list of numbers")
        return tuple(map(float, value))

    def length(self, key: str) -> int:
        """How many entries the list at `key` has."""
        value = self._take((key,), _MISSING)
        if not isinstance(value, list):
            raise self.wrong(key, value, "a list")
        return len(value)

    def pair(self, key: str) -> tuple[int, int]:
        """The two sizes at `key`, e.g. an image's height and width; one number stands for both."""
        numbers = self.one_or_more(key)
        if len(numbers) > 2 or min(numbers) < 1:
            raise self.wrong(key, numbers, "a number from 1, or two")
        return numbers[0], numbers[-1]

    def pairs(self, key: str, *, default: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """The list of pairs of sizes at `key`, e.g. a kernel's height and width for each convolution."""
        value = self._take((key,), [list(pair) for pair in default])
        if not isinstance(value, list) or len(value) != len(default) or not all(map(_is_pair, value)):
            raise self.wrong(key, value, f"a list of {len(default)} pairs of numbers from 1")
        return tuple((first, second) for first, second in value)

    def mapping_size(self, key: str) -> int:
        """How many entries the object at `key` has; 0 where the config has none."""
        value = self._take((key,), None)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(key, value, "an object")
        return len(value or ())

    def dtype(self) -> DType | None:
        """The checkpoint's own dtype, `dtype` or in older configs `torch_dtype`.

        None where it is unstated, or a storage format (`float8_e4m3fn`) that models do not compute in.
        """
        value = self._take(("dtype", "torch_dtype"), None)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong("dtype", value, "a string")
        try:
            return parse_dtype(value)
        except InputError:
            return None

    def architecture(self) -> str | None:
        """The class that the checkpoint was saved from: the first of `architectures`; None of a part."""
        if self.bare:
            return None
        names = self.strings("architectures")
        return names[0] if names else None

    def _spelling(self, keys: tuple[str, ...]) -> str:
        """The last of `keys` that the config states, else the first."""
        return next((key for key in reversed(keys) if self.has(key)), keys[0])

    def _take(self, keys: tuple[str, ...], default: object) -> Any:
        for key in keys:
            stated = self._stated(key)
            value = self._config.get(stated)
            if value is not None:
                origin = self._origins.get(stated, self._origin)
                self._record(stated, value, origin)
                return value
        if default is _MISSING and (not self.is_null(keys[0]) or self._defaults.fields.get(keys[0], 0) is None):
            default = self._defaults.fields.get(keys[0], _MISSING)
        if default is _MISSING:
            raise self.missing(keys[0])
        if default is not None:
            self._record(keys[0], default, self._default_origin(keys[0]))
        return default

    def _default_origin(self, key: str) -> str:
        """Whose default a reader's is: of transformers' class, or of one that only the repository has."""
        fields = class_defaults(self.model_type).fields
        if key in fields and fields[key] is None:
            return WORKED_OUT
        return DEFAULTS_FROM if fields else OWN_DEFAULT

    def _record(self, key: str, value: object, origin: str) -> None:
        fact = Fact(f"{self._prefix}{key}", tuple(value) if isinstance(value, list) else value, origin)
        if fact.key not in {known.key for known in self.read}:
            self.read.append(fact)

    def missing(self, key: str) -> InputError:
        """The error for a key that neither the config nor its class has."""
        return InputError(
            f"`{self._prefix}{key}` is missing from the config of model type `{self.model_type}`",
            hint=f"add the key to the file, or pass `--set {self._prefix}{key}=VALUE`",
        )

    def wrong(self, key: str, value: object, wanted: str) -> InputError:
        """The error for a key whose value is not what is `wanted`."""
        stated = f"`{self._prefix}{key}` is {str(value)[:60]!r}"
        left_out = key in self._defaults.fields and not self.states(key)
        place = "where the config of model type" if left_out else "in the config of model type"
        return InputError(
            f"{stated} {place} `{self.model_type}`{' leaves it out' if left_out else ''}, not {wanted}",
            hint=f"correct the file, or pass `--set {self._prefix}{key}=VALUE`",
        )


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int and 1 <= n <= MAX_NUMBER for n in value)
