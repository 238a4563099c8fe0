"""Engines' command lines, both ways: what people paste, what kvplan writes, and that the two agree."""

import contextlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.errors import InputError
from kvplan.runtime.command import read_command, write_command

# text, engine, model, options, unread
READ: list[tuple[str, str, str | None, dict[str, object], tuple[str, ...]]] = [
    # vLLM: its own command, and the module before it
    ("vllm serve meta-llama/Llama-3.1-8B-Instruct", "vllm", "meta-llama/Llama-3.1-8B-Instruct", {}, ()),
    ("vllm serve Qwen/Qwen3-8B -tp 2 -pp 2 -dp 4 -dcp 2", "vllm", "Qwen/Qwen3-8B",
     {"tp": 2, "pp": 2, "dp": 4, "dcp": 2}, ()),
    ("vllm serve a/b --tensor-parallel-size=8 --max-model-len=16k --gpu-memory-utilization=.95", "vllm", "a/b",
     {"tp": 8, "max_model_len": 16000, "gpu_memory_utilization": 0.95}, ()),
    ("vllm serve a/b --max_model_len 32K --max_num_seqs 64 --max_num_batched_tokens 8k", "vllm", "a/b",
     {"max_model_len": 32768, "max_num_seqs": 64, "max_num_batched_tokens": 8000}, ()),
    ("vllm serve a/b --max-model-len auto", "vllm", "a/b", {}, ("--max-model-len auto",)),
    ("vllm serve a/b --max-model-len -1", "vllm", "a/b", {}, ("--max-model-len -1",)),
    ("python3 -m vllm.entrypoints.openai.api_server --model a/b --port 8000 --host 0.0.0.0 --dtype half", "vllm", "a/b",
     {"dtype": "fp16"}, ()),
    ("python -u -m vllm.entrypoints.openai.api_server --model /models/x --kv-cache-dtype fp8_e5m2 --enforce-eager",
     "vllm", "/models/x", {"kv_dtype": "fp8", "enforce_eager": True}, ()),
    ("vllm serve a/b --no-enable-prefix-caching --block-size 32 --disable-hybrid-kv-cache-manager --async-scheduling",
     "vllm", "a/b", {"prefix_caching": False, "block_size": 32, "hybrid_manager": False, "async_scheduling": True}, ()),
    ("""vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 --enable-expert-parallel \\
        --speculative-config '{"method":"deepseek_mtp","num_speculative_tokens":2}' \\
        --tool-call-parser deepseek_v32 --enable-auto-tool-choice""", "vllm", "deepseek-ai/DeepSeek-V3.2",
     {"tp": 8, "expert_parallel": True, "speculative_method": "mtp", "num_speculative_tokens": 2}, ()),
    ("vllm serve a/b --speculative-config.method eagle3 --speculative-config.model o/d "
     "--speculative-config.num_speculative_tokens 3 --speculative-config.draft_tensor_parallel_size 1", "vllm", "a/b",
     {"speculative_method": "eagle3", "draft_model": "o/d", "num_speculative_tokens": 3},
     ("--speculative-config.draft_tensor_parallel_size 1",)),
    ("vllm serve a/b --speculative-model [ngram] --num-speculative-tokens 5", "vllm", "a/b",
     {"speculative_method": "ngram", "num_speculative_tokens": 5}, ()),
    ("vllm serve a/b --speculative-config '{\"method\":\"suffix\"}'", "vllm", "a/b",
     {"speculative_method": "suffix", "num_speculative_tokens": 24}, ()),
    ("vllm serve a/b --speculative-config '{\"method\":\"suffix\",\"suffix_decoding_max_tree_depth\":8}'", "vllm", "a/b",
     {"speculative_method": "suffix", "num_speculative_tokens": 8}, ()),
    ("vllm serve a/b --speculative-config '{\"model\":\"o/d\",\"num_speculative_tokens\":5,"
     "\"use_heterogeneous_vocab\":true}'", "vllm", "a/b",
     {"speculative_method": "draft_model", "draft_model": "o/d", "num_speculative_tokens": 5,
      "heterogeneous_vocab": True}, ()),
    ("vllm serve a/b --spec-model o/d --spec-tokens 5 --speculative-config.use_heterogeneous_vocab false", "vllm", "a/b",
     {"speculative_method": "draft_model", "draft_model": "o/d", "num_speculative_tokens": 5}, ()),
    ("vllm serve a/b -O3 --compilation-config '{\"cudagraph_capture_sizes\": [1, 2, 4]}'", "vllm", "a/b",
     {"cuda_graph_max_bs": 4}, ()),
    ("vllm serve a/b -O0", "vllm", "a/b", {"enforce_eager": True}, ()),
    ("vllm serve a/b -O.cudagraph_mode=NONE", "vllm", "a/b", {"enforce_eager": True}, ()),
    ("vllm serve a/b --cudagraph-capture-sizes 1 2 4 8 --max-num-seqs 8", "vllm", "a/b",
     {"cuda_graph_max_bs": 8, "max_num_seqs": 8}, ()),
    ("vllm serve google/gemma-3-27b-it --limit-mm-per-prompt '{\"image\":0,\"video\":0}'", "vllm",
     "google/gemma-3-27b-it", {"no_images": True}, ()),
    ("vllm serve a/b --limit-mm-per-prompt image=0,video=0", "vllm", "a/b", {"no_images": True}, ()),
    ("vllm serve a/b --limit-mm-per-prompt '{\"image\":0}'", "vllm", "a/b", {},
     ('--limit-mm-per-prompt {"image": 0}',)),  # videos are still read, where the model reads them
    ("vllm serve a/b --limit-mm-per-prompt.image 2", "vllm", "a/b", {}, ()),
    ("vllm serve a/b --language-model-only", "vllm", "a/b", {"no_images": True}, ()),
    ("vllm serve a/b --enable-lora --max-loras 4 --max-lora-rank 64 --lora-modules x=/x y=/y", "vllm", "a/b",
     {"max_loras": 4, "max_lora_rank": 64}, ()),
    ("vllm serve a/b --enable-lora", "vllm", "a/b", {"max_loras": 1}, ()),
    ("vllm serve a/b --max-loras 4", "vllm", "a/b", {}, ()),
    ("vllm serve a/b --hf-overrides '{\"max_position_embeddings\": 131072}' --cpu-offload-gb 2.5", "vllm", "a/b",
     {"cpu_offload_bytes": 2684354560}, ('--hf-overrides {"max_position_embeddings": 131072}',)),
    ("vllm serve a/b --cpu-offload-gb 0 --quantization awq --served-model-name x y --api-key k", "vllm", "a/b", {}, ()),
    ("vllm serve a/b -q fp8 --kv-cache-dtype-skip-layers 0 1 sliding_window --mamba-ssm-cache-dtype float32", "vllm",
     "a/b", {"quant": "fp8", "kv_cache_dtype_skip_layers": ("0", "1", "sliding_window"), "state_dtype": "fp32"}, ()),
    ("vllm serve a/b --tensor-parallel 4 --trust-remote", "vllm", "a/b", {"tp": 4}, ()),
    ("vllm serve a/b --revision abc123 --kv-cache-memory-bytes 8G --num-gpu-blocks-override 100", "vllm", "a/b@abc123",
     {"kv_memory_bytes": 8 * 2**30, "num_gpu_blocks_override": 100}, ()),
    ("vllm serve --config serve.yaml", "vllm", None, {}, ("--config serve.yaml",)),
    ("vllm serve a/b --enable-chunked-prefill False", "vllm", "a/b", {}, ("--no-enable-chunked-prefill",)),
    # wrappers, prompts, variables
    ("$ VLLM_PP_LAYER_PARTITION=16,32 VLLM_USE_V1=1 vllm serve a/b -pp 2", "vllm", "a/b",
     {"stage_layers": (16, 32), "pp": 2}, ()),
    ("VLLM_USE_V1=0 VLLM_ATTENTION_BACKEND=flashinfer vllm serve a/b", "vllm", "a/b",
     {"attention_backend": "FLASHINFER"}, ("VLLM_USE_V1=0",)),
    ("nohup sudo -E numactl --cpunodebind=0 --membind=0 vllm serve a/b -tp 2 > vllm.log 2>&1 &", "vllm", "a/b",
     {"tp": 2}, ()),
    ("uv run --with 'vllm==0.11.0' -- vllm serve a/b --max-num-seqs 16", "vllm", "a/b", {"max_num_seqs": 16}, ()),
    ("bash -lc 'pip install x && exec vllm serve a/b -tp 2 2>&1 | tee log'", "vllm", "a/b", {"tp": 2}, ()),
    ("# two GPUs\nexport CUDA_VISIBLE_DEVICES=0,1\nvllm serve a/b \\\n  -tp 2  # it's enough", "vllm", "a/b",
     {"tp": 2}, ()),
    ("vllm serve a/b\n  --tensor-parallel-size 2\n  --max-num-seqs 8", "vllm", "a/b", {"tp": 2, "max_num_seqs": 8}, ()),
    ("docker run --runtime nvidia --gpus all -v ~/.cache/huggingface:/root/.cache/huggingface \\\n"
     ' --env "HUGGING_FACE_HUB_TOKEN=x" -p 8000:8000 --ipc=host vllm/vllm-openai:v0.19.0 \\\n'
     " --model mistralai/Mistral-7B-v0.1 --max-model-len 8192", "vllm", "mistralai/Mistral-7B-v0.1",
     {"max_model_len": 8192}, ()),
    ("docker run -d -e VLLM_PP_LAYER_PARTITION=3,4 vllm/vllm-openai:latest Qwen/Qwen3-8B --tensor-parallel-size 1",
     "vllm", "Qwen/Qwen3-8B", {"stage_layers": (3, 4), "tp": 1}, ()),
    ("docker run --name vllm-openai -v /x/lmsysorg/sglang:/y --rm vllm/vllm-openai:v0.11.0 --model a/b", "vllm", "a/b",
     {}, ()),
    ("root@6aa49b1572ea:~/llm# CUDA_VISIBLE_DEVICES=1,2,3 vllm serve /root/llm/c4ai-command-a-03-2025 -tp=2 "
     "--swap-space 8 --max-num-seqs=1", "vllm", "/root/llm/c4ai-command-a-03-2025", {"tp": 2, "max_num_seqs": 1}, ()),
    ("(venv) $ vllm serve a/b --no-enable-log-requests --disable-custom-all-reduce --load_format mistral", "vllm",
     "a/b", {}, ()),
    ("```bash\nvllm serve openai/gpt-oss-20b --async-scheduling\n```", "vllm", "openai/gpt-oss-20b",
     {"async_scheduling": True}, ()),
    # SGLang
    ("docker run --gpus all --entrypoint python3 lmsysorg/sglang:v0.5.9 -m sglang.launch_server --model-path a/b "
     "--pp-size 4", "sglang", "a/b", {"pp": 4}, ()),
    ("python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 8 --trust-remote-code", "sglang",
     "deepseek-ai/DeepSeek-V3", {"tp": 8}, ()),
    ("sglang serve Qwen/Qwen3-8B --mem-fraction-static 0.85 --context-length 32768 --disable-radix-cache", "sglang",
     "Qwen/Qwen3-8B", {"gpu_memory_utilization": 0.85, "max_model_len": 32768, "prefix_caching": False}, ()),
    ("sglang serve --model-path a/b --tp-size 8 --dp 8 --enable-dp-attention --ep-size 8 --kv-cache-dtype fp8_e4m3",
     "sglang", "a/b", {"tp": 8, "dp": 8, "attention_dp": True, "expert_parallel": True, "kv_dtype": "fp8"}, ()),
    ("docker run --gpus all --shm-size 32g -p 30000:30000 lmsysorg/sglang:v0.5.3-cu129 python3 -m sglang.launch_server "
     "--model-path a/b --max-running-requests 64 --chunked-prefill-size 4096 --page-size 16", "sglang", "a/b",
     {"max_num_seqs": 64, "max_num_batched_tokens": 4096, "block_size": 16}, ()),
    ("SGLANG_PP_LAYER_PARTITION=15,17 SGLANG_MAMBA_CONV_DTYPE=float16 sglang serve a/b --pp-size 2", "sglang", "a/b",
     {"stage_layers": (15, 17), "conv_dtype": "fp16", "pp": 2}, ()),
    ("python3 -m sglang.launch_server --model a/b --speculative-algorithm EAGLE --speculative-draft-model-path o/d "
     "--speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4 --cuda-graph-max-bs 16",
     "sglang", "a/b", {"speculative_method": "eagle", "draft_model": "o/d", "num_speculative_tokens": 3,
                       "cuda_graph_max_bs": 16}, ()),
    ("sglang serve a/b --swa-full-tokens-ratio 0.5 --mamba-full-memory-ratio 2 --max-total-tokens 100000 "
     "--cpu-offload-gb 4 --offload-group-size 8", "sglang", "a/b",
     {"swa_full_tokens_ratio": 0.5, "mamba_full_memory_ratio": 2.0, "max_pool_tokens": 100000,
      "cpu_offload_bytes": 4294967296}, ("--offload-group-size 8",)),
    # llama.cpp
    ("llama-server -m models/x-Q4_K_M.gguf -c 32768 -ngl 99 -fa", "llamacpp", "models/x-Q4_K_M.gguf",
     {"max_model_len": 32768, "num_gpu_layers": 99, "flash_attention": True}, ()),
    ("llama-server -hf ggml-org/gpt-oss-20b-GGUF:Q4_K_M -c 0 -fa on --jinja", "llamacpp",
     "ggml-org/gpt-oss-20b-GGUF:Q4_K_M", {"flash_attention": True}, ()),
    ("./build/bin/llama-server -m x.gguf -ctk q8_0 -ctv q8_0 -fa auto -np 4 --kv-unified -b 4096 -ub 1024", "llamacpp",
     "x.gguf", {"kv_dtype": "q8_0", "max_num_seqs": 4, "kv_unified": True, "max_num_batched_tokens": 4096,
                "num_ubatch_tokens": 1024}, ()),
    ("llama-server --hf-repo o/r --hf-file x.gguf --ctx-size 8192 --cache-type-k q4_0 --no-kv-unified", "llamacpp",
     "hf://o/r/x.gguf", {"max_model_len": 8192, "kv_dtype": "q4_0/fp16", "kv_unified": False}, ()),
    ("llama-server -m x.gguf -ts 3,1 -ngl all --swa-full -sm row -ot '.ffn_.*_exps.=CPU' -md d.gguf -t 8 --temp 0.7",
     "llamacpp", "x.gguf", {"tensor_split": (3.0, 1.0), "num_gpu_layers": 999, "swa_full": True,
                           "num_cpu_moe_layers": 999}, ("-md d.gguf", "--split-mode row")),
    ("llama-server -m x.gguf --spec-type draft-mtp --spec-draft-n-max 2 --n-cpu-moe 10 -nkvo", "llamacpp", "x.gguf",
     {"speculative_method": "mtp", "num_speculative_tokens": 2, "num_cpu_moe_layers": 10}, ("--no-kv-offload",)),
    ("docker run --gpus all -v /m:/m -e LLAMA_ARG_CTX_SIZE=4096 -e LLAMA_ARG_N_PARALLEL=2 "
     "ghcr.io/ggml-org/llama.cpp:server-cuda -m /m/x.gguf -np 8", "llamacpp", "/m/x.gguf",
     {"max_model_len": 4096, "max_num_seqs": 8}, ()),
    (r"C:\llama\llama-server.exe -m x.gguf -c 4096".replace("\\", "/"), "llamacpp", "x.gguf", {"max_model_len": 4096},
     ()),
    # TensorRT-LLM
    ("trtllm-serve nvidia/Llama-3.1-8B-FP8 --tp_size 2 --max_batch_size 64 --max_num_tokens 4096 --max_seq_len 8192 "
     "--kv_cache_free_gpu_memory_fraction 0.8 --host 0.0.0.0", "trtllm", "nvidia/Llama-3.1-8B-FP8",
     {"tp": 2, "max_num_seqs": 64, "max_num_batched_tokens": 4096, "max_model_len": 8192,
      "gpu_memory_utilization": 0.8}, ()),
    ("trtllm-llmapi-launch trtllm-serve serve a/b --backend pytorch --ep_size 4 --tp_size 8 --config extra.yml",
     "trtllm", "a/b", {"tp": 8, "expert_parallel": True}, ("--config extra.yml",)),
    ("trtllm-serve a/b --kv_cache_config.dtype fp8 --kv_cache_config.enable_block_reuse false --trust_remote_code",
     "trtllm", "a/b", {"kv_dtype": "fp8", "prefix_caching": False}, ()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "engine", "model", "options", "unread"), READ, ids=range(len(READ)))
