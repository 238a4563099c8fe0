"""Hunyuan-Large and the dense models of its class, `hunyuan`: layers that read an earlier layer's keys and values.

Source: Tencent-Hunyuan/Tencent-Hunyuan-Large, models/configuration_hunyuan.py, models/modeling_hunyuan.py; vLLM 0.33,
models/hunyuan_v1.py; https://arxiv.org/abs/2411.02265.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family
from kvplan.sources.families.bricks.halves import dense_half
from kvplan.sources.families.bricks.kv_sharing import read_by
from kvplan.sources.families.bricks.latent import Routed
from kvplan.sources.families.bricks.mixers import Heads, full, require_divisor
from kvplan.sources.families.bricks.moe import routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, column, norm, paired, projections, row
from kvplan.sources.families.decoders.llama_kin import hunyuan_head_norms
from kvplan.sources.families.remote.parts import LLAMA, refuse, remote_decoder


def read_hunyuan(facts: Facts) -> Reading:
    """Cross-layer attention: with `use_cla` one of every `cla_share_factor` layers keeps keys and values.

    The others have a query and an output of their own. Sizes of experts may be one number or one for each layer.
    """
    refuse(facts, "use_mla", "mamba", "vit_path", "add_classification_head")
    if (kind := facts.text("norm_type", default="rms")) not in ("rms", "hf_rms"):
        raise facts.wrong("norm_type", kind, "`rms` or `hf_rms`")
    hidden, count = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = _heads(facts, hidden)
    factor = facts.positive("cla_share_factor", default=1) if facts.flag("use_cla", default=False) else 1
    normed = hunyuan_head_norms(heads) if facts.flag("use_qk_norm", default=False) else ()
    bias = facts.flag("attention_bias", default=False)
    keeper = full(heads)
    keeps = Half((*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *normed), (keeper,))
    reads = Half((*_query_and_output(heads, hidden, bias=bias), *normed), (read_by(keeper),))
    feeding = _feeding(facts, hidden, count)
    norms = tuple(weight for name in LLAMA.before for weight in norm(name, hidden))
    layers = paired([reads if i % factor else keeps for i in range(count)], feeding, norms)
    family = class_family(facts, "hunyuanmoev1", "hunyuandensev1", "hunyuan")
    return remote_decoder(facts, layers, hidden, family=family)


def _heads(facts: Facts, hidden: int) -> Heads:
    """Heads of `head_dim`, else `attention_head_dim`, else an even share of the hidden size."""
    num_heads = facts.positive("num_attention_heads")
    kv_heads = facts.positive("num_key_value_heads", default=num_heads)
    require_divisor(facts, "num_key_value_heads", kv_heads, "num_attention_heads", num_heads)
    dim = facts.positive("attention_head_dim", "head_dim", default=hidden // num_heads)
    return Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=dim)


def _query_and_output(heads: Heads, hidden: int, *, bias: bool) -> tuple[Weight, ...]:
    width = heads.num_heads * heads.head_dim
    return (
        *column("self_attn.q_proj", width, hidden, "attention", units=heads.num_heads, bias=bias),
        *row("self_attn.o_proj", hidden, width, "attention", units=heads.num_heads, bias=bias),
    )


def _feeding(facts: Facts, hidden: int, count: int) -> list[Half]:
    """A half for each layer: dense where there is one expert, or among the first `moe_layer_num_skipped`."""
    width, bias = facts.positive("intermediate_size"), facts.flag("mlp_bias", default=False)
    dense = dense_half(hidden, width, bias=bias)
    num_experts = _for_each(facts, "num_experts", count, default=1)
    if max(num_experts) == 1:
        return [dense] * count
    active = _for_each(facts, "moe_topk", count, default=1)
    widths = _for_each(facts, "moe_intermediate_size", count, default=width)
    shared = _for_each(facts, "num_shared_expert", count, default=1)
    if not facts.flag("use_mixed_mlp_moe", default=False):
        shared = (0,) * count
    sizes = list(zip(num_experts, active, widths, shared, strict=True))
    if any(chosen > experts for experts, chosen, _, _ in sizes):
        raise facts.wrong("moe_topk", max(active), f"at most the number of experts, {max(num_experts)}")
    routed = {
        size: routed_half(
            Routed(num_experts=size[0], active=size[1], width=size[2], shared_width=size[3] * width),
            hidden,
            router="gate.wg",
            shared="shared_mlp",
        )
        for size in set(sizes)
    }
    skipped = facts.integer("moe_layer_num_skipped", default=0)
    return [dense if i < skipped else routed[size] for i, size in enumerate(sizes)]


def _for_each(facts: Facts, key: str, count: int, *, default: int) -> tuple[int, ...]:
    """The numbers at `key`, one for each layer; one number stands for all."""
    numbers = facts.one_or_more(key) if facts.has(key) else (facts.positive(key, default=default),)
    if len(numbers) not in (1, count) or min(numbers) < 1:
        raise facts.wrong(key, list(numbers), f"a number from 1, or a list of {count}")
    return (numbers * count)[:count]
