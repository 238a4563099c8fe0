"""A GGUF header in the words of a config.json, so that the reader of the model's family serves both.

To add an architecture: a function `Gguf -> dict` with the keys that its family reads beyond the common ones, and its
line in `ARCHITECTURES`. What the metadata leave out (biases, tied heads, norms) is seen by the tensors that are there.

Source: llama.cpp 2026-03, src/llama-arch.cpp (`LLM_KV_NAMES`, `LLM_TENSOR_NAMES`), convert_hf_to_gguf.py
"""

from collections.abc import Callable, Mapping
from typing import Any

from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.text import printable
from kvplan.sources.gguf.header import GgufHeader, GgufTensor


class Gguf:
    """A header by key and by tensor name."""

    def __init__(self, header: GgufHeader, *, what: str) -> None:
        self.header = header
        self.what = what
        self.tensors: Mapping[str, GgufTensor] = {tensor.name: tensor for tensor in header.tensors}
        arch = header.metadata.get("general.architecture")
        if not isinstance(arch, str):
            raise InputError(f"{what} names no `general.architecture`", hint="is it a model's file, or only a part?")
        self.arch = arch

    def number(self, key: str, default: int | None = None) -> int:
        """The whole number at `key` of the architecture; an array of equal ones counts as one."""
        value = self.header.metadata.get(f"{self.arch}.{key}", default)
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**48:
            found = "is missing from" if value is None else f"is {str(value)[:40]!r} in"
            raise InputError(f"`{self.arch}.{key}` {found} {self.what}", hint="name the original model's config.json")
        return value

    def numbers(self, key: str, count: int) -> tuple[int, ...]:
        """One number a layer: an array, or the same for all."""
        value = self.header.metadata.get(f"{self.arch}.{key}")
        if not isinstance(value, tuple):
            return (self.number(key),) * count
        if len(value) < count or not all(isinstance(item, int) and item >= 0 for item in value):
            raise InputError(
                f"`{self.arch}.{key}` of {self.what} is not one number a layer", hint="the file is damaged"
            )
        return tuple(int(item) for item in value[:count])

    def has_key(self, key: str) -> bool:
        """Whether the architecture states the key, other than as 0."""
        return bool(self.header.metadata.get(f"{self.arch}.{key}"))

    def has(self, *names: str) -> bool:
        """Whether one of the tensors is there; `attn_q.bias` means that of some layer."""
        return any(name in self.tensors or any(t.endswith(f".{name}") for t in self.tensors) for name in names)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, of the first layer that has it where the name is a layer's."""
        for tensor in self.header.tensors:
            if tensor.name == name or tensor.name.endswith(f".{name}"):
                return tensor.shape
        raise InputError(f"{self.what} has no tensor `{name}`", hint="is it one part of a split file, or an adapter?")

    @property
    def num_layers(self) -> int:
        """Layers that generate; those that predict further tokens stand after them."""
        return self.number("block_count") - self.number("nextn_predict_layers", 0)


def config_of(header: GgufHeader, *, what: str) -> dict[str, Any]:
    """The config.json that says what this header says.

    Raises UnsupportedError for an architecture that kvplan does not read in this format, InputError for a key or
    tensor that is missing.
    """
    gguf = Gguf(header, what=what)
    special = ARCHITECTURES.get(gguf.arch)
    if special is None:
        raise UnsupportedError(
            f"`{printable(gguf.arch)}` is an architecture that kvplan does not read from a GGUF file",
            hint="name the original model's config.json or Hub id; its bytes are those of the file",
        )
    return common(gguf) | special(gguf)


def common(gguf: Gguf) -> dict[str, Any]:
    """What nearly every family calls the same."""
    heads = gguf.numbers("attention.head_count", gguf.num_layers)
    kv_heads = (
        gguf.numbers("attention.head_count_kv", gguf.num_layers) if gguf.has_key("attention.head_count_kv") else heads
    )
    config: dict[str, Any] = {
        "vocab_size": gguf.shape("token_embd.weight")[0],
        "hidden_size": gguf.number("embedding_length"),
        "num_hidden_layers": gguf.num_layers,
        "num_attention_heads": max(heads),
        "num_key_value_heads": max(kv_heads),
        "max_position_embeddings": gguf.number("context_length"),
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "attention_bias": gguf.has("attn_q.bias", "attn_qkv.bias"),
    }
    if gguf.has_key("attention.key_length"):
        config["head_dim"] = gguf.number("attention.key_length")
    if gguf.has_key("feed_forward_length"):
        config["intermediate_size"] = max(gguf.numbers("feed_forward_length", gguf.num_layers))
    return config


