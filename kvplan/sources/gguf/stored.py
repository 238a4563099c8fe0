"""What a GGUF file stores for each weight of a model: tensors matched by their role in the layer, byte for byte.

To add a name: a pattern of what the readers call the weight, and what llama.cpp calls it, in `_ROLES`.

Source: llama.cpp 2026-03, src/llama-arch.cpp (`LLM_TENSOR_NAMES`); gguf 0.19, gguf/tensor_mapping.py
"""

import re
from dataclasses import replace
from functools import cache

from kvplan.core.model import Layer, Quantization, Split, Weight
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.sources.families.bricks.parts import Reading
from kvplan.sources.gguf.metadata import Gguf
from kvplan.sources.gguf.types import BlockFormat

PLAIN = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_ROLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"embed_tokens|wte|word_embeddings|embed_in|embeddings|tok_embeddings", ("token_embd",)),
    (r"lm_head|embed_out|output|output_layer", ("output",)),
    (r"wpe|embed_positions|position_embeddings", ("position_embd",)),
    (r"token_type_embeddings", ("token_types",)),
    (r"attention\.self\.query", ("attn_q",)),
    (r"attention\.self\.key", ("attn_k",)),
    (r"attention\.self\.value", ("attn_v",)),
    (r"attention\.output\.dense", ("attn_output",)),
    (r"intermediate\.dense", ("ffn_up",)),
    (r"output\.dense|mlp\.Wo", ("ffn_down",)),
    (r"mlp\.Wi\[.*", ("ffn_up",)),
    (r"embed_tokens_per_layer", ("per_layer_token_embd",)),
    (r"per_layer_model_projection", ("per_layer_model_proj",)),
    (r"per_layer_input_gate", ("inp_gate",)),
    (r"per_layer_projection", ("proj",)),
    (r"altup_projections\.\*", ("altup_proj",)),
    (r"altup_unembed_projections\.\*", ("altup_unembd_proj",)),
    (r"altup\.correction_coefs", ("altup_correct_coef",)),
    (r"altup\.prediction_coefs", ("altup_predict_coef",)),
    (r"altup\.modality_router", ("altup_router",)),
    (r"laurel\.linear_left", ("laurel_l",)),
    (r"laurel\.linear_right", ("laurel_r",)),
    (r"q_a_proj", ("attn_q_a",)),
    (r"q_b_proj", ("attn_q_b",)),
    (r"kv_a_proj_with_mqa", ("attn_kv_a_mqa",)),
    (r"kv_b_proj", ("attn_kv_b",)),
    (r"k_b_proj", ("attn_k_b",)),
    (r"v_b_proj", ("attn_v_b",)),
    (r"q_a_layernorm", ("attn_q_a_norm",)),
    (r"kv_a_layernorm", ("attn_kv_a_norm",)),
    (r"indexer\.wq_b", ("indexer.attn_q_b",)),
    (r"indexer\.wk", ("indexer.attn_k",)),
    (r"indexer\.weights_proj", ("indexer.proj",)),
    (r"q_norm|q_layernorm", ("attn_q_norm",)),
    (r"k_norm|k_layernorm", ("attn_k_norm",)),
    (r"sinks", ("attn_sinks",)),
    (r"linear_attn\.in_proj_(qkvz|z)\[z\]", ("attn_gate", "ssm_in")),
    (r"linear_attn\.in_proj_(qkvz|qkv)\b.*", ("attn_qkv", "ssm_in")),
    (r"linear_attn\.in_proj_(ba|b)\[b\]", ("ssm_beta", "ssm_ba")),
    (r"linear_attn\.in_proj_(ba|a)\[a\]", ("ssm_alpha", "ssm_ba")),
    (r"(forget_gate\.)?f_a_proj", ("ssm_f_a",)),
    (r"(forget_gate\.)?f_b_proj", ("ssm_f_b",)),
    (r"self_attn\.g_a_proj", ("ssm_g_a",)),
    (r"self_attn\.g_b_proj", ("ssm_g_b",)),
    (r"self_attn\.b_proj", ("ssm_beta",)),
    (r"(linear_attn|mixer|mamba|self_attn)\.conv1d.*", ("ssm_conv1d", "ssm_conv1d_q")),
    (r"(linear_attn|mixer|mamba)\.out_proj", ("ssm_out",)),
    (r"(linear_attn|mixer|mamba|forget_gate)\.(A_log|D|dt_bias|norm)", ("ssm_a", "ssm_norm")),
    (r"(mixer|mamba)\.in_proj.*", ("ssm_in",)),
    (r"(mixer|mamba)\.x_proj", ("ssm_x",)),
    (r"(mixer|mamba)\.dt_proj", ("ssm_dt",)),
    (r"conv\.in_proj.*", ("shortconv.in_proj",)),
    (r"conv\.out_proj", ("shortconv.out_proj",)),
    (r"conv\.conv.*", ("shortconv.conv",)),
    (r"fc1_latent_proj", ("ffn_latent_down",)),
    (r"fc2_latent_proj", ("ffn_latent_up",)),
    (r"(experts|block_sparse_moe)\..*(gate_proj|w1|\[gate\])", ("ffn_gate_exps", "ffn_gate_up_exps")),
    (r"(experts|block_sparse_moe)\..*(up_proj|w3|v1|\[up\])", ("ffn_up_exps", "ffn_gate_up_exps")),
    (r"(experts|block_sparse_moe)\..*(down_proj|w2|output_linear)", ("ffn_down_exps",)),
    (r"(shared_experts?|shared_mlp)\.(gate_proj|.*\[gate\])", ("ffn_gate_shexp", "ffn_gate")),
    (r"(shared_experts?|shared_mlp)\.(up_proj|.*\[up\])", ("ffn_up_shexp", "ffn_up")),
    (r"(shared_experts?|shared_mlp)\.(down_proj|output_linear)", ("ffn_down_shexp", "ffn_down")),
    (r"shared_expert_gate", ("ffn_gate_inp_shexp",)),
    (r"e_score_correction_bias|expert_bias", ("exp_probs_b",)),
    (
        r"(mlp|ffn|feed_forward|block_sparse_moe|mixer)\.(gate|router|gate\.wg|router\.gate|router\.layer)",
        ("ffn_gate_inp",),
    ),
    (r"router\.proj", ("ffn_gate_inp",)),
    (r"mlp\.w2", ("ffn_gate",)),  # the first Qwen, whose w1 is the other side
    (r"mlp\.w1", ("ffn_up",)),
    (r"(mlp|feed_forward)\..*(\[gate\]|gate_proj|w1|c_fc_0)", ("ffn_gate", "ffn_up")),
    (r"(mlp|feed_forward|ffn|mixer)\..*(\[up\]|up_proj|w3|fc1|c_fc|c_fc_1|dense_h_to_4h)", ("ffn_up",)),
    (r"(mlp|feed_forward|ffn|mixer)\..*(down_proj|w2|fc2|c_proj|dense_4h_to_h)", ("ffn_down",)),
    (r"self_attn\.(gate_proj|g_proj)", ("attn_gate",)),
    (r".*(\[q\]|q_proj|\[gate\])", ("attn_q", "attn_qkv")),
    (r".*(\[k\]|k_proj)", ("attn_k", "attn_qkv")),
    (r".*(\[v\]|v_proj)", ("attn_v", "attn_qkv")),
    (
        r"(self_attn|attn|attention|self_attention|mixer)\.(o_proj|out_proj|dense|c_proj|wo|Wo)",
        ("attn_output",),
    ),
)
_COMPILED = tuple((re.compile(rf"(?:.*\.)?(?:{pattern})"), names) for pattern, names in _ROLES)


