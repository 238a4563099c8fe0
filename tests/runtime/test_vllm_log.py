"""vLLM's logs: the figures of each file, typed in from it by hand, and wordings of other versions."""

import pytest

from kvplan.runtime.log import read_log
from tests.runtime.logs import FOLDER, by_rank, printed, read_one, values


def test_v0_llama():
    """0.6.6: the account in one line, blocks on GPU and CPU, sizes with four decimals."""
    seen = read_one("vllm-0.6-v0-llama.log")
    assert (seen.engine, seen.version, seen.model) == ("vllm", "0.6.6.post1", "meta-llama/Llama-3.1-8B-Instruct")
    assert printed(seen) == {
        "weights": [(14.9888, "GiB", 0.00005, None)],
        "device_total": [(79.10, "GiB", 0.005, None)],
        "utilization": [(0.90, "rounded share", 0.005, None)],
        "requested": [(71.19, "GiB", 0.005, None)],
        "non_torch": [(0.12, "GiB", 0.005, None)],
        "activation_peak": [(1.56, "GiB", 0.005, None)],
        "kv_memory": [(54.52, "GiB", 0.005, None)],
        "num_blocks": [(27913, "blocks", 0.0, None)],
        "num_cpu_blocks": [(2048, "blocks", 0.0, None)],
        "concurrency_len": [(8192, "tokens", 0.0, None)],
        "max_concurrency": [(54.52, "x", 0.005, None)],
        "graphs": [(0.26, "GiB", 0.005, None)],
    }
    assert seen.options["max_model_len"] == 8192
    assert seen.options["max_num_seqs"] == 256
    assert seen.options["prefix_caching"] is False
    assert seen.unread == ()
    assert seen.facts["attention_backend"] == "FLASH_ATTN"
    assert seen.errors == ()


def test_v1_qwen3_on_one_a100():
    seen = read_one("vllm-0.9-qwen3-8b.log")
    assert (seen.version, seen.model, seen.num_gpus) == ("0.9.2", "Qwen/Qwen3-8B", 1)
    assert printed(seen) == {
        "weights": [(15.2683, "GiB", 0.00005, None)],
        "kv_memory": [(18.69, "GiB", 0.005, None)],
        "num_tokens": [(136_080, "tokens", 0.0, None)],
        "concurrency_len": [(40_960, "tokens", 0.0, None)],
        "max_concurrency": [(3.32, "x", 0.005, None)],
        "graphs": [(2.24, "GiB", 0.005, None)],
        "num_blocks": [(8505, "blocks", 0.0, None)],
    }
    assert seen.options["max_num_batched_tokens"] == 2048
    assert seen.options["max_model_len"] == 40_960


def test_a_size_whose_last_zero_is_left_out_is_as_fine_as_the_others():
    """0.19 prints `55.7GiB` for 55.70 and `15.0 GiB` for 15.00: `round(x, 2)`."""
    assert read_one("vllm-0.19-gemma-3-27b.log").figures["non_kv"][0].half_step == 0.005
    assert read_one("vllm-0.33-llama.log").figures["weights"][0].half_step == 0.005


def test_codellama_with_the_debug_account():
    seen = read_one("vllm-0.19-codellama-7b.log")
    assert (seen.version, seen.model) == ("0.19.0", "codellama/CodeLlama-7b-hf")
    assert {name: [row[0] for row in rows] for name, rows in printed(seen).items()} == {
        "weights": [12.56],
        "non_kv": [13.57],
        "activation_peak": [0.77],
        "non_torch": [0.25],
        "graph_estimate": [0.84],
        "kv_memory": [61.66],
        "num_tokens": [126_256],
        "concurrency_len": [8192],
        "max_concurrency": [15.41],
        "graphs": [0.89],
        "num_blocks": [7891],
    }
    assert seen.options["gpu_memory_utilization"] == 0.95
    assert seen.options["async_scheduling"] is True