def test_what_people_paste(
    text: str, engine: str, model: str | None, options: dict[str, object], unread: tuple[str, ...]
) -> None:
    command = read_command(text)
    assert (command.engine, command.model) == (engine, model)
    assert command.options == options
    assert command.unread == unread


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("docker run vllm/vllm-openai:v0.19.0 --model a/b", "0.19.0"),
        ("docker run vllm/vllm-openai:v0.10.1.1-x86_64 --model a/b", "0.10.1.1"),
        ("docker run vllm/vllm-openai:v0.8.5.post1 --model a/b", "0.8.5.post1"),
        ("docker run vllm/vllm-openai:nightly --model a/b", None),
        ("docker run vllm/vllm-openai@sha256:0123456789 --model a/b", None),
        ("docker run nvcr.io/nvidia/vllm:25.09-py3 vllm serve a/b", None),  # NVIDIA counts months
        ("docker run lmsysorg/sglang:v0.5.3.post3-cu129 sglang serve --model-path a/b", "0.5.3.post3"),
        ("docker run lmsysorg/sglang:latest bash -c 'sglang serve --model-path a/b'", None),
        ("podman run ghcr.io/ggml-org/llama.cpp:server-cuda-b6432 -m x.gguf", "b6432"),
        ("docker run nvcr.io/nvidia/tensorrt-llm/release:1.2.0rc1 trtllm-serve a/b", "1.2.0rc1"),
        ("uvx --from vllm==0.11.0 vllm serve a/b", "0.11.0"),
        ("uv run --with sglang[all]==0.5.3 python -m sglang.launch_server --model-path a/b", "0.5.3"),
        ("vllm serve a/b", None),
    ],
)
def test_versions_of_images_and_packages(text: str, version: str | None) -> None:
    assert read_command(text).version == version


