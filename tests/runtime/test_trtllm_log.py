"""TensorRT-LLM's logs: the figures of the file, typed in from it by hand, and the lines of its C++ engines."""

import pytest

from kvplan.runtime.log import read_log
from tests.runtime.logs import by_rank, printed, read_one


def test_pytorch_backend():
    """The cache is made twice; the small one that it profiles with does not count."""
    seen = read_one("trtllm-1.1-llama.log")
    assert (seen.engine, seen.version, seen.model) == ("trtllm", "1.1.0", "meta-llama/Llama-3.1-8B-Instruct")
    assert {name: [row[:2] for row in rows] for name, rows in printed(seen).items()} == {
        "weights": [(14.96, "GiB")],
        "num_blocks": [(14_234, "blocks")],
        "num_cpu_blocks": [(0, "blocks")],
        "block_size": [(32, "tokens")],
        "kv_cache": [(55.60, "GiB")],
        "num_tokens": [(455_488, "tokens")],
        "torch_after_load": [(16.16, "GiB")],
        "outside_after_load": [(1.02, "GiB")],
        "activation_peak": [(1.13, "GiB")],
        "non_torch": [(1.11, "GiB")],
        "peak": [(18.40, "GiB")],
        "kv_memory": [(55.60, "GiB")],
        "utilization": [(0.8999999761581421, "share")],
        "bytes_per_token": [(131_072, "B")],
        "device_total": [(79.18, "GiB")],
        "profile_cache": [(1.00, "GiB")],
    }
    assert seen.options == {
        "max_model_len": 131_072, "max_num_batched_tokens": 8192, "max_num_seqs": 2048, "block_size": 32,
        "gpu_memory_utilization": 0.9,
    }  # fmt: skip


def test_cpp_engine():
    """Llama-3.1-8B, fp8: 8219 blocks of 32 tokens."""
    (seen,) = read_log([
        "[TensorRT-LLM][INFO] Memory usage when calculating max tokens in paged kv cache: total: 31.84 GiB, available: 17.83 GiB",
        "[TensorRT-LLM][INFO] Number of blocks in KV cache primary pool: 8219",
        "[TensorRT-LLM][INFO] Number of blocks in KV cache secondary pool: 0, onboard blocks to primary memory before reuse: true",
        "[TensorRT-LLM][INFO] Number of tokens per block: 32.",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 16.05 GiB for max tokens in paged KV cache (263008)",
    ])  # fmt: skip
    assert seen.engine == "trtllm"
    assert seen.model is None
    assert {name: [figure.value for figure in figures] for name, figures in seen.figures.items()} == {
        "device_total": [31.84], "available_after_load": [17.83], "num_blocks": [8219], "num_cpu_blocks": [0],
        "block_size": [32], "kv_cache": [16.05], "num_tokens": [263_008],
    }  # fmt: skip


def test_newer_words_and_ranks():
    line = (
        "[03/02/2026-12:40:34] [TRT-LLM] [RANK {0}] [I] Peak memory during memory usage profiling (torch + non-torch): "
        "113.6{0} GiB, available KV cache memory when calculating max tokens: 5.95 GiB, fraction is set 0.9, kv size per "
        "token is 73728. device total memory 119.70 GiB, temporary kv cache memory during profiling 0.56 GiB"
    )
    (seen,) = read_log([line.format(0), line.format(1)])
    assert by_rank(seen, "peak") == {"rank 0": 113.60, "rank 1": 113.61}
    assert by_rank(seen, "bytes_per_token") == {"rank 0": 73_728, "rank 1": 73_728}
    assert by_rank(seen, "profile_cache") == {"rank 0": 0.56, "rank 1": 0.56}
    assert seen.num_gpus == 2


def test_ranks_of_mpirun():
    line = "[1,{0}]<stdout>:[TensorRT-LLM][INFO] [MemUsageChange] Allocated 16.0{0} GiB for max tokens in paged KV cache (263008)"
    (seen,) = read_log([line.format(0), line.format(1)])
    assert by_rank(seen, "kv_cache") == {"rank 0": 16.00, "rank 1": 16.01}


