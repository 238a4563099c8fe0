"""Has vLLM 0.33's own code plan the rows of vllm.jsonl on a CPU, with what asks the device answered in its place.

    python3.11 -m venv env && env/bin/pip install vllm==0.33.0
    env/bin/python make_vllm.py 9.0 vllm.jsonl out.jsonl

The wheel without CUDA's libraries will do (`--no-deps`, then torch, transformers and what an import asks for). Compiled
extensions and FlashInfer are stood in for; no kernel runs. Models are built on the meta device, one pipeline stage after
the other, as rank 0 of tensor parallelism. The first argument is the compute capability whose rows are planned. A row
gets vLLM's figures as `expect` and `weight_bytes`, or its refusal as `error`.

`draft` in a row is the configuration of the model that drafts for it, or its name in configs.jsonl; a row with
`draft_bytes` gets the bytes of the draft's own parameters: its table of tokens, its output head, all else. The platform
says CUDA 12: with 13, Blackwell's kernel for gated delta rules gives out checkpoints. Groups come from `get_global_kv_cache_groups`, blocks from
`get_kv_cache_configs`, tokens and concurrency from `get_kv_cache_capacity`.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
import types
from pathlib import Path
from types import SimpleNamespace

os.environ.update(VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", CUDA_VISIBLE_DEVICES="")

import torch
import torch._ops
import torch.library
from torch.overrides import TorchFunctionMode

HERE = Path(__file__).parent
GPUS = {
    "8.0": ("NVIDIA A100-SXM4-80GB", 85094825984, 108),
    "8.9": ("NVIDIA L4", 23574478848, 58),
    "9.0": ("NVIDIA H100 80GB HBM3", 85029158912, 132),
    "10.0": ("NVIDIA B200", 191514214400, 148),
    "12.0": ("NVIDIA RTX PRO 6000 Blackwell", 101963464704, 188),
}
ARGUMENTS = {
    "prefix_caching": "enable_prefix_caching",
    "state_dtype": "mamba_ssm_cache_dtype",
    "conv_dtype": "mamba_cache_dtype",
}
"""Where kvplan's names of switches are not vLLM's."""
EXTENSIONS = (
    "vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch", "vllm._flashmla_C", "vllm._flashmla_extension_C",
    "vllm.vllm_flash_attn._vllm_fa2_C", "vllm.vllm_flash_attn._vllm_fa3_C",
)  # fmt: skip
NAMESPACES = ("_C", "_moe", "_vllm", "_flash")


class Operator:
    """Stands for a compiled function: says yes to all that is asked of it."""

    def __init__(self, name):
        self.__name__ = self._name = name

    def __call__(self, *_, **__):
        return 1

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class Package(types.ModuleType):
    """Stands for a package that only a GPU can use: whatever is imported from it is there."""

    __path__ = ()
    __version__ = "0.7.2"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {}) if name[0].isupper() else Operator(name)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a package: TileLang; FlashInfer on Blackwell, where it is the default."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Package(spec.name)

    def exec_module(self, module):
        pass


class OnMeta(TorchFunctionMode):
    """What is meant for the GPU is made on the meta device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if isinstance(device, int) or (device is not None and torch.device(device).type == "cuda"):
            kwargs["device"] = "meta"
        if getattr(func, "__name__", "") == "cuda":
            return args[0].to("meta")
        if getattr(func, "__name__", "") == "to":
            args = tuple("meta" if str(part).startswith("cuda") else part for part in args)
        return func(*args, **kwargs)


class Group:
    """A group of ranks that never talk."""

    def __init__(self, size, rank=0):
        self.world_size, self.rank_in_group, self.rank, self.local_rank = size, rank, rank, rank
        self.ranks, self.unique_name = list(range(size)), f"group {id(self)}"
        self.device_group = self.cpu_group = SimpleNamespace(size=lambda: size, rank=lambda: rank)
        self.device_communicator = self.mq_broadcaster = None
        self.use_custom_op_call = self.use_device_communicator = False
        self.is_first_rank, self.is_last_rank = rank == 0, rank == size - 1
        self.first_rank, self.last_rank, self.next_rank, self.prev_rank = 0, size - 1, 0, 0


