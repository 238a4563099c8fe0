"""A GGUF header in the words of a config.json, so that the reader of the model's family serves both.

To add an architecture: a function `Gguf -> dict` with the keys that its family reads beyond the common ones, in the
module of its kind, its line in `ARCHITECTURES`, and a small model in `tests/data/gguf`. What the metadata leave out
(biases, tied heads, norms) is seen by the tensors that are there.

Source: llama.cpp 2026-03, src/llama-arch.cpp (`LLM_KV_NAMES`, `LLM_TENSOR_NAMES`), convert_hf_to_gguf.py
"""

from collections.abc import Callable
from typing import Any

from kvplan.core.errors import UnsupportedError
from kvplan.core.text import printable
from kvplan.sources.gguf import dense, encoders, hybrids, routed
from kvplan.sources.gguf.dense import named
from kvplan.sources.gguf.header import GgufHeader
from kvplan.sources.gguf.metadata import Gguf, window

Special = Callable[[Gguf], dict[str, Any]]


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


ARCHITECTURES: dict[str, Special] = {
    "afmoe": routed.afmoe,
    "apertus": dense.apertus,
    "arcee": named("arcee"),
    "baichuan": named("baichuan"),
    "bailingmoe": routed.bailing_moe,
    "bailingmoe2": routed.bailing_moe,
    "bert": encoders.bert,
    "bitnet": named("bitnet"),
    "bloom": dense.bloom,
    "chatglm": dense.chatglm,
    "cohere2": dense.cohere2,
    "command-r": dense.cohere,
    "dbrx": routed.dbrx,
    "deepseek": routed.deepseek,
    "deepseek2": routed.deepseek2,
    "dots1": routed.dots1,
    "ernie4_5": named("ernie4_5"),
    "ernie4_5-moe": routed.ernie4_5_moe,
    "eurobert": named("eurobert"),
    "exaone": named("exaone"),
    "exaone-moe": routed.exaone_moe,
    "exaone4": dense.exaone4,
    "falcon": dense.falcon,
    "falcon-h1": hybrids.falcon_h1,
    "gemma": dense.gemma,
    "gemma-embedding": encoders.gemma_embedding,
    "gemma2": dense.gemma2,
    "gemma3": dense.gemma3,
    "gemma3n": dense.gemma3n,
    "gemma4": dense.gemma4,
    "glm-dsa": routed.glm_dsa,
    "glm4": named("glm4"),
    "glm4moe": routed.glm4_moe,
    "gpt-oss": routed.gpt_oss,
    "gpt2": dense.gpt2,
    "gptneox": dense.gpt_neox,
    "granite": dense.granite,
    "granitehybrid": hybrids.granite_hybrid,
    "granitemoe": routed.granite_moe,
    "hunyuan-dense": named("hunyuan_v1_dense"),
    "hunyuan-moe": routed.hunyuan_moe,
    "hunyuan_vl": named("hunyuan_v1_dense"),
    "internlm2": lambda gguf: {"model_type": "internlm2", "bias": gguf.has("attn_q.bias")},
    "jais2": named("jais2"),
    "jamba": hybrids.jamba,
    "kimi-linear": hybrids.kimi_linear,
    "lfm2": hybrids.lfm2,
    "lfm2moe": hybrids.lfm2_moe,
    "llama": routed.llama,
    "llama4": routed.llama4,
    "mamba": hybrids.mamba,
    "mamba2": hybrids.mamba2,
    "mimo2": routed.mimo2,
    "minicpm": named("minicpm"),
    "minicpm3": routed.minicpm3,
    "minimax-m2": routed.minimax_m2,
    "mistral3": lambda gguf: {"model_type": "ministral3", **window(gguf)},
    "mistral4": routed.mistral4,
    "modern-bert": encoders.modern_bert,
    "mpt": dense.mpt,
    "nemotron": named("nemotron"),
    "nemotron_h": hybrids.nemotron_h,
    "nemotron_h_moe": hybrids.nemotron_h,
    "nomic-bert": encoders.nomic_bert,
    "olmo": named("olmo"),
    "olmo2": dense.olmo2,
    "olmoe": routed.olmoe,
    "orion": named("orion"),
    "paddleocr": named("paddleocr_vl_text"),
    "phi2": dense.phi2,
    "phi3": dense.phi3,
    "phimoe": routed.phi_moe,
    "qwen": named("qwen"),
    "qwen2": dense.qwen2,
    "qwen2moe": routed.qwen2_moe,
    "qwen2vl": dense.qwen2_vl,
    "qwen3": dense.qwen3,
    "qwen35": hybrids.qwen3_5,
    "qwen35moe": hybrids.qwen3_5_moe,
    "qwen3moe": routed.qwen3_moe,
    "qwen3next": hybrids.qwen3_next_moe,
    "qwen3vl": named("qwen3_vl_text"),
    "qwen3vlmoe": routed.qwen3_vl_moe,
    "seed_oss": named("seed_oss"),
    "smollm3": named("smollm3"),
    "stablelm": dense.stablelm,
    "starcoder": dense.starcoder,
    "starcoder2": dense.starcoder2,
    "step35": routed.step35,
    "xverse": named("xverse"),
}
