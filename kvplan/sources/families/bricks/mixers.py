"""How readers turn heads, windows and `layer_types` into a mixer for each layer."""

from collections.abc import Mapping
from dataclasses import dataclass

from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.mixers import CrossAttention, FullAttention, Mixer, SlidingAttention
from kvplan.core.text import printable
from kvplan.sources.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The sizes of an attention layer's projections."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


def read_heads(
    facts: Facts, hidden_size: int, *, num_kv_heads: int | None = None, head_dim: int | None = None
) -> Heads:
    """Query heads, KV heads and head_dim.

    Where they are unstated, `num_kv_heads` and `head_dim`, else the class's own defaults, else as many as query
    heads and hidden / heads. The stated value wins: Qwen3-0.6B states 128 while the quotient is 64.
    A `num_key_value_heads` of null means as many as query heads, whatever the default.
    """
    num_heads = facts.positive("num_attention_heads")
    if num_heads > hidden_size:
        raise facts.wrong("num_attention_heads", num_heads, f"at most `hidden_size`, {hidden_size}")
    num_kv_heads = num_kv_heads or _class_default(facts, "num_key_value_heads")
    default = num_heads if facts.is_null("num_key_value_heads") else num_kv_heads or num_heads
    kv_heads = facts.positive("num_key_value_heads", default=default)
    require_divisor(facts, "num_key_value_heads", kv_heads, "num_attention_heads", num_heads)
    head_dim = head_dim or _class_default(facts, "head_dim")
    size = facts.positive("head_dim", default=head_dim or hidden_size // num_heads)
    return Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=size)


def _class_default(facts: Facts, key: str) -> int | None:
    """What the config's class says of a key that the config does not state at all; None where it says nothing."""
    return None if facts.states(key) or not facts.knows(key) else facts.nullable(key)


def equal_heads(facts: Facts, hidden_size: int, *keys: str) -> Heads:
    """Heads that share `hidden_size` evenly, each with its own key and value; their number is at `keys`."""
    num_heads = facts.positive(*keys)
    require_divisor(facts, keys[0], num_heads, "hidden size", hidden_size)
    return Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=hidden_size // num_heads)


def require_divisor(facts: Facts, key: str, value: int, whole_name: str, whole: int) -> None:
    """Raise where the number at `key` does not divide a whole that it has to divide."""
    if whole % value:
        raise facts.wrong(key, value, f"a divisor of {whole_name} {whole}")


def full(heads: Heads) -> FullAttention:
    """Full attention with equal key and value dims."""
    return FullAttention(
        num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads, key_dim=heads.head_dim, value_dim=heads.head_dim
    )


def encoder(heads: Heads) -> FullAttention:
    """An encoder's self-attention, which keeps nothing."""
    return FullAttention(
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        key_dim=heads.head_dim,
        value_dim=heads.head_dim,
        cached=False,
    )


def cross(heads: Heads) -> CrossAttention:
    """A decoder's attention over the encoder's output."""
    return CrossAttention(
        num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads, key_dim=heads.head_dim, value_dim=heads.head_dim
    )


def windowed(heads: Heads, window: int | None) -> FullAttention | SlidingAttention:
    """Sliding attention where there is a window, else full."""
    if window is None:
        return full(heads)
    return SlidingAttention(
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        key_dim=heads.head_dim,
        value_dim=heads.head_dim,
        window=window,
    )


def read_window(facts: Facts, *, default: int | None = None) -> int | None:
    """`sliding_window`: null is no window, a missing key is `default`, else the class's own."""
    own = default is None and facts.knows("sliding_window")
    window = facts.nullable("sliding_window") if own else facts.nullable("sliding_window", default=default)
    if window == 0:
        raise facts.wrong("sliding_window", window, "a number from 1, or null")
    return window


def layer_mixers(facts: Facts, heads: Heads, num_layers: int, *, window: int | None) -> list[Mixer]:
    """One mixer a layer: by `layer_types` where the config states it, else a window slides in every layer.

    Every decoder of transformers caches by this rule, also one that says nothing of windows itself.

    Source: transformers 5.23, cache_utils.py `DynamicCache.__init__`
    """
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        return [windowed(heads, window)] * num_layers
    return typed_mixers(heads, window, types)


def typed_mixers(heads: Heads, window: int | None, layer_types: tuple[str, ...]) -> list[Mixer]:
    """One mixer per entry of `layer_types`, full or sliding."""
    if window is None and "sliding_attention" in layer_types:
        raise InputError(
            "`layer_types` names sliding layers, but `sliding_window` is unstated, or off by `use_sliding_window`",
            hint="pass `--set sliding_window=TOKENS` (Qwen also needs `--set use_sliding_window=true`)",
        )
    return named_mixers({"full_attention": full(heads), "sliding_attention": windowed(heads, window)}, layer_types)


def named_mixers(mixers: Mapping[str, Mixer], layer_types: tuple[str, ...]) -> list[Mixer]:
    """One mixer per entry of `layer_types`; a type that is not among `mixers` is an error."""
    for name in layer_types:
        if name not in mixers:
            raise UnsupportedError(
                f"`layer_types` names `{printable(name)}`, which kvplan does not know for this family",
                hint=f"known here: {', '.join(mixers)}",
            )
    return [mixers[name] for name in layer_types]


def alternating(num_layers: int, pattern: int) -> tuple[str, ...]:
    """`layer_types` of a model whose every `pattern`-th layer is full and whose others slide."""
    return tuple("sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(num_layers))
