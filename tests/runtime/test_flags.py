"""What engines' arguments say: as logs name them, and that the tables agree with themselves and with the engines."""

import pytest

from kvplan.core.engines.table import find_engine
from kvplan.core.errors import InputError
from kvplan.runtime.flags import options_from_args
from kvplan.runtime.flags.argument import Argument
from kvplan.runtime.flags.parse import args_from_words
from kvplan.runtime.flags.table import find_dialect

ENGINES = ("vllm", "sglang", "trtllm", "llamacpp")
PLAIN = frozenset(
    {
        "max_model_len", "tp", "pp", "dp", "dcp", "pcp", "dtype", "kv_dtype", "quant", "gpu_memory_utilization",
        "kv_memory_bytes",
    }
)  # fmt: skip

# Arguments as logs print them: vLLM's `non-default args`, and of SGLang's ServerArgs (0.5.9, Qwen2.5-0.5B on an H100)
# what is not None, False or empty.
VLLM_LOGS = [
    (
        {"model_tag": "zai-org/GLM-OCR", "port": 8080, "model": "zai-org/GLM-OCR", "dtype": "float16",
         "allowed_local_media_path": "/", "max_model_len": 4096, "served_model_name": ["glm-ocr"],
         "gpu_memory_utilization": 0.55},
        {"dtype": "fp16", "max_model_len": 4096, "gpu_memory_utilization": 0.55},
        (),
    ),
    (
        {"model": "m", "port": 18000, "dtype": "bfloat16", "max_model_len": 2048, "enable_prefix_caching": False,
         "max_num_seqs": 1, "disable_hybrid_kv_cache_manager": True},
        {"dtype": "bf16", "max_model_len": 2048, "prefix_caching": False, "max_num_seqs": 1, "hybrid_manager": False},
        (),
    ),
    (
        {"model": "m", "seed": 0, "distributed_executor_backend": "ray", "pipeline_parallel_size": 2,
         "tensor_parallel_size": 4, "enable_lora": None, "trust_remote_code": True, "enforce_eager": True},
        {"pp": 2, "tp": 4, "enforce_eager": True},
        (),
    ),
    (
        {"speculative_config": {"method": "deepseek_mtp", "num_speculative_tokens": 1}, "cpu_offload_gb": 4.0,
         "offload_group_size": 8,
         "kv_cache_dtype": "fp6_next", "max_loras": 2},
        {"num_speculative_tokens": 1, "speculative_method": "mtp", "cpu_offload_bytes": 4 * 2**30},
        ("--offload-group-size 8", "--kv-cache-dtype fp6_next"),
    ),
    (
        {"attention_backend": "<AttentionBackendEnum.FLASH_ATTN: 'vllm.v1'>", "enable_expert_parallel": True,
         "compilation_config": {"level": None, "cudagraph_mode": None, "cudagraph_capture_sizes": [1, 2, 64]}},
        {"attention_backend": "FLASH_ATTN", "expert_parallel": True, "cuda_graph_max_bs": 64},
        (),
    ),
    (
        {"compilation_config": {"cudagraph_mode": "<CUDAGraphMode.PIECEWISE: 1>"}, "enable_chunked_prefill": False},
        {},
        ("--compilation-config.cudagraph_mode <CUDAGRAPHMODE.PIECEWISE: 1>", "--no-enable-chunked-prefill"),
    ),
    ({"quantization": "awq_marlin", "kv_cache_memory_bytes": 8589934592}, {"kv_memory_bytes": 8589934592}, ()),
    ({"quantization": "bitsandbytes", "max_model_len": -1}, {}, ("--quantization bitsandbytes", "--max-model-len -1")),
]  # fmt: skip
SERVER_ARGS = {
    "model_path": "qwen/qwen2.5-0.5b-instruct", "tokenizer_path": "qwen/qwen2.5-0.5b-instruct", "load_format": "auto",
    "tokenizer_mode": "auto", "tokenizer_worker_num": 1, "model_loader_extra_config": "{}", "model_impl": "auto",
    "host": "127.0.0.1", "port": 30000, "dtype": "auto", "kv_cache_dtype": "auto", "mem_fraction_static": 0.835,
    "max_running_requests": 128, "max_total_tokens": 20480, "chunked_prefill_size": 8192, "max_prefill_tokens": 16384,
    "schedule_policy": "fcfs", "priority_scheduling_preemption_threshold": 10, "schedule_conservativeness": 1.0,
    "page_size": 1, "swa_full_tokens_ratio": 0.8, "radix_eviction_policy": "lru", "device": "cuda", "tp_size": 1,
    "prefill_delayer_max_delay_passes": 30, "pp_size": 1, "stream_interval": 1, "random_seed": 887239442,
    "watchdog_timeout": 300, "soft_watchdog_timeout": 300, "gpu_id_step": 1, "log_level": "error",
    "log_requests_level": 2, "log_requests_format": "text", "decode_log_interval": 40, "weight_version": "default",
    "tokenizer_metrics_custom_labels_header": "x-custom-labels", "otlp_traces_endpoint": "localhost:4317",
    "served_model_name": "qwen", "file_storage_path": "sglang_storage", "sampling_defaults": "model", "dp_size": 1,
    "load_balance_method": "round_robin", "attn_cp_size": 1, "moe_dp_size": 1, "nnodes": 1, "max_loras_per_batch": 8,
    "json_model_override_args": "{}", "lora_eviction_policy": "lru", "lora_backend": "csgmv", "max_lora_chunk_size": 16,
    "attention_backend": "fa3", "sampling_backend": "flashinfer", "grammar_backend": "xgrammar",
    "fp8_gemm_runner_backend": "auto", "mamba_backend": "triton", "speculative_accept_threshold_single": 1.0,
    "speculative_accept_threshold_acc": 1.0, "speculative_attention_mode": "prefill",
    "speculative_moe_runner_backend": "auto", "speculative_ngram_min_match_window_size": 1,
    "speculative_ngram_max_match_window_size": 12, "speculative_ngram_min_bfs_breadth": 1,
    "speculative_ngram_max_bfs_breadth": 10, "speculative_ngram_match_type": "BFS", "speculative_ngram_capacity": 10**7,
    "speculative_ngram_branch_length": 18, "ep_size": 1, "moe_a2a_backend": "none", "moe_runner_backend": "auto",
    "flashinfer_mxfp4_moe_precision": "default", "deepep_mode": "auto", "init_expert_location": "trivial",
    "eplb_algorithm": "auto", "eplb_rebalance_num_iterations": 1000, "mamba_scheduler_strategy": "no_buffer",
    "eplb_min_rebalancing_utilization_threshold": 1.0, "expert_distribution_recorder_buffer_size": 1000,
    "mamba_full_memory_ratio": 0.9, "mamba_track_interval": 256, "linear_attn_backend": "triton", "hicache_ratio": 2.0,
    "hicache_write_policy": "write_through", "hicache_io_backend": "kernel", "hicache_mem_layout": "layer_first",
    "hicache_storage_prefetch_policy": "best_effort", "ds_heavy_channel_num": 32, "ds_heavy_token_num": 256,
    "ds_heavy_channel_type": "qk", "ds_sparse_decode_threshold": 4096, "offload_group_size": -1,
    "offload_num_in_group": 1, "offload_prefetch_step": 1, "offload_mode": "cpu", "cuda_graph_max_bs": 4,
    "cuda_graph_bs": [1, 2, 4], "disable_cuda_graph": True, "tbo_token_distribution_threshold": 0.48,
    "torch_compile_max_bs": 32, "piecewise_cuda_graph_max_tokens": 8192, "piecewise_cuda_graph_tokens": [4, 8],
    "piecewise_cuda_graph_compiler": "eager", "triton_attention_num_kv_splits": 8, "num_continuous_decode_steps": 1,
    "scheduler_recv_interval": 1, "nsa_prefill_cp_mode": "round-robin-split", "dynamic_batch_tokenizer_batch_size": 32,
    "dynamic_batch_tokenizer_batch_timeout": 0.002, "disaggregation_mode": "null", "num_reserved_decode_tokens": 512,
    "disaggregation_transfer_backend": "mooncake", "disaggregation_bootstrap_port": 8998,
    "disaggregation_decode_polling_interval": 1, "encoder_transfer_backend": "zmq_to_scheduler", "sm_group_num": 8,
    "remote_instance_weight_loader_backend": "nccl", "mm_max_concurrent_calls": 32, "mm_per_request_timeout": 10.0,
    "max_running": None, "disable_radix_cache": False, "enable_memory_saver": False, "mm_process_config": {},
}  # fmt: skip