def stand_in_for_torch(capability, name, memory, processors):
    torch.version.cuda = torch.version.cuda or "13.0"
    properties = SimpleNamespace(
        major=capability[0], minor=capability[1], name=name, total_memory=memory, multi_processor_count=processors,
        shared_memory_per_block_optin=232448, warp_size=32, L2_cache_size=50 * 2**20,
    )  # fmt: skip
    nothing = type("Nothing", (), {"__init__": lambda self, *_, **__: None, "cuda_stream": 0})
    answers = {
        "get_device_properties": properties, "get_device_capability": capability, "get_device_name": name,
        "device_count": 64, "current_device": 0, "mem_get_info": (memory, memory), "current_stream": nothing(),
        "set_device": None, "synchronize": None, "empty_cache": None,
    }  # fmt: skip
    for function, answer in answers.items():
        setattr(torch.cuda, function, lambda *_, _answer=answer, **__: _answer)
    torch.cuda.Stream = torch.cuda.Event = nothing
    item, found, register = torch.Tensor.item, torch._ops._OpNamespace.__getattr__, torch.library.register_fake
    torch.Tensor.item = lambda self: 1 if self.is_meta else item(self)

    def lenient(self, name):
        try:
            return found(self, name)
        except AttributeError:
            if name.startswith("__") or not self.name.startswith(NAMESPACES):
                raise
            return Operator(name)

    def quiet(op, func=None, **options):
        def wrap(function):
            try:
                return register(op, function, **options)
            except Exception:
                return function

        return wrap if func is None else wrap(func)

    torch._ops._OpNamespace.__getattr__, torch.library.register_fake = lenient, quiet
    for module in EXTENSIONS:
        sys.modules[module] = types.ModuleType(module)
        sys.modules[module].__spec__ = importlib.machinery.ModuleSpec(module, None)


def stand_in_for_triton(capability):
    try:
        import triton
        from triton.backends.compiler import GPUTarget
    except ImportError:
        return
    target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    driver = Operator("driver")
    driver.get_current_target, driver.get_current_device = lambda: target, lambda: 0
    driver.get_active_torch_device = lambda: torch.device("meta")
    triton.runtime.driver.set_active(driver)


def stand_in_for_the_device(capability, name, memory, processors):
    import vllm.platforms as platforms
    from vllm.platforms.cuda import CudaPlatformBase
    from vllm.platforms.interface import DeviceCapability

    def reaches(cls, wanted, device_id=0):
        return capability >= (wanted if isinstance(wanted, tuple) else divmod(wanted, 10))

    answers = {
        "get_device_capability": DeviceCapability(*capability), "get_device_name": name, "get_device_uuid": "GPU-0",
        "get_cuda_runtime_major": 12, "get_device_total_memory": memory, "is_fully_connected": True, "num_compute_units": processors,
        "import_kernels": None, "is_pin_memory_available": False,
    }  # fmt: skip
    members = {
        function: classmethod(lambda cls, *_, _answer=answer, **__: _answer) for function, answer in answers.items()
    }
    platforms._current_platform = type("Platform", (CudaPlatformBase,), {"has_device_capability": classmethod(reaches), **members})()  # fmt: skip
    torch.cuda.is_available = lambda: True
    sys.meta_path.append(Finder("tilelang"))
    import vllm.tilelang_utils as tilelang_utils
    import vllm.utils.flashinfer as flashinfer

    tilelang_utils.tilelang_jit = lambda kernel: kernel
    present = capability >= (10, 0)
    if present:
        sys.meta_path.append(Finder("flashinfer"))
    for function in ("has_flashinfer", "has_flashinfer_cubin", "has_nvidia_artifactory"):
        setattr(flashinfer, function, lambda: present)
    for function in ("has_flashinfer_sparse_mla_sm120", "has_flashinfer_sparse_mla_sm120_config"):
        setattr(flashinfer, function, lambda *_: capability[0] == 12)
    for function in ("has_flashinfer_trtllm_fused_moe", "has_flashinfer_cutlass_fused_moe"):
        setattr(flashinfer, function, lambda: capability[0] == 10)
    flashinfer.supports_trtllm_attention = lambda is_prefill=False: capability[0] == 10
    import vllm.distributed.parallel_state as state
    import vllm.model_executor.models.registry as registry

    state.in_the_same_node_as = lambda *_, **__: [True] * 64
    registry._LazyRegisteredModel.inspect_model_cls = lambda self: registry._ModelInfo.from_model_cls(
        self.load_model_cls()
    )