def _experts(gguf: Gguf, *, total: str = "num_experts", width: str = "moe_intermediate_size") -> dict[str, Any]:
    """Routed experts, and how wide each is: by the metadata, in older files by the tensor."""
    own = gguf.number("expert_feed_forward_length", 0) or gguf.shape("ffn_down_exps.weight")[-1]
    return {total: gguf.number("expert_count"), "num_experts_per_tok": gguf.number("expert_used_count"), width: own}


def _window(gguf: Gguf) -> dict[str, Any]:
    window = gguf.number("attention.sliding_window", 0)
    return {"sliding_window": window or None}


def _llama(gguf: Gguf) -> dict[str, Any]:
    """Llama, Mistral and Mixtral share one name."""
    if gguf.has_key("expert_count"):
        experts = _experts(gguf, total="num_local_experts", width="intermediate_size")
        return {"model_type": "mixtral", **experts, **_window(gguf)}
    if gguf.has_key("attention.sliding_window"):
        return {"model_type": "mistral", **_window(gguf)}
    return {"model_type": "llama", "mlp_bias": gguf.has("ffn_up.bias")}


def _qwen2(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "qwen2", "use_sliding_window": False}


def _qwen2_moe(gguf: Gguf) -> dict[str, Any]:
    shared = gguf.shape("ffn_down_shexp.weight")[-1]
    return {
        "model_type": "qwen2_moe",
        "shared_expert_intermediate_size": shared,
        "use_sliding_window": False,
    } | _experts(gguf)


def _qwen3(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "qwen3", "use_sliding_window": False}


def _qwen3_moe(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "qwen3_moe", "use_sliding_window": False, "mlp_only_layers": [], **_experts(gguf)}


def _qwen3_next(gguf: Gguf) -> dict[str, Any]:
    """Delta nets and full attention by turns, every `full_attention_interval`-th layer full."""
    inner, state = gguf.number("ssm.inner_size"), gguf.number("ssm.state_size")
    heads = gguf.number("ssm.time_step_rank")
    return {
        "full_attention_interval": gguf.number("full_attention_interval", 4),
        "linear_num_value_heads": heads,
        "linear_num_key_heads": gguf.number("ssm.group_count"),
        "linear_key_head_dim": state,
        "linear_value_head_dim": inner // heads,
        "linear_conv_kernel_dim": gguf.number("ssm.conv_kernel"),
    }


def _qwen3_next_moe(gguf: Gguf) -> dict[str, Any]:
    shared = gguf.shape("ffn_down_shexp.weight")[-1]
    routed = {"shared_expert_intermediate_size": shared, "mlp_only_layers": [], "decoder_sparse_step": 1}
    # Its class states the width of a dense MLP that no layer has; the file does not.
    return {"model_type": "qwen3_next", "intermediate_size": shared, **_qwen3_next(gguf), **routed, **_experts(gguf)}


def _qwen3_5(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "qwen3_5_text", **_qwen3_next(gguf)}


def _qwen3_5_moe(gguf: Gguf) -> dict[str, Any]:
    shared = gguf.shape("ffn_down_shexp.weight")[-1]
    return {
        "model_type": "qwen3_5_moe_text",
        "shared_expert_intermediate_size": shared,
        **_qwen3_next(gguf),
        **_experts(gguf),
    }


def _gemma(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "gemma"}


def _gemma2(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "gemma2", **_window(gguf)}


def _gemma3(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "gemma3_text", **_window(gguf)}


def _phi3(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "phi3", **_window(gguf)}


def _phi2(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "phi", "qk_layernorm": False}


def _falcon(gguf: Gguf) -> dict[str, Any]:
    """Two norms before one layer are those of the new decoder architecture."""
    kv_heads = gguf.number("attention.head_count_kv")
    return {
        "model_type": "falcon",
        "num_kv_heads": kv_heads,
        "multi_query": kv_heads == 1,
        "new_decoder_architecture": gguf.has("attn_norm_2.weight"),
        "bias": gguf.has("attn_qkv.bias"),
        "parallel_attn": True,
        "alibi": False,
        "ffn_hidden_size": gguf.number("feed_forward_length"),
    }


