"""The Python face: what the contract promises under its names."""

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest

import kvplan
from tests.models import spec


def test_a_plan_has_the_contracts_names():
    model = kvplan.load_model("meta-llama/Llama-2-70b")
    plan = kvplan.estimate(
        model, seq_len=4096, batch_size=1, dtype=None, kv_dtype=None, quant=None, tp=1, pp=1, engine="exact", gpu=None
    )
    assert isinstance(plan, kvplan.MemoryPlan)
    assert plan.weights.num_parameters == 68_976_648_192
    assert plan.weights.total_bytes == 137_953_296_384
    assert plan.kv_cache.needed_bytes == plan.kv_cache.reserved_bytes == 1_342_177_280
    assert plan.kv_cache.bytes_per_token == 327_680
    assert plan.to_dict()["schema"] == "kvplan/estimate/1"
    frame = plan.to_frame()
    assert len(frame) == 1
    assert frame["kv_cache_bytes"].sum() == 1_342_177_280


def test_a_name_is_enough():
    assert kvplan.estimate("openai/gpt-oss-20b", gpu="H100").fits is True


def test_plans_are_frozen_and_travel():
    plan = kvplan.estimate("openai/gpt-oss-20b", gpu="H100")
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.fits = False
    assert pickle.loads(pickle.dumps(plan)) == copy.deepcopy(plan) == plan


def test_what_a_console_shows_is_one_line():
    plan = kvplan.estimate("openai/gpt-oss-20b", seq_len=1024, gpu="H100")
    assert repr(plan) == (
        "MemoryPlan('openai/gpt-oss-20b', seq_len=1024, batch_size=1, num_gpus=1, "
        "weights=12.82 GiB, kv_cache=27 MiB, fits=True)"
    )
    assert repr(plan.model) == "ModelSpec('openai/gpt-oss-20b', model_type='gpt_oss', num_layers=24)"


def test_the_curve_is_tidy():
    frame = kvplan.curve(spec(), seq_lens=[1024, 2048], batch_sizes=[1, 4], gpu="A100")
    assert list(frame["seq_len"]) == [1024, 1024, 2048, 2048]
    assert list(frame["batch_size"]) == [1, 4, 1, 4]
    one = kvplan.estimate(spec(), seq_len=2048, batch_size=4, gpu="A100")
    last = frame.iloc[-1]
    assert last["total_bytes"] == one.fullest_gpu.total_bytes
    assert last["kv_cache_bytes"] == one.fullest_gpu.kv_cache_bytes
    assert bool(last["fits"]) == one.fits


def test_errors_are_of_one_family_and_carry_a_hint():
    for kind in (kvplan.InputError, kvplan.UnsupportedError, kvplan.HubError):
        assert issubclass(kind, kvplan.KvplanError)
    with pytest.raises(kvplan.InputError) as caught:
        kvplan.estimate(spec(), gpu="H1000")
    assert caught.value.hint


def test_names_are_handed_on_lazily_and_no_others():
    assert set(kvplan.__all__) <= set(dir(kvplan))
    for name in kvplan.__all__:
        assert getattr(kvplan, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_sort"):
        _ = kvplan.nothing_of_the_sort


LLAMA = "meta-llama/Llama-3.1-8B"
POOL = {"kv_memory_bytes": 16 * 2**30, "max_model_len": 4096}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
def test_a_switch_that_is_on_by_default_says_nothing_to_an_engine_without_it(engine):
    explicit = {"prefix_caching": True, "hybrid_manager": True, "async_scheduling": True}
    assert kvplan.kv_pool(LLAMA, engine=engine, **POOL, **explicit) == kvplan.kv_pool(LLAMA, engine=engine, **POOL)


def test_a_pool_without_a_gpu_has_the_limits_of_an_h100():
    given = {"kv_memory_bytes": 16 * 2**30, "max_model_len": 32768}
    pools = [kvplan.kv_pool("google/gemma-3-27b-it", gpu=gpu, **given) for gpu in (None, "H100", "L4")]
    assert pools[0] == pools[1]
    assert pools[0].max_concurrency < pools[2].max_concurrency  # windows keep 2 · 8192 tokens in flight, not 2 · 2048
    fitted = kvplan.fit("google/gemma-3-27b-it", **given)
    assert fitted.boot.pool == pools[0]
    assert "no GPU is named" in fitted.notes[-1]


def test_options_may_be_spelled_as_the_engine_does():
    spelled = {
        "kv_cache_dtype": "fp8", "tensor_parallel_size": 2, "enable_prefix_caching": False, "seed": 3,
        "mamba_ssm_cache_dtype": "float32",
    }  # fmt: skip
    own = {"kv_dtype": "fp8", "tp": 2, "prefix_caching": False, "state_dtype": "fp32"}
    name = "Qwen/Qwen3-Next-80B-A3B-Instruct"
    assert kvplan.kv_pool(name, **POOL, **spelled) == kvplan.kv_pool(name, **POOL, **own)
    windows = [
        kvplan.kv_pool("openai/gpt-oss-20b", **POOL, **off)
        for off in ({"disable_hybrid_kv_cache_manager": True}, {"hybrid_manager": False}, {})
    ]
    assert windows[0] == windows[1] != windows[2]
    assert kvplan.estimate(LLAMA, engine="sglang", gpu="H100", mem_fraction_static=0.7).to_dict() == (
        kvplan.estimate(LLAMA, engine="sglang", gpu="H100", gpu_memory_utilization=0.7).to_dict()
    )
    gemma = [
        kvplan.kv_pool("google/gemma-3-27b-it", **POOL, **given)
        for given in ({"disable_hybrid_kv_cache_manager": True}, {"hybrid_manager": False}, {})
    ]
    assert gemma[0] == gemma[1] != gemma[2]
    turbo = kvplan.fit(LLAMA, gpu="H100", kv_cache_dtype="turboquant_k8v4")
    assert "--kv-cache-dtype turboquant_k8v4" in turbo.command


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kv_cache_dtype": "fp8", "kv_dtype": "fp8"}, "`kv_dtype` is given twice"),
        ({"kv_cache_dtype": "fp7"}, "`--kv-cache-dtype fp7` is not understood"),
        ({"tensor_parallel": 2}, "`tensor_parallel` is no option of vllm"),
        ({"engine": "transformers", "kv_cache_dtype": "fp8"}, "`kv_cache_dtype` is no option of transformers"),
        ({"async_scheduling": False, "engine": "sglang"}, "has no option `async_scheduling`"),
    ],
)
def test_options_that_no_engine_takes(given, sentence):
    with pytest.raises(kvplan.InputError, match=sentence):
        kvplan.kv_pool(LLAMA, **POOL, **given)


