"""What readers of remote-code models share: models whose classes come with their repository, not with transformers.

There is no class to compare with, so every fact has another source: the repository's own files, an engine's model
class, a paper. What the config may leave out is a default of the repository's configuration class, written at the
reader. To add one: a reader in a `remote_*.py` file, and figures worked by hand in test_remote_families.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import Mixer
from kvplan.core.model import EagerSoftmax, Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import multimodal
from kvplan.sources.families.bricks.mixers import Heads, require_divisor
from kvplan.sources.families.bricks.parts import Half, Reading, causal_head, norm, paired, table
from kvplan.sources.families.table import reader_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a checkpoint calls the ends of its decoder, and the norms of a layer."""

    embed: str = "embed_tokens"
    final: str = "norm"
    head: str = "lm_head"
    before: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")


LLAMA = Names()


def remote_layers(
    hidden: int,
    mixers: Sequence[Mixer],
    attention: tuple[Weight, ...],
    feeding: Sequence[Half],
    *,
    names: Names = LLAMA,
    norm_bias: bool = False,
    eager_softmax: EagerSoftmax = "fp32",
) -> list[Layer]:
    """Layers with one attention, each with its feed-forward half and its norms."""
    mixing = {mixer: Half(attention, (mixer,)) for mixer in mixers}
    norms = tuple(weight for name in names.before for weight in norm(name, hidden, bias=norm_bias))
    return paired([mixing[mixer] for mixer in mixers], feeding, norms, eager_softmax=eager_softmax)


def remote_decoder(
    facts: Facts,
    layers: list[Layer],
    hidden: int,
    *,
    names: Names = LLAMA,
    family: str | None = None,
    tied: bool | None = None,
    tied_default: bool = False,
    language_model: str = "ForCausalLM",
    head_bias: bool = False,
    norm_bias: bool = False,
    vocab: int | None = None,
    positions: tuple[str, ...] = ("max_position_embeddings",),
    head: tuple[Weight, ...] | None = None,
) -> Reading:
    """The whole decoder; `tied` whatever the config says, `tied_default` where it says nothing; `head` where known."""
    vocab, is_tied = vocab or facts.positive("vocab_size"), False
    if head is None:
        head, is_tied = causal_head(
            facts,
            hidden_size=hidden,
            vocab_size=vocab,
            tied_default=tied_default,
            language_model=language_model,
            name=names.head,
            family=family,
            tied=tied,
            bias=head_bias,
        )
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=table(names.embed, vocab, hidden),
        head=(*norm(names.final, hidden, bias=norm_bias), *head),
        tied_embeddings=is_tied,
        max_seq_len=facts.integer(*positions, default=None),
    )


def grouped_heads(facts: Facts, hidden: int) -> Heads:
    """Heads that share `hidden_size` evenly unless `head_dim` is stated; as many KV heads, unless the config says."""
    num_heads = facts.positive("num_attention_heads")
    if not facts.has("head_dim"):
        require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    kv_heads = facts.positive("num_key_value_heads", default=num_heads)
    require_divisor(facts, "num_key_value_heads", kv_heads, "num_attention_heads", num_heads)
    head_dim = facts.positive("head_dim", default=hidden // num_heads)
    return Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=head_dim)


def under_another_name(facts: Facts, model_type: str, *towers: tuple[Weight, ...], family: str) -> Reading:
    """What the reader of `model_type` makes of these facts, for a class whose name begins with `family`.

    Where the config is silent, that type's class defaults stand: the repository's class is a copy or a child of it.
    """
    text = reader_of(model_type)(facts.as_part(model_type, nested=facts.bare))
    return multimodal(facts, text, *towers, family=family, language_model="ForCausalLM")


def refuse(facts: Facts, *keys: str, why: str = "which kvplan does not know for this family") -> None:
    """Raise UnsupportedError where the config switches one of `keys` on: what it changes is not modelled."""
    for key in keys:
        if facts.is_on(key):
            raise UnsupportedError(
                f"the config asks for `{key}`, {why}", hint=f"pass `--set {key}=null` to plan the model without it"
            )


def not_passed_through(weights: tuple[Weight, ...], *, copies: int) -> tuple[Weight, ...]:
    """Weights that the class holds and no token passes through while it is generated: layers that predict ahead."""
    return tuple(replace(w, copies=copies * w.copies, active_copies=0) for w in weights) if copies else ()