def test_two_ranks_keep_their_figures_and_the_engine_core_has_none():
    seen = read_one("vllm-0.19-tp2-gpt-oss.log")
    assert (seen.model, seen.num_gpus, seen.options["tp"]) == ("openai/gpt-oss-20b", 2, 2)
    for name, value in {
        "weights": 7.01,
        "non_torch": 2.07,
        "activation_peak": 2.87,
        "graph_estimate": 1.09,
        "kv_memory": 59.32,
        "graphs": 1.55,
    }.items():
        assert by_rank(seen, name) == {"TP0": value, "TP1": value}
    for name, value in {
        "num_tokens": 2_591_776,
        "concurrency_len": 8192,
        "max_concurrency": 316.07,
        "num_blocks": 323_972,
    }.items():
        assert by_rank(seen, name) == {None: value}
    assert seen.facts["attention_backend"] == "FLASH_ATTN"


def test_a_hybrid_says_how_many_layers_pad_its_groups():
    seen = read_one("vllm-0.19-gemma-3-27b.log")
    assert seen.model == "google/gemma-3-27b-it"
    assert values(seen, "weights") == [51.45]
    assert values(seen, "activation_peak") == [3.99]
    assert values(seen, "kv_memory") == [19.53]
    assert values(seen, "num_tokens") == [36_560]
    assert values(seen, "max_concurrency") == [4.46]
    assert values(seen, "num_blocks") == [15_997]
    assert values(seen, "graph_estimate") == [1.05]
    assert values(seen, "graphs") == [1.14]
    assert seen.facts["padding_layers"] == "8"


def test_0_33_tokens_and_requests_in_one_line_and_colours():
    seen = read_one("vllm-0.33-llama.log")
    assert (seen.version, seen.model) == ("0.33.0", "meta-llama/Llama-3.1-8B-Instruct")
    assert {name: [row[0] for row in rows] for name, rows in printed(seen).items()} == {
        "weights": [15.0],
        "graph_estimate": [0.35],
        "kv_memory": [55.8],
        "num_tokens": [457_104],
        "concurrency_len": [131_072],
        "max_concurrency": [3.49],
        "graphs": [0.31],
        "device_free": [78.78],
        "device_total": [79.19],
        "utilization": [0.92],
        "requested": [72.85],
        "consumed": [15.26],
        "activation_peak": [1.79],
    }


def test_a_start_that_fails_and_one_with_a_shorter_length():
    failed, started = read_log(FOLDER / "vllm-0.19-too-long.log")
    (error,) = failed.errors
    assert error.startswith("To serve at least one request with the models's max seq len (40960), (5.62 GiB KV cache")
    assert error.endswith("when initializing the engine.")
    assert values(failed, "needed") == [5.62]
    assert values(failed, "needed_len") == [40_960]
    assert values(failed, "kv_memory") == [3.46]
    assert values(failed, "estimated_max_len") == [25_184]
    assert "num_tokens" not in failed.figures
    assert started.errors == ()
    assert values(started, "num_tokens") == [25_184]
    assert values(started, "num_blocks") == [1574]
    assert (failed.options["max_model_len"], started.options["max_model_len"]) == (40_960, 24_576)
    assert (failed.first_line, failed.last_line) < (started.first_line, started.last_line)


