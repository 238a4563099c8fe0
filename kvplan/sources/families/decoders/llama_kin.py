"""Dense decoders that are Llama with a turn of their own.

Source: transformers 5.23, models/{apertus,arcee,bitnet,cwm,diffllama,helium,hunyuan_v1_dense,internlm3,iquestcoder,
ministral}/.
"""

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import BEFORE_BOTH, half_decoder
from kvplan.sources.families.bricks.mixers import (
    Heads,
    layer_mixers,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
)
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, norm, plain_mlp, projections
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, head_norms, read_llama


def read_internlm3(facts: Facts) -> Reading:
    """InternLM 3: Llama under other names, with biases everywhere or nowhere.

    Source: transformers 5.23, models/internlm3/configuration_internlm3.py
    """
    biased = facts.flag("attention_bias")
    if facts.flag("mlp_bias") != biased:
        raise facts.wrong("mlp_bias", not biased, f"what `attention_bias` is, {str(biased).lower()}")
    return read_llama(facts, family=_llama_or_own(facts))


def read_iquestcoder(facts: Facts) -> Reading:
    """IQuest Coder: Llama, with options in its config that no class has.

    Source: transformers 5.23, models/iquestcoder/configuration_iquestcoder.py
    """
    if facts.has("clip_qkv") or facts.flag("use_sliding_window", default=False):
        raise UnsupportedError(
            "the config asks for `clip_qkv` or `use_sliding_window`, which no class of `iquestcoder` has",
            hint="pass `--set clip_qkv=null --set use_sliding_window=false` to plan what transformers builds",
        )
    return read_llama(facts, family=_llama_or_own(facts))


def read_arcee(facts: Facts) -> Reading:
    """Arcee's AFM: Llama with an ungated MLP.

    Source: transformers 5.23, models/arcee/modeling_arcee.py
    """
    heads = _llama_heads(facts)
    return _plain(facts, heads, _projections(facts, heads), mlp_bias=facts.flag("mlp_bias"))


def read_apertus(facts: Facts) -> Reading:
    """Apertus: an ungated MLP whose activation learns two numbers, and a norm on each head's query and key.

    Source: transformers 5.23, models/apertus/modeling_apertus.py, activations.py `XIELUActivation`
    """
    heads = read_heads(facts, facts.positive("hidden_size"))
    learnt: tuple[Weight, ...] = ()
    if facts.text("hidden_act") == "xielu":
        learnt = tuple(Weight(name=f"mlp.act_fn.{name}", shape=(1,), part="mlp") for name in ("alpha_p", "alpha_n"))
        fixed = (Weight(name=f"mlp.act_fn.{name}", shape=(), part="mlp", buffer=True) for name in ("beta", "eps"))
        learnt = (*learnt, *fixed)
    attention = (*_projections(facts, heads), *head_norms(heads.head_dim))
    names = ("attention_layernorm", "feedforward_layernorm")
    return _plain(facts, heads, attention, norm_names=names, learnt=learnt)


def read_bitnet(facts: Facts) -> Reading:
    """BitNet b1.58: Llama with a norm before each half's last matrix.

    Source: transformers 5.23, models/bitnet/modeling_bitnet.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_heads(facts, hidden)
    _require_full_width(facts, heads, hidden)
    attention = (*_projections(facts, heads), *norm("self_attn.attn_sub_norm", hidden))
    return _gated(facts, heads, attention, (*gated_mlp(hidden, width), *norm("mlp.ffn_sub_norm", width)))


def read_cwm(facts: Facts) -> Reading:
    """Code World Model: every fourth layer, from the first on, is full where the config does not list them.

    Source: transformers 5.23, models/cwm/modeling_cwm.py
    """
    hidden, heads = facts.positive("hidden_size"), _llama_heads(facts)
    num_layers, window = facts.layer_count("num_hidden_layers"), facts.nullable("sliding_window") or None
    types = facts.strings("layer_types", length=num_layers)
    types = types or tuple("sliding_attention" if i % 4 else "full_attention" for i in range(num_layers))
    width = facts.positive("intermediate_size")
    mlp = gated_mlp(hidden, width, bias=facts.flag("mlp_bias"))
    mixers = typed_mixers(heads, window, types)
    return decoder(facts, decoder_layers(mixers, projections(heads, hidden), mlp, hidden, width), hidden)


def read_diffllama(facts: Facts) -> Reading:
    """DiffLlama: the difference of two softmax attentions, weighed by four learnt vectors.

    Source: transformers 5.23, models/diffllama/modeling_diffllama.py; https://arxiv.org/abs/2410.05258
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_heads(facts, hidden)
    if heads.num_kv_heads % 2:
        raise facts.wrong("num_key_value_heads", heads.num_kv_heads, "an even number")
    vectors = tuple(
        Weight(name=f"self_attn.lambda_{name}", shape=(heads.head_dim,), part="attention")
        for name in ("q1", "k1", "q2", "k2")
    )
    return _gated(facts, heads, (*_projections(facts, heads), *vectors), gated_mlp(hidden, width))


