"""Has the planning functions of an older vLLM group and count DeepSeek-V4's caches, the rest of the package stood in for.

    pip download --no-deps --no-binary vllm vllm==0.26.0      (or its tag), unpacked
    python make_vllm_older.py 0.26 vllm-0.26.0/vllm vllm_older.jsonl      torch is all that it needs; rows are appended

The specs of the layers are put together here, by the formulas of the release's own `get_kv_cache_spec` (the layers'
constructors need a GPU); pages, groups, blocks, concurrency and the longest request are then the release's own.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import sys
import types
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import torch

REAL = (
    "vllm.v1.kv_cache_interface", "vllm.v1.kv_cache_layout", "vllm.v1.kv_cache_spec_registry",
    "vllm.v1.core.kv_cache_utils", "vllm.v1.core.single_type_kv_cache_manager", "vllm.utils.math_utils",
)  # fmt: skip
RATIOS = {"deepseek-v4-flash": [0, 0] + [4, 128] * 20 + [4], "deepseek-v4-pro": [128, 128] + [4, 128] * 29 + [4]}
STAGES = {"deepseek-v4-flash": [[0, 22], [22, 43]], "deepseek-v4-pro": [[0, 15], [15, 30], [30, 46], [46, 61]]}
GIB = 2**30
SIZES = (  # longest request, tokens of a step, bytes, number of blocks where it is given
    (65536, 8192, 48 * GIB, None), (30000, 16384, int(5.44 * GIB), None), (262144, 8192, 9 * GIB, None),
    (16384, 8192, 48 * GIB, 5000),
)  # fmt: skip


class OfAnything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class Anything(metaclass=OfAnything):
    """Stands for what only a running engine uses."""

    def __init__(self, *_, **__):
        pass

    def __hash__(self):
        return id(self)

    def __call__(self, *args, **__):
        return args[0] if args and callable(args[0]) else self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __class_getitem__(cls, _):
        return cls

    def __iter__(self):
        return iter(())


class Package(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Anything,), {}) if name[0].isupper() else Anything()


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that plan in the release's source, and an empty package for any other of vLLM's."""

    def __init__(self, source):
        self.source = source

    def find_spec(self, name, path=None, target=None):
        file = self.source.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if name in REAL and file.exists():
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "vllm" else None

    def create_module(self, spec):
        module = Package(spec.name)
        module.get_hisparse_kv_cache_groups = lambda *_: None
        module.get_kv_cache_dtype_handler = lambda *_: None
        module.get_dtype_size = lambda dtype: dtype.itemsize
        return module

    def exec_module(self, module):
        pass


def specs_of(interface, ratios, rows, release):
    """The specs of all layers, the last of them one that drafts if `ratios` ends with a 0 more."""
    packed = rows == "fp8_ds_mla"
    dtype = {"fp8_ds_mla": torch.uint8, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}[rows]
    plain = 512 if release >= (0, 25) else None
    own = {"alignment": 576 if packed else plain}
    row = {"head_size": 512, "dtype": dtype, "cache_dtype_str": rows, "model_version": "deepseek_v4", **own}
    row["state_content_bytes"] = 584 if packed else None
    key = {"head_size": 132, "dtype": torch.uint8, "alignment": (plain or 576) if not packed else 576}

    def made(name, ratio, **given):
        cls = getattr(interface, name)
        given |= {"tokens_per_state": ratio, "compress_ratio": ratio, "num_kv_heads": 1}
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given})

    def waiting(width, series, ratio):
        block = 4 if ratio == 4 else 8
        given = {"block_size": block, "sliding_window": series * ratio, "dtype": torch.float32, **own}
        return made("SlidingWindowMLASpec", 1, head_size=2 * series * width, **given)

    found = {}
    for i, ratio in enumerate(ratios):
        name, series = f"model.layers.{i}.attn", 2 if ratio == 4 else 1
        if ratio == 4:
            found[f"{name}.indexer.k_cache"] = made("MLAAttentionSpec", 4, block_size=256, **key)
            found[f"{name}.indexer.compressor.state_cache"] = waiting(128, series, ratio)
        found[f"{name}.swa_cache"] = made("SlidingWindowMLASpec", 1, block_size=64, sliding_window=128, **row)
        if ratio:
            found[name] = made("MLAAttentionSpec", ratio, block_size=256, **row)
            found[f"{name}.compressor.state_cache"] = waiting(512, series, ratio)
    return found


