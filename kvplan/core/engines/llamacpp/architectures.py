"""What llama.cpp makes of a family: the architecture's name in GGUF, and what its cache does differently.

llama.cpp reads a layer's kind from its architecture, not from the model's own config: some windows it honours, others
it ignores, and holds every token. To add a family: its line in `ARCHITECTURES`, and where a window or a latent is
concerned, its architecture in the table beneath.

Source: llama.cpp b11434, src/llama-arch.cpp (`LLM_ARCH_NAMES`), src/models/*.cpp (`load_arch_hparams`),
convert_hf_to_gguf.py
"""

from typing import Any

from kvplan.core.engines.deployment import Deployment
from kvplan.core.mixers import ChunkedAttention, CompressedAttention, SlidingAttention
from kvplan.core.model import ModelSpec

_SAME_NAME = """
    afmoe apertus arcee arctic baichuan bitnet bloom chatglm codeshell dbrx deci deepseek dots1 ernie4_5 eurobert exaone
    exaone4 falcon gemma gemma2 gemma3 gemma3n gemma4 glm4 gpt2 granite internlm2 jais jais2 jamba laguna lfm2 llama
    llama4 mamba mamba2 mellum minicpm minicpm3 mistral3 mistral4 mpt nemotron nemotron_h olmo olmo2 olmoe openelm orion
    phi3 phimoe qwen qwen2 qwen3 seed_oss smollm3 stablelm starcoder2 t5
""".split()  # noqa: SIM905

ARCHITECTURES: dict[str, str] = {name: name for name in _SAME_NAME} | {
    "bailing_moe": "bailingmoe",
    "bailing_moe_v2": "bailingmoe2",
    "bamba": "granitehybrid",
    "bert": "bert",
    "cohere": "command-r",
    "cohere2_moe": "cohere2moe",
    "cohere2": "cohere2",
    "cohere2_vision": "cohere2",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "deepseek_v32": "deepseek32",
    "deepseek_v4": "deepseek4",
    "ernie4_5_moe": "ernie4_5-moe",
    "exaone4_5": "exaone4",
    "exaone_moe": "exaone-moe",
    "falcon_h1": "falcon-h1",
    "falcon_mamba": "mamba",
    "gemma3_text": "gemma3",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "gemma4_unified": "gemma4",
    "gemma4_unified_text": "gemma4",
    "glm": "chatglm",
    "glm4_moe": "glm4moe",
    "glm4_moe_lite": "deepseek2",
    "glm4v": "glm4",
    "glm4v_moe": "glm4moe",
    "glm5_next": "glm5-next",
    "glm5_next_text": "glm5-next",
    "glm_moe_dsa": "glm-dsa",
    "gpt_bigcode": "starcoder",
    "gpt_neox": "gptneox",
    "gpt_oss": "gpt-oss",
    "granitemoe": "granitemoe",
    "granitemoehybrid": "granitehybrid",
    "granitemoeshared": "granitemoe",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan-moe",
    "internlm3": "llama",
    "kimi_k2": "deepseek2",
    "kimi_k25": "deepseek2",
    "kimi_linear": "kimi-linear",
    "kimi_vl": "deepseek2",
    "lfm2_moe": "lfm2moe",
    "lfm2_vl": "lfm2",
    "llama4_text": "llama4",
    "mimo_v2_flash": "mimo2",
    "minimax_m2": "minimax-m2",
    "minimax_m3": "minimax-m3",
    "minimax_m3_vl": "minimax-m3",
    "minimax_m3_vl_text": "minimax-m3",
    "ministral": "llama",
    "ministral3": "mistral3",
    "mistral": "llama",
    "mixtral": "llama",
    "modernbert": "modern-bert",
    "mt5": "t5",
    "muse_glimmer": "muse-glimmer",
    "muse_glimmer_text": "muse-glimmer",
    "nemotron-nas": "deci",
    "nomic_bert": "nomic-bert",
    "olmo3": "olmo2",
    "paddleocr_vl": "paddleocr",
    "paddleocr_vl_text": "paddleocr",
    "phi": "phi2",
    "phi3_v": "phi3",
    "qwen2_5_omni": "qwen2vl",
    "qwen2_5_omni_text": "qwen2vl",
    "qwen2_5_vl": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen2_moe": "qwen2moe",
    "qwen2_vl": "qwen2vl",
    "qwen2_vl_text": "qwen2vl",
    "qwen3_5": "qwen35",
    "qwen3_5_moe": "qwen35moe",
    "qwen3_5_moe_text": "qwen35moe",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_vl": "qwen3vl",
    "qwen3_vl_moe": "qwen3vlmoe",
    "qwen3_vl_moe_text": "qwen3vlmoe",
    "qwen3_vl_text": "qwen3vl",
    "qwen4_exp": "qwen4exp",
    "qwen4_exp_text": "qwen4exp",
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "roberta": "bert",
    "stablelm_epoch": "stablelm",
    "step3p5": "step35",
    "umt5": "t5",
    "voxtral": "llama",
    "xlm-roberta": "bert",
    "youtu": "deepseek2",
}
"""The model's type in config.json → `general.architecture` in GGUF, where kvplan knows that llama.cpp runs it."""