def as_stored(reading: Reading, gguf: Gguf) -> tuple[Reading, Quantization | None]:
    """The reading with what the file stores for each weight, and what its scheme is called."""
    layers = [_layer(layer, gguf, f"blk.{i}.") for i, layer in enumerate(reading.layers)]
    stored = replace(
        reading,
        layers=layers,
        # Buffers beside the token table, as the frequencies of positions, are computed anew and not in the file.
        embeddings=tuple(_weight(weight, gguf, "") for weight in reading.embeddings if not weight.buffer),
        head=tuple(_weight(weight, gguf, "") for weight in reading.head if not _left_out(weight, gguf)),
        draft=None,  # most conversions leave it out, and those that do not say so in words of their own
    )
    return stored, Quantization(method=scheme_name(gguf), understood=True)


def _left_out(weight: Weight, gguf: Gguf) -> bool:
    """Whether it is an encoder's pooler, which conversions for embeddings do without.

    Source: llama.cpp 2026-03, conversion/bert.py `BertModel.filter_tensors`
    """
    return weight.name.startswith("pooler.") and not gguf.has("cls.weight")


def scheme_name(gguf: Gguf) -> str:
    """`gguf Q4_K`: the format that most elements are in."""
    elements: dict[str, int] = {}
    for tensor in gguf.header.tensors:
        elements[tensor.format.name] = elements.get(tensor.format.name, 0) + tensor.num_elements
    return f"gguf {max(elements, key=lambda name: elements[name])}" if elements else "gguf"