WORDINGS = [
    ("INFO worker.py:237] # GPU blocks: 655, # CPU blocks: 1365", {"num_blocks": 655, "num_cpu_blocks": 1365}),
    ("INFO executor_base.py:113] # cuda blocks: 190100, # CPU blocks: 0", {"num_blocks": 190_100, "num_cpu_blocks": 0}),
    ("INFO executor_base.py:110] # CUDA blocks: 5517, # CPU blocks: 9362", {"num_blocks": 5517, "num_cpu_blocks": 9362}),
    ("Loading model weights took 8.5107 GB", {"weights": 8.5107}),
    ("Model loading took 19.5904 GB and 4.2 seconds", {"weights": 19.5904}),
    ("Model loading took 7.12 GiB and 4.2 seconds", {"weights": 7.12}),
    ("Graph capturing finished in 3 secs, took -0.22 GiB", {"graphs": -0.22}),
    ("Estimated CUDA graph memory: -0.90 GiB total", {"graph_estimate": -0.90}),
    (
        "CUDA graph pool memory: 0.71 GiB (actual), 1.55 GiB (estimated), difference: 0.84 GiB (119.3%).",
        {"graphs": 0.71, "graph_estimate": 1.55},
    ),
    (
        "Initial free memory 77.91 GiB, reserved 5.32 GiB memory for KV Cache as specified by kv_cache_memory_bytes "
        "config and skipped memory profiling.",
        {"device_free": 77.91, "kv_memory": 5.32},
    ),
    (
        "Free memory on device (78.6/79.2 GiB) on startup. Desired GPU memory utilization is (0.9, 71.28 GiB). Actual "
        "usage is 37.99 GiB for weight, 4.71 GiB for peak activation, 1.84 GiB for non-torch memory, and 0.3 GiB for "
        "CUDAGraph memory. Current kv cache memory in use is 26.4 GiB.",
        {
            "device_free": 78.6, "device_total": 79.2, "utilization": 0.9, "requested": 71.28, "weights": 37.99,
            "activation_peak": 4.71, "non_torch": 1.84, "graphs": 0.3, "kv_memory": 26.4,
        },
    ),
    (
        "Total non KV cache memory: 36.07GiB; torch peak memory increase: 5.58GiB; non-torch forward increase memory: "
        "0.61GiB; weights memory: 29.88GiB.",
        {"non_kv": 36.07, "activation_peak": 5.58, "non_torch": 0.61, "weights": 29.88},
    ),
    ("Maximum concurrency for 4096 tokens per request: 6.12x", {"concurrency_len": 4096, "max_concurrency": 6.12}),
    ("INFO kv_cache_utils.py:405] # GPU blocks: 21944", {"num_blocks": 21_944}),
    ("INFO cpu_executor.py:1] # cpu blocks: 2340, # CPU blocks: 0", {"num_blocks": 2340, "num_cpu_blocks": 0}),
    (
        "Memory profiling results: total_gpu_memory=39.39GiB initial_memory_usage=15.51GiB peak_torch_memory=17.20GiB "
        "memory_usage_post_profile=15.54Gib non_torch_memory=0.31GiB kv_cache_size=17.94GiB "
        "gpu_memory_utilization=0.90",
        {"device_total": 39.39, "torch_peak": 17.2, "non_torch": 0.31, "kv_memory": 17.94, "utilization": 0.9},
    ),
    (
        "Actual usage: 14.25 GiB for weights, 1.31 GiB for peak activation, 0.42 GiB for non-torch memory, 0.18 GiB for "
        "NPU graph memory. Current KV cache memory: 38.87 GiB.",
        {"weights": 14.25, "activation_peak": 1.31, "non_torch": 0.42, "graphs": 0.18, "kv_memory": 38.87},
    ),
    (
        "Available memory: 41234567168, total memory: 65464696832",
        {"kv_memory": 41_234_567_168, "device_total": 65_464_696_832},
    ),
    ("Current kv cache memory in use is 21474836480 bytes.", {"kv_memory": 21_474_836_480}),
    (
        "1.75 GiB for peak activation, and 0.62 GiB for CUDAGraph memory. Current kv cache memory in use is 9.5 GiB.",
        {"activation_peak": 1.75, "graphs": 0.62, "kv_memory": 9.5},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "figures"), WORDINGS, ids=[line[:32] for line, _ in WORDINGS])
def test_wordings_of_other_versions(line, figures):
    (seen,) = read_log([line])
    assert seen.engine == "vllm"
    assert seen.model is None
    assert {name: rows[0].value for name, rows in seen.figures.items()} == figures


