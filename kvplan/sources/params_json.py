"""The original formats' `params.json` (Meta, Mistral), put in the words of a config.json.

The same reader then serves both, so that both give the same plan.

Source: meta-llama/llama `llama/model.py` (`ModelArgs`, `FeedForward`); mistralai/mistral-inference `args.py`
"""

from collections.abc import Mapping
from typing import Any

from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.units import round_up
from kvplan.sources.facts import Facts

# Keys that mean an architecture beyond plain Llama, Mistral and Mixtral; planning without them would under-count.
_BEYOND = (
    "vision_encoder",
    "vision_chunk_size",
    "kv_lora_rank",
    "layer_types",
    "quantization",
    "lora",
    "index_n_heads",
)


def is_params(config: Mapping[str, Any]) -> bool:
    """Whether a file is in an original format: it counts layers in `n_layers` and names no `model_type`."""
    return "n_layers" in config and "model_type" not in config


def config_from_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """(the config.json that says what this params.json says, the keys that were looked for).

    Raises InputError for a missing or impossible key, UnsupportedError for a newer architecture.
    """
    for key in _BEYOND:
        if params.get(key) is not None:
            raise UnsupportedError(
                f"`{key}` in params.json means an architecture that kvplan does not read in this format",
                hint="use the repository's config.json, if it has one",
            )
    facts = Facts(params, model_type="params.json", origin="params.json")
    dim, num_heads = facts.positive("dim"), facts.positive("n_heads")
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": dim,
        "num_hidden_layers": facts.positive("n_layers"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": facts.positive("n_kv_heads", default=num_heads),
        "head_dim": facts.positive("head_dim", default=dim // num_heads),
        "intermediate_size": _mlp_width(facts, dim),
        "vocab_size": _vocab_size(params, facts),
        "tie_word_embeddings": facts.flag("tied_embeddings", default=facts.flag("tie_word_embeddings", default=False)),
        "max_position_embeddings": facts.integer("max_seq_len", "max_position_embeddings", default=None),
        "dtype": params.get("dtype", params.get("torch_dtype")),
    }
    return config | _mistral_keys(params, facts), facts.asked | {"dtype", "torch_dtype"}


def _mlp_width(facts: Facts, dim: int) -> int:
    """Mistral states it; Meta derives it: ⅔ of 4·dim, times the multiplier, rounded up to `multiple_of`.

    70B: int(2·4·8192/3) = 21845, int(1.3 · 21845) = 28398, up to a multiple of 4096 = 28672.
    """
    stated = facts.integer("hidden_dim", "intermediate_size", default=None)
    if stated:
        return stated
    width = int(2 * (4 * dim) / 3)
    if facts.has("ffn_dim_multiplier"):
        width = int(facts.number("ffn_dim_multiplier") * width)
    return round_up(width, facts.positive("multiple_of"))


def _vocab_size(params: Mapping[str, Any], facts: Facts) -> int:
    if params.get("vocab_size") == -1:
        raise InputError(
            "`vocab_size` is -1 in params.json: Meta's original format leaves the vocabulary to the tokenizer",
            hint="pass `--set vocab_size=32000` for Llama 1 and 2, or name the model as it is in the catalog",
        )
    return facts.positive("vocab_size")


def _mistral_keys(params: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Mistral's window and experts, and the model type that reads them."""
    moe = facts.nested("moe")
    if moe.has("num_experts"):
        return {
            "model_type": "mixtral",
            "num_local_experts": moe.positive("num_experts"),
            "num_experts_per_tok": moe.positive("num_experts_per_tok"),
        }
    window = facts.integer("sliding_window", default=None)
    if window or ("hidden_dim" in params and "multiple_of" not in params):
        return {"model_type": "mistral", "sliding_window": window}
    return {}
