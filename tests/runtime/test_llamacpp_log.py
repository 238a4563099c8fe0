"""llama.cpp's and Ollama's logs: the figures of each file, typed in from it by hand, and wordings of other builds."""

import pytest

from kvplan.runtime.log import read_log
from tests.runtime.logs import FOLDER, printed, read_one


def test_llama_server_with_sliding_layers():
    """Gemma 3 27B: 10 full layers of 32768 cells, 52 sliding ones of 4 × 1024 + 512 = 4608."""
    seen = read_one("llama-server-gemma-3-27b.log")
    assert (seen.engine, seen.version) == ("llamacpp", "b8112")
    assert seen.model == "/models/google_gemma-3-27b-it-Q4_K_M.gguf"
    assert (seen.gpu, seen.num_gpus) == ("NVIDIA GeForce RTX 4090", 1)
    assert printed(seen) == {
        "device_total": [(24_081, "MiB", 0.5, "CUDA0")],
        "device_free": [(23_287, "MiB", 0.5, "CUDA0")],
        "gpu_layers": [(63, "layers", 0.0, None)],
        "model_layers": [(63, "layers", 0.0, None)],
        "model_buffer": [(1102.77, "MiB", 0.005, "CPU_Mapped"), (15_766.36, "MiB", 0.005, "CUDA0")],
        "output_buffer": [(4.0, "MiB", 0.005, "CUDA_Host")],
        "cells": [(32_768, "cells", 0.0, None)],
        "kv_buffer": [(2560.0, "MiB", 0.005, "CUDA0")],
        "kv_cache": [(2560.0, "MiB", 0.005, None)],
        "key_cache": [(1280.0, "MiB", 0.005, None)],
        "value_cache": [(1280.0, "MiB", 0.005, None)],
        "cache_layers": [(10, "layers", 0.0, None)],
        "swa_cells": [(4608, "cells", 0.0, None)],
        "swa_kv_buffer": [(1872.0, "MiB", 0.005, "CUDA0")],
        "swa_kv_cache": [(1872.0, "MiB", 0.005, None)],
        "swa_key_cache": [(936.0, "MiB", 0.005, None)],
        "swa_value_cache": [(936.0, "MiB", 0.005, None)],
        "swa_layers": [(52, "layers", 0.0, None)],
        "expected_total": [(21_074, "MiB", 0.5, None)],
        "compute_buffer": [(522.62, "MiB", 0.005, "CUDA0"), (85.06, "MiB", 0.005, "CUDA_Host")],
    }
    assert seen.options == {
        "max_model_len": 32_768, "max_num_seqs": 4, "max_num_batched_tokens": 2048, "num_ubatch_tokens": 512,
        "kv_unified": True, "flash_attention": True, "num_gpu_layers": 63, "kv_dtype": "f16",
    }  # fmt: skip
    assert seen.facts["name"] == "Gemma 3 27b It"
    assert seen.facts["architecture"] == "gemma3"


def test_ollama_and_its_runner_are_one_start():
    seen = read_one("ollama-llama-3.1-8b.log")
    assert seen.model.endswith("sha256-667b0c1932bc6ffc593ed1d03f895bf2dc8dc6df21db3042284a6f4416b06a29")
    assert (seen.gpu, seen.num_gpus) == ("NVIDIA GeForce RTX 3060", 1)
    assert seen.facts["ollama"] == "0.7.0"
    assert seen.facts["name"] == "Meta Llama 3.1 8B Instruct"
    assert {name: [(row[0], row[1], row[3]) for row in rows] for name, rows in printed(seen).items()} == {
        "device_total": [(11.6, "GiB", "CUDA0")],
        "expected_total": [(6.5, "GiB", None)],
        "expected_kv_cache": [(1.0, "GiB", None)],
        "expected_weights": [(4.3, "GiB", None)],
        "expected_graph": [(560.0, "MiB", None)],
        "gpu_layers": [(33, "layers", None)],
        "model_layers": [(33, "layers", None)],
        "device_free": [(11_573, "MiB", "CUDA0")],
        "model_buffer": [(4403.49, "MiB", "CUDA0"), (281.81, "MiB", "CPU_Mapped")],
        "output_buffer": [(0.5, "MiB", "CUDA_Host")],
        "kv_buffer": [(1024.0, "MiB", "CUDA0")],
        "kv_cache": [(1024.0, "MiB", None)],
        "key_cache": [(512.0, "MiB", None)],
        "value_cache": [(512.0, "MiB", None)],
        "compute_buffer": [(560.0, "MiB", "CUDA0"), (24.01, "MiB", "CUDA_Host")],
    }
    assert seen.figures["expected_kv_cache"][0].half_step == 0.05
    assert seen.options["max_model_len"] == 8192
    assert seen.options["max_num_seqs"] == 1
    assert seen.options["flash_attention"] is False


