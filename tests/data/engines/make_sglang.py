"""Has SGLang 0.5.23's own code count what stands beside a model: layers that draft, slots for adapters.

    unzip sglang-0.5.23-*.whl 'sglang/srt/*' -d wheel
    python make_sglang.py wheel sglang_beside.jsonl

Three modules of the wheel run as they are, on a CPU: which layers of a draft are counted
(`model_runner_components/spec_aux_hidden_state.py`), what a token takes and how many there are
(`model_executor/pool_configurator.py`), and the buffers of adapters (`lora/mem_pool.py`, on the meta device). Every
other module is stood in for, and a model is its configuration. Needs torch and msgspec.
"""

import importlib
import importlib.abc
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch

HERE = Path(__file__).parent
REAL = {
    "sglang.srt.model_executor.pool_configurator",
    "sglang.srt.model_executor.model_runner_components.spec_aux_hidden_state",
    "sglang.srt.lora.mem_pool",
    "sglang.srt.lora.utils",
}
BUDGET = 51_539_619_897
EAGLE3 = {
    "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 1, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "draft_vocab_size": 32000, "tie_word_embeddings": False, "torch_dtype": "float16",
    "max_position_embeddings": 2048,
}  # fmt: skip
DRAFTS = [
    ("llama-3.1-8b", EAGLE3, "eagle3", {}),
    ("llama-3.1-8b", EAGLE3, "eagle3", {"tp": 2, "page": 64}),
    ("llama-3.1-8b", EAGLE3 | {"num_hidden_layers": 3}, "eagle3", {"kv": "fp8"}),
    ("llama-3.1-8b", "llama-3.2-1b-plain", "draft_model", {}),
    ("llama-3.1-405b", "llama-3.1-8b", "draft_model", {"tp": 8}),
    ("llama-2-70b", "llama-2-7b", "draft_model", {"tp": 8, "page": 16}),
    ("llama-2-70b", "llama-2-13b", "draft_model", {"tp": 4}),
    ("gpt-oss-120b", EAGLE3 | {"hidden_size": 2880, "vocab_size": 201088}, "eagle3", {}),
    ("gpt-oss-120b", "gpt-oss-20b", "draft_model", {"tp": 2}),
    ("kimi-k2", EAGLE3 | {"hidden_size": 7168, "num_attention_heads": 64, "vocab_size": 163840}, "eagle3", {"tp": 16}),
    ("deepseek-v3", None, "mtp", {"tp": 16}),
    ("deepseek-v3.2", None, "mtp", {"tp": 16, "page": 64}),
    ("glm-4.5-air", None, "mtp", {"tp": 4}),
    ("qwen3-next", None, "mtp", {"tp": 2}),
]  # fmt: skip
"""(model, draft, method, how it is served)."""
ADAPTERS = [
    ("llama-3.1-8b", 8, 16, ["q_proj", "v_proj"], 1), ("llama-3.1-8b", 4, 64, ["all"], 1),
    ("llama-3.1-8b", 4, 64, ["all"], 4), ("llama-3.1-8b", 2, 8, ["o_proj", "down_proj"], 2),
    ("llama-2-70b", 3, 32, ["q_proj", "gate_proj"], 16), ("qwen3-8b", 8, 16, ["all"], 2),
    ("qwen2.5-7b", 1, 128, ["all"], 1), ("mistral-7b-v0.1", 8, 16, ["lm_head", "k_proj"], 2),
    ("mixtral-8x7b", 2, 16, ["all"], 2), ("qwen3-30b-a3b", 8, 16, ["all"], 4),
    ("deepseek-v3", 2, 16, ["all"], 8), ("deepseek-v3", 2, 16, ["gate_proj", "q_a_proj"], 8),
]  # fmt: skip
"""(model, slots, rank, target modules, tp)."""
OWN_DRAFTS = ("DeepseekV3ForCausalLM", "DeepseekV32ForCausalLM", "Glm4MoeForCausalLM")
"""Of the classes above, those whose checkpoint SGLang names as the draft's (arg_groups/speculative_hook.py)."""