def test_the_environment_is_told_without_secrets() -> None:
    text = "HF_TOKEN=x OPENAI_API_KEY=y CUDA_VISIBLE_DEVICES=0,1 vllm serve a/b"
    assert read_command(text).environment == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_a_container_sees_what_it_is_passed() -> None:
    text = "C=3 D=4 docker run -eA=1 --env B=2 --env=E=5 -e C -e F -e HF_TOKEN=x vllm/vllm-openai a/b"
    assert read_command(text).environment == {"A": "1", "B": "2", "C": "3", "E": "5"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ls -l", "starts no engine"),
        ("", "starts no engine"),
        ("vllm bench serve", "starts no engine"),
        ("echo vllm serve a/b", "starts no engine"),
        ("python train.py --model a/b", "starts no engine"),
        ("trtllm-serve disaggregated -c x.yaml", "starts no engine"),
        ("ollama run llama3", "a server of its own"),
        ("docker run --gpus all lmsysorg/sglang:latest", "no command that starts a server"),
        ("vllm serve a/b --max-model-len", "without its value"),
        ("vllm serve a/b --max-model-len --port 80", "without its value"),
        ("vllm serve a/b --max-num-seqs many", "is not a positive whole number"),
        ("vllm serve a/b --gpu-memory-utilization 95", "at most 1"),
        ("vllm serve a/b --speculative-config {x", "no JSON object"),
        ("vllm serve a/b --speculative-config x --speculative-config.method mtp", "no JSON object"),
        ("vllm serve $MODEL -tp 2", "shell variable"),
        ("vllm serve 'a/b", "not closed"),
        ("VLLM_PP_LAYER_PARTITION=a,b vllm serve a/b", "not a list of layer counts"),
        ("llama-server -m x.gguf -ts a", "list of shares"),
    ],
)
def test_what_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_command(text)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


