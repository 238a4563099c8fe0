"""Write down what every text-generating model type of transformers holds: `types.jsonl`, for the differential test.

    python make_types.py > types.jsonl              all types, about an hour on one core
    python make_types.py llama gemma3 …             some of them, on stdout
    python make_types.py --slice 0/4 …              every fourth, to run in parallel

One row is a configuration: the class's own defaults, or those with one key changed (`changes`), nested keys too. Of it
stand the parameters, and what the cache holds of one sequence after a prefill, layer by layer, run-length coded as
[count, bytes]: {"1024": {"self": […], "cross": […]}}. The model is built in bf16 with eager attention on torch's meta
device, so nothing is allocated. A change that the class refuses gives no row; a type that cannot be built from its own
defaults gives one with `error`.

Needs torch 2.13 and transformers 5.23; `class_defaults.jsonl` (make_defaults.py) says which keys there are. The test
suite only reads the output.
"""

import argparse
import contextlib
import copy
import importlib
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import model_type_to_module_name

sys.path.insert(0, str(Path(__file__).parent))
from type_rows import DEFAULTS, changed, default_config

MAPPINGS = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "SEQ_TO_SEQ_CAUSAL_LM", "MULTIMODAL_LM")
LENGTHS, SHORT_LENGTHS, VARIANT_LENGTH = (1024, 6000), (256, 400), 300
SECONDS = 10
"""What one configuration may take to build, and again to run."""
# What cannot decide a shape or a count.
IDLE = re.compile(
    r"is_encoder_decoder|output_.*|use_cache|suppress.*|mask_.*|.*_token(_id|_index)?|.*_act|.*activation.*"
)
CACHED = re.compile(
    "head|kv|window|layer|attention|dim|rank|state|conv|type|interval|pattern|shared|expand|period|offset|hidden|d_model"
)
PLAUSIBLE = {"head_dim": 96, "sliding_window": 256, "q_lora_rank": 384, "intermediate_size": 1000, "n_inner": 1000}
"""What stands in for a null."""


def classes() -> dict[str, str]:
    """The class of each text-generating type; of several, the first that the auto classes would take."""
    found: dict[str, str] = {}
    for mapping in MAPPINGS:
        for model_type, name in getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES", {}).items():
            found.setdefault(model_type, name[0] if isinstance(name, tuple) else name)
    return dict(sorted(found.items()))


def class_of(model_type: str, name: str) -> type[PreTrainedModel]:
    """The class itself, which transformers does not always show at its top."""
    if hasattr(transformers, name):
        return getattr(transformers, name)
    package = importlib.import_module(f"transformers.models.{model_type_to_module_name(model_type)}")
    for path in sorted(Path(package.__path__[0]).glob("modeling_*.py")):
        module = importlib.import_module(f"{package.__name__}.{path.stem}")
        if hasattr(module, name):
            return getattr(module, name)
    raise LookupError(name)


