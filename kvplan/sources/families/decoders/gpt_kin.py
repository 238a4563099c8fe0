"""Decoders after GPT-2 and GPT-NeoX: openai-gpt, gpt_neo, gpt_bigcode, gptj, codegen, ctrl, gpt_neox_japanese.

All have LayerNorm, an ungated MLP, and heads that share the hidden size. Source: transformers 5.23,
models/{openai,gpt_neo,gpt_bigcode,gptj,codegen,ctrl,gpt_neox_japanese}/.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import SlidingAttention
from kvplan.core.model import EagerSoftmax, Layer, Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import BEFORE_BOTH, half_decoder, plain_half
from kvplan.sources.families.bricks.mixers import Heads, equal_heads, full, named_mixers
from kvplan.sources.families.bricks.parts import Half, Reading, causal_head, norm, projections, table
from kvplan.sources.families.decoders.gpt import cross_attention

_NORMS = ("ln_1", "ln_2")


def read_openai_gpt(facts: Facts) -> Reading:
    """GPT: GPT-2 with its norms after each half, none at the end. The class of transformers caches nothing.

    Source: transformers 5.23, models/openai/modeling_openai.py
    """
    hidden, positions = facts.positive("n_embd"), facts.positive("n_positions")
    heads = equal_heads(facts, hidden, "n_head")
    half = plain_half(hidden, 4 * hidden, up="mlp.c_fc", down="mlp.c_proj")
    names = ("c_attn[q]", "c_attn[k]", "c_attn[v]", "c_proj")
    attention = projections(heads, hidden, prefix="attn", names=names, qkv_bias=True, out_bias=True)
    num_layers, uncached = facts.layer_count("n_layer"), replace(full(heads), in_transformers_cache=False)
    layers = half_decoder(
        hidden,
        [uncached] * num_layers,
        attention,
        [half] * num_layers,
        norm_names=_NORMS,
        norm_bias=True,
        eager_softmax="model-dtype",
    )
    head, tied = causal_head(
        facts,
        hidden_size=hidden,
        vocab_size=facts.positive("vocab_size"),
        language_model="LMHeadModel",
        family="OpenAIGPT",
    )
    learnt = table("positions_embed", positions, hidden, split=False)
    return _reading(facts, layers, head, tied, tables="tokens_embed", learnt=learnt, max_seq_len=positions)


def read_gpt_neo(facts: Facts) -> Reading:
    """GPT-Neo: every second layer sees only `window_size` tokens, though transformers caches all of them.

    Source: transformers 5.23, models/gpt_neo/modeling_gpt_neo.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_layers")
    heads = equal_heads(facts, hidden, "num_heads")
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    attention = projections(heads, hidden, prefix="attn.attention", names=names, out_bias=True)
    half = plain_half(
        hidden, facts.integer("intermediate_size", default=None) or 4 * hidden, up="mlp.c_fc", down="mlp.c_proj"
    )
    local = SlidingAttention(
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        key_dim=heads.head_dim,
        value_dim=heads.head_dim,
        window=facts.positive("window_size"),
        transformers_keeps_all=True,
    )
    mixers = named_mixers({"global": full(heads), "local": local}, _gpt_neo_types(facts, num_layers))
    layers = half_decoder(hidden, mixers, attention, [half] * num_layers, norm_names=_NORMS, norm_bias=True)
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=facts.positive("vocab_size"))
    positions = facts.positive("max_position_embeddings")
    learnt = table("wpe", positions, hidden, split=False)
    final = norm("ln_f", hidden, bias=True)
    return _reading(facts, layers, (*final, *head), tied, learnt=learnt, max_seq_len=positions)


def read_gpt_bigcode(facts: Facts) -> Reading:
    """StarCoder and SantaCoder: GPT-2 with one KV head, unless `multi_query` is false.

    Source: transformers 5.23, models/gpt_bigcode/modeling_gpt_bigcode.py
    """
    hidden, positions = facts.positive("n_embd"), facts.positive("n_positions")
    heads, multi_query = equal_heads(facts, hidden, "n_head"), facts.flag("multi_query")
    if multi_query:
        heads = replace(heads, num_kv_heads=1)
    names = ("c_attn[q]", "c_attn[k]", "c_attn[v]", "c_proj")
    attention = projections(heads, hidden, prefix="attn", names=names, qkv_bias=True, out_bias=True)
    if facts.flag("add_cross_attention"):
        if multi_query:
            raise facts.wrong("add_cross_attention", True, "false, as `multi_query` is true")
        attention = (*attention, *cross_attention(hidden, heads.num_heads))
    half = plain_half(hidden, facts.nullable("n_inner") or 4 * hidden, up="mlp.c_fc", down="mlp.c_proj")
    layers = _layers(heads, attention, half, facts.layer_count("n_layer"), norm_names=_NORMS)
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=facts.positive("vocab_size"))
    learnt = table("wpe", positions, hidden, split=False)
    final = norm("ln_f", hidden, bias=True)
    return _reading(facts, layers, (*final, *head), tied, learnt=learnt, max_seq_len=positions)


def read_gptj(facts: Facts) -> Reading:
    """GPT-J: attention without biases, one norm for both halves of a layer, a bias in the output head.

    Source: transformers 5.23, models/gptj/modeling_gptj.py
    """
    return _one_norm(facts, ("q_proj", "k_proj", "v_proj", "out_proj"))