FAILURES = [
    (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
        "initializing the engine.",
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
        {},
    ),
    (
        "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in "
        "KV cache (95520). Try increasing `gpu_memory_utilization` or decreasing `max_model_len`.",
        "The model's max seq len (131072) is larger than the maximum number",
        {"needed_len": 131_072, "num_tokens": 95_520},
    ),
    (
        "ValueError: Free memory on device cuda:0 (2.6/121.63 GiB) on startup is less than desired GPU memory "
        "utilization (0.08, 9.73 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        "Free memory on device cuda:0 (2.6/121.63 GiB)",
        {"device_free": 2.6, "device_total": 121.63, "utilization": 0.08, "requested": 9.73},
    ),
    (
        "ValueError: To serve at least one request with the model's max seq len (1048576), 7.89 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (4.0 GiB). Based on the available memory, the estimated "
        "maximum model length is 530432. Try increasing",
        "To serve at least one request with the model's max seq len (1048576), 7.89 GiB KV cache is needed",
        {"needed_len": 1_048_576, "needed": 7.89, "kv_memory": 4.0, "estimated_max_len": 530_432},
    ),
    (
        "ValueError: max_num_seqs (256) exceeds available Mamba cache blocks (184). Each decode sequence requires one",
        "max_num_seqs (256) exceeds available Mamba cache blocks (184)",
        {"state_slots": 184},
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.19 GiB",
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        {"device_total": 79.19},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "error", "figures"), FAILURES, ids=[error[:30] for _, error, _ in FAILURES])
def test_why_it_did_not_start(line, error, figures):
    (seen,) = read_log(["INFO [api_server.py:1] vLLM API server version 0.9.2", line, "ERROR [core.py] " + line])
    assert len(seen.errors) == 1
    assert seen.errors[0].startswith(error)
    assert {name: rows[0].value for name, rows in seen.figures.items()} == figures


def read(*lines):
    (seen,) = read_log(["INFO [api_server.py:1] vLLM API server version 0.19.0", *lines])
    return seen


def test_the_blocks_that_graphs_are_measured_with_are_nobodys_choice():
    """From 0.18 on; a user's own take the place of those that were counted."""
    line = "INFO [kv_cache_utils.py:1] Overriding num_gpu_blocks={} with num_gpu_blocks_override=512"
    assert "num_gpu_blocks_override" not in read(line.format(0)).options
    assert read(line.format(9000)).options["num_gpu_blocks_override"] == 512


def test_blocks_of_the_gpu_are_not_those_of_the_cpu():
    for line in ("# GPU blocks: 1952, # CPU blocks: 2048", "GPU blocks: 1952, # CPU blocks: 2048"):
        found = read(line).figures
        assert (found["num_blocks"][0].value, found["num_cpu_blocks"][0].value) == (1952, 2048)


def test_what_is_no_figure_in_any_log_is_not_read():
    assert "num_tokens" not in read(f"GPU KV cache size: {'9' * 400} tokens").figures


def test_how_it_drafts_is_read_from_what_the_engine_prints():
    line = "Initializing a V1 LLM engine (v0.19.0) with config: model='a/b', speculative_config=SpeculativeConfig({}), seed=0"
    seen = read(line.format("method='mtp', model='a/b', num_spec_tokens=2"))
    assert (seen.options["speculative_method"], seen.options["num_speculative_tokens"]) == ("mtp", 2)
    assert seen.unread == ()
    given = (
        "non-default args: {'speculative_config': {'method': 'eagle3', 'model': 'x/y', 'num_speculative_tokens': 3}}"
    )
    whole = read(given, line.format("method='eagle3', model=None, num_spec_tokens=3"))
    assert whole.options["draft_model"] == "x/y"


