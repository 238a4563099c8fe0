"""Make an entry of `model_specs/` from a whole config.json: the keys that are read, and what transformers builds of them.

    python make_entry.py config.json --id OWNER/NAME --source REPOSITORY@COMMIT:PATH [--alias OWNER/NAME …] [--gated]
    python make_entry.py --batch FILE     JSON lines of {config, id, source, aliases, gated, as, parameters, kv, …}

`expect` comes from transformers: the class that `architectures` names, built on the meta device in the checkpoint's own
dtype, and the tensors of its cache after a prefill. Where a sliding layer of window W holds W − 1 tokens after a longer
prefill, W are needed and counted. A type that transformers does not have is built as another one that has the same
tensors (`as`: "deepseek_v3:DeepseekV3ForCausalLM"), or its figures are those of `by_hand.py`. Where a repository
publishes its count (`published`), transformers must build as many. An entry that kvplan reads differently is not
written; the difference is told.

Needs torch 2.13 and transformers 5.23. No network: the config is a file.
"""

import argparse
import contextlib
import copy
import json
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/data/truth"), str(Path(__file__).parent)]

from by_hand import BY_HAND  # noqa: E402

from kvplan import estimate  # noqa: E402
from kvplan.core.model import ModelSpec, Source  # noqa: E402
from kvplan.sources.config import _facts, spec_from_config  # noqa: E402
from kvplan.sources.facts import Facts  # noqa: E402
from kvplan.sources.families.table import reader_of  # noqa: E402

ALWAYS = ("architectures", "model_type", "torch_dtype", "dtype", "quantization_config", "expert_dtype")
SOURCE = Source(kind="config", location="config.json")
CHECKED = "2026-11-30"
LENGTH = 8192
SHORT = (8, 9)
"""Two lengths below every window: their difference is what a token costs."""


def facts_of(config: Mapping[str, Any]) -> Facts:
    """The facts of a config after its reader went through them."""
    facts = _facts(config, SOURCE, {})
    reader_of(facts.model_type)(facts)
    return facts


def stated(config: Mapping[str, Any], key: str) -> bool:
    """Whether the config has the dotted key."""
    *parents, last = key.split(".")
    inner: Any = config
    for parent in parents:
        inner = inner.get(parent) if isinstance(inner, Mapping) else None
    return isinstance(inner, Mapping) and last in inner