def _gpt2(gguf: Gguf) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "n_positions": gguf.shape("position_embd.weight")[0],
        "n_inner": gguf.number("feed_forward_length"),
    }


def _gpt_neox(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "gpt_neox", "attention_bias": gguf.has("attn_qkv.bias")}


def _starcoder2(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "starcoder2", "use_bias": gguf.has("attn_q.bias"), **_window(gguf)}


def _stablelm(gguf: Gguf) -> dict[str, Any]:
    return {
        "model_type": "stablelm",
        "use_qkv_bias": gguf.has("attn_q.bias"),
        "qk_layernorm": gguf.has("attn_q_norm.weight"),
        "use_parallel_residual": not gguf.has("ffn_norm.weight"),
    }


def _cohere(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "cohere", "use_qk_norm": gguf.has("attn_q_norm.weight")}


def _cohere2(gguf: Gguf) -> dict[str, Any]:
    return {"model_type": "cohere2", **_window(gguf)}


def _gpt_oss(gguf: Gguf) -> dict[str, Any]:
    experts = _experts(gguf, total="num_local_experts", width="intermediate_size")
    return {"model_type": "gpt_oss", **experts, **_window(gguf)}


def _deepseek2(gguf: Gguf) -> dict[str, Any]:
    """V3's routers have a correction; older files state the expanded heads, newer ones the latent's besides."""
    rope = gguf.number("rope.dimension_count")
    key = gguf.number("attention.key_length_mla", 0) or gguf.number("attention.key_length")
    value = gguf.number("attention.value_length_mla", 0) or gguf.number("attention.value_length")
    rank = gguf.number("attention.q_lora_rank", 0)
    heads = gguf.number("attention.head_count")
    return {
        "model_type": "deepseek_v3" if gguf.has("exp_probs_b.bias") else "deepseek_v2",
        "head_dim": None,
        "num_key_value_heads": heads,
        "q_lora_rank": rank or None,
        "kv_lora_rank": gguf.number("attention.kv_lora_rank"),
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": key - rope,
        "v_head_dim": value,
        "first_k_dense_replace": gguf.number("leading_dense_block_count", 0),
        "n_shared_experts": gguf.number("expert_shared_count", 0),
        **_experts(gguf, total="n_routed_experts"),
    }


def _glm4_moe(gguf: Gguf) -> dict[str, Any]:
    return {
        "model_type": "glm4_moe",
        "use_qk_norm": gguf.has("attn_q_norm.weight"),
        "first_k_dense_replace": gguf.number("leading_dense_block_count", 0),
        "n_shared_experts": gguf.number("expert_shared_count", 0),
        **_experts(gguf, total="n_routed_experts"),
    }


def _lfm2(gguf: Gguf) -> dict[str, Any]:
    """Layers without KV heads are short convolutions; the width is stated as it is."""
    kv_heads = gguf.numbers("attention.head_count_kv", gguf.num_layers)
    return {
        "model_type": "lfm2",
        "layer_types": ["full_attention" if heads else "conv" for heads in kv_heads],
        "conv_L_cache": gguf.number("shortconv.l_cache"),
        "block_auto_adjust_ff_dim": False,
    }


def _named(model_type: str) -> "Special":
    """An architecture that states nothing beyond the common keys."""
    return lambda gguf: {"model_type": model_type}


Special = Callable[[Gguf], dict[str, Any]]

ARCHITECTURES: dict[str, Special] = {
    "arcee": _named("arcee"),
    "cohere2": _cohere2,
    "command-r": _cohere,
    "deepseek2": _deepseek2,
    "ernie4_5": _named("ernie4_5"),
    "falcon": _falcon,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "glm4": _named("glm4"),
    "glm4moe": _glm4_moe,
    "gpt-oss": _gpt_oss,
    "gpt2": _gpt2,
    "gptneox": _gpt_neox,
    "granite": _named("granite"),
    "lfm2": _lfm2,
    "llama": _llama,
    "mistral3": lambda gguf: {"model_type": "ministral3", **_window(gguf)},
    "nemotron": _named("nemotron"),
    "olmo2": _named("olmo2"),
    "phi2": _phi2,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen2moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen35": _qwen3_5,
    "qwen35moe": _qwen3_5_moe,
    "qwen3moe": _qwen3_moe,
    "qwen3next": _qwen3_next_moe,
    "seed_oss": _named("seed_oss"),
    "smollm3": _named("smollm3"),
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
}