def test_a_folder_is_known_by_what_it_is_served_as():
    assert read("non-default args: {'model': '/model', 'served_model_name': ['Qwen3-8B']}").facts["name"] == "Qwen3-8B"


def test_what_a_server_at_work_logs_is_not_read():
    log = [
        "vLLM API server version 0.9.2",
        "Model loading took 15.2683 GiB and 6.9 seconds",
        "INFO:     Application startup complete.",
        "Received request: prompt: 'Available KV cache memory: 1.00 GiB'",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
    ]
    (seen,) = read_log(log)
    assert set(seen.figures) == {"weights"}
    assert seen.errors == ()


def test_a_second_load_without_any_other_sign_is_a_second_start():
    log = ["Model loading took 15.2683 GiB", "Available KV cache memory: 18.69 GiB", "Model loading took 7.12 GiB"]
    assert [values(seen, "weights") for seen in read_log(log)] == [[15.2683], [7.12]]


RANKS = [
    ("(VllmWorker rank=1 pid=9) INFO Model loading took 7.01 GiB", "rank 1"),
    ("(Worker_PP1_TP0_EP0 pid=9) INFO Model loading took 7.01 GiB", "PP1_TP0_EP0"),
    ("(RayWorkerWrapper pid=812, ip=10.0.0.2) INFO Model loading took 7.01 GiB", "pid 812 of 10.0.0.2"),
    ("(VllmWorkerProcess pid=812) INFO Loading model weights took 7.01 GB", "pid 812"),
    ("(EngineCore_DP3 pid=9) INFO Model loading took 7.01 GiB", "DP3"),
    ("(EngineCore_3 pid=9) INFO Model loading took 7.01 GiB", "DP3"),
]


@pytest.mark.parametrize(("line", "rank"), RANKS, ids=[rank for _, rank in RANKS])
def test_the_prefix_names_the_rank(line, rank):
    other = line.replace("rank=1", "rank=0").replace("PP1_", "PP0_").replace("812", "811").replace("3 pid", "0 pid")
    (seen,) = read_log([other.replace("7.01", "7.02"), line])
    assert by_rank(seen, "weights")[rank] == 7.01
    assert len(seen.figures["weights"]) == 2


def test_one_rank_alone_is_none():
    for line, _ in RANKS:
        (seen,) = read_log([line])
        assert by_rank(seen, "weights") == {None: 7.01}


def test_replicas_are_one_start():
    log = [f"(EngineCore_DP{rank} pid=9) INFO {line}" for rank in (0, 1) for line in (
        "Initializing a V1 LLM engine (v0.11.0) with config: model='a/b', data_parallel_size=2, seed=0, ",
        "Model loading took 1.25 GiB", "Available KV cache memory: 20.5 GiB",
    )]  # fmt: skip
    (seen,) = read_log(log)
    assert by_rank(seen, "kv_memory") == {"DP0": 20.5, "DP1": 20.5}
    assert (seen.options["dp"], seen.num_gpus) == (2, 2)


OPTIONS = [
    (
        "Auto-fit max_model_len: reduced from 131072 to 90112 to fit in available GPU memory (4.02 GiB available)",
        {"max_model_len": 90_112},
    ),
    ("Auto-fit max_model_len: full model context length 40960 fits in available GPU memory", {"max_model_len": 40_960}),
    ("Block size is set to 128 if prefix cache or chunked prefill is enabled.", {"block_size": 128}),
    (
        "CUDA graph memory profiling is enabled (default since v0.21.0). The current --gpu-memory-utilization=0.8800 is "
        "equivalent to --gpu-memory-utilization=0.8712 without CUDA graph memory profiling.",
        {"gpu_memory_utilization": 0.88},
    ),
    (
        "In v0.19, CUDA graph memory profiling will be enabled by default (…). To try it now, set … and increase "
        "--gpu-memory-utilization from 0.7500 to 0.7611 to maintain the same effective KV cache size.",
        {"gpu_memory_utilization": 0.75},
    ),
]