def test_numbers_of_numpy_are_numbers() -> None:
    plain = kvplan.fit("Qwen/Qwen3-8B", "L4", max_model_len=8192, concurrency=4, tp=2, gpu_memory_utilization=0.9)
    given = kvplan.fit(
        "Qwen/Qwen3-8B", "L4", max_model_len=np.int64(8192), concurrency=np.int32(4), tp=np.int64(2),
        gpu_memory_utilization=np.float32(0.9),
    )  # fmt: skip
    assert json.loads(json.dumps(given.to_dict())) == plain.to_dict()
    counted = kvplan.fit("Qwen/Qwen3-8B", "L4", num_gpus=np.int64(2), max_num_seqs=np.int64(8)).to_dict()
    assert json.loads(json.dumps(counted)) == counted
    with pytest.raises(kvplan.InputError, match="not within"):
        kvplan.fit("Qwen/Qwen3-8B", "L4", gpu_memory_utilization="0.9")


@pytest.mark.parametrize("command", [None, ["vllm", "serve"], b"vllm serve x"], ids=["none", "list", "bytes"])
def test_a_command_is_one_text(command) -> None:
    with pytest.raises(kvplan.InputError, match="a command cannot be") as error:
        kvplan.serve_check(command, "L4")
    assert "one text" in error.value.hint


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "exact"])
def test_a_draft_that_would_change_nothing_is_refused(engine) -> None:
    # Nothing says how it drafts; TensorRT-LLM and `exact` read none.
    with pytest.raises(kvplan.InputError, match="drafts"):
        kvplan.estimate("Qwen/Qwen3-8B", gpu="H100", engine=engine, draft="Qwen/Qwen3-0.6B")
    with pytest.raises(kvplan.InputError, match="without a draft model for `mtp`"):
        kvplan.fit(
            "Qwen/Qwen3-8B", "H100", engine="trtllm", draft="Qwen/Qwen3-0.6B", speculative_method="mtp",
            num_speculative_tokens=1,
        )  # fmt: skip


def test_a_pool_that_a_named_gpu_has_no_room_for_is_noted() -> None:
    asked = {"max_model_len": 8192, "kv_memory_bytes": 40 * 2**30}
    (note,) = kvplan.fit("Qwen/Qwen3-8B", "L4", **asked).notes
    assert note.startswith("this is of the pool alone, for which the GPU has no room: `kv_memory_bytes` makes")
    assert not kvplan.fit("Qwen/Qwen3-8B", "H100", **asked).notes


def test_arrays_of_numpy_are_rows_or_refused() -> None:
    split = kvplan.fit("meta-llama/Llama-3.1-8B", "L4", engine="llamacpp", tensor_split=np.array([1.0, 1.0]))
    assert split.serving.switches.tensor_split == (1.0, 1.0)
    with pytest.raises(kvplan.InputError, match="not a whole number"):
        kvplan.estimate("Qwen/Qwen3-8B", seq_len=np.array([4096, 8192]))


def test_a_draft_that_is_read_already_stands_in_the_line() -> None:
    draft = kvplan.load_model("Qwen/Qwen3-0.6B")
    found = kvplan.fit(
        "Qwen/Qwen3-32B", gpu="H100", draft=draft, speculative_method="draft_model", num_speculative_tokens=3
    )
    assert '"model": "Qwen/Qwen3-0.6B"' in found.command
    assert kvplan.serve_check(found.command, "H100", offline=True).starts
