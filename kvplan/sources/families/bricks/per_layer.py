"""`per_layer_config`, in which transformers saves what single layers have otherwise than the rest.

Source: transformers 5.23, integrations/heterogeneity/configuration_utils.py.
"""

from kvplan.core.errors import UnsupportedError
from kvplan.core.text import printable
from kvplan.sources.facts import Facts


def layer_overrides(facts: Facts, num_layers: int, known: frozenset[str]) -> dict[int, Facts]:
    """The layers that have facts of their own, by index; their keys are decimal, with or without leading zeros.

    Raises UnsupportedError for a fact that is not among `known`.
    """
    stated, layers = facts.nested("per_layer_config"), {}
    for key in sorted(stated.stated_keys()):
        if not key.isdecimal() or int(key) >= num_layers:
            raise facts.wrong("per_layer_config", key, f"layers from 0 to {num_layers - 1}")
        layer = stated.nested(key)
        if unknown := layer.stated_keys() - known:
            raise UnsupportedError(
                f"`per_layer_config` sets `{printable(min(unknown))}` of a layer, which kvplan does not read",
                hint=f"known here: {', '.join(sorted(known))}",
            )
        layers[int(key)] = layer
    return layers


def own_or(facts: Facts, key: str, common: int) -> int:
    """The number at `key` where these facts state one, else what holds beside them."""
    return facts.positive(key) if facts.has(key) else common