WINDOWED = frozenset({
    "afmoe", "cohere2", "cohere2moe", "deepseek4", "exaone4", "exaone-moe", "gemma2", "gemma3", "gemma3n", "gemma4",
    "gpt-oss", "laguna", "llama4", "mellum", "mimo2", "muse-glimmer", "olmo2", "step35",
})  # fmt: skip
"""Architectures that set `swa_type`: their sliding or chunked layers have a smaller cache of their own.

All others hold every token in every layer: `llama` (Mistral 7B v0.1, Mixtral, Ministral), `phi3` (models/phi3.cpp,
which warns and switches windows off), `phimoe`, `qwen2`, `starcoder2`, `dots1`.
"""
WINDOWED_AT = {"exaone4": 64}
"""Architectures that honour their window only in the model of so many layers (models/exaone4.cpp)."""

EXPANDED = frozenset({"minicpm3"})
"""Latent attention that is cached as the keys and values of every head (models/minicpm3.cpp)."""

LATENT_CACHES = {
    "alone": "the latent and the rotary key, one vector for both keys and values: since January 2026 (#19067)",
    "with_values": "that vector, and the latent once more as values: since April 2025 (#12801), or transposed in "
    "ik_llama.cpp (`-mla 1`)",
    "expanded": "keys and values of every head: builds before, and files without `attention.key_length_mla`",
}
"""What a build, and the conversion of the file, make of latent attention; the first where nothing is said."""

INDEX_ROWS = {"qwen4exp": 2, "glm5-next": 3}
"""Vectors of the indexer's width for each token: key, gate, pooled key (llama-memory-hybrid-idx.cpp)."""

ROLLBACK = frozenset({
    "deepseek4", "glm5-next", "lfm2", "lfm2moe", "nemotron_h", "qwen35", "qwen35moe", "qwen4exp",
})  # fmt: skip
"""Architectures that keep earlier states for speculative decoding (llama-arch.cpp `llm_arch_supports_rs_rollback`)."""

SHARES_ONE_WIDTH = frozenset({"deepseek4"})
"""Architectures whose cache refuses unlike formats of keys and values, besides those with a latent."""


def latent_cache(model: ModelSpec, deployment: Deployment) -> str:
    """One of `LATENT_CACHES`, of a model with latent attention."""
    if architecture_of(model) in EXPANDED:
        return "expanded"
    return deployment.switches.latent_cache or "alone"


def architecture_of(model: ModelSpec) -> str | None:
    """The model's architecture in GGUF; None where kvplan does not know that llama.cpp runs it."""
    return ARCHITECTURES.get(model.model_type)


def honoured_window(model: ModelSpec, mixer: Any) -> int | None:
    """The window that llama.cpp gives the mixer's layer a smaller cache for; None = it holds every token."""
    arch = architecture_of(model)
    if arch not in WINDOWED or model.num_layers != WINDOWED_AT.get(arch, model.num_layers):
        return None
    return mixer.window if isinstance(mixer, SlidingAttention | ChunkedAttention | CompressedAttention) else None


def ignores_a_window(model: ModelSpec) -> bool:
    """Whether some layer has a window that llama.cpp does not honour."""
    return any(
        isinstance(mixer, SlidingAttention | ChunkedAttention) and honoured_window(model, mixer) is None
        for layer in model.layers
        for mixer in layer.mixers
    )
