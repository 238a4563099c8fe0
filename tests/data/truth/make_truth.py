"""Write down what a Hugging Face model class really holds: its parameters and the tensors of its cache.

    python make_truth.py config.json [more.json …]             one JSON line per file on stdout
    python make_truth.py llama bart:BartForConditionalGeneration    a model type's own default configuration
    python make_truth.py --index index.csv --folder DIR        every file of a table (hub_id, file, model_type, fidelity)

The model is built in bfloat16 with eager attention on torch's meta device, so nothing is allocated and no weights are
needed; the class is the one that `architectures` names. A prefill then fills the cache. Keys of `cache` are
"BATCHxLENGTH" ("BATCHxDECODER/ENCODER" for encoder-decoder models), values the layers in order, run-length coded as
[count, kind, bytes of one layer], kind one of full, sliding, cross, latent, linear; [] means that the class keeps no
cache.
Bytes follow tensor shapes. A quantization_config is kept in the recorded config but the model is built without it.

Needs torch 2.13 and transformers 5.23. The test-suite only reads the output (families.jsonl).
"""

import argparse
import csv
import json
import os
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel

MODEL_TYPES = """llama mistral mixtral qwen2 qwen3 qwen3_next gemma gemma2 gemma3 gemma3_text phi3 falcon gpt2 gpt_neox
    gpt_oss deepseek_v2 deepseek_v3 t5 bart bert""".split()  # noqa: SIM905
#: the class a bare model type stands for, where it is not "<Type>ForCausalLM"
DEFAULT_CLASS = {
    "bert": "BertLMHeadModel", "gemma3": "Gemma3ForConditionalGeneration", "gemma3_text": "Gemma3ForCausalLM",
    "gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM", "t5": "T5ForConditionalGeneration",
}  # fmt: skip
ABSOLUTE_POSITIONS = ("gpt2", "bert", "bart")
#: the keys that can decide a shape, a count or a class; the rest of a config.json is dropped
KEPT = set(
    """architectures model_type dtype torch_dtype quantization_config is_decoder is_encoder_decoder add_cross_attention
    tie_word_embeddings vocab_size type_vocab_size max_position_embeddings n_positions text_config vision_config
    hidden_size d_model n_embd n_embed intermediate_size d_ff n_inner ffn_hidden_size encoder_ffn_dim decoder_ffn_dim
    num_hidden_layers num_layers n_layer encoder_layers decoder_layers num_decoder_layers layer_types
    num_attention_heads num_heads n_head encoder_attention_heads decoder_attention_heads num_key_value_heads
    num_kv_heads head_dim d_kv attention_bias mlp_bias bias sliding_window use_sliding_window max_window_layers
    sliding_window_pattern use_bidirectional_attention multi_query new_decoder_architecture parallel_attn alibi
    num_ln_in_parallel_attn relative_attention_num_buckets feed_forward_proj is_gated_act
    num_local_experts num_experts num_experts_per_tok n_routed_experts n_shared_experts moe_intermediate_size
    first_k_dense_replace moe_layer_freq n_group topk_group num_nextn_predict_layers q_lora_rank kv_lora_rank
    qk_nope_head_dim qk_rope_head_dim v_head_dim image_size patch_size num_channels vision_use_head
    mm_tokens_per_image full_attention_interval linear_num_key_heads linear_num_value_heads linear_key_head_dim
    linear_value_head_dim linear_conv_kernel_dim decoder_sparse_step mlp_only_layers
    shared_expert_intermediate_size""".split()  # noqa: SIM905
)


def trim(config: dict[str, Any], labels: bool = False) -> dict[str, Any]:
    """The part of a config that decides shapes; the label map only for classes with a classifier on top."""
    kept = KEPT | {"num_labels", "id2label"} if labels else KEPT
    return {k: trim(v) if k in ("text_config", "vision_config") else v for k, v in config.items() if k in kept}


def build(config: dict[str, Any]) -> PreTrainedModel:
    """The model that a config names, without storage and without its quantisation."""
    plain = {k: v for k, v in config.items() if k not in ("quantization_config", "auto_map")}
    model_class = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        model = model_class._from_config(
            CONFIG_MAPPING[config["model_type"]].from_dict(plain),
            dtype=torch.bfloat16,
            attn_implementation="eager",
        )
    if any(".experts." in name for name, _ in model.named_parameters()):
        model.set_experts_implementation("batched_mm")  # runs on meta whatever the experts' width
    if "SequenceClassification" in model_class.__name__ and model.config.pad_token_id is None:
        model.config.pad_token_id = 0  # asked for when the batch is larger than 1
    return model.eval()


def part_of(name: str) -> str:
    """Which part of the model a parameter belongs to, by its name (routers and shared experts count as mlp)."""
    if "vision_tower" in name or "multi_modal_projector" in name:
        return "vision"
    if any(s in name for s in ("lm_head", "score.", "classifi", "cls.", "pooler", "qa_outputs")):
        return "head"
    if "norm" in name.lower() or "ln_" in name:
        return "norms"
    if name.split(".")[-2] in ("wte", "wpe", "shared") or ".embed" in f".{name}" or "_embeddings." in name:
        return "embedding"
    if ".experts." in name:
        return "experts"
    return "attention" if "attn" in name or "attention" in name.lower() else "mlp"