class Nothing(types.ModuleType):
    """Stands for a module: has whatever is asked of it."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, MagicMock(name=name))
        return getattr(self, name)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for all of SGLang but `REAL`, and the packages on the way to it."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "sglang" or name in REAL or any(real.startswith(f"{name}.") for real in REAL):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Nothing(spec.name)

    def exec_module(self, module):
        pass


class FusedMoE:
    is_shared_fused_moe = False


class ParallelLMHead:
    def __init__(self, rows):
        self.shard_indices = SimpleNamespace(num_org_elements=rows)


def model_config(config):
    """What SGLang's ModelConfig says of a configuration, where these modules ask."""
    text = SimpleNamespace(**config)
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads") or config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    types_of = config.get("layer_types") or []
    hybrid = config["architectures"][0] == "GptOssForCausalLM"
    layers = config["num_hidden_layers"]
    sliding = [i for i, kind in enumerate(types_of) if kind == "sliding_attention"] if hybrid else []
    return SimpleNamespace(
        hf_config=text, hf_text_config=text, head_dim=width, v_head_dim=width, swa_head_dim=width,
        swa_v_head_dim=width, kv_lora_rank=config.get("kv_lora_rank"), qk_rope_head_dim=config.get("qk_rope_head_dim"),
        get_num_kv_heads=lambda tp, dcp=1: max(1, kv_heads // max(1, tp // dcp)),
        get_swa_num_kv_heads=lambda tp: max(1, kv_heads // tp), num_hidden_layers=layers, num_attention_layers=layers,
        num_nextn_predict_layers=config.get("num_nextn_predict_layers"), is_hybrid_swa=hybrid,
        is_deepseek_v4_arch=False, attention_arch="MHA", swa_attention_layer_ids=sliding, context_len=4096,
        full_attention_layer_ids=[i for i in range(layers) if i not in sliding],
    )  # fmt: skip


def counted(aux, model, draft, method, config):
    """The fields that say which layers of the draft the pool counts."""
    named = draft if draft is not None else model if config["architectures"][0] in OWN_DRAFTS else None
    aux.get_spec = lambda: SimpleNamespace(
        speculative_draft_model_path="draft" if named is not None else None, speculative_draft_model_revision=None
    )
    aux.ModelConfig = SimpleNamespace(from_server_args=lambda *_, **__: named or model)
    found = aux.SpecAuxHiddenStateConfig()
    aux._resolve_eagle_aux_hidden_state(
        config=found, server_args=None, model_config=model, is_draft_worker=False, spec_algorithm=algorithm(method)
    )
    return found


def algorithm(method):
    return SimpleNamespace(
        is_eagle=lambda: method != "draft_model", is_standalone=lambda: method == "draft_model",
        is_eagle3=lambda: method == "eagle3", is_dflash_family=lambda: False,
    )  # fmt: skip


def drafted(pools, aux, config, draft, method, served):
    """Bytes of a token, and the tokens that the budget gives."""
    model, other = model_config(config), None if draft is None else model_config(draft)
    tp, page = served.get("tp", 1), served.get("page", 1)
    pools.get_parallel = lambda: SimpleNamespace(attn_tp_size=tp, attn_dcp_size=1)
    pools.get_memory = lambda: SimpleNamespace(enable_hisparse=False, enable_unified_memory=False)
    pools.get_schedule = lambda: SimpleNamespace(max_total_tokens=None, swa_full_tokens_ratio=0.8)
    pools.is_deepseek_dsa = lambda hf: "index_topk" in vars(hf)
    pools.get_dsa_index_head_dim = lambda hf: hf.index_head_dim
    pools.get_dsa_index_kpool = lambda hf: 1
    pools.DSATokenToKVPool = SimpleNamespace(quant_block_size=128, index_k_with_scale_buffer_dtype=torch.uint8)
    pools.is_minimax_sparse = pools.is_float4_e2m1fn_x2 = pools.is_deepseek_v4 = lambda _: False
    pools.compute_page_shard_scratch_bytes = lambda *_, **__: 0
    pools.envs = SimpleNamespace(SGLANG_NPU_ENABLE_SPARSE_KV_OFFLOAD=SimpleNamespace(get=lambda: False))
    pools._is_npu = False
    pools.ceil_div = lambda a, b: -(-a // b)
    pools.DefaultPoolConfigurator._compute_qsa_cell_size = staticmethod(lambda **_: 0)
    full = [i for i in range(model.num_hidden_layers) if (i + 1) % config.get("full_attention_interval", 1) == 0]
    hybrid = SimpleNamespace(full_attention_layer_ids=full) if "linear_num_key_heads" in config else None
    pools.mambaish_config = lambda _: hybrid
    sys.modules["sglang.srt.layers.cp.utils"].get_glm_dsa_layer_split_effective_num_layers = lambda _, n: n
    configurator = sys.modules["sglang.srt.mem_cache.kv_cache_configurator"]
    configurator.calculate_mla_kv_cache_dim = lambda *, model_config, **_: (
        model_config.kv_lora_rank + model_config.qk_rope_head_dim
    )
    configurator._should_elide_dsa_index_k = lambda **_: False
    kvc = SimpleNamespace(
        model_config=model, kv_cache_dtype={"fp8": torch.float8_e4m3fn}.get(served.get("kv"), torch.bfloat16),
        kv_cache_dtype_str="auto", server_args=SimpleNamespace(enable_hisparse=False), page_size=page, pp_size=1,
        use_mla_backend="kv_lora_rank" in config, is_draft_worker=False, spec_algorithm=algorithm(method),
        spec_aux_config=counted(aux, model, other, method, config), fused_entry_bytes=lambda _: None,
        mambaish_config=hybrid, sliding_window_size=config.get("sliding_window"),
        layer_info=SimpleNamespace(
            start_layer=0, end_layer=model.num_hidden_layers, num_effective_layers=model.num_hidden_layers,
            full_attention_layer_ids=model.full_attention_layer_ids,
            swa_attention_layer_ids=model.swa_attention_layer_ids,
        ),
    )  # fmt: skip
    made = (pools.HybridSWAPoolConfigurator if model.is_hybrid_swa else pools.DefaultPoolConfigurator)(kvc)
    sizes = made.calculate_pool_sizes(BUDGET, page)
    return {"cell": made._cell_size, "tokens": sizes.max_total_num_tokens, "sliding": sizes.swa_max_total_num_tokens}


def adapted(lora, utils, config, slots, rank, modules, tp):
    """Bytes of all buffers of one rank."""
    routed = any(key in config for key in ("num_experts", "num_local_experts", "n_routed_experts"))
    text = SimpleNamespace(**config)
    targets = utils.get_normalized_target_modules(modules)
    if "all" in targets:
        attention = {"fused_qkv_a_proj_with_mqa", "q_b_proj", "kv_b_proj"} if "kv_lora_rank" in config else {"qkv_proj"}
        targets = attention | {"o_proj", "gate_up_proj", "down_proj", *utils.EMBEDDING_NAMES}
    lora.get_parallel = lambda: SimpleNamespace(
        tp_size=tp, tp_rank=0, attn_tp_size=tp, moe_ep_size=1, moe_ep_rank=0, moe_tp_size=tp, moe_tp_rank=0
    )
    lora.divide = lambda a, b: a // b
    head = ParallelLMHead(min(config["vocab_size"], -(-config["vocab_size"] // 64) * 64 // tp))
    modules_of = [head, *([FusedMoE()] if routed else [])]
    model = SimpleNamespace(
        config=text, parameters=lambda: iter([torch.empty(0, device="meta")]), modules=lambda: modules_of,
        named_modules=lambda: [(str(i), module) for i, module in enumerate(modules_of)],
    )  # fmt: skip
    pool = lora.LoRAMemoryPool(text, slots, torch.bfloat16, rank, targets, model, "lru", 0)
    buffers = [t for side in (pool.A_buffer, pool.B_buffer) for layers in side.values() for t in layers]
    for tables in (pool.embedding_A_buffer, pool.embedding_B_buffer, pool.lm_head_A_buffer, pool.lm_head_B_buffer):
        buffers += tables.values()
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in buffers}.values())


def main(wheel, out):
    sys.path.insert(0, wheel)
    sys.meta_path.insert(0, Finder())
    pools, aux, lora, utils = (importlib.import_module(name) for name in (
        "sglang.srt.model_executor.pool_configurator",
        "sglang.srt.model_executor.model_runner_components.spec_aux_hidden_state",
        "sglang.srt.lora.mem_pool", "sglang.srt.lora.utils",
    ))  # fmt: skip
    for name in ("layers.cp.utils", "mem_cache.kv_cache_configurator"):
        importlib.import_module(f"sglang.srt.{name}")
    importlib.import_module("sglang.srt.layers.moe.fused_moe_triton.layer").FusedMoE = FusedMoE
    importlib.import_module("sglang.srt.layers.vocab_parallel_embedding").ParallelLMHead = ParallelLMHead
    rows = map(json.loads, (HERE / "configs.jsonl").read_text().splitlines())
    configs = {row["model"]: row["config"] for row in rows}
    lines = []
    for name, draft, method, served in DRAFTS:
        config = configs[draft] if isinstance(draft, str) else draft
        found = drafted(pools, aux, configs[name], config, method, served)
        lines.append({"model": name, "draft": draft, "method": method, **served, "kv_bytes": BUDGET, **found})
    for name, slots, rank, modules, tp in ADAPTERS:
        found = adapted(lora, utils, configs[name], slots, rank, modules, tp)
        lines.append({"model": name, "loras": slots, "rank": rank, "modules": modules, "tp": tp, "bytes": found})
    Path(out).write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