def _layer(layer: Layer, gguf: Gguf, prefix: str) -> Layer:
    weights = [piece for weight in layer.weights for piece in _pieces(weight, gguf, prefix)]
    return replace(layer, weights=tuple(_weight(weight, gguf, prefix) for weight in weights))


def _pieces(weight: Weight, gguf: Gguf, prefix: str) -> tuple[Weight, ...]:
    """A latent's expansion as the two that newer files hold in its place: keys turned over, values as they were.

        (heads · (nope + value), latent) → (heads · latent, nope) and (heads · value, latent)

    Source: llama.cpp 2026-03, convert_hf_to_gguf.py `DeepseekV2Model.modify_tensors`
    """
    key = gguf.tensors.get(f"{prefix}attn_k_b.weight")
    if key is None or not weight.name.endswith("kv_b_proj.weight"):
        return (weight,)
    heads, latent, nope = key.shape
    value = weight.num_elements // (heads * latent) - nope
    return (
        replace(weight, name="self_attn.k_b_proj.weight", shape=(heads * latent, nope), split=Split(0, heads)),
        replace(weight, name="self_attn.v_b_proj.weight", shape=(heads * value, latent), split=Split(0, heads)),
    )


def _weight(weight: Weight, gguf: Gguf, prefix: str) -> Weight:
    """The weight in the format of its tensor; llama.cpp keeps vectors in F32 where no tensor is found."""
    found = _format_of(weight, gguf, prefix)
    if found is None:
        return replace(weight, fixed_bits=32) if len(weight.shape) == 1 else weight
    if found.name in PLAIN:
        return replace(weight, fixed_bits=PLAIN[found.name])
    if len(weight.shape) != 2:
        return weight
    packed = StoredTensor("weight", found.num_bytes * 8, (1, found.elements))
    return replace(weight, stored=StoredFormat(found.name, (packed,)))


def _format_of(weight: Weight, gguf: Gguf, prefix: str) -> BlockFormat | None:
    base, _, kind = _plain_name(weight.name).rpartition(".")
    kind = kind if kind in ("weight", "bias") else "weight"
    name = weight.name.replace(f".{kind}", "")
    for candidate in _candidates(name, base):
        tensor = gguf.tensors.get(f"{prefix}{candidate}.{kind}") or gguf.tensors.get(f"{prefix}{candidate}")
        if tensor is not None:
            return tensor.format
    return None


@cache
def _candidates(*names: str) -> tuple[str, ...]:
    """What llama.cpp may call a weight of one of these names; nothing where no role fits."""
    fitting = (found for pattern, found in _COMPILED if any(pattern.fullmatch(name) for name in names))
    return next(fitting, ())


def _plain_name(name: str) -> str:
    """Without the piece of a fused tensor: `qkv_proj.weight[q]` is `qkv_proj.weight`."""
    return name.partition("[")[0]