def layer_bytes(layer: object) -> int:
    """Bytes of a cache layer's tensors by shape (tensors of one element are bookkeeping)."""
    values = [v for held in vars(layer).values() for v in (held.values() if isinstance(held, dict) else [held])]
    held = [t for t in values if isinstance(t, torch.Tensor) and t.numel() > 1]
    return sum(t.numel() * t.element_size() for t in held)


def prefill(model: PreTrainedModel, batch: int, length: int, encoder: int | None) -> list[tuple[str, Any]]:
    """(kind, cache layer) of every layer after a forward pass over `length` tokens."""
    extra = {"use_cache": True}
    if model.config.is_encoder_decoder:
        extra["decoder_input_ids"] = torch.zeros((batch, length), dtype=torch.long, device="meta")
    tokens = length if encoder is None else encoder
    with torch.no_grad():
        out = model(torch.zeros((batch, tokens), dtype=torch.long, device="meta"), **extra)
    cache = getattr(out, "past_key_values", None)
    if cache is None:
        return []
    plain = "latent" if hasattr(model.config, "kv_lora_rank") else "full"
    own = getattr(cache, "self_attention_cache", cache).layers
    across = cache.cross_attention_cache.layers if hasattr(cache, "cross_attention_cache") else []
    return [(kind_of(x, plain), x) for x in own] + [("cross", x) for x in across]


def kind_of(layer: object, plain: str) -> str:
    """The kind of a decoder's own cache layer; `plain` where it keeps every token."""
    if hasattr(layer, "recurrent_states"):
        return "linear"
    return "sliding" if layer.is_sliding else plain


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Parameters, parts and cache of one config."""
    model = build(config)
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parts[part_of(name)] += parameter.numel()
    limit = model.config.max_position_embeddings if model.config.model_type in ABSOLUTE_POSITIONS else None
    lengths = {1, 1024, 6000} if limit is None else {1, 100, 400 if limit < 1000 else 1000}
    windows = {x.sliding_window for kind, x in prefill(model, 1, 1, None) if kind == "sliding"}
    lengths |= {w + d for w in windows for d in (-1, 0, 1) if w + d > 0}
    cases: list[tuple[int, int, int | None]] = [(1, n, None) for n in sorted(lengths)]
    cases.append((3, 1024 if limit is None else 100, None))
    if model.config.is_encoder_decoder:
        cases.append((1, 200, 50))
    cache = {}
    for batch, length, encoder in cases:
        layers = [(kind, layer_bytes(x)) for kind, x in prefill(model, batch, length, encoder)]
        key = f"{batch}x{length}" + ("" if encoder is None else f"/{encoder}")
        cache[key] = [[len(list(run)), *what] for what, run in groupby(layers)]
    return {"num_parameters": sum(parts.values()), "parts": dict(sorted(parts.items())), "cache": cache}


def record(config: dict[str, Any], name: str, fidelity: str) -> dict[str, Any]:
    """One line: the trimmed config, proven to give the same model as the whole one, and what it holds."""
    small = trim(config, labels="Classification" in config["architectures"][0])
    found = measure(config)
    if measure(small) != found:
        raise ValueError(f"{name}: the trimmed config gives another model")
    head = {
        "id": name,
        "fidelity": fidelity,
        "model_type": config["model_type"],
        "class": config["architectures"][0],
    }
    return {**head, "config": small, **found}


def default_config(source: str) -> dict[str, Any]:
    """A model type's default config as JSON data; `TYPE:CLASS` chooses the class."""
    model_type, _, class_name = source.partition(":")
    config = json.loads(CONFIG_MAPPING[model_type]().to_json_string(use_diff=False))
    fallback = CONFIG_MAPPING[model_type].__name__.removesuffix("Config") + "ForCausalLM"
    config["architectures"] = [class_name or DEFAULT_CLASS.get(model_type, fallback)]
    if config["architectures"] == ["BertLMHeadModel"]:
        config["is_decoder"] = True
    if model_type == "deepseek_v2":  # the class default, null, cannot run
        config["num_experts_per_tok"] = 6
    return config


def main() -> int:
    """Write one line per source; a source that fails is reported on stderr and makes the exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="a config.json, or MODEL_TYPE[:CLASS] for the class default")
    parser.add_argument("--index", type=Path, help="a CSV of configs: hub_id, file, model_type, fidelity")
    parser.add_argument("--folder", type=Path, help="where the files of --index lie (default: beside it)")
    parser.add_argument(
        "--slice", default="0/1", help="I/N: only every N-th source, from the I-th (to run in parallel)"
    )
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    todo: list[tuple[str, str, Path | None]] = []
    for source in args.sources:
        path = Path(source) if source.endswith(".json") else None
        todo.append((path.stem if path else source, "unknown" if path else "default", path))
    if args.index:
        rows = [row for row in csv.DictReader(args.index.open()) if row["model_type"] in MODEL_TYPES]
        folder = args.folder or args.index.parent
        todo += [(row["hub_id"], row["fidelity"], folder / row["file"]) for row in rows]
    first, step = map(int, args.slice.split("/"))
    failed = False
    for name, fidelity, path in todo[first::step]:
        try:
            config = json.loads(path.read_text()) if path else default_config(name)
            sys.stdout.write(json.dumps(record(config, name, fidelity)) + "\n")
            sys.stdout.flush()
        except Exception as error:  # one bad config must not lose the others
            failed = True
            sys.stderr.write(f"{name}: {type(error).__name__}: {str(error)[:300]}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
