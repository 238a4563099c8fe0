"""Write down the tables of tensors that llama.cpp's converter makes of small models: `models.json`; and the
sizes of ggml's formats: `formats.json`.

    python make_gguf.py > models.json

Each model is built by transformers on the meta device from a small config; its parameters get the names that the
package `gguf` maps them to, experts are stacked, fused pieces stay fused. Formats are dealt out as llama.cpp's Q4_K_M
does: vectors in F32, most matrices in Q4_K, every second layer's value and down projections and the output in Q6_K.
The metadata are those that convert_hf_to_gguf.py writes. Needs torch, transformers 5.23 and gguf 0.19; the tests only
read the output and write small GGUF files from it.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import torch
import transformers
from transformers import CONFIG_MAPPING

SIZES = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2, "vocab_size": 1024},
    "mixtral": {"model_type": "mixtral", "num_key_value_heads": 2, "vocab_size": 1024, "num_local_experts": 4},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128},
    "qwen3moe": {
        "model_type": "qwen3_moe", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128,
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
    },
    "gemma2": {"model_type": "gemma2", "num_key_value_heads": 4, "vocab_size": 1024, "head_dim": 128, "sliding_window": 256},
    "gemma3": {
        "model_type": "gemma3_text", "num_key_value_heads": 4, "vocab_size": 1024, "head_dim": 128,
        "sliding_window": 256, "num_hidden_layers": 6,
    },
    "phi3": {"model_type": "phi3", "num_key_value_heads": 8, "vocab_size": 1024, "pad_token_id": 0},
    "deepseek2": {
        "model_type": "deepseek_v3", "vocab_size": 1024, "num_key_value_heads": 8, "q_lora_rank": 256,
        "kv_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "n_group": 2, "topk_group": 1,
    },
    "starcoder2": {"model_type": "starcoder2", "num_key_value_heads": 2, "vocab_size": 1024, "sliding_window": 256},
    "command-r": {"model_type": "cohere", "num_key_value_heads": 2, "vocab_size": 1024},
    "olmo2": {"model_type": "olmo2", "num_key_value_heads": 2, "vocab_size": 1024},
    "granite": {"model_type": "granite", "num_key_value_heads": 2, "vocab_size": 1024},
    "glm4": {"model_type": "glm4", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "smollm3": {"model_type": "smollm3", "num_key_value_heads": 2, "vocab_size": 1024},
    "gpt2": {"model_type": "gpt2", "vocab_size": 1024, "n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 256},
    "stablelm": {"model_type": "stablelm", "num_key_value_heads": 2, "vocab_size": 1024},
    "seed_oss": {"model_type": "seed_oss", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
}  # fmt: skip
NAMES = {"mixtral": "llama"}
"""Where llama.cpp calls the architecture otherwise than the test."""


def build(config: dict[str, Any]) -> Any:
    """The model, without storage."""
    built = CONFIG_MAPPING[config["model_type"]].from_dict({"pad_token_id": 0} | config)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16)


def metadata(arch: str, config: dict[str, Any], model: Any) -> dict[str, Any]:
    """The keys that the converter writes for this architecture."""
    built = model.config
    found: dict[str, Any] = {
        "block_count": built.num_hidden_layers,
        "context_length": built.max_position_embeddings,
        "embedding_length": built.hidden_size,
        "attention.head_count": built.num_attention_heads,
    }
    width = getattr(built, "intermediate_size", None) or 4 * built.hidden_size
    found["feed_forward_length"] = width
    if arch != "gpt2":
        found["attention.head_count_kv"] = built.num_key_value_heads
    if config.get("head_dim"):
        found |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    if config.get("sliding_window"):
        found["attention.sliding_window"] = config["sliding_window"]
    experts = config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts")
    if experts:
        found |= {"expert_count": experts, "expert_used_count": built.num_experts_per_tok}
        if config.get("moe_intermediate_size"):
            found["expert_feed_forward_length"] = config["moe_intermediate_size"]
    if arch == "deepseek2":
        found |= {
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": built.q_lora_rank,
            "attention.kv_lora_rank": built.kv_lora_rank,
            "attention.key_length": built.kv_lora_rank + built.qk_rope_head_dim,
            "attention.value_length": built.kv_lora_rank,
            "attention.key_length_mla": built.qk_nope_head_dim + built.qk_rope_head_dim,
            "attention.value_length_mla": built.v_head_dim,
            "rope.dimension_count": built.qk_rope_head_dim,
            "leading_dense_block_count": built.first_k_dense_replace,
            "expert_shared_count": built.n_shared_experts,
        }
    return {"general.architecture": arch, "general.type": "model"} | {f"{arch}.{k}": v for k, v in found.items()}


def tensors(arch: str, model: Any) -> list[list[Any]]:
    """[name, shape, format] of every tensor, as the converter writes them."""
    number = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch)
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    shapes |= {name: list(b.shape) for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")}
    table = []
    for name, shape in shapes.items():
        for old, new in pieces(name, shape, model.config):
            found = names.get_name(old, try_suffixes=(".weight", ".bias"))
            if found is None:
                raise LookupError(f"{arch}: {old}")
            table.append([found, new])
    return [[name, shape, form(name, shape)] for name, shape in table]


def pieces(name: str, shape: list[int], config: Any) -> list[tuple[str, list[int]]]:
    """A parameter of transformers 5 under the names of checkpoints, which the map knows."""
    if name.endswith("experts.gate_up_proj"):
        half = [shape[0], shape[1] // 2, shape[2]]
        base = name.removesuffix(".gate_up_proj")
        return [(f"{base}.gate_proj.weight", half), (f"{base}.up_proj.weight", half)]
    if name.endswith("experts.down_proj"):
        return [(f"{name}.weight", shape)]
    if name.endswith("kv_b_proj.weight") and hasattr(config, "kv_lora_rank"):
        base, heads = name.removesuffix("kv_b_proj.weight"), config.num_attention_heads
        key = [heads, config.kv_lora_rank, config.qk_nope_head_dim]
        return [
            (f"{base}k_b_proj.weight", key),
            (f"{base}v_b_proj.weight", [heads, config.v_head_dim, config.kv_lora_rank]),
        ]
    if name.endswith("e_score_correction_bias"):
        return [(name.replace("e_score_correction_bias", "e_score_correction.bias"), shape)]
    if re.search(r"(c_attn|c_proj|c_fc)\.weight$", name):  # GPT-2 keeps its matrices the other way round
        return [(name, shape[::-1])]
    return [(name, shape)]


def form(name: str, shape: list[int]) -> str:
    """The format of a tensor in a file of the kind Q4_K_M; rows that are no whole blocks of 256 fall back to Q8_0."""
    if len(shape) == 1 or "ffn_gate_inp" in name or "norm" in name or "position_embd" in name:
        return "F32"
    if shape[-1] % 256:
        return "Q8_0" if shape[-1] % 32 == 0 else "F16"
    layer = re.match(r"blk\.(\d+)\.", name)
    wide = any(word in name for word in ("attn_v", "ffn_down", "attn_qkv"))
    return "Q6_K" if name == "output.weight" or (layer and wide and int(layer[1]) % 2) else "Q4_K"


def main() -> int:
    """Write all models."""
    transformers.logging.set_verbosity_error()
    found: dict[str, Any] = {}
    sizes = {int(kind): [kind.name, *size] for kind, size in gguf.GGML_QUANT_SIZES.items()}
    (Path(__file__).parent / "formats.json").write_text(json.dumps(sizes).replace("], ", "],\n") + "\n")
    for name, given in MODELS.items():
        config = given if name == "gpt2" else SIZES | given
        model, arch = build(config), NAMES.get(name, name)
        found[name] = {
            "config": config,
            "metadata": metadata(arch, config, model),
            "tensors": tensors(arch, model),
            "num_parameters": sum(p.numel() for p in model.parameters()),
        }
    sys.stdout.write(json.dumps(found, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