def engine_config(row, configs, folder):
    """vLLM's configuration for a row, from a config.json in `folder`."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    given = dict(row["switches"])
    options = {"max_model_len": row["max_model_len"], "dtype": row["dtype"], "kv_cache_dtype": row["kv_dtype"]}
    if given.pop("hybrid_manager", True) is False:
        options["disable_hybrid_kv_cache_manager"] = True
    tokens, method = given.pop("num_speculative_tokens", 0), given.pop("speculative_method", None)
    if tokens:
        options["speculative_config"] = {"method": method, "num_speculative_tokens": tokens}
    options |= {ARGUMENTS.get(name, name): value for name, value in given.items()}
    if "draft" in row:
        draft = row["draft"] if isinstance(row["draft"], dict) else configs[row["draft"]]
        (Path(folder) / "draft").mkdir()
        (Path(folder) / "draft" / "config.json").write_text(json.dumps(draft))
        options["speculative_config"]["model"] = str(Path(folder) / "draft")
    (Path(folder) / "config.json").write_text(json.dumps(configs[row["model"]]))
    arguments = EngineArgs(
        model=folder, skip_tokenizer_init=True, load_format="dummy", tensor_parallel_size=row["tp"],
        pipeline_parallel_size=row["pp"], decode_context_parallel_size=row["dcp"],
        distributed_executor_backend="mp" if row["tp"] * row["pp"] > 1 else None, **options,
    )  # fmt: skip
    config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
    config.kernel_config.enable_jit_warmup = False
    return config


def set_groups(row, stage):
    import vllm.distributed.parallel_state as state

    tp, pp = row["tp"], row["pp"]
    state._TP, state._PP, state._DCP, state._PCP, state._DP = (
        Group(tp), Group(pp, stage), Group(row["dcp"]), Group(1), Group(1),
    )  # fmt: skip
    state._EP, state._EPLB, state._ETP = Group(tp), Group(tp), Group(tp)
    state._WORLD = state._INNER_DP_WORLD = Group(tp * pp, stage * tp)
    state._NODE_COUNT = 1


def layers_of(config):
    from vllm.config.vllm import get_layers_from_vllm_config
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    return get_layers_from_vllm_config(config, AttentionLayerBase)


def build(config):
    """Parameter bytes of the model and of what drafts on this stage; layers register themselves in the configuration."""
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype
    from vllm.v1.worker.workspace import init_workspace_manager, reset_workspace_manager

    reset_workspace_manager()
    init_workspace_manager(torch.device("cpu"))
    config.compilation_config.static_forward_context.clear()
    with set_default_torch_dtype(config.model_config.dtype), torch.device("meta"), OnMeta():
        model = initialize_model(config)
        draft = drafting(config)
    return sum(map(bytes_of, model.parameters())), parts_of(draft)


def bytes_of(tensor):
    return tensor.numel() * tensor.element_size()


def parts_of(draft):
    """Bytes of the draft's own table of tokens, its own output head, all else."""
    sizes = [0, 0, 0]
    for name, tensor in draft.named_parameters() if draft is not None else ():
        sizes[0 if "embed" in name else 1 if "lm_head" in name else 2] += bytes_of(tensor)
    return sizes


