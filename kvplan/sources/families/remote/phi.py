"""Phi whose classes come with their repository: phi-msft and mixformer-sequential (Phi-1 to 2), phi3small, phi3_v,
phi4mm.

Source: microsoft/phi-1_5 and phi-2, first revisions, modeling_phi.py and modeling_mixformer_sequential.py;
microsoft/Phi-3-small-8k-instruct, modeling_phi3_small.py; microsoft/Phi-3-vision-128k-instruct, modeling_phi3_v.py,
image_embedding_phi3_v.py; microsoft/Phi-4-multimodal-instruct, modeling_phi4mm.py, speech_conformer_encoder.py.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Part, Weight
from kvplan.core.text import printable
from kvplan.sources.class_defaults import class_defaults
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family
from kvplan.sources.families.bricks.halves import plain_half
from kvplan.sources.families.bricks.mixers import equal_heads, full, require_divisor
from kvplan.sources.families.bricks.parts import Half, Reading, column, projections, replicated, row
from kvplan.sources.families.multimodal.speech import phi4_audio, phi4_vision
from kvplan.sources.families.remote.parts import (
    Names,
    grouped_heads,
    remote_decoder,
    remote_layers,
    under_another_name,
)
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.clip import clip_tower
from kvplan.sources.families.towers.named import named_part

_PHI = Names(embed="embd.wte", final="lm_head.ln", head="lm_head.linear", before=("ln",))
_CONFORMER = {
    "attention_dim": "hidden_size",
    "attention_heads": "num_attention_heads",
    "linear_units": "intermediate_size",
    "num_blocks": "num_blocks",
    "input_size": "input_size",
    "kernel_size": "kernel_size",
    "time_reduction": "time_reduction",
    "ext_pw_out_channel": "ext_pw_out_channel",
}
"""The repository's spellings of the conformer's sizes, and transformers'."""
_PHI3_SMALL = Names(final="final_layernorm")


def read_phi_msft(facts: Facts) -> Reading:
    """Phi-1, 1.5 and 2 under their first types: the weights of transformers' `phi`, its sizes spelled as GPT-2's.

    An unstated width is 4 · hidden, unstated KV heads are all heads.

    Source: microsoft/phi-1_5, configuration_phi.py, modeling_phi.py `MHA`
    """
    hidden = facts.positive("n_embd")
    heads = equal_heads(facts, hidden, "n_head")
    kv_heads = facts.positive("n_head_kv", default=heads.num_heads)
    require_divisor(facts, "n_head_kv", kv_heads, "n_head", heads.num_heads)
    heads = replace(heads, num_kv_heads=kv_heads)
    names = ("Wqkv[q]", "Wqkv[k]", "Wqkv[v]", "out_proj")
    attention = projections(heads, hidden, prefix="mixer", names=names, qkv_bias=True, out_bias=True)
    half = plain_half(hidden, facts.positive("n_inner", default=4 * hidden), up="mlp.fc1", down="mlp.fc2")
    count = facts.layer_count("n_layer")
    layers = remote_layers(hidden, [full(heads)] * count, attention, [half] * count, names=_PHI, norm_bias=True)
    family = class_family(facts, "phi", "mixformersequential")
    return remote_decoder(
        facts,
        layers,
        hidden,
        names=_PHI,
        family=family,
        head_bias=True,
        norm_bias=True,
        positions=("n_positions",),
    )


def read_phi3_small(facts: Facts) -> Reading:
    """Phi-3-small 7B: biases everywhere, LayerNorm, a gated MLP in one matrix, the head tied to the token table.

    Most layers attend to blocks of tokens only; all keys and values are kept, since each head picks other blocks.

    Source: microsoft/Phi-3-small-8k-instruct, configuration_phi3_small.py, modeling_phi3_small.py; vLLM 0.10,
    models/phi3_small.py
    """
    hidden = facts.positive("hidden_size")
    heads = grouped_heads(facts, hidden)
    names = ("query_key_value[q]", "query_key_value[k]", "query_key_value[v]", "dense")
    attention = projections(heads, hidden, names=names, qkv_bias=True, out_bias=True)
    width = facts.positive("intermediate_size", "ff_intermediate_size")
    mlp = (
        *column("mlp.up_proj[gate]", width, hidden, "mlp", bias=True),
        *column("mlp.up_proj[up]", width, hidden, "mlp", bias=True),
        *row("mlp.down_proj", hidden, width, "mlp", bias=True),
    )
    count, half = facts.layer_count("num_hidden_layers"), Half(mlp, activations=3 * width)
    layers = remote_layers(hidden, [full(heads)] * count, attention, [half] * count, norm_bias=True)
    return remote_decoder(facts, layers, hidden, names=_PHI3_SMALL, norm_bias=True, tied_default=True)