def config_of(length, batched, steps, override):
    layout = getattr(importlib.import_module("vllm.v1.kv_cache_layout"), "KVCacheLayout", None)
    return SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=length, original_max_model_len=length),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=batched, disable_hybrid_kv_cache_manager=False),
        max_in_flight_tokens=batched * steps,
        parallel_config=SimpleNamespace(decode_context_parallel_size=1, prefill_context_parallel_size=1),
        cache_config=SimpleNamespace(
            num_gpu_blocks_override=override, prefix_cache_retention_interval=None,
            get_resolved_kv_cache_layout=lambda: layout.BLHNC,
        ),
        attention_config=SimpleNamespace(hisparse_config=None),
        kv_transfer_config=None, speculative_config=None,
    )  # fmt: skip


def plan(planning, config, specs, bounds, num_bytes, null_block):
    """What the release makes of the specs on the stages of `bounds`; concurrency as its first worker prints it."""
    groups = planning.get_kv_cache_groups(config, dict(specs))
    stages = [
        {name: spec for name, spec in specs.items() if start <= int(name.split(".")[2]) < stop}
        for start, stop in bounds
    ]
    projected = [planning._project_kv_cache_groups_to_worker(groups, stage) for stage in stages]
    planned = [planning.get_kv_cache_config_from_groups(config, stage, num_bytes) for stage in projected]
    num_blocks = min(each.num_blocks for each in planned)
    planned[0].num_blocks = num_blocks
    size = planning._pool_bytes_per_block
    sizes = [size(config, stage) if size.__code__.co_argcount == 2 else size(stage) for stage in projected]
    override = config.cache_config.num_gpu_blocks_override
    left = [(override * each if override else num_bytes) - null_block * each for each in sizes]
    longest = [
        planning._estimate_max_model_len_from_groups(config, *pair) for pair in zip(projected, left, strict=True)
    ]
    return {
        "num_blocks": num_blocks,
        "max_concurrency": planning.get_max_concurrency_for_kv_cache_config(config, planned[0]),
        "bytes_per_block": max(sizes),
        "longest": min(longest),
        "groups": [[len(g.layer_names), g.kv_cache_spec.block_size, g.kv_cache_spec.page_size_bytes] for g in groups],
    }


def main():
    version, source, target = sys.argv[1:]
    release = tuple(map(int, version.split(".")))
    sys.meta_path.insert(0, Finder(Path(source)))
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    planning = importlib.import_module("vllm.v1.core.kv_cache_utils")
    managers = importlib.import_module("vllm.v1.core.single_type_kv_cache_manager")
    if hasattr(managers, "register_all_kvcache_specs"):
        managers.register_all_kvcache_specs(None)
    kept = ("fp8_ds_mla", "bf16", "fp8") if release >= (0, 23) else ("fp8_ds_mla",)
    combinations = itertools.product(RATIOS, kept, (0, 1), (False, True))
    for i, (model, rows, drafts, staged) in enumerate(
        each for each in combinations if each[1] == kept[0] or not each[3]
    ):
        last = len(RATIOS[model])
        bounds = STAGES[model] if staged else [[0, last]]
        bounds = [*bounds[:-1], [bounds[-1][0], last + drafts]]
        specs = specs_of(interface, RATIOS[model] + [0] * drafts, rows, release)
        steps = (len(bounds) + 1 if staged else 2) if release >= (0, 26) else 1
        length, batched, num_bytes, override = SIZES[i % len(SIZES)]
        config = config_of(length, batched, steps, override)
        row = {"version": version, "model": model, "rows": rows, "drafts": drafts, "pp": len(bounds)}
        row |= {"max_model_len": length, "max_num_batched_tokens": batched, "kv_memory_bytes": num_bytes}
        row |= {"num_gpu_blocks_override": override}
        row["expect"] = plan(planning, config, specs, bounds, num_bytes, release >= (0, 26))
        with Path(target).open("a") as out:
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
