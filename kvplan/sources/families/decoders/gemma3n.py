"""Gemma 3n: AltUp, learnt residuals and embeddings layer by layer; the last layers share keys and values.

Source: transformers 5.23, models/gemma3n/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.kv_sharing import (
    layer_embeddings,
    layer_gate,
    normed_attention,
    read_by,
    sharing_layers,
)
from kvplan.sources.families.bricks.mixers import (
    alternating,
    full,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
    windowed,
)
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    class_suffix,
    gated_mlp,
    norm,
    paired,
    reads_tied,
    replicated,
)
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.towers.gemma3n import audio_tower, embedder
from kvplan.sources.families.towers.mobilenetv5 import mobilenet_tower

_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def read_gemma3n_text(facts: Facts) -> Reading:
    """The text model: four sliding layers to one full; AltUp carries several copies of the hidden state.

    Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py `Gemma3nTextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    width, copies = facts.positive("hidden_size_per_layer_input"), facts.positive("altup_num_inputs")
    reading = decoder(facts, _layers(facts, hidden, num_layers), hidden)
    onward = replicated("altup_projections.*", hidden, hidden, "mlp")
    back = replicated("altup_unembed_projections.*", hidden, hidden, "mlp")
    return replace(
        reading,
        embeddings=(
            *reading.embeddings,
            *layer_embeddings(facts, hidden, num_layers, width),
            *_times(onward, copies - 1),
        ),
        head=(*_times(back, copies - 1), *reading.head),
    )


def read_gemma3n(facts: Facts) -> Reading:
    """Gemma 3n with its towers for images and sound; `Gemma3nForCausalLM` is the text model alone.

    Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py `Gemma3nForConditionalGeneration`
    """
    text = language_model(facts)
    if class_suffix(facts) == "ForCausalLM":
        return multimodal(facts, text, tied=reads_tied(facts.part("text_config")), language_model="ForCausalLM")
    vision, audio = facts.part("vision_config"), facts.part("audio_config")
    return multimodal(
        facts,
        text,
        mobilenet_tower(vision),
        embedder(vision, "embed_vision", text.hidden_size, part="vision"),
        audio_tower(audio),
        embedder(audio, "embed_audio", text.hidden_size, part="audio"),
    )


def _times(weights: tuple[Weight, ...], copies: int) -> tuple[Weight, ...]:
    return tuple(replace(weight, copies=copies) for weight in weights) if copies else ()


def _layers(facts: Facts, hidden: int, num_layers: int) -> list[Layer]:
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, 5)
    window = read_window(facts)
    bias = facts.flag("attention_bias")
    kept, reads = (normed_attention(heads, hidden, keeps=keeps, bias=bias) for keeps in (True, False))
    mixing: dict[tuple[str, bool], Half] = {}
    typed_mixers(heads, window, types)
    for kind in set(types):
        keeper = windowed(heads, window) if kind == "sliding_attention" else full(heads)
        mixing[kind, False], mixing[kind, True] = Half(kept, (keeper,)), Half(reads, (read_by(keeper),))
    halves = [mixing[key] for key in zip(types, sharing_layers(facts, types), strict=True)]
    rest = (
        *(weight for name in _NORMS for weight in norm(name, hidden)),
        *_altup(facts, hidden),
        *layer_gate(hidden, facts.positive("hidden_size_per_layer_input")),
    )
    return paired(halves, _feeding(facts, hidden, num_layers), rest)


def _feeding(facts: Facts, hidden: int, num_layers: int) -> list[Half]:
    """A gated MLP a layer; `intermediate_size` is one width or a list of them."""
    widths = facts.one_or_more("intermediate_size")
    if len(widths) not in (1, num_layers) or min(widths) < 1:
        raise facts.wrong("intermediate_size", widths, f"a number from 1, or {num_layers} of them")
    halves = {width: Half(gated_mlp(hidden, width), activations=3 * width) for width in set(widths)}
    return [halves[width] for width in (widths * num_layers if len(widths) == 1 else widths)]


def _altup(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """What a layer predicts and corrects its copies of the hidden state with, and its learnt residual.

    Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py `Gemma3nTextAltUp`, `Gemma3nTextLaurelBlock`
    """
    copies, rank = facts.positive("altup_num_inputs"), facts.positive("laurel_rank")
    return (
        Weight(name="altup.correct_output_scale", shape=(hidden,), part="mlp"),
        *replicated("altup.correction_coefs", copies, copies, "mlp"),
        *replicated("altup.prediction_coefs", copies**2, copies, "mlp"),
        *replicated("altup.modality_router", copies, hidden, "mlp"),
        *norm("altup.router_norm", hidden),
        *replicated("laurel.linear_left", rank, hidden, "mlp"),
        *replicated("laurel.linear_right", hidden, rank, "mlp"),
        *norm("laurel.post_laurel_norm", hidden),
    )