def part_of(config: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """The config with only the dotted `keys` of it; a list is kept whole."""
    kept: dict[str, Any] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        if not stated(config, key):
            whole = next((key[:i] for i in range(len(key)) if key[i : i + 1] == "." and key[i + 1].isdigit()), None)
            if whole is None or not stated(config, whole):
                continue
            key = whole
        source, target = config, kept
        *parents, last = key.split(".")
        for parent in parents:
            source, target = source[parent], target.setdefault(parent, {})
        if not isinstance(source[last], Mapping) or not any(other.startswith(f"{key}.") for other in keys):
            target[last] = copy.deepcopy(source[last])
        else:
            target.setdefault(last, {})
    return kept


def trimmed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that decide the plan: those read, and of those only asked for the ones that change the model."""
    facts, model = facts_of(config), spec_from_config(config, id="x", source=SOURCE)
    read = {fact.key for fact in (*facts.read, *model.facts) if fact.origin == "config.json"} | set(ALWAYS)
    read |= {f"{key.rpartition('.')[0]}.model_type" for key in read if "." in key}
    whole = bare(model)
    more = {key for key in facts.asked - read if stated(config, key)}
    if attempt(part_of(config, read)) == whole:
        more = set()
    elif attempt(part_of(config, read | more)) != whole:
        more = set(paths(config)) - read  # some are read by no facts: what says how weights are stored
    for key in sorted(more, reverse=True):
        if attempt(part_of(config, read | (more - {key}))) == whole:
            more.remove(key)
    return in_order(part_of(config, read | more))


def in_order(value: Any) -> Any:
    """The value with the keys of its objects sorted."""
    if not isinstance(value, dict):
        return value
    return {key: in_order(value[key]) for key in sorted(value)}


def paths(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted path of every leaf."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value and key != "quantization_config":
            yield from paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def attempt(config: Mapping[str, Any]) -> ModelSpec | None:
    """The model of a part of a config, None where that is refused."""
    try:
        return bare(spec_from_config(config, id="x", source=SOURCE))
    except Exception:  # whatever a missing key leads to
        return None


def bare(model: ModelSpec) -> ModelSpec:
    """The model without the record of what was read."""
    return replace(model, facts=())


def built(config: dict[str, Any], like: str | None) -> Any:
    """The model of transformers, without storage and without its quantisation."""
    import torch
    from make_types import class_of
    from transformers import CONFIG_MAPPING

    plain = {key: value for key, value in config.items() if key not in ("quantization_config", "auto_map")}
    model_type, name = plain["model_type"], (plain.get("architectures") or [""])[0]
    if like:
        model_type, _, name = like.partition(":")
        plain["model_type"] = model_type
    inner = next((plain[key] for key in ("text_config", "llm_config", "thinker_config") if key in plain), {})
    words = [holder.get(key) for holder in (plain, inner) for key in ("dtype", "torch_dtype")]
    dtype = getattr(torch, next((word for word in words if isinstance(word, str)), "bfloat16"), torch.bfloat16)
    dtype = dtype if dtype in (torch.float16, torch.float32) else torch.bfloat16
    with torch.device("meta"):
        model = class_of(model_type, name)._from_config(
            CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(plain)), dtype=dtype, attn_implementation="eager"
        )
    if any(".experts." in parameter for parameter, _ in model.named_parameters()):
        with contextlib.suppress(AttributeError, ValueError):
            model.set_experts_implementation("batched_mm")  # runs on meta whatever the experts' width
    return model.eval()


def layers_after(model: Any, length: int) -> Iterator[tuple[Any, bool]]:
    """(cache layer, whether it is over the encoder) after a prefill of `length` tokens."""
    import torch

    tokens = torch.zeros((1, length), dtype=torch.long, device="meta")
    inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": True}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens
        if hasattr(model.config, "max_source_positions"):
            del inputs["input_ids"]
            shape = (1, model.config.max_source_positions, model.config.d_model)
            inputs["encoder_outputs"] = (torch.zeros(shape, dtype=model.dtype, device="meta"),)
    out = run(model, inputs)
    cache = getattr(out, "past_key_values", None)
    cache = getattr(out, "cache_params", None) if cache is None else cache
    if cache is None:
        return
    yield from ((layer, False) for layer in getattr(cache, "self_attention_cache", cache).layers)
    if hasattr(cache, "cross_attention_cache"):
        yield from ((layer, True) for layer in cache.cross_attention_cache.layers)


def run(model: Any, inputs: dict[str, Any]) -> Any:
    """The output of the model, or where it looks at token values, which meta tensors lack, of its language model."""
    import torch

    parts = [getattr(model, "thinker", model), getattr(getattr(model, "model", None), "language_model", None)]
    for part in parts:
        try:
            with torch.no_grad():
                return part(**inputs)
        except Exception:
            if part is parts[-1] or parts[-1] is None:
                raise
    return None


def held(model: Any, length: int) -> list[tuple[int, bool, int | None]]:
    """(bytes, whether over the encoder, window) of every cache layer."""
    from make_types import layer_bytes

    return [
        (layer_bytes(layer), across, layer.sliding_window if getattr(layer, "is_sliding", False) else None)
        for layer, across in layers_after(model, length)
    ]


def cache_bytes(model: Any, length: int) -> tuple[int, int]:
    """(bytes that a token costs while no window is full, bytes needed at `length`)."""
    first, second, long = (held(model, tokens) for tokens in (*SHORT, length))
    growth = [b - a for (a, *_), (b, *_) in zip(first, second, strict=True)]
    needed = 0
    for (size, _, window), grows in zip(long, growth, strict=True):
        full = window is not None and length >= window
        needed += grows * window if full and window else size
    return sum(grows for grows, (_, across, _) in zip(growth, first, strict=True) if not across), needed


def expected(item: Mapping[str, Any], config: dict[str, Any], length: int) -> dict[str, int]:
    """What the entry is held to."""
    parameters, cache = item.get("parameters"), item.get("kv")
    if parameters is None or cache is None:
        model = built(config, item.get("as"))
        parameters = parameters or sum(parameter.numel() for parameter in model.parameters())
        cache = cache or cache_bytes(model, length)
    return {"parameters": parameters, "kv_bytes_per_token": cache[0], f"kv_bytes_at_{length}": cache[1]}


def ours(config: Mapping[str, Any], length: int) -> dict[str, int]:
    """What kvplan says, to compare with."""
    model = spec_from_config(config, id="x", source=SOURCE)
    return {
        "parameters": estimate(model).weights.num_parameters,
        "kv_bytes_per_token": estimate(model, seq_len=1).kv_cache.bytes_per_token,
        f"kv_bytes_at_{length}": estimate(model, seq_len=length).kv_cache.needed_bytes,
    }


def entry_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """The content of one file of the catalog; ValueError where kvplan and the framework differ."""
    config = json.loads(Path(item["config"]).read_text()) if isinstance(item["config"], str) else item["config"]
    config = {**config, **item.get("change", {})}
    item = {**item, **BY_HAND.get(item["id"], {})}
    small = trimmed(config)
    most = spec_from_config(small, id="x", source=SOURCE).max_seq_len or LENGTH
    length = item.get("length") or min(LENGTH, most)
    expect, found = expected(item, config, length), ours(small, length)
    if item.get("published", expect["parameters"]) != expect["parameters"]:
        raise ValueError(f"{item['published']} parameters are published, transformers builds {expect['parameters']}")
    if expect != found:
        raise ValueError(f"differs: {expect} expected, {found} read")
    about = {"source": item["source"], "revision": None, "checked": CHECKED, "aliases": item.get("aliases", [])}
    about |= {"gated": True} if item.get("gated") else {}
    about |= {"set": {"quantization_config": scheme_of(item["side"])}} if item.get("side") else {}
    return {**small, "kvplan": {**about, "expect": expect}}


def scheme_of(side: str) -> dict[str, Any]:
    """What a file hf_quant_config.json says of the weights, for a repository whose config.json does not."""
    stated = json.loads(Path(side).read_text())["quantization"]
    return {"quant_method": "modelopt", "quantization": {key: stated[key] for key in sorted(stated)}}


def write(item: Mapping[str, Any]) -> str:
    """Write one entry; what there is to say of it."""
    path = ROOT / "model_specs" / f"{item['id']}.json"
    start = time.time()
    try:
        entry = entry_of(item)
    except Exception as error:  # the report says why the entry stays out
        return f"{item['id']}: OUT {type(error).__name__}: {error}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return f"{item['id']}: {entry['kvplan']['expect']} {time.time() - start:.1f} s"


def main() -> int:
    """Write the entries that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="a whole config.json")
    parser.add_argument("--id", help="OWNER/NAME")
    parser.add_argument("--source", help="where the config is from: REPOSITORY@COMMIT:PATH")
    parser.add_argument("--alias", action="append", default=[], help="another repository of the same architecture")
    parser.add_argument("--gated", action="store_true", help="the repository asks for a licence to be accepted")
    parser.add_argument("--as", dest="like", help="TYPE:Class of transformers that has the same tensors")
    parser.add_argument("--side", help="the repository's hf_quant_config.json, where config.json has no scheme")
    parser.add_argument("--batch", type=Path, help="JSON lines, one entry each")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.batch:
        items = [json.loads(line) for line in args.batch.read_text().splitlines() if line.strip()]
    else:
        items = [{"config": args.config, "id": args.id, "source": args.source, "aliases": args.alias}]
        items[0] |= {"gated": args.gated, "as": args.like, "side": args.side}
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for item in items:
        sys.stdout.write(write(item) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