def read_helium(facts: Facts) -> Reading:
    """Helium: Llama whose heads are as wide as the model together, and whose output projection has no bias.

    Source: transformers 5.23, models/helium/modeling_helium.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    facts.refuse_null("head_dim")
    heads = read_heads(facts, hidden)
    _require_full_width(facts, heads, hidden)
    attention = projections(heads, hidden, qkv_bias=facts.flag("attention_bias"))
    return _gated(facts, heads, attention, gated_mlp(hidden, width, bias=facts.flag("mlp_bias")))


def read_hunyuan_v1_dense(facts: Facts) -> Reading:
    """Hunyuan, dense: Llama with a norm on each head's query and key.

    Source: transformers 5.23, models/hunyuan_v1_dense/modeling_hunyuan_v1_dense.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_heads(facts, hidden)
    attention = (*_projections(facts, heads), *hunyuan_head_norms(heads))
    return _gated(facts, heads, attention, gated_mlp(hidden, width), family="hunyuandensev1")


def read_ministral(facts: Facts) -> Reading:
    """Ministral 8B: Mistral whose layers are sliding or full one by one, all sliding where the config lists none.

    Source: transformers 5.23, models/ministral/modeling_ministral.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_heads(facts, hidden)
    return _gated(facts, heads, projections(heads, hidden), gated_mlp(hidden, width))


def hunyuan_head_norms(heads: Heads) -> tuple[Weight, ...]:
    """Norms over one head's query and one head's key, by Hunyuan's names."""
    return (*norm("self_attn.query_layernorm", heads.head_dim), *norm("self_attn.key_layernorm", heads.head_dim))


def _llama_or_own(facts: Facts) -> str | None:
    """What the class's name begins with, of a type that has no class of its own in transformers."""
    return "llama" if (facts.architecture() or "").startswith("Llama") else None


def _llama_heads(facts: Facts) -> Heads:
    """Heads of a class that refuses a number that does not divide `hidden_size`, as Llama's does."""
    hidden = facts.positive("hidden_size")
    require_divisor(facts, "num_attention_heads", facts.positive("num_attention_heads"), "hidden_size", hidden)
    return read_heads(facts, hidden)


def _require_full_width(facts: Facts, heads: Heads, hidden: int) -> None:
    """Raise where what all heads give is not as wide as the model, which the next tensor expects."""
    if heads.num_heads * heads.head_dim != hidden:
        raise facts.wrong("num_attention_heads", heads.num_heads, f"{hidden} / head_dim {heads.head_dim}")


def _projections(facts: Facts, heads: Heads) -> tuple[Weight, ...]:
    bias = facts.flag("attention_bias")
    return projections(heads, facts.positive("hidden_size"), qkv_bias=bias, out_bias=bias)


def _gated(
    facts: Facts, heads: Heads, attention: tuple[Weight, ...], mlp: tuple[Weight, ...], *, family: str | None = None
) -> Reading:
    """The same layer throughout, with Llama's norms and a gated MLP."""
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    return decoder(facts, decoder_layers(mixers, attention, mlp, hidden, width), hidden, family=family)


def _plain(
    facts: Facts,
    heads: Heads,
    attention: tuple[Weight, ...],
    *,
    norm_names: tuple[str, ...] = BEFORE_BOTH,
    mlp_bias: bool = False,
    learnt: tuple[Weight, ...] = (),
) -> Reading:
    """The same layer throughout, with an ungated MLP; `learnt` is what its activation has of its own."""
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    mlp = plain_mlp(hidden, width, up="mlp.up_proj", down="mlp.down_proj", bias=mlp_bias)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    feeding = [Half((*mlp, *learnt), activations=2 * width)] * len(mixers)
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding, norm_names=norm_names), hidden)
