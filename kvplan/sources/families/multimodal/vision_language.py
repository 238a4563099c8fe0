"""Models that see and have no kin among the others: aria, cosmos3_edge, exaone4_5, fuyu, hyperclovax_vision_v2, ovis2,
video_llama_3.

Source: transformers 5.23, models/{aria,cosmos3_edge,exaone4_5,fuyu,hyperclovax_vision_v2,ovis2,video_llama_3}/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import flat_text, language_model, multimodal, renamed_part, tied_anywhere
from kvplan.sources.families.bricks.halves import half_decoder, plain_half
from kvplan.sources.families.bricks.mixers import layer_mixers, read_heads, read_window, require_divisor
from kvplan.sources.families.bricks.parts import Reading, norm, projections, reads_tied, replicated
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.naflex import cosmos3_edge_tower, video_llama_3_tower
from kvplan.sources.families.towers.table import tower_of, vision_part

_ARIA_QUERIES = 256


def read_exaone4_5(facts: Facts) -> Reading:
    """EXAONE 4.5: first released with a type of its own for its text model, which is EXAONE 4.

    Source: transformers 5.23, models/exaone4_5/modeling_exaone4_5.py `Exaone4_5_ForConditionalGeneration`
    """
    text = renamed_part(facts, "text_config", {"exaone4_5_text": "exaone4"})
    tower = tower_of(vision_part(facts), "visual")
    return multimodal(facts, reader_of(text.model_type)(text), tower)


def read_hyperclovax_vision_v2(facts: Facts) -> Reading:
    """HyperCLOVA X SEED Think: Qwen2.5-VL's tower, whose output one linear takes into the text model.

    Source: transformers 5.23, models/hyperclovax_vision_v2/modeling_hyperclovax_vision_v2.py
    """
    text, vision = language_model(facts), renamed_part(facts, "vision_config", {"qwen2_5_vl": "qwen2_5_vl_vision"})
    projector = replicated("projector", text.hidden_size, vision.positive("out_hidden_size"), "vision", bias=True)
    return multimodal(facts, text, tower_of(vision, "vision_model"), projector)


def read_ovis2(facts: Facts) -> Reading:
    """Ovis2: patches are words of a visual vocabulary, with a table beside the text model's.

    An output head that is not tied is as wide as the model's own `hidden_size` and `vocab_size`.

    Source: transformers 5.23, models/ovis2/modeling_ovis2.py `Ovis2ForConditionalGeneration`
    """
    text, vision = language_model(facts), vision_part(facts)
    hidden = facts.positive("hidden_size")
    visual = loose("visual_embeddings_table.weight", vision.positive("vocab_size"), hidden)
    if reads_tied(facts):
        return multimodal(facts, text, tower_of(vision), (visual,))
    own = replace(text, hidden_size=hidden, vocab_size=facts.positive("vocab_size"))
    reading = multimodal(facts, own, tower_of(vision), (visual,))
    return replace(reading, hidden_size=text.hidden_size, vocab_size=text.vocab_size)


def read_video_llama_3(facts: Facts) -> Reading:
    """VideoLLaMA 3: patches of images of any shape, through two linears.

    Source: transformers 5.23, models/video_llama_3/modeling_video_llama_3.py `VideoLlama3Projector`
    """
    text, vision = language_model(facts), facts.part("vision_config")
    projector = (
        *replicated("readout.0", text.hidden_size, vision.positive("hidden_size"), "vision", bias=True),
        *replicated("readout.2", text.hidden_size, text.hidden_size, "vision", bias=True),
    )
    tied = tied_anywhere(facts, facts.part("text_config"))
    return multimodal(facts, text, video_llama_3_tower(vision), in_tower("projector", projector), tied=tied)


def read_fuyu(facts: Facts) -> Reading:
    """Fuyu: one linear takes patches into a Persimmon; its first files write that model's keys at their top level.

    Source: transformers 5.23, models/fuyu/modeling_fuyu.py `FuyuModel`
    """
    text_facts = flat_text(facts)
    text = reader_of(text_facts.model_type)(text_facts)
    pixels = facts.positive("patch_size") ** 2 * facts.positive("num_channels")
    patches = replicated("vision_embed_tokens", text.hidden_size, pixels, "vision", bias=True)
    return multimodal(facts, text, patches, language_model="ForCausalLM")


def read_cosmos3_edge(facts: Facts) -> Reading:
    """Cosmos 3 Edge: neighbouring patches side by side, through two linears; the head is never the token table.

    Source: transformers 5.23, models/cosmos3_edge/modeling_cosmos3_edge.py `Cosmos3EdgePatchMerger`
    """
    text, vision = language_model(facts), facts.part("vision_config")
    seen, width = vision.positive("hidden_size"), facts.positive("projector_hidden_size")
    projector = (
        *norm("norm", seen, bias=True),
        *replicated("linear_fc1", width, seen * vision.positive("spatial_merge_size") ** 2, "vision", bias=True),
        *replicated("linear_fc2", text.hidden_size, width, "vision", bias=True),
    )
    return multimodal(facts, text, cosmos3_edge_tower(vision), in_tower("projector", projector), tied=False)


def read_cosmos3_edge_text(facts: Facts) -> Reading:
    """The text model of Cosmos 3 Edge: Llama's layer with a plain MLP.

    Source: transformers 5.23, models/cosmos3_edge/modeling_cosmos3_edge.py `Cosmos3EdgeTextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads, bias = read_heads(facts, hidden), facts.flag("attention_bias")
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    width, mlp_bias = facts.positive("intermediate_size"), facts.flag("mlp_bias")
    feed = plain_half(hidden, width, up="mlp.fc1", down="mlp.fc2", bias=mlp_bias)
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    return decoder(facts, half_decoder(hidden, mixers, attention, [feed] * num_layers), hidden)


def read_aria(facts: Facts) -> Reading:
    """Aria: learnt queries attend over the patches once, as many as the largest image needs.

    Source: transformers 5.23, models/aria/modeling_aria.py `AriaProjector`
    """
    text, vision = language_model(facts), vision_part(facts)
    seen, hidden = vision.positive("hidden_size"), text.hidden_size
    counts = facts.nested("projector_patch_to_query_dict")
    queries = max([counts.positive(key) for key in sorted(counts.stated_keys())], default=_ARIA_QUERIES)
    projector = (
        loose("query", queries, seen),
        *in_tower("cross_attn", _cross_attention(seen)),
        *norm("layer_norm", seen, bias=True),
        *replicated("feed_forward.linear_in", hidden, seen, "vision"),
        *replicated("feed_forward.linear_out", hidden, hidden, "vision"),
    )
    return multimodal(facts, text, tower_of(vision), in_tower("multi_modal_projector", projector))


def _cross_attention(seen: int) -> tuple[Weight, ...]:
    """Projections, then torch's own attention with projections again, and a last linear."""
    return (
        *(weight for name in ("q_proj", "k_proj", "v_proj") for weight in replicated(name, seen, seen, "vision")),
        loose("multihead_attn.in_proj_weight", 3 * seen, seen),
        loose("multihead_attn.in_proj_bias", 3 * seen),
        *replicated("multihead_attn.out_proj", seen, seen, "vision", bias=True),
        *replicated("linear", seen, seen, "vision", bias=True),
        *norm("layer_norm", seen, bias=True),
        *norm("layer_norm_kv", seen, bias=True),
    )
