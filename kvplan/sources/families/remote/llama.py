"""Dense decoders of Llama's shape whose classes come with their repository: baichuan, internlm, internlm2, exaone,
orion, minicpm, mimo, skywork, xverse, aquila, telechat, stablelm_epoch, Emu3.

Where a count is known, this is it to the parameter, or the reader says by what it differs. What lists of models have
for Baichuan2-13B (10.4B), Orion-14B (10.9B) and MiniCPM-2B (2.2B) are estimates, not counts.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import EagerSoftmax, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import dense_half
from kvplan.sources.families.bricks.mixers import Heads, equal_heads, full, require_divisor
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    class_suffix,
    column,
    gated_mlp,
    norm,
    projections,
    replicated,
    row,
)
from kvplan.sources.families.decoders.llama import head_norms
from kvplan.sources.families.remote.parts import (
    LLAMA,
    Names,
    grouped_heads,
    not_passed_through,
    refuse,
    remote_decoder,
    remote_layers,
    under_another_name,
)

_INTERNLM2 = Names(embed="tok_embeddings", head="output", before=("attention_norm", "ffn_norm"))
_EXAONE = Names(embed="wte", final="ln_f", before=("ln_1", "ln_2"))
_TELECHAT = Names(embed="word_embeddings", final="ln_f")
_ROTARY_WIDTH = 4096
"""Width of the 7B, by which engines tell its class from the 13B's."""
_EMU3_WORDS, _EMU3_5_WORDS = 184_622, 282_926
"""Vocabularies, by which Emu3 is told from Emu3.5: no other key of their configs differs in kind."""