WRITTEN: list[tuple[str, str, dict[str, object], str]] = [
    ("vllm", "a/b", {"tp": 2, "kv_dtype": "fp8", "pp": None, "usage": "server"},
     "vllm serve a/b --tensor-parallel-size 2 --kv-cache-dtype fp8"),
    ("vllm", "a/b@v1", {"prefix_caching": False, "hybrid_manager": False, "no_images": False, "stage_layers": (3, 4)},
     "VLLM_PP_LAYER_PARTITION=3,4 vllm serve a/b --revision v1 --no-enable-prefix-caching "
     "--disable-hybrid-kv-cache-manager"),
    ("vllm", "/my models/x", {"speculative_method": "mtp", "num_speculative_tokens": 2, "quant": "none"},
     "vllm serve '/my models/x' --speculative-config '{\"method\": \"mtp\", \"num_speculative_tokens\": 2}'"),
    ("sglang", "a/b", {"kv_dtype": "fp8", "gpu_memory_utilization": 0.9, "prefix_caching": True, "enforce_eager": True},
     "python -m sglang.launch_server --model-path a/b --kv-cache-dtype fp8_e4m3 --mem-fraction-static 0.9 "
     "--disable-cuda-graph"),
    ("sglang", "a/b", {"tp": 8, "dp": 8, "attention_dp": True, "expert_parallel": True},
     "python -m sglang.launch_server --model-path a/b --tp-size 8 --dp-size 8 --enable-dp-attention --ep-size 8"),
    ("llamacpp", "x.gguf", {"max_model_len": 8192, "kv_dtype": "q8_0", "flash_attention": True, "max_num_seqs": 2},
     "llama-server -m x.gguf -c 8192 -fa on -np 2 -ctk q8_0 -ctv q8_0"),
    ("llamacpp", "o/r:Q4_K_M", {"kv_dtype": "q8_0/fp16", "tensor_split": (3.0, 1.5)},
     "llama-server -hf o/r:Q4_K_M -ts 3,1.5 -ctk q8_0 -ctv f16"),
    ("trtllm", "a/b", {"gpu_memory_utilization": 0.9, "max_model_len": 4096, "max_num_seqs": 64,
                       "max_num_batched_tokens": 8192, "tp": 2},
     "trtllm-serve a/b --kv_cache_free_gpu_memory_fraction 0.9 --max_seq_len 4096 --max_batch_size 64 "
     "--max_num_tokens 8192 --tp_size 2"),
    ("trtllm", "a/b", {"kv_dtype": "fp8", "enforce_eager": True, "block_size": 64},
     "trtllm-serve a/b --extra_llm_api_options kvplan.yaml\n"
     '# kvplan.yaml: {"kv_cache_config": {"dtype": "fp8", "tokens_per_block": 64}, "cuda_graph_config": null}'),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "model", "options", "line"), WRITTEN, ids=range(len(WRITTEN)))