@pytest.mark.parametrize(("line", "options"), OPTIONS, ids=[str(i) for i in range(len(OPTIONS))])
def test_what_the_engine_decided(line, options):
    (seen,) = read_log([line])
    assert (seen.engine, seen.options) == ("vllm", options)


def test_the_block_size_of_a_hybrid_stands_over_that_of_its_backend():
    backend, hybrid = (
        "Setting kv cache block size to 64 for FLASHMLA backend.",
        "Setting attention block size to 528 tokens",
    )
    assert read_log([backend])[0].facts["block_size"] == "64"
    assert read_log([backend, hybrid])[0].facts["block_size"] == "528"


def test_an_engine_without_a_version():
    """0.1 states none, a build of one's own `vx.x.x`."""
    for stated in ("", " (vx.x.x)"):
        (seen,) = read_log(
            [f"Initializing an LLM engine{stated} with config: model='a/b', tensor_parallel_size=2, seed=0)"]
        )
        assert (seen.version, seen.model, seen.options["tp"]) == (None, "a/b", 2)


def test_what_only_tells_that_it_failed_counts_where_nothing_else_does():
    vague = [
        "(EngineCore pid=9) ERROR [core.py:1108] EngineCore failed to start.",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    ]
    why = "(EngineCore pid=9) ERROR [core.py:1108] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB."
    assert read_log(vague)[0].errors == ("EngineCore failed to start",)
    assert read_log([vague[0], why, vague[1]])[0].errors == ("CUDA out of memory. Tried to allocate 1.25 GiB.",)


def test_the_exception_of_a_start_that_failed_otherwise():
    log = [
        "(APIServer pid=1) ERROR [plugins.py:1] ImportError: no plugin of that name",
        "(EngineCore pid=9) ERROR 01-02 10:00:00 [core.py:1108] EngineCore failed to start.",
        "(EngineCore pid=9) ERROR 01-02 10:00:00 [core.py:1108] ValueError: Total number of attention heads (28) must be divisible",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    ]
    head = "vLLM API server version 0.19.0"
    assert read_log([head, *log])[0].errors == ("ValueError: Total number of attention heads (28) must be divisible",)
    assert read_log([head, log[0]])[0].errors == ()


def test_what_v0_loads_to_draft_with():
    (seen,) = read_log(["Loading model weights took 14.9888 GB", "Loading model weights took 0.4620 GB"])
    assert (values(seen, "weights"), values(seen, "draft_weights")) == ([14.9888], [0.462])


def test_an_error_whose_line_was_broken():
    broken = [
        "(EngineCore pid=9) ValueError: To serve at least one request with the model's max seq len (65536), (5.12 GiB KV ca",
        "che is needed, which is larger than the available KV cache memory (4.25 GiB).",
    ]
    (seen,) = read_log(broken)
    assert values(seen, "needed_len") == [65_536]
    assert seen.errors[0].startswith("To serve at least one request")


BACKENDS = [
    ("Using FLASH_ATTN attention backend out of potential backends: ('FLASH_ATTN', 'FLASHINFER')", "FLASH_ATTN"),
    ("Using Flash Attention backend on V1 engine.", "FLASH_ATTN"),
    ("Using FlashInfer backend on V1 engine.", "FLASHINFER"),
    ("Using AttentionBackendEnum.TRITON_ATTN backend.", "TRITON_ATTN"),
    ("Using FlashMLA backend on V1 engine.", "FLASHMLA"),
    ("Using XFormers backend.", "XFORMERS"),
]


@pytest.mark.parametrize(("line", "name"), BACKENDS, ids=[name + str(i) for i, (_, name) in enumerate(BACKENDS)])
def test_the_attention_backend(line, name):
    (seen,) = read_log(["vLLM API server version 0.9", "Using TRITON backend for Unquantized MoE", line])
    assert seen.facts["attention_backend"] == name