def drafting(config):
    """The model that drafts, on the last stage, None elsewhere; its layers are marked."""
    import vllm.distributed.parallel_state as state
    from vllm.model_executor.model_loader.utils import initialize_model

    asked = config.speculative_config
    if asked is None or asked.method in ("ngram", "suffix") or not state._PP.is_last_rank:
        return None
    before = set(layers_of(config))
    if asked.method == "draft_model":
        draft = standing_alone(config)
    else:
        draft = initialize_model(asked.apply_draft_overrides(config), model_config=asked.draft_model_config)
    for name, layer in layers_of(config).items():
        if name not in before:
            layer.is_draft_layer = True
    return draft


def standing_alone(config):
    """A whole model, built as v1/worker/gpu/spec_decode/standalone_ar/speculator.py `load_draft_model` has it built."""
    from vllm.config import replace
    from vllm.model_executor.model_loader.utils import initialize_model

    asked = config.speculative_config
    parallel = replace(asked.draft_parallel_config, rank=config.parallel_config.rank)
    own = replace(config, model_config=asked.draft_model_config, quant_config=None, parallel_config=parallel)
    return initialize_model(own, prefix="draft_model")


def stage_specs(config, row, stage):
    """(parameter bytes, those of what drafts, specs of the layers, layouts that their backends take) of one stage."""
    from vllm.config import set_current_vllm_config
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    set_groups(row, stage)
    config.parallel_config.rank = stage * row["tp"]
    num_bytes, drafts = build(config)
    current_platform.update_block_size_for_backend(config)
    config.validate_block_size()
    with set_current_vllm_config(config):
        backends = list(dict.fromkeys(layer.get_attn_backend() for layer in layers_of(config).values()))
        layouts = [layout.name for layout in get_supported_kv_cache_layouts(backends)]
        return num_bytes, drafts, get_kv_cache_spec(config), layouts


def plan(row, configs, folder):
    """(what vLLM plans, parameter bytes of each stage, those of what drafts)"""
    from vllm.v1.attention.backends.utils import resolve_kv_cache_layout
    from vllm.v1.core.kv_cache_planning import _pool_bytes_per_block, get_global_kv_cache_groups, get_kv_cache_configs
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs

    config = engine_config(row, configs, folder)
    stages = [stage_specs(config, row, stage) for stage in range(row["pp"])]
    weights, drafts, specs, layouts = map(list, zip(*stages, strict=True))
    register_all_kvcache_specs(config)
    resolve_kv_cache_layout(config, layouts, [spec for stage in specs for spec in stage.values()])
    groups = get_global_kv_cache_groups(config, specs)
    planned = get_kv_cache_configs(config, specs, [row["kv_memory_bytes"]] * row["pp"], groups)
    tokens, concurrency = get_kv_cache_capacity(config, planned[0])
    expect = {
        "num_blocks": planned[0].num_blocks,
        "num_tokens": tokens,
        "max_concurrency": concurrency,
        "groups": [[len(g.layer_names), g.kv_cache_spec.block_size, g.kv_cache_spec.page_size_bytes] for g in groups],
        "bytes_per_block": max(_pool_bytes_per_block(config, stage.kv_cache_groups) for stage in planned),
    }
    return expect, weights, drafts[-1]


def main():
    arch, source, target = sys.argv[1:]
    capability = tuple(map(int, arch.split(".")))
    stand_in_for_torch(capability, *GPUS[arch])
    stand_in_for_triton(capability)
    stand_in_for_the_device(capability, *GPUS[arch])
    configs = {
        row["model"]: row["config"] for row in map(json.loads, (HERE / "configs.jsonl").read_text().splitlines())
    }
    rows = [row for row in map(json.loads, Path(source).read_text().splitlines()) if row["gpu"] == arch]
    with Path(target).open("w") as out:
        for row in rows:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    row["expect"], row["weight_bytes"], drafts = plan(row, configs, folder)
                    if "draft_bytes" in row:
                        row["draft_bytes"] = drafts
                except Exception as error:
                    row["error"] = f"{type(error).__name__}: {error}"
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
