"""GLM that sees: glm4v, glm4v_moe, glm46v, glmga, glm_ocr, and their text models.

Source: transformers 5.23, models/{glm4v,glm4v_moe,glm46v,glmga,glm_ocr}/. Checkpoints of GLM-4.5V and GLM-OCR also
hold layers for multi-token prediction, which the classes do not load.
"""

from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal, tied_anywhere
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.latent import read_routed, routed_mlp
from kvplan.sources.families.bricks.mixers import Heads, full, read_heads
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, projections
from kvplan.sources.families.decoders.llama import decoder, decoder_layers
from kvplan.sources.families.towers.table import tower_of, vision_part

_FOUR_NORMS = (
    "input_layernorm",
    "post_self_attn_layernorm",
    "post_attention_layernorm",
    "post_mlp_layernorm",
)


def read_glm4v(facts: Facts) -> Reading:
    """GLM-4.1V, GLM-4.5V and GLM-OCR: tower and text model; older files tie the head in their `text_config`.

    Source: transformers 5.23, models/glm4v/modeling_glm4v.py `Glm4vForConditionalGeneration`
    """
    tower = tower_of(vision_part(facts), "visual")
    return multimodal(facts, language_model(facts), tower, tied=tied_anywhere(facts, facts.part("text_config")))


def read_glm46v(facts: Facts) -> Reading:
    """GLM-4.6V and its agents: GLM-4.1V or GLM-4.5V under one class, whose own word on tying counts alone.

    Source: transformers 5.23, models/glm46v/modeling_glm46v.py `Glm46VForConditionalGeneration`
    """
    tower = tower_of(vision_part(facts), "visual")
    return multimodal(facts, language_model(facts), tower, family="glm46v")


def read_glm4v_text(facts: Facts) -> Reading:
    """The text model of GLM-4.1V: norms before and after both halves, biases on q, k and v.

    Source: transformers 5.23, models/glm4v/modeling_glm4v.py `Glm4vTextModel`
    """
    hidden = facts.positive("hidden_size")
    stated = read_heads(facts, hidden)
    dim = hidden // stated.num_heads
    heads = Heads(num_heads=stated.num_heads, num_kv_heads=stated.num_kv_heads, head_dim=dim)
    return _dense(facts, heads, qkv_bias=True)


def read_glm_ocr_text(facts: Facts) -> Reading:
    """The text model of GLM-OCR: that of GLM-4.1V without biases, its head_dim as stated.

    Source: transformers 5.23, models/glm_ocr/modeling_glm_ocr.py `GlmOcrTextAttention`
    """
    return _dense(facts, read_heads(facts, facts.positive("hidden_size")), qkv_bias=False)


def read_glm4v_moe_text(facts: Facts) -> Reading:
    """The text model of GLM-4.5V: GLM-4.5 without norms on heads, its first layers dense.

    Source: transformers 5.23, models/glm4v_moe/modeling_glm4v_moe.py `Glm4vMoeTextDecoderLayer`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads, routed = read_heads(facts, hidden), read_routed(facts)
    attention = projections(heads, hidden, qkv_bias=facts.flag("attention_bias"))
    dense = dense_half(hidden, facts.positive("intermediate_size"))
    sparse = Half(routed_mlp(routed, hidden), activations=routed.activations)
    first = facts.integer("first_k_dense_replace")
    feeding = [dense if i < first else sparse for i in range(num_layers)]
    return decoder(facts, half_decoder(hidden, [full(heads)] * num_layers, attention, feeding), hidden)


def _dense(facts: Facts, heads: Heads, *, qkv_bias: bool) -> Reading:
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    attention = projections(heads, hidden, qkv_bias=qkv_bias)
    mlp = gated_mlp(hidden, width, names=("gate_up_proj[gate]", "gate_up_proj[up]", "down_proj"))
    mixers = [full(heads)] * facts.layer_count("num_hidden_layers")
    return decoder(facts, decoder_layers([*mixers], attention, mlp, hidden, width, norm_names=_FOUR_NORMS), hidden)
