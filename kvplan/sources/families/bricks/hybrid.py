"""What recurrent models and hybrids share: which layer is which, and sizes that a config may leave to the class."""

from collections.abc import Iterable, Mapping

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Layer, Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import Half, Reading, causal_head, norm, table

_OLD_NAMES = {"mamba": "linear_attention", "attention": "full_attention"}
"""What older configs call a type of layer. Source: transformers 5.23, configuration_utils.py."""


def by_type(halves: Mapping[str, Half], types: Iterable[str], *, key: str = "layer_types") -> list[Half]:
    """One half for every entry of the list at `key`, old names included; another entry is an error."""
    chosen = []
    for name in types:
        half = halves.get(name) or halves.get(_OLD_NAMES.get(name, name))
        if half is None:
            raise UnsupportedError(
                f"`{key}` names `{printable(name)}`, which kvplan does not know for this family",
                hint=f"known here: {', '.join(halves)}",
            )
        chosen.append(half)
    return chosen


def interval_types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """`layer_types` of a model whose every `full_attention_interval`-th layer is full, by default every fourth."""
    facts.refuse_null("full_attention_interval")
    interval = facts.positive("full_attention_interval", default=4)
    return tuple("linear_attention" if (i + 1) % interval else "full_attention" for i in range(num_layers))


def periodic(facts: Facts, num_layers: int, name: str) -> list[bool]:
    """Which layers stand at `{name}_offset` of every `{name}_period`."""
    period, offset = facts.positive(f"{name}_period"), facts.integer(f"{name}_offset")
    if offset >= period:
        raise facts.wrong(f"{name}_offset", offset, f"a number below `{name}_period`, {period}")
    return [i % period == offset for i in range(num_layers)]


def or_auto(facts: Facts, key: str, auto: int) -> int:
    """The number at `key`, or `auto` where config or class leave it at "auto"."""
    if (facts.has(key) and not facts.is_text(key)) or facts.is_null(key):
        return facts.positive(key)
    word = facts.text(key)
    if word != "auto":
        raise facts.wrong(key, word, 'a number from 1, or "auto"')
    return auto


def norms(hidden: int, *names: str) -> tuple[Weight, ...]:
    """RMSNorms over the hidden size."""
    return tuple(weight for name in names for weight in norm(name, hidden))


def named_decoder(
    facts: Facts,
    layers: list[Layer],
    hidden: int,
    *,
    embed: str,
    final: str,
    tied: bool | None = None,
    norm_bias: bool = False,
    head_name: str = "lm_head",
    head_bias: bool = False,
) -> Reading:
    """A decoder whose token table is called `embed` and whose last norm `final`.

    `tied` says whether the head is the token table, where the class does not ask its config.
    """
    vocab = facts.positive("vocab_size")
    head, is_tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab, tied=tied, name=head_name, bias=head_bias)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=table(embed, vocab, hidden),
        head=(*norm(final, hidden, bias=norm_bias), *head),
        tied_embeddings=is_tied,
        max_seq_len=facts.positions(),
    )
