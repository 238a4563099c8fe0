"""What the classes of BERT-like models put on top of their layers: a pooler, a vocabulary, a classifier, a span.

A family lists its classes, each with the bricks that stand on it; a brick is a function `Top -> weights`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    column,
    norm,
    num_labels,
    reads_tied,
    replicated,
    unknown_class,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """What a head is built from."""

    facts: Facts
    hidden: int
    vocab: int
    width: int
    """Columns of the token table, which an output head that is tied to it has too."""
    tied: bool


Brick = Callable[[Top], tuple[Weight, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The classes of one model type."""

    classes: Mapping[str, tuple[Brick, ...]]
    """What each class has on top, by its name less the family's."""
    language: tuple[str, ...] = ("ForMaskedLM", "ForCausalLM", "LMHeadModel")
    """Those that end in the vocabulary."""
    plain: str = "Model"
    """The class without a head."""
    usual: str | None = None
    """The class that is meant where none is named; None = the plain one."""
    causal: str | None = None
    """The class that generates, where `is_decoder` is set: what is then meant where none is named."""
    name: str | None = None
    """How class names begin, where that is not the model type."""
    tied: bool | None = None
    """Whether tables are tied where the config is silent; None = the config class says."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The class that a config names, or that is meant where it names none."""

    suffix: str
    decodes: bool
    """Whether its layers look back only."""
    cached: bool
    """Whether it hands out what its layers keep: the other classes run the same decoder, but no one gets its cache."""


def choose(facts: Facts, family: Family) -> Chosen:
    """The class of a config. Raises UnsupportedError for one that the family does not list.

    A class that generates decodes, whatever `is_decoder` says: it is planned as it is used, with a cache.

    Source: transformers 5.23, models/bert/modeling_bert.py `BertModel.forward`, alike in its kin
    """
    decodes = facts.knows("is_decoder") and facts.flag("is_decoder")
    usual = (family.causal if decodes else None) or family.usual or family.plain
    as_part = family.causal if facts.as_class == "ForCausalLM" else family.plain
    named = as_part if facts.bare else class_suffix(facts, family.name)
    suffix = usual if named is None else named
    if suffix not in family.classes:
        raise unknown_class(facts)
    decodes = decodes or suffix == family.causal
    return Chosen(suffix, decodes, decodes and suffix in (family.plain, family.causal))


def crowned(
    facts: Facts,
    family: Family,
    chosen: Chosen,
    *,
    layers: list[Layer],
    embeddings: tuple[Weight, ...],
    hidden: int,
    width: int | None = None,
    final: tuple[Weight, ...] = (),
    max_seq_len: int | None = None,
) -> Reading:
    """The whole model: `embeddings`, `layers`, the weights `final` that every class has after them, and its head."""
    vocab = facts.positive("vocab_size")
    tied = reads_tied(facts, family.tied)
    top = Top(facts=facts, hidden=hidden, vocab=vocab, width=width or hidden, tied=tied)
    head = tuple(weight for brick in family.classes[chosen.suffix] for weight in brick(top))
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=embeddings,
        head=(*final, *head),
        tied_embeddings=tied and chosen.suffix in family.language,
        max_seq_len=max_seq_len,
    )


def dense(name: str, *, bias: bool = True) -> Brick:
    """A square matrix, of a pooler or of a head's first step."""
    return lambda top: replicated(name, top.hidden, top.hidden, "head", bias=bias)


def scores(name: str, labels: int | None = None, *, bias: bool = True) -> Brick:
    """The scores of `labels`, by default as many as the config has."""

    def brick(top: Top) -> tuple[Weight, ...]:
        return replicated(name, labels or num_labels(top.facts), top.hidden, "head", bias=bias)

    return brick


def head_norm(name: str, *, bias: bool = True) -> Brick:
    """A norm over the hidden size that belongs to a head."""
    return lambda top: _in_head(norm(name, top.hidden, bias=bias))


def transform(name: str, norm_name: str) -> Brick:
    """The step before the vocabulary: a matrix into the token table's columns, and a norm."""

    def brick(top: Top) -> tuple[Weight, ...]:
        matrix = replicated(name, top.width, top.hidden, "head", bias=True)
        return (*matrix, *_in_head(norm(norm_name, top.width, bias=True)))

    return brick


def vocabulary(name: str, *, bias: bool = True, second_bias: str | None = None) -> Brick:
    """The vocabulary: tied, only its bias; untied, a matrix too.

    With `second_bias` the head has a bias of that name beside the matrix's own, which is the same tensor where tied.
    """

    def brick(top: Top) -> tuple[Weight, ...]:
        matrix = column(name, top.vocab, top.width, "head", bias=bias)
        if second_bias is None:
            return matrix[1:] if top.tied else matrix
        second = replace(matrix[1], name=second_bias)
        return (second, *(() if top.tied else matrix))

    return brick


def bert_vocabulary(prefix: str = "cls.predictions", norm_name: str = "LayerNorm") -> tuple[Brick, Brick]:
    """BERT's language head.

    Source: transformers 5.23, models/bert/modeling_bert.py `BertLMPredictionHead`
    """
    return (
        transform(f"{prefix}.transform.dense", f"{prefix}.transform.{norm_name}"),
        vocabulary(f"{prefix}.decoder", second_bias=f"{prefix}.bias"),
    )


def roberta_vocabulary(prefix: str = "lm_head", norm_name: str = "layer_norm") -> tuple[Brick, Brick]:
    """RoBERTa's language head: BERT's under other names.

    Source: transformers 5.23, models/roberta/modeling_roberta.py `RobertaLMHead`
    """
    return (
        transform(f"{prefix}.dense", f"{prefix}.{norm_name}"),
        vocabulary(f"{prefix}.decoder", second_bias=f"{prefix}.bias"),
    )


def summary(*, projects: bool, to_labels: bool = False) -> Brick:
    """What folds a sequence into one vector: a matrix where `summary_use_proj` says so, into labels where asked.

    Source: transformers 5.23, models/xlm/modeling_xlm.py `XLMSequenceSummary`
    """

    def brick(top: Top) -> tuple[Weight, ...]:
        if not top.facts.flag("summary_use_proj", default=projects):
            return ()
        labelled = top.facts.flag("summary_proj_to_labels", default=to_labels)
        rows = num_labels(top.facts) if labelled else top.hidden
        return replicated("sequence_summary.summary", rows, top.hidden, "head", bias=True)

    return brick


def _in_head(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return tuple(replace(weight, part="head") for weight in weights)