def test_what_is_written(engine: str, model: str, options: dict[str, object], line: str) -> None:
    assert write_command(engine, model, options) == line


@pytest.mark.parametrize(
    ("engine", "model", "options"),
    [
        ("vllm", "a/b", {"swa_full": False}), ("vllm", "a/b", {"usage": "llm"}), ("vllm", "a/b", {"quant": "int4"}),
        ("vllm", "a/b", {"kv_dtype": "q8_0"}), ("vllm", "a/b", {"kv_dtype": "nonsense"}), ("vllm", "a/b", {"tp": "x"}),
        ("vllm", "a/b", {"enforce_eager": "yes"}), ("vllm", "", {}), ("vllm", "--port", {}), ("vllm", "$M", {}),
        ("vllm", "a/b", {"max_loras": -1}), ("vllm", "a/b", {"colour": 1}), ("sglang", "a/b", {"pcp": 2}),
        ("sglang", "a/b", {"expert_parallel": True}), ("sglang", "a/b", {"speculative_method": "eagle"}),
        ("sglang", "a/b", {"kv_memory_bytes": 10}), ("trtllm", "a/b", {"speculative_method": "draft"}),
        ("trtllm", "a/b", {"dp": 2}), ("llamacpp", "x.gguf", {"tp": 2}), ("llamacpp", "x.gguf", {"kv_dtype": "fp8"}),
        ("llamacpp", "x.gguf", {"gpu_memory_utilization": 0.9}), ("transformers", "a/b", {}), ("exact", "a/b", {}),
        ("vllm", "a/b", {"gpu_memory_utilization": 2.0}), ("llamacpp", "x.gguf", {"tensor_split": (-1.0,)}),
    ],
    ids=str,
)  # fmt: skip
def test_what_an_engine_cannot_be_told(engine: str, model: str, options: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        write_command(engine, model, options)
    assert caught.value.hint


COUNTS = st.integers(1, 2**40)
SHARES = st.floats(0.001, 1)
MODEL_FORMATS = st.sampled_from(("auto", "fp32", "bf16", "fp16"))
STATES = st.sampled_from(("fp32", "bf16", "fp16"))
NAMES = st.from_regex(r"[A-Za-z][\w./-]{0,20}", fullmatch=True)
GGML = ("fp32", "fp16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
YES, NO = st.just(True), st.just(False)
BOTH = st.booleans()

STRATEGIES: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "vllm": {
        "max_model_len": COUNTS, "tp": COUNTS, "pp": COUNTS, "dp": COUNTS, "dcp": COUNTS, "pcp": COUNTS,
        "dtype": MODEL_FORMATS, "quant": st.just("fp8"), "gpu_memory_utilization": SHARES, "kv_memory_bytes": COUNTS,
        "kv_dtype": st.sampled_from(("auto", "bf16", "fp16", "fp8", "int8", "int4", "nvfp4", "fp8_ds_mla")),
        "max_num_seqs": COUNTS, "max_num_batched_tokens": COUNTS, "block_size": COUNTS, "prefix_caching": BOTH,
        "enforce_eager": BOTH, "hybrid_manager": BOTH, "async_scheduling": BOTH, "num_gpu_blocks_override": COUNTS,
        "attention_backend": st.sampled_from(("FLASH_ATTN", "FLASHINFER", "TRITON_ATTN")), "state_dtype": STATES,
        "kv_cache_dtype_skip_layers": st.lists(NAMES, min_size=1, max_size=3).map(tuple), "conv_dtype": STATES,
        "num_speculative_tokens": COUNTS, "draft_model": NAMES, "no_images": YES, "cuda_graph_max_bs": COUNTS,
        "heterogeneous_vocab": YES,
        "speculative_method": st.sampled_from(("mtp", "eagle", "eagle3", "ngram", "draft_model")),
        "max_loras": COUNTS, "stage_layers": st.lists(COUNTS, min_size=1, max_size=3).map(tuple),
        "expert_parallel": BOTH,
    },
    "sglang": {
        "max_model_len": COUNTS, "tp": st.integers(2, 64), "pp": COUNTS, "dp": COUNTS, "dcp": COUNTS,
        "dtype": MODEL_FORMATS, "quant": st.just("fp8"), "gpu_memory_utilization": SHARES, "max_num_seqs": COUNTS,
        "kv_dtype": st.sampled_from(("auto", "bf16", "fp8", "mxfp8", "nvfp4", "mxfp4")), "block_size": COUNTS,
        "max_num_batched_tokens": COUNTS, "max_pool_tokens": COUNTS, "prefix_caching": NO, "enforce_eager": YES,
        "attention_backend": st.sampled_from(("fa3", "triton", "flashinfer")), "state_dtype": STATES,
        "conv_dtype": STATES, "swa_full_tokens_ratio": SHARES, "mamba_full_memory_ratio": st.floats(0.01, 50),
        "cuda_graph_max_bs": COUNTS, "no_images": YES, "attention_dp": YES,
        "stage_layers": st.lists(COUNTS, min_size=1, max_size=3).map(tuple), "max_loras": COUNTS,
    },
    "trtllm": {
        "max_model_len": COUNTS, "tp": st.integers(2, 64), "pp": COUNTS, "dtype": MODEL_FORMATS,
        "gpu_memory_utilization": SHARES, "kv_memory_bytes": COUNTS, "max_num_seqs": COUNTS,
        "kv_dtype": st.sampled_from(("auto", "bf16", "fp16", "fp8", "nvfp4")), "max_num_batched_tokens": COUNTS,
        "max_pool_tokens": COUNTS, "block_size": COUNTS, "prefix_caching": BOTH, "state_dtype": STATES,
        "attention_dp": BOTH, "enforce_eager": YES, "num_speculative_tokens": COUNTS,
        "speculative_method": st.sampled_from(("mtp", "eagle", "eagle3", "ngram", "draft_model")),
    },
    "llamacpp": {
        "max_model_len": COUNTS, "max_num_seqs": COUNTS, "max_num_batched_tokens": COUNTS, "num_ubatch_tokens": COUNTS,
        "kv_unified": BOTH, "swa_full": YES, "flash_attention": BOTH, "num_gpu_layers": st.integers(0, 999),
        "tensor_split": st.lists(st.floats(0.01, 1e6), min_size=1, max_size=4).map(tuple),
        "num_speculative_tokens": COUNTS,
        "kv_dtype": st.sampled_from((*GGML, "q8_0/fp16", "q8_0/q4_0", "fp16/q5_1")),
        "speculative_method": st.sampled_from(("mtp", "eagle3", "ngram", "draft_model")),
    },
}  # fmt: skip


@st.composite
def _asked(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    engine = draw(st.sampled_from(sorted(STRATEGIES)))
    options = draw(st.fixed_dictionaries({}, optional=STRATEGIES[engine]))
    if "max_loras" in options and (engine == "sglang" or draw(BOTH)):
        options["max_lora_rank"] = draw(COUNTS)
    if "max_loras" in options and engine == "sglang":
        options["lora_target_modules"] = draw(st.sampled_from((("all",), ("q_proj", "v_proj"))))
    if engine in ("sglang", "trtllm") and "tp" in options and draw(BOTH):
        options["expert_parallel"] = True
    if engine == "sglang" and draw(BOTH):
        options["speculative_method"] = draw(st.sampled_from(("mtp", "eagle", "eagle3", "ngram", "draft_model")))
        if options["speculative_method"] != "mtp":
            options["draft_model"] = draw(NAMES)
        if draw(BOTH):
            options["num_speculative_tokens"] = draw(COUNTS)
    if "draft_model" in options:
        # What a draft is without a method follows from its name.
        options.setdefault("speculative_method", "eagle3")
    return engine, options


@given(_asked())
def test_what_is_written_is_read_again(asked: tuple[str, dict[str, object]]) -> None:
    engine, options = asked
    model = "x.gguf" if engine == "llamacpp" else "owner/name"
    command = read_command(write_command(engine, model, options))
    assert (command.engine, command.model, command.unread) == (engine, model, ())
    assert command.options == options


@given(
    st.sampled_from(("vllm serve", "sglang serve", "llama-server", "trtllm-serve", "docker run vllm/vllm-openai", "")),
    st.lists(
        st.one_of(
            st.sampled_from(
                ("--max-model-len", "-tp", "--limit-mm-per-prompt", "--speculative-config", "-O", "-ts", "-fa", "=", "0",
                 "--speculative-config.a.b", "{}", '{"a": 1}', "[]", "-1", "a=b", "--enable-lora=x", "--", "-", "-c",
                 "--kv_cache_config.dtype", "--compilation-config", "--cudagraph-capture-sizes", ",", "--attention-config",
                 "--enable-dp-attention=maybe", "--cuda-graph-bs", "--lora-modules", "\\", "'", '"', "\n", "#", ";", "&&")
            ),
            st.text(max_size=8),
        ),
        max_size=8,
    ),
)  # fmt: skip
def test_no_text_breaks_it(start: str, words: list[str]) -> None:
    with contextlib.suppress(InputError):
        command = read_command(" ".join([start, *words]))
        assert all(text.isprintable() for text in command.unread)


@given(st.text(alphabet=st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20))
def test_a_written_model_is_one_word(name: str) -> None:
    if name.startswith("-") or "$" in name:
        return
    line = write_command("vllm", name, {})
    assert shlex.split(line)[2] == name.partition("@")[0] or shlex.split(line)[2] == name


def test_a_command_on_another_machine() -> None:
    found = read_command('ssh gpu-1 "nohup llama-server -m ~/a.gguf -c 4096 --parallel 1 > ~/a.log 2>&1 &"')
    assert (found.engine, found.model) == ("llamacpp", "~/a.gguf")
    assert found.options == {"max_model_len": 4096, "max_num_seqs": 1}


def test_a_path_of_windows_keeps_its_separators() -> None:
    found = read_command(r"llama-server.exe -m C:\models\IQ4\a-00001-of-00006.gguf -c 4096")
    assert found.model == r"C:\models\IQ4\a-00001-of-00006.gguf"


def test_python_runs_the_package() -> None:
    assert read_command("python3 -m vllm serve a/b -tp 2").options == {"tp": 2}


@pytest.mark.parametrize(("value", "unread"), [("", ()), ("   ", ("VLLM_ATTENTION_BACKEND=   ",))])
def test_a_variable_of_no_use(value: str, unread: tuple[str, ...]) -> None:
    found = read_command(f"VLLM_ATTENTION_BACKEND='{value}' vllm serve a/b")
    assert (found.options, found.unread) == ({}, unread)


@pytest.mark.parametrize(
    ("pattern", "every"),
    [
        *((text, True) for text in (
            "exps=CPU", ".ffn_.*_exps.=CPU", r"\.ffn_.*_exps\.weight=CPU", "ffn_(up|down|gate)_exps=CPU", ".*exps.*=CPU",
            r"blk\.\d+\.ffn_(gate|up|down)_exps\.weight=CPU", r"\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU",
        )),
        *((text, False) for text in (
            ".ffn_(up)_exps.=CPU", ".ffn_(up|down)_exps.=CPU", r"blk\.1[0-9]\.ffn_.*exps=CPU", "exps=CUDA1", "shexps=CPU",
            r"blk\.(0|1|2)\.ffn_.*exps=CPU", "exps=CPU,attn=CUDA0", "(((((((((((((((((((((((((((((((((", "blk" * 60,
        )),
    ],
)  # fmt: skip
def test_patterns_that_leave_every_expert_with_the_cpu(pattern: str, every: bool) -> None:
    command = read_command(f"llama-server -m x.gguf -ot {shlex.quote(pattern)}")
    assert command.options == ({"num_cpu_moe_layers": 999} if every else {})
    assert command.unread == (() if every else (f"-ot {pattern}",))