def test_why_it_did_not_start():
    (seen,) = read_log([
        "[TensorRT-LLM] TensorRT-LLM version: 1.2.0",
        "RuntimeError: Executor creation failed due to insufficient GPU memory.",
    ])  # fmt: skip
    assert seen.version == "1.2.0"
    assert seen.errors == ("Executor creation failed due to insufficient GPU memory.",)


def test_which_part_found_no_memory():
    (seen,) = read_log([
        "[TensorRT-LLM] TensorRT LLM version: 1.2.0rc3",
        "[TRT-LLM] [RANK 0] [E] Failed to initialize executor on rank 0: Executor creation failed due to insufficient GPU memory.",
        "",
        "The following component could not be created: KV cache",
        "Total GPU memory (GiB): 94.75",
    ])  # fmt: skip
    assert seen.version == "1.2.0rc3"
    assert [error.split()[0] for error in seen.errors] == ["Executor", "The"]
    assert [figure.value for figure in seen.figures["device_total"]] == [94.75]


OLDER = {
    "0.8": (
        ["Allocate 6442450944 bytes for k/v cache. ", "Using 49152 tokens in paged KV cache."],
        {"kv_cache": [6_442_450_944], "num_tokens": [49_152]},
    ),
    "0.9": (
        ["Max tokens in paged KV cache: 98304. Allocating 12884901888 bytes."],
        {"kv_cache": [12_884_901_888], "num_tokens": [98_304]},
    ),
    "total tokens": (
        ["Using 512 total tokens in paged KV cache, and 4 blocks per sequence"],
        {"num_tokens": [512]},
    ),
    "engine": (["Loaded engine size: 7641 MiB"], {"weights": [7641]}),
    "no share": (
        [
            "Peak memory during memory usage profiling (torch + non-torch): 31.25 GiB, available KV cache memory when "
            "calculating max tokens: 42.50 GiB"
        ],
        {"peak": [31.25], "kv_memory": [42.5]},
    ),
}


@pytest.mark.parametrize("name", OLDER)
def test_wordings_of_older_versions(name):
    lines, figures = OLDER[name]
    (seen,) = read_log([f"[TensorRT-LLM][INFO] {line}" for line in lines])
    assert {name: [figure.value for figure in found] for name, found in seen.figures.items()} == figures


@pytest.mark.parametrize("lines", [
    [
        "[TensorRT-LLM][INFO] TRTGptModel maxBatchSize: 32", "[TensorRT-LLM][INFO] TRTGptModel maxSequenceLen: 2048",
        "[TensorRT-LLM][INFO] TRTGptModel maxNumTokens: 4096",
    ],
    [
        "[TRT-LLM AUTO-DEPLOY] [RANK 0] [I] [SequenceInfo:] self.max_seq_len=2048, self.max_batch_size=32, "
        "self.page_size=64, self.max_num_tokens=4096 (inferred), self.num_pages=128"
    ],
], ids=["engine", "AutoDeploy"])  # fmt: skip
def test_limits_of_other_backends(lines):
    (seen,) = read_log(lines)
    assert seen.options == {"max_num_seqs": 32, "max_model_len": 2048, "max_num_batched_tokens": 4096}


def test_the_version_ends_where_its_line_goes_on():
    assert read_log(["[TensorRT-LLM] TensorRT-LLM version: 0.8.0Input [Text 0]"])[0].version == "0.8.0"


def test_a_log_that_ends_after_the_trial_run_has_no_pool():
    """The pool of the trial, here 257 blocks, is not the one that is served with."""
    trial = [
        "[TensorRT-LLM][INFO] Max KV cache blocks per sequence: 65 [window size=2048], tokens per block=32, primary "
        "blocks=257, secondary blocks=0, max sequence length=2048",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).",
        "[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 20.10 GiB, available KV cache memory "
        "when calculating max tokens: 30.20 GiB, fraction is set 0.9, kv size is 65536. device total memory 54.00 GiB",
    ]
    real = "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 30.20 GiB for max tokens in paged KV cache (494784)."
    assert not read_log(trial)[0].figures.keys() & {"num_blocks", "num_tokens", "kv_cache"}
    assert [figure.value for figure in read_log([*trial, real])[0].figures["num_tokens"]] == [494_784]
