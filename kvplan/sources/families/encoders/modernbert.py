"""ModernBERT, as an encoder and as a decoder: gated MLPs, rotary positions, most layers look at a window only.

Source: transformers 5.23, models/{modernbert,modernbert_decoder}/.
"""

from dataclasses import replace

from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import Brick, Family, Top, choose, crowned, scores
from kvplan.sources.families.bricks.mixers import Heads, encoder, equal_heads, typed_mixers
from kvplan.sources.families.bricks.parts import Reading, column, gated_mlp, norm, projections, replicated, table


def _prediction_head(name: str) -> Brick:
    """The step before every class's own matrix: a square one, and a norm."""

    def brick(top: Top) -> tuple[Weight, ...]:
        facts, hidden = top.facts, top.hidden
        dense = replicated(f"{name}.dense", hidden, hidden, "head", bias=facts.flag("classifier_bias"))
        after = norm(f"{name}.norm", hidden, bias=facts.flag("norm_bias"))
        return (*dense, *(replace(weight, part="head") for weight in after))

    return brick


def _vocabulary(top: Top) -> tuple[Weight, ...]:
    matrix = column("decoder", top.vocab, top.hidden, "head", bias=top.facts.flag("decoder_bias"))
    return matrix[1:] if top.tied else matrix


def _decoder_scores(top: Top) -> tuple[Weight, ...]:
    return scores("classifier", bias=top.facts.flag("classifier_bias"))(top)


_HEAD = _prediction_head("head")
_MODERNBERT = Family(
    classes={
        "Model": (),
        "ForMaskedLM": (_HEAD, _vocabulary),
        "ForSequenceClassification": (_HEAD, scores("classifier")),
        "ForMultipleChoice": (_HEAD, scores("classifier", 1)),
        "ForTokenClassification": (_HEAD, scores("classifier")),
        "ForQuestionAnswering": (_HEAD, scores("classifier")),
    },
)
_MODERNBERT_DECODER = Family(
    name="modernbertdecoder",
    usual="ForCausalLM",
    classes={
        "Model": (),
        "ForCausalLM": (_prediction_head("lm_head"), _vocabulary),
        "ForSequenceClassification": (_HEAD, _decoder_scores),
    },
)


def read_modernbert(facts: Facts) -> Reading:
    """ModernBERT: an encoder.

    Source: transformers 5.23, models/modernbert/modeling_modernbert.py
    """
    heads = _heads(facts)
    mixers: list[Mixer] = [encoder(heads)] * facts.layer_count("num_hidden_layers")
    names = ("Wqkv[q]", "Wqkv[k]", "Wqkv[v]", "Wo")
    return _modernbert(facts, _MODERNBERT, mixers, heads, names)


def read_modernbert_decoder(facts: Facts) -> Reading:
    """ModernBERT that looks back only: layers that slide see half of `local_attention`.

    A `sliding_window` that is stated is set last, and so stands.

    Source: transformers 5.23, models/modernbert_decoder/configuration_modernbert_decoder.py
    """
    heads, num_layers = _heads(facts), facts.layer_count("num_hidden_layers")
    around = facts.positive("local_attention")
    if around == 1:
        raise facts.wrong("local_attention", around, "a number from 2")
    window = facts.positive("sliding_window", default=around // 2)
    every = facts.positive("global_attn_every_n_layers", default=3)
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        types = tuple("sliding_attention" if i % every else "full_attention" for i in range(num_layers))
    names = ("q_proj", "k_proj", "v_proj", "Wo")
    return _modernbert(facts, _MODERNBERT_DECODER, typed_mixers(heads, window, types), heads, names)


def _heads(facts: Facts) -> Heads:
    return equal_heads(facts, facts.positive("hidden_size"), "num_attention_heads")


def _modernbert(
    facts: Facts, family: Family, mixers: list[Mixer], heads: Heads, names: tuple[str, str, str, str]
) -> Reading:
    hidden, offset = facts.positive("hidden_size"), facts.flag("norm_bias")
    embeddings = (
        *table("embeddings.tok_embeddings", facts.positive("vocab_size"), hidden),
        *norm("embeddings.norm", hidden, bias=offset),
    )
    return crowned(
        facts,
        family,
        choose(facts, family),
        layers=_layers(facts, mixers, heads, names),
        embeddings=embeddings,
        hidden=hidden,
        final=norm("final_norm", hidden, bias=offset),
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _layers(facts: Facts, mixers: list[Mixer], heads: Heads, names: tuple[str, str, str, str]) -> list[Layer]:
    """Layers that differ in their mixer; the first one has no norm before its attention: the tables end in one."""
    hidden, width, offset = facts.positive("hidden_size"), facts.positive("intermediate_size"), facts.flag("norm_bias")
    bias = facts.flag("attention_bias")
    gate_up_down = ("Wi[input]", "Wi[gate]", "Wo")
    weights = (
        *projections(heads, hidden, prefix="attn", names=names, qkv_bias=bias, out_bias=bias),
        *gated_mlp(hidden, width, names=gate_up_down, bias=facts.flag("mlp_bias")),
        *norm("mlp_norm", hidden, bias=offset),
    )
    later = (*weights, *norm("attn_norm", hidden, bias=offset))
    built = {mixer: Layer(mixers=(mixer,), weights=later, mlp_activations=3 * width) for mixer in set(mixers)}
    first = replace(built[mixers[0]], weights=weights)
    return [first, *(built[mixer] for mixer in mixers[1:])]