def read_codegen(facts: Facts) -> Reading:
    """CodeGen: GPT-J with fused projections.

    Source: transformers 5.23, models/codegen/modeling_codegen.py
    """
    return _one_norm(facts, ("qkv_proj[q]", "qkv_proj[k]", "qkv_proj[v]", "out_proj"))


def read_ctrl(facts: Facts) -> Reading:
    """CTRL: positions are sines, and the tied output head has a bias.

    Source: transformers 5.23, models/ctrl/modeling_ctrl.py
    """
    hidden = facts.positive("n_embd")
    heads = equal_heads(facts, hidden, "n_head")
    names = ("Wq", "Wk", "Wv", "dense")
    attention = projections(heads, hidden, prefix="multi_head_attention", names=names, qkv_bias=True, out_bias=True)
    half = plain_half(hidden, facts.positive("dff"), up="ffn.0", down="ffn.2")
    norms, num_layers = ("layernorm1", "layernorm2"), facts.layer_count("n_layer")
    layers = _layers(heads, attention, half, num_layers, norm_names=norms, softmax="model-dtype")
    head, tied = causal_head(
        facts, hidden_size=hidden, vocab_size=facts.positive("vocab_size"), language_model="LMHeadModel", bias=True
    )
    final = norm("layernorm", hidden, bias=True)
    return _reading(facts, layers, (*final, *head), tied, tables="w", max_seq_len=facts.positive("n_positions"))


def read_gpt_neox_japanese(facts: Facts) -> Reading:
    """GPT-NeoX-Japanese: GPT-NeoX without biases but one, on the last layer's attention.

    Source: transformers 5.23, models/gpt_neox_japanese/modeling_gpt_neox_japanese.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    names = ("query_key_value[q]", "query_key_value[k]", "query_key_value[v]", "dense")
    attention = projections(heads, hidden, prefix="attention", names=names)
    width = hidden * facts.positive("intermediate_multiple_size")
    half = plain_half(hidden, width, up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h", bias=False)
    layers = _layers(heads, attention, half, num_layers, norm_names=BEFORE_BOTH, softmax="model-dtype")
    offset = Weight(name="attention.dense_bias", shape=(hidden,), part="attention")
    layers[-1] = replace(layers[-1], weights=(*layers[-1].weights, offset))
    vocab = facts.positive("vocab_size")
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab, name="embed_out")
    top = (*norm("final_layer_norm", hidden, bias=True), *head)
    positions = facts.positions()
    return _reading(facts, layers, top, tied, tables="embed_in", max_seq_len=positions)


def _one_norm(facts: Facts, names: tuple[str, str, str, str]) -> Reading:
    hidden = facts.positive("n_embd")
    heads = equal_heads(facts, hidden, "n_head")
    attention = projections(heads, hidden, prefix="attn", names=names)
    half = plain_half(hidden, facts.nullable("n_inner") or 4 * hidden, up="mlp.fc_in", down="mlp.fc_out")
    layers = _layers(heads, attention, half, facts.layer_count("n_layer"), norm_names=("ln_1",))
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=facts.positive("vocab_size"), bias=True)
    top = (*norm("ln_f", hidden, bias=True), *head)
    return _reading(facts, layers, top, tied, max_seq_len=facts.positive("n_positions"))


def _layers(
    heads: Heads,
    attention: tuple[Weight, ...],
    half: Half,
    num_layers: int,
    *,
    norm_names: tuple[str, ...],
    softmax: EagerSoftmax = "fp32",
) -> list[Layer]:
    """Equal layers of full attention, whose heads fill the hidden size."""
    return half_decoder(
        heads.num_heads * heads.head_dim,
        [full(heads)] * num_layers,
        attention,
        [half] * num_layers,
        norm_names=norm_names,
        norm_bias=True,
        eager_softmax=softmax,
    )


def _reading(
    facts: Facts,
    layers: list[Layer],
    head: tuple[Weight, ...],
    tied: bool,
    *,
    tables: str = "wte",
    learnt: tuple[Weight, ...] = (),
    max_seq_len: int | None,
) -> Reading:
    """`tables` is the token table's name, `learnt` a table of positions."""
    vocab = facts.positive("vocab_size")
    hidden = next(weight.shape[1] for weight in layers[0].weights if weight.linear)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=(*table(tables, vocab, hidden), *learnt),
        head=head,
        tied_embeddings=tied,
        max_seq_len=max_seq_len,
    )


def _gpt_neo_types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """A name for each layer: `attention_layers`, else what `attention_types` repeats, `[[["global", "local"], 12]]`.

    Source: transformers 5.23, models/gpt_neo/configuration_gpt_neo.py `expand_attention_types_params`
    """
    stated = facts.strings("attention_layers")
    names = list(stated or ())
    repeated = () if stated else facts.entries("attention_types") or ([["global", "local"], 12],)
    for entry in repeated:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], list):
            raise facts.wrong("attention_types", entry, "pairs of a list of names and a count")
        pattern, count = entry
        if type(count) is not int or not 0 <= count <= num_layers:
            raise facts.wrong("attention_types", count, f"a count of at most {num_layers}")
        names += [str(name) for name in pattern] * count
    if len(names) != num_layers:
        raise facts.wrong("attention_types", f"{len(names)} layers", f"`num_layers`, {num_layers}")
    for name in names:
        if name not in ("global", "local"):
            raise UnsupportedError(f"`attention_types` names `{printable(name)}`", hint="known here: global, local")
    return tuple(names)
