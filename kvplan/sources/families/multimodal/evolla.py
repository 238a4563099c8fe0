"""Evolla: a Llama that reads proteins, by way of a BERT of amino acids and gated cross-attention.

Source: transformers 5.23, models/evolla/.
"""

from collections.abc import Mapping
from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import multimodal
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.mixers import equal_heads, layer_mixers, read_heads, read_window
from kvplan.sources.families.bricks.parts import Reading, column, norm, plain_mlp, projections, replicated, row
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.towers.bricks import in_tower, loose

_TAKEN = ("query", "key_protein", "value_protein")
_PROTEIN_DEFAULTS: Mapping[str, object] = {
    "vocab_size": 446,
    "hidden_size": 1280,
    "num_hidden_layers": 33,
    "num_attention_heads": 20,
    "intermediate_size": 5120,
    "max_position_embeddings": 1026,
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
}
"""Source: transformers 5.23, models/evolla/configuration_evolla.py `SaProtConfig`"""


def read_evolla(facts: Facts) -> Reading:
    """Some layers end in cross-attention over the protein, whose keys and values are made anew at each step.

    The head is never the token table.

    Source: transformers 5.23, models/evolla/modeling_evolla.py `EvollaForProteinText2Text`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads")
    heads, bias = read_heads(facts, hidden), facts.flag("attention_bias")
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    feed = dense_half(hidden, facts.positive("intermediate_size"), bias=facts.flag("mlp_bias"))
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    layers = half_decoder(hidden, mixers, attention, [feed] * num_layers)
    adapter, every = _adapter(facts, hidden), max(num_layers // facts.positive("aligner_num_add_layers"), 1)
    looking = {layer: replace(layer, weights=(*layer.weights, *adapter)) for layer in set(layers)}
    placed = [layer if (i + 1) % every else looking[layer] for i, layer in enumerate(layers)]
    text = decoder(facts.as_part("evolla", nested=False), placed, hidden)
    tower = _protein_encoder(facts, hidden)
    return multimodal(facts, text, tower, tied=False, language_model="ForProteinText2Text")


def _adapter(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Gated cross-attention and a plain MLP.

    Source: transformers 5.23, models/evolla/modeling_evolla.py `EvollaSequenceAlignerCrossAttention`
    """
    heads = equal_heads(facts, hidden, "num_attention_heads").num_heads
    taken = (column(f"adapter.{name}", hidden, hidden, "attention", units=heads, bias=True) for name in _TAKEN)
    width, bias = facts.positive("aligner_ffn_mult") * hidden, facts.flag("aligner_enable_bias")
    return (
        Weight(name="adapter.gate_attention", shape=(1,), part="attention"),
        Weight(name="adapter.gate_ffw", shape=(1,), part="mlp"),
        *(weight for weights in taken for weight in weights),
        *norm("adapter.attention_norm", hidden),
        *row("adapter.out_proj", hidden, hidden, "attention", units=heads, bias=bias),
        *norm("adapter.ff.norm", hidden, bias=True),
        *plain_mlp(hidden, width, up="adapter.ff.fc1", down="adapter.ff.fc2", bias=False),
    )


def _protein_encoder(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """SaProt, and what makes a few vectors of all that it says.

    Source: transformers 5.23, models/evolla/modeling_evolla.py `EvollaProteinEncoder`
    """
    protein = facts.nested("protein_encoder_config", defaults=_PROTEIN_DEFAULTS)
    seen = protein.positive("hidden_size")
    weights = (
        *in_tower("model", _saprot(protein, seen), part="embeddings"),
        *in_tower("sequence_compressor_resampler", _resampler(facts, seen, hidden), part="embeddings"),
    )
    return in_tower("protein_encoder", weights, part="embeddings")


def _saprot(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    heads, width = equal_heads(facts, hidden, "num_attention_heads"), facts.positive("intermediate_size")
    names = ("self.query", "self.key", "self.value", "output.dense")
    layer = (
        *projections(heads, hidden, prefix="attention", names=names, qkv_bias=True, out_bias=True),
        *norm("attention.LayerNorm", hidden, bias=True),
        *plain_mlp(hidden, width, up="intermediate.dense", down="output.dense"),
        *norm("LayerNorm", hidden, bias=True),
    )
    absolute = facts.text("position_embedding_type") == "absolute"
    positions = loose("embeddings.position_embeddings.weight", facts.positive("max_position_embeddings"), hidden)
    frequencies = Weight(
        name="rotary_embeddings.inv_freq", shape=(heads.head_dim // 2,), part="embeddings", buffer=True, fixed_bits=32
    )
    return (
        loose("embeddings.word_embeddings.weight", facts.positive("vocab_size"), hidden),
        *((positions,) if absolute else ()),
        *(norm("embeddings.layer_norm", hidden, bias=True) if facts.flag("emb_layer_norm_before") else ()),
        frequencies,
        *in_tower("encoder.layer.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("encoder.emb_layer_norm_after", hidden, bias=True),
    )


def _resampler(facts: Facts, seen: int, hidden: int) -> tuple[Weight, ...]:
    """A few learnt queries that look at all amino acids, and one linear into the text model.

    Source: transformers 5.23, models/evolla/modeling_evolla.py `EvollaSequenceCompressorResampler`
    """
    width = facts.positive("resampler_dim_head") * facts.positive("resampler_heads")
    layer = (
        *norm("0.norm_media", seen, bias=True),
        *norm("0.norm_latents", seen, bias=True),
        *replicated("0.to_q", width, seen, "embeddings"),
        *replicated("0.to_kv", 2 * width, seen, "embeddings"),
        *replicated("0.to_out", seen, width, "embeddings"),
        *norm("1.norm", seen, bias=True),
        *plain_mlp(seen, facts.positive("resampler_ff_mult") * seen, up="1.fc1", down="1.fc2", bias=False),
    )
    return (
        loose("latents", facts.positive("resampler_num_latents"), seen),
        *in_tower("layers.*", layer, copies=facts.layer_count("resampler_depth")),
        *norm("norm", hidden, bias=True),
        *replicated("protein_projector", hidden, seen, "embeddings", bias=True),
    )
