"""Readers of documents: lighton_ocr, got_ocr2, pp_chart2table, hunyuan_vl, paddleocr_vl and its text model.

Source: transformers 5.23, models/{lighton_ocr,got_ocr2,pp_chart2table,paddleocr_vl,hunyuan_vl}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family, flat_text, language_model, multimodal, tied_anywhere
from kvplan.sources.families.bricks.mixers import full, read_heads
from kvplan.sources.families.bricks.parts import Reading, gated_mlp, norm, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, decoder_layers
from kvplan.sources.families.multimodal.llava import merging_projector
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.bricks import in_tower, patches
from kvplan.sources.families.towers.hunyuan_vl import hunyuan_vl_tower
from kvplan.sources.families.towers.table import tower_of, vision_part


def read_lighton_ocr(facts: Facts) -> Reading:
    """LightOnOCR: Mistral 3's tower and projector before a Qwen3.

    Source: transformers 5.23, models/lighton_ocr/modeling_lighton_ocr.py `LightOnOcrMultiModalProjector`
    """
    text, vision = language_model(facts), vision_part(facts)
    seen = vision.positive("hidden_size")
    projector = merging_projector(facts, seen, seen, text.hidden_size, bias=False)
    return multimodal(facts, text, tower_of(vision, "vision_encoder"), in_tower("vision_projection", projector))


def read_got_ocr2(facts: Facts) -> Reading:
    """GOT-OCR 2 and PP-Chart2Table: SAM's tower, whose grid two convolutions halve twice.

    Source: transformers 5.23, models/got_ocr2/modeling_got_ocr2.py `GotOcr2MultiModalProjector`
    """
    text, vision = language_model(facts), vision_part(facts)
    channels, hidden = vision.positive("output_channels"), text.hidden_size
    projector = (
        *patches("conv_upsampler1", 2 * channels, channels, 3, 3, bias=False),
        *patches("conv_upsampler2", hidden, 2 * channels, 3, 3, bias=False),
        *replicated("multimodal_projector", hidden, hidden, "vision", bias=True),
    )
    return multimodal(
        facts,
        text,
        tower_of(vision),
        in_tower("multi_modal_projector", projector),
        family=class_family(facts, "got_ocr2", "pp_chart2table"),
    )


def read_paddleocr_vl(facts: Facts) -> Reading:
    """PaddleOCR-VL; published files write the text model's keys at their top level.

    There, transformers does not hand `tie_word_embeddings` on to the text model, whose default then ties the head.

    Source: transformers 5.23, models/paddleocr_vl/configuration_paddleocr_vl.py `PaddleOCRVLConfig.__post_init__`
    """
    text_facts, vision = flat_text(facts), vision_part(facts)
    text = reader_of(text_facts.model_type)(text_facts)
    seen = vision.positive("hidden_size")
    merged = seen * vision.positive("spatial_merge_size") ** 2
    projector: tuple[Weight, ...] = (
        *norm("pre_norm", seen, bias=True),
        *replicated("linear_1", merged, merged, "vision", bias=True),
        *replicated("linear_2", text.hidden_size, merged, "vision", bias=True),
    )
    tied = tied_anywhere(facts, text_facts) if facts.has("text_config") else True
    return multimodal(facts, text, tower_of(vision, "visual"), in_tower("projector", projector), tied=tied)


def read_hunyuan_vl(facts: Facts) -> Reading:
    """HunyuanOCR; its first files write the text model's keys at their top level, where its default ties the head.

    Source: transformers 5.23, models/hunyuan_vl/configuration_hunyuan_vl.py `HunYuanVLConfig.__post_init__`
    """
    text_facts = flat_text(facts)
    text = reader_of(text_facts.model_type)(text_facts)
    tied = tied_anywhere(facts, text_facts) if facts.has("text_config") else True
    return multimodal(facts, text, hunyuan_vl_tower(facts.part("vision_config"), text.hidden_size), tied=tied)


def read_paddleocr_vl_text(facts: Facts) -> Reading:
    """The text model of PaddleOCR-VL: ERNIE 4.5's layer, with biases everywhere or nowhere.

    Source: transformers 5.23, models/paddleocr_vl/modeling_paddleocr_vl.py `PaddleOCRTextModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads, bias = read_heads(facts, hidden), facts.flag("use_bias")
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    mixers = [full(heads)] * facts.layer_count("num_hidden_layers")
    return decoder(
        facts, decoder_layers([*mixers], attention, gated_mlp(hidden, width, bias=bias), hidden, width), hidden
    )
