"""Models that see, whose classes come with their repository: internvl_chat, eagle_3_vl, minicpmv, step3_vl, kimi_vl,
dots_ocr, multi_modality.

Source: OpenGVLab/InternVL2-4B, modeling_internvl_chat.py; nvidia/Eagle2-2B, modeling_eagle3_vl.py;
openbmb/MiniCPM-V-2_6, modeling_minicpmv.py; stepfun-ai/step3, modeling_step3.py; moonshotai/Kimi-VL-A3B-Instruct,
modeling_kimi_vl.py; rednote-hilab/dots.ocr, modeling_dots_vision.py; deepseek-ai/Janus, janus/models/.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import (
    Reading,
    gated_mlp,
    norm,
    plain_mlp,
    projections,
    reads_tied,
    replicated,
)
from kvplan.sources.families.remote.parts import under_another_name
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.bricks import fused_attention, grid, in_tower, loose, patches
from kvplan.sources.families.towers.intern_vit import intern_vit_tower
from kvplan.sources.families.towers.moonvit import moonvit_tower
from kvplan.sources.families.towers.named import named_part
from kvplan.sources.families.towers.resampler import resampler
from kvplan.sources.families.towers.siglip import plain_tower, vision_tower
from kvplan.sources.families.towers.table import tower_of
from kvplan.sources.families.towers.vqgan import janus_vqgan

_CODES_SEEN = 65_536
_LANGUAGE_MODELS = {"2.5": "llama", "2.6": "qwen2", "4.0": "llama", "4.5": "qwen3"}
"""MiniCPM-V's, whose sizes stand at the config's own top level, by `version`."""


def read_internvl_chat(facts: Facts) -> Reading:
    """InternVL 1.5 to 3.5: InternViT, neighbouring patches through a small MLP, a text model of any type.

    Source: OpenGVLab/InternVL2-4B, configuration_internvl_chat.py (`downsample_ratio` 0.5)
    """
    text, vision = language_model(facts, "llm_config"), facts.nested("vision_config")
    seen = vision.positive("hidden_size", default=3200)
    mlp = _shuffled(facts, seen, text.hidden_size)
    tied = reads_tied(facts.part("llm_config"))
    return multimodal(facts, text, intern_vit_tower(vision), mlp, tied=tied, language_model="Model")


def read_eagle_3_vl(facts: Facts) -> Reading:
    """Eagle 2 and 2.5, GR00T N1.5's: InternVL's MLP between a SigLIP or InternViT tower and a text model.

    Source: NVlabs/Eagle, modeling_eagle3_vl.py `Eagle3_VLForConditionalGeneration`
    """
    text, vision = language_model(facts), facts.part("vision_config")
    is_intern = vision.model_type == "intern_vit_6b"
    tower = intern_vit_tower(vision) if is_intern else tower_of(vision, "vision_model")
    mlp = _shuffled(facts, vision.positive("hidden_size"), text.hidden_size)
    return multimodal(facts, text, tower, mlp, tied=reads_tied(facts.part("text_config")), family="eagle3vl")


def _shuffled(facts: Facts, seen: int, hidden: int) -> tuple[Weight, ...]:
    """(1 / downsample_ratio)² patches side by side through a norm and two linears."""
    ratio = facts.number("downsample_ratio", default=0.5)
    if not 0 < ratio <= 1:
        raise facts.wrong("downsample_ratio", ratio, "a number above 0, at most 1")
    merged = seen * int(1 / ratio) ** 2
    weights = (
        *norm("0", merged, bias=True),
        *replicated("1", hidden, merged, "vision", bias=True),
        *replicated("3", hidden, hidden, "vision", bias=True),
    )
    return in_tower("mlp1", weights)


def read_minicpmv(facts: Facts) -> Reading:
    """MiniCPM-V 2.5 to 4.5: SigLIP without its head, a resampler, and the text model that `version` says.

    Version 2.0 sees by another tower, which its config only names, and is refused.

    Source: openbmb/MiniCPM-V-2_6, configuration_minicpm.py, modeling_minicpmv.py, resampler.py; vLLM 0.33,
    models/minicpmv.py, whose rule for an unstated version this is
    """
    version = str(facts.number("version")) if facts.has("version") and not facts.is_text("version") else None
    version = version or facts.text("version", default="2.5")
    if version not in _LANGUAGE_MODELS or (not facts.has("version") and facts.has("vision_encoder")):
        raise UnsupportedError(
            f"MiniCPM-V {version} is not supported", hint=f"known here: {', '.join(_LANGUAGE_MODELS)}"
        )
    model_type = _LANGUAGE_MODELS[version]
    text = reader_of(model_type)(facts.as_part(model_type, nested=False))
    vision = facts.nested("vision_config")
    count = vision.layer_count("num_hidden_layers") - facts.flag("drop_vision_last_layer", default=True)
    seen, heads = vision.positive("hidden_size"), text.hidden_size // 128
    if heads * 128 != text.hidden_size:
        raise facts.wrong("hidden_size", text.hidden_size, "a multiple of 128, the width of the resampler's heads")
    tower = tuple(_only_layers(weight, count) for weight in plain_tower(vision, "vpm"))
    seeing = resampler("resampler", facts.positive("query_num"), text.hidden_size, seen, projects=True)
    return multimodal(facts, text, tower, seeing, language_model="")


def _only_layers(weight: Weight, count: int) -> Weight:
    return replace(weight, copies=count) if ".layers.*" in weight.name else weight


def read_step3_vl(facts: Facts) -> Reading:
    """Step-3: a tower with norms after each half, two convolutions that halve the grid, one linear.

    Source: stepfun-ai/step3, configuration_step3.py (`understand_projector_stride` 1, `projector_bias` true); vLLM
    0.33, models/step3_vl.py
    """
    text, vision = language_model(facts), facts.nested("vision_config")
    hidden, out, patch = (vision.positive(key) for key in ("hidden_size", "output_hidden_size", "patch_size"))
    heads = equal_heads(vision, hidden, "num_attention_heads")
    layer = (
        *projections(heads, hidden, qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, vision.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2"),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
    positions = grid(vision, vision.positive("image_size"), patch) + 1
    tower = (
        loose("embeddings.class_embedding", 1, hidden),
        *patches("embeddings.patch_embedding", hidden, vision.positive("num_channels", default=3), patch, patch),
        loose("embeddings.position_embedding.weight", positions, hidden),
        *in_tower("transformer.layers.*", layer, copies=vision.layer_count("num_hidden_layers")),
    )
    between = (
        *patches("vit_downsampler", out, hidden, 2, 2),
        *patches("vit_downsampler2", 2 * out, out, 3, 3),
        *replicated(
            "vit_large_projector", text.hidden_size, 2 * out, "vision", bias=facts.flag("projector_bias", default=True)
        ),
    )
    return multimodal(facts, text, in_tower("vision_model", tower), between, tied=False, family="step3vl")


def read_kimi_vl(facts: Facts) -> Reading:
    """Kimi-VL: DeepSeek V3's text model, MoonViT, four patches through a norm and two linears.

    The Hub counts 3392 elements more: 1664 are the routers' corrections, the others are not accounted for.

    Source: moonshotai/Kimi-VL-A3B-Instruct, modeling_kimi_vl.py `KimiVLMultiModalProjector`
    """
    text, vision = language_model(facts), facts.nested("vision_config")
    seen = vision.positive("hidden_size")
    height, width = vision.pair("merge_kernel_size")
    merged = seen * height * width
    projector = (
        *norm("pre_norm", seen, bias=True),
        *replicated("linear_1", merged, merged, "vision", bias=True),
        *replicated("linear_2", text.hidden_size, merged, "vision", bias=True),
    )
    tied = reads_tied(facts.part("text_config"))
    return multimodal(facts, text, moonvit_tower(vision), in_tower("multi_modal_projector", projector), tied=tied)


def read_dots_ocr(facts: Facts) -> Reading:
    """dots.ocr: Qwen2 with its sizes at the top level, a tower of RMSNorm and gated MLPs, Qwen2-VL's merger.

    Source: rednote-hilab/dots.ocr, configuration_dots.py, modeling_dots_vision.py; vLLM 0.33, models/dots_ocr.py
    """
    vision = facts.nested("vision_config")
    hidden, out, patch = (vision.positive(key) for key in ("embed_dim", "hidden_size", "patch_size"))
    merged, bias = (
        hidden * vision.positive("spatial_merge_size", default=2) ** 2,
        vision.flag("use_bias", default=False),
    )
    names, width = ("fc1", "fc3", "fc2"), vision.positive("intermediate_size")
    layer = (
        *fused_attention(vision, hidden, heads_key="num_attention_heads", qkv_bias=bias, out_bias=bias),
        *gated_mlp(hidden, width, names=names, bias=bias),
        *norm("norm1", hidden),
        *norm("norm2", hidden),
    )
    tower = (
        *patches("patch_embed.patchifier.proj", hidden, vision.positive("num_channels", default=3), patch, patch),
        *norm("patch_embed.patchifier.norm", hidden),
        *in_tower("blocks.*", layer, copies=vision.layer_count("num_hidden_layers")),
        *(norm("post_trunk_norm", hidden) if vision.flag("post_norm", default=True) else ()),
        *norm("merger.ln_q", hidden, bias=True),
        *replicated("merger.mlp.0", merged, merged, "vision", bias=True),
        *replicated("merger.mlp.2", out, merged, "vision", bias=True),
    )
    return under_another_name(facts, "qwen2", in_tower("vision_tower", tower), family="dotsocr")


def read_multi_modality(facts: Facts) -> Reading:
    """Janus and Janus-Pro as first released, and DeepSeek-VL 1.3B: a named SigLIP, and a VQ-GAN where images are made.

    The VQ-GAN also stores a count of the codes that training used, no parameter.

    Source: deepseek-ai/Janus, janus/models/modeling_vlm.py `MultiModalityCausalLM`, vq_model.py, siglip_vit.py
    """
    text = language_model(facts, "language_config")
    vision = facts.nested("vision_config").nested("params")
    towers = [
        vision_tower(named_part(vision, "model_name"), "vision_model.vision_tower"),
        _aligner(facts.nested("aligner_config").nested("params"), "aligner"),
    ]
    if facts.has("gen_vision_config"):
        words = facts.nested("gen_vision_config").nested("params")
        codes, dim = words.positive("image_token_size"), words.positive("n_embed")
        drawn = facts.nested("gen_head_config").nested("params")
        width, inner = drawn.positive("n_embed"), drawn.positive("image_token_embed")
        used = Weight(name="quantize.codebook_used", shape=(_CODES_SEEN,), part="vision", buffer=True)
        head = (
            *replicated("output_mlp_projector", inner, width, "vision", bias=True),
            *replicated("vision_head", drawn.positive("image_token_size"), inner, "vision", bias=True),
        )
        towers += [
            _vqgan(facts, codes, dim),
            in_tower("gen_vision_model", (used,)),
            _aligner(facts.nested("gen_aligner_config").nested("params"), "gen_aligner"),
            in_tower("gen_head", head),
            (loose("gen_embed.weight", codes, dim),),
        ]
    tied = reads_tied(facts.part("language_config"))
    return multimodal(facts, text, *towers, tied=tied, family="multimodality", language_model="CausalLM")


def _vqgan(facts: Facts, codes: int, dim: int) -> tuple[Weight, ...]:
    """The one that transformers has as `janus_vqgan`, whose sizes no config of this type states."""
    words = facts.nested("gen_vision_config").as_part("janus_vqgan")
    for key, size in (("num_embeddings", codes), ("embed_dim", dim)):
        if words.positive(key) != size:
            raise words.wrong(key, size, f"{words.positive(key)}, as all published models have it")
    return janus_vqgan(words, "gen_vision_model")


def _aligner(facts: Facts, name: str) -> tuple[Weight, ...]:
    """`depth` linears, the first of which changes the width."""
    if (kind := facts.text("projector_type")) != "mlp_gelu":
        raise facts.wrong("projector_type", kind, "`mlp_gelu`")
    out = facts.positive("n_embed")
    first = replicated("layers.0", out, facts.positive("input_dim"), "vision", bias=True)
    more = replicated("*", out, out, "vision", bias=True)
    return in_tower(name, (*first, *in_tower("layers", more, copies=facts.positive("depth") - 1)))