@pytest.mark.parametrize(("args", "options", "unread"), VLLM_LOGS, ids=range(len(VLLM_LOGS)))
def test_what_vllm_prints(args: dict[str, object], options: dict[str, object], unread: tuple[str, ...]) -> None:
    assert options_from_args("vllm", args) == (options, unread)


def test_what_sglang_prints() -> None:
    options, unread = options_from_args("sglang", SERVER_ARGS)
    assert unread == ()
    assert options == {
        "tp": 1, "pp": 1, "dp": 1, "dtype": "auto", "kv_dtype": "auto", "gpu_memory_utilization": 0.835,
        "max_num_seqs": 128, "max_num_batched_tokens": 8192, "max_pool_tokens": 20480, "block_size": 1,
        "prefix_caching": True, "enforce_eager": True, "attention_backend": "fa3", "swa_full_tokens_ratio": 0.8,
        "mamba_full_memory_ratio": 0.9, "cuda_graph_max_bs": 4,
    }  # fmt: skip


SGLANG_PARTS = [
    ({"tp_size": 8, "dp_size": 8, "enable_dp_attention": True}, {"tp": 8, "dp": 8, "attention_dp": True}, ()),
    ({"tp_size": 8, "dp_size": 2, "attn_dp_size": 4}, {"tp": 8, "dp": 8, "attention_dp": True}, ()),
    ({"moe_a2a_backend": "deepep"}, {"expert_parallel": True}, ("--moe-a2a-backend deepep",)),
    (
        {"speculative_algorithm": "EAGLE", "speculative_num_steps": 3, "speculative_num_draft_tokens": 4},
        {"speculative_method": "mtp", "num_speculative_tokens": 3},
        (),
    ),
    (
        {"speculative_algorithm": "EAGLE3", "speculative_draft_model_path": "o/d", "speculative_num_steps": 5},
        {"speculative_method": "eagle3", "draft_model": "o/d", "num_speculative_tokens": 5},
        (),
    ),
    (
        {
            "enable_lora": True,
            "max_loras_per_batch": 4,
            "max_lora_rank": 64,
            "lora_target_modules": ["q_proj", "v_proj"],
            "lora_paths": ["a=o/a"],
        },
        {"max_loras": 4, "max_lora_rank": 64, "lora_target_modules": ("q_proj", "v_proj")},
        (),
    ),
    ({"lora_paths": ["o/a"], "max_loras_per_batch": 8}, {}, ("--lora-paths",)),
    ({"enable_lora": False, "lora_paths": ["o/a"]}, {}, ()),
    (
        {
            "disable_hybrid_swa_memory": True,
            "chunked_prefill_size": -1,
            "enable_lora": True,
            "disable_radix_cache": True,
        },
        {"prefix_caching": False},
        ("--disable-hybrid-swa-memory", "--chunked-prefill-size -1", "--enable-lora"),
    ),
]


