"""ChatGLM 2 and 3, CodeGeeX 2 and 4, GLM-4 9B and GLM-4V 9B under their first type, `chatglm`.

Source: THUDM/chatglm3-6b and glm-4-9b, configuration_chatglm.py, modeling_chatglm.py; vLLM 0.33, models/chatglm.py.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, full, require_divisor
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    class_suffix,
    column,
    gated_mlp,
    num_labels,
    projections,
    replicated,
    unknown_class,
)
from kvplan.sources.families.remote.parts import Names, refuse, remote_decoder, remote_layers
from kvplan.sources.families.towers.eva_clip import eva_clip_tower

_NAMES = Names(embed="embedding.word_embeddings", final="encoder.final_layernorm", head="output_layer")
_CLASSES = (None, "Model", "ForConditionalGeneration", "ForCausalLM", "4VForCausalLM", "4VForConditionalGeneration")


def read_chatglm(facts: Facts) -> Reading:
    """Llama with q, k and v in one matrix with biases, few KV heads (`multi_query_group_num`), and a gated MLP.

    The output head belongs to the class `ChatGLMModel` itself, which published files name. The checkpoint also holds
    the frequencies of the rotary positions, kv_channels / 4 of them: the Hub's own count is higher by as many.
    ChatGLM 6B, the first, has this type too and another architecture: it is refused.
    """
    if facts.has("inner_hidden_size") or facts.has("position_encoding_2d"):
        raise UnsupportedError(
            "ChatGLM-6B, the first of its line, is not supported: its layers are others than those of ChatGLM 2 and 3",
            hint="plan ChatGLM2-6B or ChatGLM3-6B",
        )
    refuse(facts, "pre_seq_len")
    hidden, width = facts.positive("hidden_size"), facts.positive("ffn_hidden_size")
    heads, bias = _heads(facts, hidden), facts.flag("add_bias_linear", default=False)
    attention = _attention(facts, heads, hidden, bias=bias)
    fused = ("dense_h_to_4h[gate]", "dense_h_to_4h[up]", "dense_4h_to_h")
    half = Half(gated_mlp(hidden, width, names=fused, bias=bias), activations=3 * width)
    count = facts.layer_count("num_layers")
    layer_norm = not facts.flag("rmsnorm", default=True)
    layers = remote_layers(hidden, [full(heads)] * count, attention, [half] * count, norm_bias=layer_norm)
    reading = remote_decoder(
        facts,
        layers,
        hidden,
        names=_NAMES,
        norm_bias=layer_norm,
        vocab=facts.positive("padded_vocab_size"),
        positions=("seq_length",),
        head=_head(facts, hidden),
    )
    if not facts.flag("post_layer_norm", default=True):
        reading = replace(reading, head=tuple(weight for weight in reading.head if weight.part != "norms"))
    tower = eva_clip_tower(facts.nested("vision_config"), hidden, width) if facts.has("vision_config") else ()
    return replace(reading, embeddings=(*reading.embeddings, _frequencies(heads), *tower))


def _attention(facts: Facts, heads: Heads, hidden: int, *, bias: bool) -> tuple[Weight, ...]:
    """One matrix for q, k and v, whose biases are those of all linears or its own (`add_qkv_bias`)."""
    names = ("query_key_value[q]", "query_key_value[k]", "query_key_value[v]", "dense")
    own = facts.flag("add_qkv_bias", default=False)
    return projections(heads, hidden, prefix="self_attention", names=names, qkv_bias=bias or own, out_bias=bias)


def _heads(facts: Facts, hidden: int) -> Heads:
    """Heads of `kv_channels`, whose keys and values are shared where `multi_query_attention` says so."""
    num_heads = facts.positive("num_attention_heads")
    kv_heads = num_heads
    if facts.flag("multi_query_attention", default=False):
        kv_heads = facts.positive("multi_query_group_num", default=1)
        require_divisor(facts, "multi_query_group_num", kv_heads, "num_attention_heads", num_heads)
    dim = facts.positive("kv_channels", default=hidden // num_heads)
    return Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=dim)


def _head(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """The vocabulary's head, which every class has, and a classifier's labels after it."""
    vocabulary = column(_NAMES.head, facts.positive("padded_vocab_size"), hidden, "head")
    suffix = class_suffix(facts, "chatglm")
    if suffix in _CLASSES:
        return vocabulary
    if suffix == "ForSequenceClassification":
        return (*vocabulary, *replicated("classifier_head", num_labels(facts), hidden, "head", bias=True))
    raise unknown_class(facts)


def _frequencies(heads: Heads) -> Weight:
    """Half of a head's elements turn, two with each frequency."""
    return Weight(name="rotary_pos_emb.inv_freq", shape=(heads.head_dim // 4,), part="embeddings", buffer=True)