def read_baichuan(facts: Facts) -> Reading:
    """Baichuan and Baichuan 2: Llama with q, k and v in one matrix; the 13B has ALiBi in place of rotary positions.

    Its class holds ALiBi's mask of heads · positions² elements besides, once it has run: no part of the checkpoint.

    Source: baichuan-inc/Baichuan2-7B-Base and Baichuan2-13B-Chat, modeling_baichuan.py; vLLM 0.33, models/baichuan.py
    """
    hidden = facts.positive("hidden_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    attention = projections(heads, hidden, names=("W_pack[q]", "W_pack[k]", "W_pack[v]", "o_proj"))
    softmax: EagerSoftmax = "fp32" if hidden == _ROTARY_WIDTH else "model-dtype"
    positions = ("model_max_length", "max_position_embeddings")
    return _dense(facts, heads, attention, positions=positions, eager_softmax=softmax)


def read_internlm(facts: Facts) -> Reading:
    """InternLM: Llama whose attention has biases, on the output too, unless `bias` is false (20B).

    Source: internlm/internlm-7b, configuration_internlm.py (`bias` true), modeling_internlm.py
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("bias", default=True)
    heads = equal_heads(facts, hidden, "num_attention_heads")
    return _dense(facts, heads, projections(heads, hidden, qkv_bias=bias, out_bias=bias))


def read_internlm2(facts: Facts) -> Reading:
    """InternLM 2 and 2.5: grouped heads in one matrix; a reward model has one output in place of a vocabulary.

    Source: internlm/internlm2-chat-7b, configuration_internlm2.py (`bias` true), modeling_internlm2.py
    `InternLM2ForRewardModel`
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("bias", default=True)
    heads = grouped_heads(facts, hidden)
    names = ("wqkv[q]", "wqkv[k]", "wqkv[v]", "wo")
    attention = projections(heads, hidden, prefix="attention", names=names, qkv_bias=bias, out_bias=bias)
    width = facts.positive("intermediate_size")
    mlp = gated_mlp(hidden, width, prefix="feed_forward", names=("w1", "w3", "w2"))
    rewards = class_suffix(facts) == "ForRewardModel"
    head = replicated("v_head", 1, hidden, "head") if rewards else None
    return _dense(facts, heads, attention, half=Half(mlp, activations=3 * width), names=_INTERNLM2, head=head)


def read_exaone(facts: Facts) -> Reading:
    """EXAONE 3.0 and 3.5: Llama under GPT-2's names; the head is tied unless the config says otherwise.

    Source: LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct, configuration_exaone.py (`tie_word_embeddings` true; an unstated
    width is 4 · hidden), modeling_exaone.py
    """
    hidden = facts.positive("hidden_size")
    require_divisor(facts, "num_attention_heads", facts.positive("num_attention_heads"), "hidden_size", hidden)
    heads = replace(grouped_heads(facts, hidden), head_dim=hidden // facts.positive("num_attention_heads"))
    if facts.has("head_dim") and facts.positive("head_dim") != heads.head_dim:
        raise facts.wrong("head_dim", facts.positive("head_dim"), f"hidden_size / heads, {heads.head_dim}")
    width = facts.positive("intermediate_size", default=4 * hidden)
    mlp = gated_mlp(hidden, width, names=("c_fc_0", "c_fc_1", "c_proj"))
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    attention = projections(heads, hidden, prefix="attn.attention", names=names)
    half = Half(mlp, activations=3 * width)
    counts = ("num_layers", "num_hidden_layers")
    return _dense(facts, heads, attention, half=half, names=_EXAONE, tied_default=True, counts=counts)


def read_orion(facts: Facts) -> Reading:
    """Orion: Llama with LayerNorm.

    Source: OrionStarAI/Orion-14B-Chat, configuration_orion.py (`attention_bias` false), modeling_orion.py
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("attention_bias", default=False)
    heads = grouped_heads(facts, hidden)
    return _dense(facts, heads, projections(heads, hidden, qkv_bias=bias, out_bias=bias), norm_bias=True)


def read_minicpm(facts: Facts) -> Reading:
    """MiniCPM 1 and 2, MiniCPM4: Llama whose activations are scaled, with routed experts where there are any.

    The head is tied unless the config says otherwise. Sparse attention (InfLLM v2) keeps compressed keys besides,
    which are not modelled: published configs leave it off.

    Source: openbmb/MiniCPM-2B-sft-bf16 and MiniCPM-MoE-8x2B, configuration_minicpm.py (`num_experts` 0,
    `attention_bias` false), modeling_minicpm.py
    """
    refuse(facts, "sparse_config")
    hidden, bias = facts.positive("hidden_size"), facts.flag("attention_bias", default=False)
    heads = grouped_heads(facts, hidden)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    half = None
    if facts.integer("num_experts", default=0):
        half = routed_half(read_experts_of(facts, "num_experts", width_key="intermediate_size"), hidden)
    return _dense(facts, heads, attention, half=half, tied_default=True)


def read_mimo(facts: Facts) -> Reading:
    """MiMo 7B: Qwen2, and layers that predict ahead, which the class holds and generation does not use.

    An engine that does not draft with them leaves them out: `--set num_nextn_predict_layers=0`. The repositories store
    one, which is the Hub's count, also where a config states two.

    Source: XiaomiMiMo/MiMo-7B-Base, configuration_mimo.py (`num_nextn_predict_layers` 0), modeling_mimo.py
    `MiMoMTPLayers`
    """
    hidden, copies = facts.positive("hidden_size"), facts.integer("num_nextn_predict_layers", default=0)
    heads = grouped_heads(facts, hidden)
    reading = under_another_name(facts, "qwen2", family="mimo")
    ahead = (
        *projections(heads, hidden, qkv_bias=True),
        *gated_mlp(hidden, facts.positive("intermediate_size")),
        *replicated("input_proj", hidden, 2 * hidden, "mlp"),
        *(weight for name in (*LLAMA.before, *_AHEAD_NORMS) for weight in norm(name, hidden)),
    )
    named = tuple(replace(weight, name=f"mtp_layers.*.{weight.name}") for weight in ahead)
    return replace(reading, head=(*reading.head, *not_passed_through(named, copies=copies)))


_AHEAD_NORMS = ("token_layernorm", "hidden_layernorm", "final_layernorm")


def read_skywork(facts: Facts) -> Reading:
    """Skywork 13B: Llama.

    Source: Skywork/Skywork-13B-base, modeling_skywork.py
    """
    refuse(facts, "num_experts")
    hidden = facts.positive("hidden_size")
    heads = grouped_heads(facts, hidden)
    return _dense(facts, heads, projections(heads, hidden))


def read_aquila(facts: Facts) -> Reading:
    """Aquila and Aquila 2: Llama.

    Source: BAAI/Aquila2-34B, modeling_aquila.py; vLLM 0.33, models/registry.py, which serves it by its Llama class
    """
    return read_skywork(facts)


def read_xverse(facts: Facts) -> Reading:
    """XVERSE: Llama; its MoE adds shared experts to the routed ones, all as wide as `intermediate_size`.

    Source: xverse/XVERSE-13B and XVERSE-MoE-A4.2B, modeling_xverse.py; vLLM 0.33, models/registry.py
    """
    hidden = facts.positive("hidden_size")
    heads = grouped_heads(facts, hidden)
    half = None
    if facts.integer("num_experts", default=0):
        shared = facts.integer("num_shared_experts", default=0) * facts.positive("intermediate_size")
        routed = read_experts_of(facts, "num_experts", width_key="intermediate_size", shared_width=shared)
        half = routed_half(routed, hidden, router="router")
    return _dense(facts, heads, projections(heads, hidden), half=half)


def read_telechat(facts: Facts) -> Reading:
    """TeleChat and TeleChat 2: Llama where only the last matrix of each half has a bias.

    Whether the head is tied has to be stated: the repositories' class leaves it to transformers, whose default changed.

    Source: Tele-AI/TeleChat2-7B, modeling_telechat2.py; vLLM 0.33, models/telechat2.py
    """
    refuse(facts, "embed_layernorm")
    facts.flag("tie_word_embeddings")
    hidden = facts.positive("hidden_size")
    heads = equal_heads(facts, hidden, "n_head", "num_attention_heads")
    kv_heads = facts.positive("num_key_value_heads", default=heads.num_heads)
    require_divisor(facts, "num_key_value_heads", kv_heads, "n_head", heads.num_heads)
    heads = replace(heads, num_kv_heads=kv_heads)
    names = ("query", "key_value[k]", "key_value[v]", "dense")
    attention = projections(heads, hidden, prefix="self_attention", names=names, out_bias=True)
    width = facts.positive("ffn_hidden_size", "intermediate_size")
    mlp = (
        *column("mlp.gate_proj", width, hidden, "mlp"),
        *column("mlp.up_proj", width, hidden, "mlp"),
        *row("mlp.down_proj", hidden, width, "mlp", bias=True),
    )
    half, counts = Half(mlp, activations=3 * width), ("n_layer", "num_hidden_layers")
    positions = ("seq_length", "max_position_embeddings")
    return _dense(facts, heads, attention, half=half, names=_TELECHAT, counts=counts, positions=positions)


def read_stablelm_epoch(facts: Facts) -> Reading:
    """StableLM 3B-4E1T and its line under their first type: the class that transformers has as `stablelm`.

    Source: stabilityai/stablelm-3b-4e1t, first revision, modeling_stablelm_epoch.py
    """
    return under_another_name(facts, "stablelm", family="stablelmepoch")


def read_emu3(facts: Facts) -> Reading:
    """Emu3, and Emu3.5 with a norm on each head's query and key: words of text and of images in one vocabulary.

    The image tokenizer is a model of its own. No class of either repository has biases on q, k and v.

    Source: BAAI/Emu3-Gen, modeling_emu3.py; baaivision/Emu3.5, src/emu3p5/modeling_emu3.py `Emu3Attention`
    """
    refuse(facts, "qkv_bias", "attention_bias", why="which no class of Emu3 or Emu3.5 has")
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    if vocab not in (_EMU3_WORDS, _EMU3_5_WORDS):
        raise UnsupportedError(
            f"a vocabulary of {vocab} is neither Emu3's nor Emu3.5's, by which kvplan tells them apart",
            hint=f"pass `--set vocab_size={_EMU3_WORDS}` or `--set vocab_size={_EMU3_5_WORDS}`",
        )
    heads = grouped_heads(facts, hidden)
    norms = head_norms(heads.head_dim) if vocab == _EMU3_5_WORDS else ()
    return _dense(facts, heads, (*projections(heads, hidden), *norms))


def _dense(
    facts: Facts,
    heads: Heads,
    attention: tuple[Weight, ...],
    *,
    half: Half | None = None,
    names: Names = LLAMA,
    norm_bias: bool = False,
    tied_default: bool = False,
    eager_softmax: EagerSoftmax = "fp32",
    counts: tuple[str, ...] = ("num_hidden_layers",),
    positions: tuple[str, ...] = ("max_position_embeddings",),
    head: tuple[Weight, ...] | None = None,
) -> Reading:
    """The same layer throughout: full attention, and `half` or a gated MLP of `intermediate_size`."""
    hidden = facts.positive("hidden_size")
    half = half or dense_half(hidden, facts.positive("intermediate_size"))
    count = facts.layer_count(*counts)
    layers = remote_layers(
        hidden,
        [full(heads)] * count,
        attention,
        [half] * count,
        names=names,
        norm_bias=norm_bias,
        eager_softmax=eager_softmax,
    )
    return remote_decoder(
        facts,
        layers,
        hidden,
        names=names,
        norm_bias=norm_bias,
        tied_default=tied_default,
        positions=positions,
        head=head,
    )
