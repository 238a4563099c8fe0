"""What a scheme's reader returns: for each module of the model the format that it is stored in."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from kvplan.core.stored import StoredFormat
from kvplan.sources.quantization.modules import Module, Names, Role
from kvplan.sources.quantization.settings import Settings

Choice = Callable[[Module], StoredFormat | None]
"""The format of a module, None where it stays plain."""

IN_DECODER: tuple[Role, ...] = ("linear",)
EVERY_LINEAR: tuple[Role, ...] = ("linear", "tower")


class NotModelledError(Exception):
    """A kind of scheme, named, that kvplan does not know: its weights are counted as unquantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """One checkpoint's scheme."""

    choose: Choice
    exact: bool = True
    """Whether the tensors are known to the byte."""
    kv_cache: str | None = None
    """The format of the KV cache that the checkpoint was calibrated for."""
    kv_scale_bits: int = 0
    """Bits of the scale of keys and of the one of values that each layer stores for it; 0 = none."""


def replacing(form: StoredFormat | Choice, *, roles: Collection[Role] = EVERY_LINEAR, skip: Names) -> Choice:
    """Every module of these roles in `form`, but those that the checkpoint leaves plain."""

    def choose(module: Module) -> StoredFormat | None:
        if module.role not in roles or skip.cover(module):
            return None
        return form if isinstance(form, StoredFormat) else form(module)

    return choose


def first_of(rules: Sequence[tuple[Names, Choice]], otherwise: Choice) -> Choice:
    """The first rule whose names cover the module, else `otherwise`."""

    def choose(module: Module) -> StoredFormat | None:
        for names, choice in rules:
            if names.cover(module):
                return choice(module)
        return otherwise(module)

    return choose


def by_settings(named: Mapping[str, Settings], choice: Callable[[Settings], Choice]) -> list[tuple[Names, Choice]]:
    """A rule for all names of the same settings together."""
    alike: dict[str, list[str]] = {}
    for name, own in named.items():
        alike.setdefault(repr(own.raw), []).append(name)
    return [(Names(names), choice(named[names[0]])) for names in alike.values()]


def stays_plain(module: Module) -> StoredFormat | None:
    """No format: the module is stored in the model's dtype."""
    return None


def left_plain(settings: Settings, *always: str) -> Names:
    """The modules that the config leaves plain, under whichever of the keys it lists them, and `always` these."""
    listed = settings.names("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")
    return Names((*listed, *always))
