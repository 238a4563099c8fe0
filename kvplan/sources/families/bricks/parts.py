"""The bricks that readers build layers from: projections, feed-forward parts, norms, output heads.

Names are those of the checkpoint's tensors; a fused tensor is listed as the pieces that tensor parallelism cuts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import Mixer
from kvplan.core.model import Draft, EagerSoftmax, Layer, Part, Split, Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a family's reader returns: the layers in order, and what stands before and after them."""

    hidden_size: int
    vocab_size: int
    layers: list[Layer]
    embeddings: tuple[Weight, ...]
    """The token table first."""
    head: tuple[Weight, ...]
    tied_embeddings: bool = False
    max_seq_len: int | None = None
    encoder_seq_len: int | None = None
    """See `ModelSpec`, these four."""
    max_encoder_seq_len: int | None = None
    tokens_per_image: int | None = None
    draft: Draft | None = None


def tensor(layer: str, kind: str) -> str:
    """The name of a layer's tensor; of a fused one with its piece: `qkv_proj.weight[q]`."""
    base, bracket, piece = layer.partition("[")
    return f"{base}.{kind}{bracket}{piece}"


def column(
    name: str, rows: int, columns: int, part: Part, *, units: int | None = None, bias: bool = False
) -> tuple[Weight, ...]:
    """A linear layer whose outputs tensor parallelism deals out in `units` (heads; by default single rows)."""
    split = Split(0, units or rows)
    matrix = Weight(name=tensor(name, "weight"), shape=(rows, columns), part=part, split=split, linear=True)
    offset = Weight(name=tensor(name, "bias"), shape=(rows,), part=part, split=split)
    return (matrix, offset) if bias else (matrix,)


def row(
    name: str, rows: int, columns: int, part: Part, *, units: int | None = None, bias: bool = False
) -> tuple[Weight, ...]:
    """A linear layer whose inputs are dealt out; every rank adds into the same outputs, so each holds the bias."""
    split = Split(1, units or columns)
    matrix = Weight(name=tensor(name, "weight"), shape=(rows, columns), part=part, split=split, linear=True)
    return (matrix, Weight(name=tensor(name, "bias"), shape=(rows,), part=part)) if bias else (matrix,)


def replicated(name: str, rows: int, columns: int, part: Part, *, bias: bool = False) -> tuple[Weight, ...]:
    """A linear layer that every rank holds whole."""
    matrix = Weight(name=tensor(name, "weight"), shape=(rows, columns), part=part, linear=True)
    return (matrix, Weight(name=tensor(name, "bias"), shape=(rows,), part=part)) if bias else (matrix,)


def norm(name: str, size: int, *, bias: bool = False) -> tuple[Weight, ...]:
    """A norm's gain, and for LayerNorm its offset."""
    gain = Weight(name=tensor(name, "weight"), shape=(size,), part="norms")
    return (gain, Weight(name=tensor(name, "bias"), shape=(size,), part="norms")) if bias else (gain,)


def table(name: str, rows: int, columns: int, *, split: bool = True) -> tuple[Weight, ...]:
    """A lookup table; the vocabulary is dealt out over ranks, positions are not."""
    return (
        Weight(
            name=tensor(name, "weight"),
            shape=(rows, columns),
            part="embeddings",
            split=Split(0, rows) if split else None,
        ),
    )