@pytest.mark.parametrize(("args", "options", "unread"), SGLANG_PARTS, ids=range(len(SGLANG_PARTS)))
def test_what_sglang_is_told(args: dict[str, object], options: dict[str, object], unread: tuple[str, ...]) -> None:
    assert options_from_args("sglang", args) == (options, unread)


def test_trtllms_settings_are_trees_or_dotted_names() -> None:
    tree = {
        "kv_cache_config": {"free_gpu_memory_fraction": 0.8, "dtype": "fp8", "tokens_per_block": 64},
        "cuda_graph_config": None,
        "speculative_config": {"decoding_type": "MTP", "num_nextn_predict_layers": 3},
        "max_batch_size": 256,
        "moe_config": {"backend": "TRTLLM", "max_num_tokens": 4096},
    }
    dotted = {
        "kv_cache_config.free_gpu_memory_fraction": "0.8",
        "kv_cache_config.dtype": "fp8",
        "kv_cache_config.tokens_per_block": "64",
        "cuda_graph_config": "null",
        "speculative_config.decoding_type": "MTP",
        "speculative_config.num_nextn_predict_layers": "3",
        "max_batch_size": "256",
        "moe_config.backend": "TRTLLM",
        "moe_config.max_num_tokens": "4096",
    }
    told = {
        "gpu_memory_utilization": 0.8, "kv_dtype": "fp8", "block_size": 64, "max_num_seqs": 256, "enforce_eager": True,
        "speculative_method": "mtp", "num_speculative_tokens": 3,
    }  # fmt: skip
    unread = ("--moe_config.max_num_tokens 4096",)
    assert options_from_args("trtllm", tree) == options_from_args("trtllm", dotted) == (told, unread)