def test_a_second_model_of_the_same_ollama():
    text = (FOLDER / "ollama-llama-3.1-8b.log").read_text(encoding="utf-8")
    again = (
        text[text.index("new model will fit") :].replace("667b0c19", "bf481f83").replace("1024.00 MiB", "2048.00 MiB")
    )
    first, second = read_log((text + again).splitlines())
    assert second.model.partition("sha256-")[2].startswith("bf481f83")
    assert second.facts["ollama"] == "0.7.0"
    assert second.gpu == first.gpu == "NVIDIA GeForce RTX 3060"
    assert [figure.value for figure in second.figures["kv_cache"]] == [2048.0]
    assert [figure.value for figure in second.figures["device_total"]] == [11.6]


def _figures(lines):
    (seen,) = read_log(lines)
    return {
        name: [(figure.value, figure.rank) if figure.rank else figure.value for figure in figures]
        for name, figures in seen.figures.items()
    }


WORDINGS = {
    "b2000": (
        [
            "llm_load_tensors: offloaded 33/33 layers to GPU",
            "llm_load_tensors:        CPU buffer size =   245.62 MiB",
            "llm_load_tensors:      CUDA0 buffer size =  5049.71 MiB",
            "llama_new_context_with_model: n_ctx      = 2048",
            "llama_kv_cache_init:      CUDA0 KV buffer size =   640.00 MiB",
            "llama_new_context_with_model: KV self size  =  640.00 MiB, K (f16):  320.00 MiB, V (f16):  320.00 MiB",
            "llama_new_context_with_model:      CUDA0 compute buffer size =   162.00 MiB",
        ],
        {
            "gpu_layers": [33], "model_layers": [33], "model_buffer": [(245.62, "CPU"), (5049.71, "CUDA0")],
            "kv_buffer": [(640.0, "CUDA0")], "kv_cache": [640.0], "key_cache": [320.0], "value_cache": [320.0],
            "compute_buffer": [(162.0, "CUDA0")],
        },
    ),
    "b6000": (
        [
            "llama_kv_cache_unified:      CUDA0 KV buffer size =  4320.00 MiB",
            "llama_kv_cache_unified: size = 4320.00 MiB (  2048 cells,  27 layers,  8/8 seqs), K (f16): 2592.00 MiB, V (f16): 1728.00 MiB",
        ],
        {
            "kv_buffer": [(4320.0, "CUDA0")], "kv_cache": [4320.0], "key_cache": [2592.0], "value_cache": [1728.0],
            "cells": [2048], "cache_layers": [27],
        },
    ),
    "hybrid": (
        [
            "0.27.248.242 I llama_context: n_ctx         = 8192",
            "0.27.253.065 I llama_kv_cache:        CPU KV buffer size =    96.00 MiB",
            "0.27.302.186 I llama_kv_cache:    Vulkan1 KV buffer size =   160.00 MiB",
            "0.27.795.572 I llama_memory_recurrent:        CPU RS buffer size =    20.94 MiB",
            "0.27.840.222 I llama_memory_recurrent:    Vulkan1 RS buffer size =    29.31 MiB",
            "0.27.840.260 I llama_memory_recurrent: size =   50.25 MiB (     1 cells,  32 layers,  1 seqs  0 rs_seq), R (f32):    2.25 MiB, S (f32):   48.00 MiB",
        ],
        {
            "kv_buffer": [(96.0, "CPU"), (160.0, "Vulkan1")], "state_buffer": [(20.94, "CPU"), (29.31, "Vulkan1")],
            "recurrent_cache": [50.25], "state_slots": [1], "conv_cache": [2.25], "state_cache": [48.0],
        },
    ),
    "decimal comma and latents": (
        ["llama_new_context_with_model: KV self size  = 1147,50 MiB, c^KV (q8_0): 1147,50 MiB, kv^T: not used"],
        {"kv_cache": [1147.5]},
    ),
    "the table at the end": (
        [
            "llama_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   model   context   compute    unaccounted |",
            "llama_memory_breakdown_print: |   - CUDA0 (RTX 4090)   | 24080 = 1311 + (21900 = 19850 +    1536 +     514) +         869 |",
            "llama_memory_breakdown_print: |   - Host               |                 1200 =  1100 +       0 +     100                |",
        ],
        {
            "device_total": [(24_080, "CUDA0")], "model_buffer": [(19_850, "CUDA0"), (1100, "Host")],
            "context_buffer": [(1536, "CUDA0"), (0, "Host")], "compute_buffer": [(514, "CUDA0"), (100, "Host")],
        },
    ),
    "devices of newer builds": (
        [
            "0.00.9 I   - CUDA0   : NVIDIA GeForce RTX 4090 (24080 MiB, 23500 MiB free)",
            "0.00.9 I   - CPU     : AMD Ryzen (64297 MiB, 64297 MiB free)",
            "0.01.0 I common_params_fit_impl: projected to use 21900 MiB of device memory vs. 23480 MiB of free device memory",
            "0.01.1 I llama_prepare_model_devices: using device CUDA0 (NVIDIA GeForce RTX 4090) (0000:01:00.0) - 23480 MiB free",
        ],
        {"device_total": [(24_080, "CUDA0")], "device_free": [(23_480, "CUDA0")], "expected_total": [21_900]},
    ),
    "ollama's engine before 0.11": (
        [
            'level=INFO source=ggml.go:377 msg="model weights" buffer=ROCm0 size="12.4 GiB"',
            'level=INFO source=ggml.go:666 msg="compute graph" backend=ROCm0 buffer_type=ROCm0 size="0 B"',
            'level=INFO source=ggml.go:666 msg="compute graph" backend=ROCm0 buffer_type=ROCm0 size="1.3 GiB"',
        ],
        {"model_buffer": [(12.4, "ROCm0")], "compute_buffer": [(1.3, "ROCm0")]},
    ),
    "estimates of ollama before llama.cpp's own figures": (
        [
            'level=INFO source=device.go:251 msg="kv cache" device=CUDA0 size="1.0 GiB"',
            "llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB",
        ],
        {"kv_buffer": [(1024.0, "CUDA0")]},
    ),
    "estimates by another name of the device": (
        [
            'level=INFO source=device.go:240 msg="model weights" device=Metal size="4.7 GiB"',
            "load_tensors: Metal_Mapped model buffer size =  4807.05 MiB",
            "load_tensors:   CPU_Mapped model buffer size =   281.81 MiB",
        ],
        {"model_buffer": [(4807.05, "Metal_Mapped"), (281.81, "CPU_Mapped")]},
    ),
    "ollama's own engine": (
        [
            'level=INFO source=device.go:240 msg="model weights" device=CUDA0 size="4.1 GiB"',
            'level=INFO source=device.go:251 msg="kv cache" device=CUDA0 size="1.8 GiB"',
            'level=INFO source=device.go:256 msg="kv cache" device=CPU size="38.0 MiB"',
            'level=INFO source=device.go:262 msg="compute graph" device=CUDA0 size="1.8 GiB"',
        ],
        {
            "model_buffer": [(4.1, "CUDA0")], "kv_buffer": [(1.8, "CUDA0"), (38.0, "CPU")],
            "compute_buffer": [(1.8, "CUDA0")],
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDINGS)
def test_wordings_of_other_builds(name):
    lines, figures = WORDINGS[name]
    assert _figures(lines) == figures


def test_the_type_of_latents():
    """ik_llama.cpp: the latent has a type of its own, and with `-mla 1` a transposed copy."""
    line = "llama_new_context_with_model: KV self size  =  576.00 MiB, c^KV (q8_0):  306.00 MiB, kv^T"
    (alone,) = read_log([line + ": not used"])
    assert (alone.options["kv_dtype"], alone.options["latent_cache"]) == ("q8_0", "alone")
    (twice,) = read_log([line + " (f16):  270.00 MiB"])
    assert (twice.options["kv_dtype"], twice.options["latent_cache"]) == ("q8_0/f16", "with_values")
    assert alone.facts["worded_before"] == "b4900"


def test_words_of_older_builds():
    (old,) = read_log(["llm_load_tensors:      CUDA0 buffer size =  5049.71 MiB"])
    assert old.facts["worded_before"] == "b4900"
    (new,) = read_log(
        ["load_tensors:        CUDA0 model buffer size =  5049.71 MiB", "llama_context: n_ctx         = 64"]
    )
    assert "worded_before" not in new.facts


LAYERS = {
    "the output last": (["offloading 10 repeating layers to GPU", "offloaded 10/33 layers to GPU"], True),
    "the output first": (
        ["offloading output layer to GPU", "offloading 9 repeating layers to GPU", "offloaded 10/33 layers to GPU"],
        False,
    ),
    "all": (["offloading 32 repeating layers to GPU", "offloaded 33/33 layers to GPU"], None),
    "none": (["offloading 0 repeating layers to GPU", "offloaded 0/33 layers to GPU"], None),
    "not said": (["offloaded 10/33 layers to GPU"], None),
}


@pytest.mark.parametrize(("lines", "last"), LAYERS.values(), ids=LAYERS)
def test_whether_the_output_is_one_of_the_layers_on_the_gpu(lines, last):
    (seen,) = read_log([f"load_tensors: {line}" for line in lines])
    assert seen.options.get("output_last") is last


def _table(self_mib, model, context, compute, rest=-4000):
    total = "| 12000 = 9000 + ("
    return [
        "common_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   model   context   compute    unaccounted |",
        f"common_memory_breakdown_print: |   - CUDA0 (RTX 3060)   {total} {self_mib} = {model} + {context} + {compute}) + {rest} |",
        f"common_memory_breakdown_print: |   - Host               |                 {700 + context} = 700 + {context} + 0 |",
    ]  # fmt: skip


MISFIT = "common_params_fit_impl: cannot meet free memory target of 1024 MiB, need to reduce device memory by 2000 MiB"
TAKEN = "common_params_fit_impl:   - CUDA0 (NVIDIA GeForce RTX 3060): 20 layers (3 overflowing),   7000 MiB used,   2000 MiB free"
TABLES = {
    "the plan that was taken": (
        [*_table(11000, 6000, 4000, 1000), MISFIT, *_table(7000, 4000, 2500, 500), *_table(7300, 4200, 2600, 500), TAKEN],
        (4000, 2500, 500), "planned",
    ),
    "the only plan": (_table(7000, 4000, 2500, 500), (4000, 2500, 500), "planned"),
    "a plan that does not fit, and no other": ([*_table(11000, 6000, 4000, 1000), MISFIT], None, None),
    "at the end": (
        [
            *_table(11000, 6000, 4000, 1000), MISFIT, *_table(7000, 4000, 2500, 500), TAKEN,
            "srv  llama_server: server is listening on http://127.0.0.1:8080", *_table(7100, 4000, 2500, 600, 300),
        ],
        (4000, 2500, 600), "at the end",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "values", "which"), TABLES.values(), ids=TABLES)
def test_which_table_of_memory_holds(lines, values, which):
    (seen,) = read_log(lines)
    names = ("model_buffer", "context_buffer", "compute_buffer")
    found = [[f.value for f in seen.figures.get(name, ()) if f.rank == "CUDA0"] for name in names]
    assert found == ([[value] for value in values] if values else [[], [], []])
    assert seen.facts.get("breakdown") == which


def test_a_table_says_nothing_beside_lines_of_their_own():
    (seen,) = read_log([
        *_table(7000, 4000, 2500, 500),
        "load_tensors:        CUDA0 model buffer size =  4001.25 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =  2500.00 MiB",
        "sched_reserve:      CUDA0 compute buffer size =   500.12 MiB",
    ])  # fmt: skip
    assert {name: [f.value for f in seen.figures[name]] for name in seen.figures} == {
        "device_total": [12000], "model_buffer": [4001.25], "kv_buffer": [2500.0], "compute_buffer": [500.12],
    }  # fmt: skip


def test_the_server_that_ollama_starts():
    (seen,) = read_log([
        'level=INFO source=llama_server.go:406 msg="starting llama-server" cmd="/bin/llama-server --model /blobs/sha256-ab '
        '--port 42103 --no-webui -c 16384 -np 2 -b 1024 -ub 256 -ngl 20 -ctk q8_0 -ctv q8_0 -fa on"',
        'level=INFO source=llama_server.go:1201 msg="llama-server started in 15.37 seconds"',
        "CUDA error: out of memory",
    ])  # fmt: skip
    assert seen.model == "/blobs/sha256-ab"
    assert seen.options == {
        "max_model_len": 16384, "max_num_seqs": 2, "max_num_batched_tokens": 1024, "num_ubatch_tokens": 256,
        "num_gpu_layers": 20, "flash_attention": True, "kv_dtype": "q8_0",
    }  # fmt: skip
    assert seen.errors == ()


def test_files_before_gguf():
    (seen,) = read_log([
        "llama.cpp: loading model from /models/13B/ggml-model-q4_0.bin",
        "llama_model_load_internal: n_ctx      = 2048",
        "llama_init_from_file: kv self size  = 1600.00 MB",
    ])  # fmt: skip
    assert seen.model == "/models/13B/ggml-model-q4_0.bin"
    assert seen.options == {"max_model_len": 2048}
    assert [(figure.value, figure.unit) for figure in seen.figures["kv_cache"]] == [(1600.0, "MiB")]


@pytest.mark.parametrize("prefix", ["print_info", "llm_load_print_meta"])
def test_numbers_of_the_file(prefix):
    (seen,) = read_log([
        f"{prefix}: n_layer          = 32", f"{prefix}: n_head_kv        = 8", f"{prefix}: n_embd_head_k    = 128",
        f"{prefix}: n_ff             = [14336, 14336, 7168]", f"{prefix}: n_gqa            = 4",
        "llama_model_loader: - kv   7:          general.base_model.0.name str              = Llama 3.1 8B",
    ])  # fmt: skip
    assert {name: text for name, text in seen.facts.items() if name != "worded_before"} == {
        "n_layer": "32", "n_head_kv": "8", "n_embd_head_k": "128", "base_model": "Llama 3.1 8B",
    }  # fmt: skip


def test_keys_and_values_of_two_types():
    line = "llama_kv_cache: size = 1151.50 MiB ( 8192 cells, 94 layers, 1/1 seqs), K (q8_0): 399.50 MiB, V (f16): 752.00 MiB"
    (seen,) = read_log([line])
    assert seen.options["kv_dtype"] == "q8_0/f16"
    assert seen.options["kv_unified"] is False


def test_what_ollama_asks_of_its_own_engine():
    (seen,) = read_log([
        'msg="starting runner" cmd="/usr/bin/ollama runner --ollama-engine --model /blobs/sha256-ab --port 43625"',
        'msg=load request="{Operation:fit LoraPath:[] Parallel:2 BatchSize:512 FlashAttention:Enabled KvSize:16384 KvCacheType: NumThreads:4 GPULayers:[] MultiUserCache:false}"',
        'msg="" architecture=qwen3moe file_type=Q4_K_M name=Qwen3-Coder-30B description="" num_tensors=579 num_key_values=39',
        'msg=load request="{Operation:commit LoraPath:[] Parallel:2 BatchSize:512 FlashAttention:Enabled KvSize:8192 KvCacheType:q8_0 NumThreads:6 GPULayers:29[ID:GPU-31 Layers:29(35..63)] MultiUserCache:false}"',
    ])  # fmt: skip
    assert seen.model == "/blobs/sha256-ab"
    assert seen.options == {
        "max_num_seqs": 2, "max_num_batched_tokens": 512, "flash_attention": True, "max_model_len": 8192,
        "num_gpu_layers": 29, "kv_dtype": "q8_0",
    }  # fmt: skip
    assert seen.facts["architecture"] == "qwen3moe"
    assert seen.facts["name"] == "Qwen3-Coder-30B"


def test_a_draft_model_does_not_mix_with_the_model():
    figures = _figures([
        "llama_model_loader: loaded meta data with 39 key-value pairs and 288 tensors from big.gguf (version GGUF V3 (latest))",
        "load_tensors:        CUDA0 model buffer size = 15766.36 MiB",
        "llama_context: constructing llama_context",
        "llama_context: n_ctx         = 8192",
        "llama_kv_cache: size = 2560.00 MiB ( 8192 cells,  10 layers,  1/1 seqs), K (f16): 1280.00 MiB, V (f16): 1280.00 MiB",
        "srv    load_model: loading draft model 'small.gguf'",
        "llama_model_loader: loaded meta data with 39 key-value pairs and 288 tensors from small.gguf (version GGUF V3 (latest))",
        "load_tensors:        CUDA0 model buffer size = 601.50 MiB",
        "llama_context: constructing llama_context",
        "llama_context: n_ctx         = 4096",
        "llama_kv_cache: size = 112.00 MiB ( 4096 cells,  28 layers,  1/1 seqs), K (f16): 56.00 MiB, V (f16): 56.00 MiB",
    ])  # fmt: skip
    assert figures == {
        "model_buffer": [(15_766.36, "CUDA0")], "kv_cache": [2560.0], "key_cache": [1280.0], "value_cache": [1280.0],
        "cells": [8192], "cache_layers": [10], "draft_weights": [(601.5, "CUDA0")], "draft_kv_cache": [112.0],
    }  # fmt: skip


def test_several_devices():
    (seen,) = read_log([
        "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 3090) - 23887 MiB free",
        "llama_model_load_from_file_impl: using device CUDA1 (NVIDIA RTX A4000) (0000:02:00.0) - 15700 MiB free",
    ])  # fmt: skip
    assert seen.gpu == "NVIDIA GeForce RTX 3090 + NVIDIA RTX A4000"
    assert seen.num_gpus == 2


def test_why_it_did_not_start():
    (seen,) = read_log([
        "llama_model_loader: loaded meta data with 39 key-value pairs and 288 tensors from m.gguf (version GGUF V3 (latest))",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 10240.00 MiB on device 0: cudaMalloc failed: out of memory",
        "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
    ])  # fmt: skip
    assert seen.model == "m.gguf"
    assert seen.errors == (
        "allocating 10240.00 MiB on device 0: cudaMalloc failed: out of memory",
        "failed to initialize the context: failed to allocate buffer for kv cache",
    )


def test_what_was_tried_again_and_went_well_is_no_failure():
    (seen,) = read_log([
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9216.00 MiB on device 1: cudaMalloc failed: out of memory",
        "graph_reserve: failed to allocate compute buffers",
        "sched_reserve: compute buffer allocation failed, retrying without pipeline parallelism",
        "srv    load_model: initializing, n_slots = 2, n_ctx_slot = 16384, kv_unified = 'false'",
        "srv          main: server is listening on http://127.0.0.1:8080",
    ])  # fmt: skip
    assert seen.errors == ()
    assert seen.options == {"max_num_seqs": 2, "kv_unified": False, "max_model_len": 32_768}


def test_a_server_that_prints_little():
    (seen,) = read_log([
        "srv          main: n_parallel is set to auto, using n_parallel = 4 and kv_unified = true",
        "srv    load_model: loading model '/models/Qwen3-8B-Q4_K_M.gguf'",
        "llama_context: n_ctx_seq (24576) < n_ctx_train (40960) -- the full capacity of the model will not be utilized",
        "srv    load_model: creating MTP draft context against the target model '/models/Qwen3-8B-Q4_K_M.gguf'",
        "slot   load_model: id  0 | task -1 | new slot, n_ctx = 24576",
        "srv          main: server is listening on http://127.0.0.1:8080",
    ])  # fmt: skip
    assert seen.model == "/models/Qwen3-8B-Q4_K_M.gguf"
    assert seen.options == {"max_num_seqs": 4, "kv_unified": True, "max_model_len": 24_576}


def test_a_device_whose_name_has_brackets():
    (seen,) = read_log(["using device Vulkan0 (Intel(R) Arc(TM) A770 (DG2)) (0000:03:00.0) - 15473 MiB free"])
    assert seen.gpu == "Intel(R) Arc(TM) A770 (DG2)"
    assert [figure.value for figure in seen.figures["device_free"]] == [15_473]


def test_a_model_that_is_not_known():
    (seen,) = read_log(["llama_model_load: error loading model: unknown model architecture: 'new'"])
    assert seen.errors == ("error loading model: unknown model architecture: 'new",)


def test_a_runner_that_died():
    (seen,) = read_log([
        'level=INFO msg="starting llama server" cmd="/bin/ollama_llama_server --model /blobs/sha256-ab --ctx-size 2048"',
        "Error: llama runner process has terminated: GGML_ASSERT(n > 0) failed",
    ])  # fmt: skip
    assert seen.errors == ("llama runner process has terminated: GGML_ASSERT(n > 0) failed",)


def test_swa_full():
    (seen,) = read_log(["llama_kv_cache_iswa: using full-size SWA cache (ref: …)"])
    assert seen.options["swa_full"] is True