def projections(
    heads: Heads,
    hidden_size: int,
    *,
    prefix: str = "self_attn",
    names: tuple[str, str, str, str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
    qkv_bias: bool = False,
    out_bias: bool = False,
    kv_hidden: int | None = None,
) -> tuple[Weight, ...]:
    """Query, key, value and output projections of softmax attention.

    `kv_hidden` is the width of what keys and values are made of, where that is something else.
    """
    query, key, value, out = (f"{prefix}.{name}" for name in names)
    of = kv_hidden or hidden_size
    q_width, kv_width = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
    return (
        *column(query, q_width, hidden_size, "attention", units=heads.num_heads, bias=qkv_bias),
        *column(key, kv_width, of, "attention", units=heads.num_kv_heads, bias=qkv_bias),
        *column(value, kv_width, of, "attention", units=heads.num_kv_heads, bias=qkv_bias),
        *row(out, hidden_size, q_width, "attention", units=heads.num_heads, bias=out_bias),
    )


def gated_mlp(
    hidden_size: int,
    width: int,
    *,
    prefix: str = "mlp",
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    bias: bool = False,
    part: Part = "mlp",
) -> tuple[Weight, ...]:
    """The gated feed-forward part (SwiGLU, GeGLU): two matrices in, one out."""
    gate, up, down = (f"{prefix}.{name}" for name in names)
    return (
        *column(gate, width, hidden_size, part, bias=bias),
        *column(up, width, hidden_size, part, bias=bias),
        *row(down, hidden_size, width, part, bias=bias),
    )


def plain_mlp(
    hidden_size: int, width: int, *, up: str, down: str, bias: bool = True, part: Part = "mlp"
) -> tuple[Weight, ...]:
    """The ungated feed-forward part: one matrix in, one out."""
    return (*column(up, width, hidden_size, part, bias=bias), *row(down, hidden_size, width, part, bias=bias))


def experts(weights: tuple[Weight, ...], *, num_experts: int, active: int) -> tuple[Weight, ...]:
    """The same weights once per routed expert, of which a token uses `active`."""
    return tuple(
        Weight(
            name=weight.name,
            shape=weight.shape,
            part="experts",
            split=weight.split,
            copies=num_experts,
            active_copies=active,
            linear=weight.linear,
        )
        for weight in weights
    )


def class_suffix(facts: Facts, family: str | None = None) -> str | None:
    """What the class of `architectures` is, less its family's name: `ForCausalLM`; None where it is unstated.

    A class of another family is refused: it may hold other tensors than the model type says.
    """
    name = facts.architecture()
    if facts.bare:
        return facts.as_class
    if name is None:
        return None
    plain, start = name.replace("_", ""), (family or facts.model_type).replace("_", "").lower()
    if not plain.lower().startswith(start):
        start = start.removesuffix("text")
    if not plain.lower().startswith(start):
        raise unknown_class(facts)
    return plain[len(start) :]


def unknown_class(facts: Facts) -> UnsupportedError:
    """The error for a class whose tensors kvplan does not know."""
    return UnsupportedError(
        f"`architectures` names `{printable(str(facts.architecture()))}`, a class that kvplan does not know"
        f" for model type `{facts.model_type}`",
        hint="pass `--set architectures=null` to plan the family's usual class",
    )


def causal_head(
    facts: Facts,
    *,
    hidden_size: int,
    vocab_size: int,
    tied_default: bool | None = None,
    language_model: str = "ForCausalLM",
    name: str = "lm_head",
    family: str | None = None,
    tied: bool | None = None,
    bias: bool = False,
) -> tuple[tuple[Weight, ...], bool]:
    """(what a decoder's class puts on top, whether that is the token table itself).

    A language model has a vocabulary, `…Model` nothing, a classifier its scores. `tied_default` stands for the
    config class's own default where it is given; `tied` is known to the reader, whatever the config says.

    Source: transformers 5.23, modeling_layers.py `GenericForSequenceClassification` and its neighbours
    """
    suffix = class_suffix(facts, family)
    if suffix is None or suffix == language_model:
        if tied is None:
            tied = reads_tied(facts, tied_default)
        matrix = column(name, vocab_size, hidden_size, "head", bias=bias)
        return (matrix[1:], True) if tied else (matrix, False)
    if suffix in ("Model", "TextModel"):
        return (), False
    if suffix in ("ForSequenceClassification", "TextForSequenceClassification"):
        return replicated("score", num_labels(facts), hidden_size, "head"), False
    if suffix == "ForTokenClassification":
        return replicated("score", num_labels(facts), hidden_size, "head", bias=True), False
    if suffix == "ForQuestionAnswering":
        return replicated("qa_outputs", 2, hidden_size, "head", bias=True), False
    raise unknown_class(facts)


def reads_tied(facts: Facts, default: bool | None = None) -> bool:
    """`tie_word_embeddings`, by default the class's own; false for a class that has none."""
    if default is not None:
        return facts.flag("tie_word_embeddings", default=default)
    return facts.flag("tie_word_embeddings") if facts.knows("tie_word_embeddings") else False


def num_labels(facts: Facts, *, default: int = 2) -> int:
    """Labels of a classifier: `num_labels`, else the entries of `id2label`, else the config class's default."""
    labels = facts.mapping_size("id2label")
    return facts.positive("num_labels", default=labels or default)


@dataclass(frozen=True, slots=True)
class Half:
    """One half of a layer, the mixing or the feeding one, as many layers have it."""

    weights: tuple[Weight, ...]
    mixers: tuple[Mixer, ...] = ()
    activations: int = 0
    """Elements that it holds per token at its widest, where it is a feed-forward part."""


def paired(
    mixing: Sequence[Half], feeding: Sequence[Half], rest: tuple[Weight, ...], *, eager_softmax: EagerSoftmax = "fp32"
) -> list[Layer]:
    """Layers whose two halves vary on their own, one of each a layer; `rest` are the weights that all have."""
    built: dict[tuple[int, int], Layer] = {}
    layers = []
    for mix, feed in zip(mixing, feeding, strict=True):
        key = (id(mix), id(feed))
        if key not in built:
            built[key] = Layer(
                mixers=(*mix.mixers, *feed.mixers),
                weights=(*mix.weights, *feed.weights, *rest),
                mlp_activations=feed.activations,
                eager_softmax=eager_softmax,
            )
        layers.append(built[key])
    return layers