def read_phi3_v(facts: Facts) -> Reading:
    """Phi-3-vision and 3.5-vision: Phi-3, CLIP's large tower, two linears, and a learnt separator of rows and views.

    Source: microsoft/Phi-3-vision-128k-instruct, image_embedding_phi3_v.py `Phi3ImageEmbedding`
    """
    embedding, processor = facts.nested("embd_layer"), facts.nested("img_processor")
    for key, published in (("projection_cls", "mlp"), ("embedding_cls", "image")):
        if (stated := embedding.text(key)) != published:
            raise embedding.wrong(key, printable(stated), f"`{published}`")
    if not (embedding.flag("use_hd_transform") and embedding.flag("with_learnable_separator")):
        raise UnsupportedError(
            "`embd_layer` is without `use_hd_transform` or `with_learnable_separator`, which all published models have",
            hint="correct the file",
        )
    hidden = facts.positive("hidden_size")
    merged = 4 * processor.positive("image_dim_out")
    name = "vision_embed_tokens"
    tower = clip_tower(named_part(processor, "model_name"), f"{name}.img_processor")
    return under_another_name(facts, "phi3", tower, in_tower(name, _joint(merged, hidden)), family="phi3v")


def _joint(merged: int, hidden: int) -> tuple[Weight, ...]:
    return (
        loose("glb_GN", 1, 1, merged),
        loose("sub_GN", 1, 1, 1, merged),
        *replicated("img_projection.0", hidden, merged, "vision", bias=True),
        *replicated("img_projection.2", hidden, hidden, "vision", bias=True),
    )


def read_phi4_mm(facts: Facts) -> Reading:
    """Phi-4-multimodal under its repository's type: transformers' `phi4_multimodal`, and two adapters in every layer.

    The repository's class holds one for images and one for sound beside each matrix; vLLM loads them apart.

    Source: microsoft/Phi-4-multimodal-instruct, modeling_phi4mm.py `Phi4MMForCausalLM`
    """
    ranks = {kind: facts.nested(f"{kind}_lora").positive("r") for kind in ("vision", "speech")}
    hidden = facts.positive("hidden_size")
    seen = phi4_vision(facts.part("vision_config", model_type="phi4_multimodal_vision"), hidden)
    text = under_another_name(facts, "phi3", seen, phi4_audio(_conformer(facts), hidden), family="phi4mm")
    layers = {
        id(layer): replace(layer, weights=(*layer.weights, *_adapters(layer.weights, ranks))) for layer in text.layers
    }
    return replace(text, layers=[layers[id(layer)] for layer in text.layers])


def _conformer(facts: Facts) -> Facts:
    """The conformer's sizes in transformers' spelling; what the config leaves out is as in transformers' class."""
    stated = facts.nested("audio_processor").nested("config")
    sizes = {ours: stated.positive(theirs) for theirs, ours in _CONFORMER.items() if stated.has(theirs)}
    distance = stated.nested("relative_attention_bias_args").positive("t5_bias_max_distance", default=500)
    return Facts(
        sizes | {"bias_max_distance": distance},
        model_type="phi4_multimodal_audio",
        origin="audio_processor",
        prefix="audio_processor.",
        defaults=class_defaults("phi4_multimodal_audio"),
        bare=True,
    )


def _adapters(weights: tuple[Weight, ...], ranks: dict[str, int]) -> tuple[Weight, ...]:
    """Two thin matrices of each kind beside every matrix of a layer, of a fused one beside the whole."""
    rows: dict[tuple[str, Part, int], int] = {}
    for weight in weights:
        if weight.linear:
            key = (weight.name.removesuffix(".weight").partition("[")[0], weight.part, weight.shape[1])
            rows[key] = rows.get(key, 0) + weight.shape[0]
    return tuple(
        Weight(name=f"{name}.lora_{side}.{kind}.weight", shape=shape, part=part)
        for (name, part, columns), height in rows.items()
        for kind, rank in ranks.items()
        for side, shape in (("A", (rank, columns)), ("B", (height, rank)))
    )