def changes_of(config: dict[str, Any], prefix: str = "") -> Iterator[dict[str, Any]]:
    """One key changed, in every way that might matter: doubled, one more, switched, left out where it is nested."""
    for key in DEFAULTS.get(config.get("model_type", ""), {}).get("fields", {}):
        value = config.get(key)
        if IDLE.fullmatch(key) or isinstance(value, dict | list | str):
            continue
        if isinstance(value, bool):
            yield {f"{prefix}{key}": not value}
        elif isinstance(value, int):
            yield {f"{prefix}{key}": value * 2 or 1}
            if 0 < value <= 16:
                yield {f"{prefix}{key}": value + 1}
        elif key == "num_key_value_heads":
            yield {f"{prefix}{key}": max(1, (config.get("num_attention_heads") or 4) // 4)}
        elif key in PLAUSIBLE:
            yield {f"{prefix}{key}": PLAUSIBLE[key]}
    for key, value in config.items():
        if isinstance(value, dict):
            yield from changes_of(value, f"{prefix}{key}.")
            left_out = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
            yield from ({f"{prefix}{key}.{name}": "left out"} for name in left_out if name in value)


def build(model_type: str, name: str, config: dict[str, Any]) -> PreTrainedModel:
    """The model of a configuration, without storage."""
    built = CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(config))
    model_class = class_of(model_type, name)
    text = built.get_text_config()
    wanted = model_class.config_class
    if wanted is not None and not isinstance(built, wanted) and isinstance(text, wanted):
        built = text  # a text model's class under the type of the whole
    with torch.device("meta"):
        model = model_class._from_config(built, dtype=torch.bfloat16, attn_implementation="eager")
    if any(".experts." in parameter for parameter, _ in model.named_parameters()):
        with contextlib.suppress(AttributeError, ValueError):
            model.set_experts_implementation("batched_mm")  # runs on meta whatever the experts' width
    return model.eval()


def cache_of(model: PreTrainedModel, length: int) -> dict[str, list[list[int]]] | None:
    """What the cache holds after a prefill; None where the class keeps none, or cannot run on meta within the time."""
    tokens = torch.zeros((1, length), dtype=torch.long, device="meta")
    extra = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    out = None
    for given in ({}, {"past_key_values": transformers.DynamicCache(config=model.config)}):
        try:
            with torch.no_grad(), time_limit():
                out = model(input_ids=tokens, use_cache=True, **extra, **given)
            break
        except Exception:  # whatever a class makes of a device without data
            continue
    cache = getattr(out, "past_key_values", None)
    cache = getattr(out, "cache_params", None) if cache is None else cache
    if not hasattr(getattr(cache, "self_attention_cache", cache), "layers"):
        return None
    parts = {"self": getattr(cache, "self_attention_cache", cache).layers}
    if hasattr(cache, "cross_attention_cache"):
        parts["cross"] = cache.cross_attention_cache.layers
    return {name: run_lengths([layer_bytes(layer) for layer in layers]) for name, layers in parts.items()}


def layer_bytes(layer: object) -> int:
    """Bytes of a cache layer's tensors by shape; those of one element are bookkeeping."""
    values: list[Any] = []
    for held in vars(layer).values():
        values += held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple) else [held]
    return sum(t.numel() * t.element_size() for t in values if isinstance(t, torch.Tensor) and t.numel() > 1)


def run_lengths(sizes: list[int]) -> list[list[int]]:
    """[count, bytes] of every run of equal layers."""
    return [[len(list(run)), size] for size, run in groupby(sizes)]


def row_of(model_type: str, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One configuration: parameters, and the cache where the change can touch it."""
    with time_limit():
        model = build(model_type, name, changed(default_config(model_type, name), changes))
    row: dict[str, Any] = {"model_type": model_type, "class": name}
    row |= {"changes": changes} if changes else {}
    row["num_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    lengths: tuple[int, ...] = LENGTHS
    if changes:
        key = next(iter(changes))
        idle = not CACHED.search(key) or "vision" in key or "audio" in key
        lengths = () if idle else (VARIANT_LENGTH,)
    found = {length: cache_of(model, length) for length in lengths}
    if found and not any(found.values()) and not changes:
        found = {length: cache_of(model, length) for length in SHORT_LENGTHS}
    cache = {str(length): held for length, held in found.items() if held}
    return row | ({"cache": cache} if cache else {})


def rows_of(model_type: str, name: str) -> Iterator[dict[str, Any]]:
    """The defaults, then every change that the class takes."""
    try:
        yield row_of(model_type, name, {})
    except Exception as error:  # the row says why
        yield {"model_type": model_type, "class": name, "error": f"{type(error).__name__}: {error}"[:200]}
        return
    seen = []
    for changes in changes_of(default_config(model_type, name)):
        if changes in seen:
            continue
        seen.append(changes)
        try:
            yield row_of(model_type, name, changes)
        except Exception:  # refused by the class: no model has it
            continue


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """TimeoutError for what takes longer than `SECONDS`."""

    def late(*_: object) -> None:
        raise TimeoutError("took too long")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def main() -> int:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="model types; default: all")
    parser.add_argument("--slice", default="0/1", help="I/N: only every N-th type, from the I-th")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    known = classes()
    first, step = map(int, args.slice.split("/"))
    for model_type in (args.types or list(known))[first::step]:
        for row in rows_of(model_type, known[model_type]):
            sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
