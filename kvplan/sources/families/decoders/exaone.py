"""EXAONE 4 and K-EXAONE: exaone4, exaone_moe.

Source: transformers 5.23, models/{exaone4,exaone_moe}/.
"""

from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.draft import num_draft_layers, qwen_draft
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.hybrid import by_type
from kvplan.sources.families.bricks.latent import Routed, correction
from kvplan.sources.families.bricks.mixers import Heads, alternating, read_heads, read_window, typed_mixers
from kvplan.sources.families.bricks.moe import routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, projections
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, head_norms, read_experts


def read_exaone4(facts: Facts) -> Reading:
    """EXAONE 4: norms after each half of a layer and on each head's query and key, none before.

    Source: transformers 5.23, models/exaone4/modeling_exaone4.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_heads(facts, hidden)
    after = ("post_attention_layernorm", "post_feedforward_layernorm")
    attention, mlp = _attention(heads, hidden), gated_mlp(hidden, width)
    layers = decoder_layers(_mixers(facts, heads), attention, mlp, hidden, width, norm_names=after)
    # vLLM builds a draft layer of the kind of the model's first one. Source: vLLM 0.33, models/exaone4_5_mtp.py
    return qwen_draft(decoder(facts, layers, hidden), layers[0], num_draft_layers(facts))


def read_exaone_moe(facts: Facts) -> Reading:
    """K-EXAONE: norms before each half; routed and shared experts but for the first layers, or as the config lists.

    Checkpoints also hold a layer for multi-token prediction, a dense one, which the class does not load.

    Source: transformers 5.23, models/exaone_moe/modeling_exaone_moe.py; vLLM 0.33, models/exaone_moe_mtp.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    num_dense = facts.integer("first_k_dense_replace")
    kinds = facts.strings("mlp_layer_types", length=num_layers)
    kinds = kinds or tuple("dense" if i < num_dense else "sparse" for i in range(num_layers))
    halves = {"dense": dense_half(hidden, facts.positive("intermediate_size")), "sparse": _sparse_half(facts, hidden)}
    feeding = by_type(halves, kinds, key="mlp_layer_types")
    attention = _attention(heads, hidden)
    reading = decoder(facts, half_decoder(hidden, _mixers(facts, heads), attention, feeding), hidden)
    return qwen_draft(reading, _draft_layer(facts, heads, hidden, halves["dense"]), num_draft_layers(facts))


def _draft_layer(facts: Facts, heads: Heads, hidden: int, dense: Half) -> Layer:
    """A dense layer, full unless `mtp_layer_types` says that it slides."""
    types = facts.strings("mtp_layer_types") if facts.has("mtp_layer_types") else None
    mixers = typed_mixers(heads, read_window(facts), (types or ("full_attention",))[:1])
    return half_decoder(hidden, mixers, _attention(heads, hidden), [dense])[0]


def _attention(heads: Heads, hidden: int) -> tuple[Weight, ...]:
    return (*projections(heads, hidden), *head_norms(heads.head_dim))


def _mixers(facts: Facts, heads: Heads) -> list[Mixer]:
    """`layer_types` where stated; else every `sliding_window_pattern`-th layer is full, and all without a window."""
    num_layers, window = facts.layer_count("num_hidden_layers"), read_window(facts)
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        types = ("full_attention",) * num_layers if window is None else _pattern(facts, num_layers)
    return typed_mixers(heads, window, types)


def _pattern(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """The types of layers by `sliding_window_pattern`: every so many-th is full, or letters that repeat, L and G.

    The class takes numbers only. Published configs from before it have letters, with which the last layer is full.

    Source: TensorRT-LLM, tensorrt_llm/_torch/models/modeling_exaone4.py `check_is_sliding`
    """
    if not facts.is_text("sliding_window_pattern"):
        return alternating(num_layers, facts.positive("sliding_window_pattern"))
    letters = facts.text("sliding_window_pattern")
    if not letters or set(letters) - {"L", "G"}:
        raise facts.wrong("sliding_window_pattern", letters, "a number, or letters L and G")
    slides = [letters[i % len(letters)] == "L" for i in range(num_layers - 1)]
    return (*("sliding_attention" if sliding else "full_attention" for sliding in slides), "full_attention")


def _sparse_half(facts: Facts, hidden: int) -> Half:
    num_experts, active = read_experts(facts, "num_experts")
    width = facts.positive("moe_intermediate_size")
    shared = facts.integer("num_shared_experts") * width
    sizes = Routed(num_experts=num_experts, active=active, width=width, shared_width=shared)
    return routed_half(sizes, hidden, beside=(correction(num_experts, name="mlp.e_score_correction_bias"),))
