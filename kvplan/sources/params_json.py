"""The original formats' `params.json` (Meta, Mistral), put in the words of a config.json.

The same reader then serves both, so that both give the same plan.

Source: meta-llama/llama `llama/model.py` (`ModelArgs`, `FeedForward`); mistralai/mistral-inference `args.py`
"""

from collections.abc import Collection, Mapping
from typing import Any

from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.text import printable
from kvplan.core.units import round_up
from kvplan.sources.facts import Facts

_READ = frozenset(
    {
        "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "intermediate_size", "multiple_of",
        "ffn_dim_multiplier", "vocab_size", "tied_embeddings", "tie_word_embeddings", "max_seq_len",
        "max_position_embeddings", "dtype", "torch_dtype", "moe", "sliding_window",
    }
)  # fmt: skip
# Keys that change neither shapes nor counts. Any key beyond these and those that are read means an architecture
# that plain Llama, Mistral and Mixtral are not; planning without it would under-count.
_HARMLESS = frozenset(
    {
        "norm_eps", "rope_theta", "rope_freq_base", "use_scaled_rope", "rope_scaling_factor", "low_freq_factor",
        "high_freq_factor", "original_rope_max_seq_len", "yarn", "max_batch_size", "causal", "model_parallel_size",
    }
)  # fmt: skip
CONFIG_NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
    "tied_embeddings": "tie_word_embeddings",
    "max_seq_len": "max_position_embeddings",
}
"""What config.json calls the keys that the original formats name otherwise."""


def is_params(config: Mapping[str, Any]) -> bool:
    """Whether a file is in an original format: it counts layers in `n_layers` and names no `model_type`."""
    return "n_layers" in config and "model_type" not in config


def config_from_params(params: Mapping[str, Any], *, given: Collection[str] = ()) -> tuple[dict[str, Any], set[str]]:
    """(the config.json that says what this params.json says, the keys that were looked for).

    Raises InputError for a missing or impossible key, UnsupportedError for a key of a newer architecture, unless it
    is among those that the user has `given`.
    """
    _refuse_others(params, _READ | _HARMLESS | set(given))
    facts = Facts(params, model_type="params.json", origin="params.json")
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": facts.positive("dim"),
        "num_hidden_layers": facts.positive("n_layers"),
        "num_attention_heads": facts.positive("n_heads"),
        "num_key_value_heads": facts.integer("n_kv_heads", default=None),
        "head_dim": facts.integer("head_dim", default=None),
        "intermediate_size": _mlp_width(facts, facts.positive("dim")),
        "vocab_size": _vocab_size(params, facts),
        "tie_word_embeddings": _tied(facts),
        "max_position_embeddings": facts.integer("max_seq_len", "max_position_embeddings", default=None),
        "dtype": facts.text("dtype", default=None) or facts.text("torch_dtype", default=None),
    }
    config |= _mistral_keys(params, facts)
    stated = {key: value for key, value in config.items() if value is not None or key == "sliding_window"}
    return stated, facts.asked


def _refuse_others(params: Mapping[str, Any], known: Collection[str]) -> None:
    for key, value in params.items():
        if key in known or value is None or value is False:
            continue
        raise UnsupportedError(
            f"`{printable(key)}` in params.json means an architecture that kvplan does not read in this format",
            hint="use the repository's config.json, if it has one",
        )


def _tied(facts: Facts) -> bool | None:
    """What the file says of it, under either name; None where it says nothing."""
    for key in ("tied_embeddings", "tie_word_embeddings"):
        if facts.has(key):
            return facts.flag(key)
    return None


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