def test_llamacpps_keys_and_values_have_formats_of_their_own() -> None:
    read = options_from_args
    assert read("llamacpp", {"cache_type_k": "q8_0"}) == ({"kv_dtype": "q8_0/fp16"}, ())
    assert read("llamacpp", {"cache_type_v": "q4_0", "cache_type_k": "q4_0"}) == ({"kv_dtype": "q4_0"}, ())
    assert read("llamacpp", {"cache_type_k": "q9"}) == ({}, ("--cache-type-k q9", "--cache-type-v f16"))


@pytest.mark.parametrize(
    ("given", "read"),
    [("16k", 16000), ("16K", 16384), ("25.6k", 25600), ("1m", 10**6), ("1M", 2**20), (4096, 4096), ("4096", 4096)],
)
def test_lengths_as_vllm_takes_them(given: object, read: int) -> None:
    """vllm/utils/argparse_utils.py, human_readable_int."""
    assert options_from_args("vllm", {"max_model_len": given}) == ({"max_model_len": read}, ())


@pytest.mark.parametrize(
    ("engine", "args"),
    [
        ("vllm", {"max_model_len": "long"}), ("vllm", {"max_model_len": "1.5K"}), ("vllm", {"max_model_len": "infk"}),
        ("vllm", {"tensor_parallel_size": 0}), ("vllm", {"gpu_memory_utilization": 1.5}), ("vllm", {"enable_lora": "x"}),
        ("vllm", {"gpu_memory_utilization": "nan"}), ("vllm", {"speculative_config": "mtp"}),
        ("vllm", {"speculative_config": "[" * 100_000}), ("vllm", {"cudagraph_capture_sizes": "1 two"}),
        ("vllm", {"max_num_seqs": True}), ("sglang", {"dp_size": "two"}), ("sglang", {"cuda_graph_bs": ["x"]}),
        ("trtllm", {"kv_cache_config": {"tokens_per_block": "x"}}), ("trtllm", {"ep_size": 0}),
        ("llamacpp", {"tensor_split": "a,b"}), ("llamacpp", {"n_gpu_layers": "-7"}), ("llamacpp", {"flash_attn": "?"}),
        ("transformers", {}), ("vllm@0.19", {}),
    ],
    ids=str,
)  # fmt: skip
def test_what_an_engine_would_refuse(engine: str, args: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        options_from_args(engine, args)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_told_its_own_switches_and_all_of_them(engine: str) -> None:
    dialect = find_dialect(engine)
    told = {argument.option for argument in dialect.arguments if argument.option}
    told |= dialect.joint_options | set(dialect.variables)
    pooled = find_engine(engine).pooled
    assert pooled is not None
    # TensorRT-LLM's windows depend on the model where no flag sets them, and nothing sets the convolutions' format.
    # `states_apart` is about a size that kvplan is given, no flag of SGLang's.
    # llama.cpp's build, and the conversion of the file, decide where the output goes and what is kept of latents.
    untold = {
        "trtllm": {"conv_dtype", "hybrid_manager"},
        "sglang": {"states_apart"},
        "llamacpp": {"latent_cache", "output_last"},
    }
    assert pooled.switches - told <= untold.get(engine, set())
    assert told - pooled.switches <= PLAIN


def _names(arguments: tuple[Argument, ...]) -> list[str]:
    return [name for argument in arguments for name in {argument.key, *argument.older}]


@pytest.mark.parametrize("engine", ENGINES)
def test_no_argument_stands_twice(engine: str) -> None:
    dialect = find_dialect(engine)
    names = _names(dialect.arguments)
    assert len(names) == len(set(names))
    spellings = [flag for argument in dialect.arguments for flag in (*argument.flags, *argument.off)]
    assert len(spellings) == len(set(spellings))
    assert not set(names) & (dialect.silent | dialect.silent_bare)
    assert not dialect.silent & dialect.silent_bare
    assert dialect.silent_many <= dialect.silent
    assert not set(dialect.defaults) & (set(names) | dialect.silent | dialect.silent_bare)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_spelling_is_found_again(engine: str) -> None:
    for argument in find_dialect(engine).arguments:
        for flag in argument.flags:
            args, loose = args_from_words(engine, [flag] if argument.value.bare else [flag, "1"])
            assert (set(args), loose) == ({argument.key}, [])
        for flag in argument.off:
            assert args_from_words(engine, [flag]) == ({argument.key: False}, [])
