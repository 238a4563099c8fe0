"""On which makers' devices, and from which compute capability on, engines run."""

import pytest

import kvplan
from kvplan import UnsupportedError
from kvplan.inverse import serve_check
from kvplan.sources.gpus import find_gpu
from tests.command import refusal_of

VLLM = "vllm serve Qwen/Qwen3-8B --dtype float16"
SGLANG = "sglang serve --model-path Qwen/Qwen3-8B"
TRTLLM = "trtllm-serve Qwen/Qwen3-8B"
# SGLang: model_executor/model_runner.py `load_model`; TensorRT-LLM: "Supported Hardware"; vLLM: its installation guide,
# gpu.cuda.inc.md, of 0.21 and of 0.6.
REFUSED = [
    (VLLM, "V100-PCIe-32GB", "compute capability 7.5 or above"),
    (SGLANG, "V100-SXM2-32GB", "compute capability 7.5 or above"),
    (TRTLLM, "V100-PCIe-32GB", "compute capability 8.0 or above"),
    (TRTLLM, "T4", "compute capability 8.0 or above"),
    (TRTLLM, "MI300X", "does not run on MI300X"),
    (TRTLLM, "TPU v6e", "does not run on TPU v6e"),
    (SGLANG, "Trainium2", "does not run on Trainium2"),
]
PORTED = [(VLLM, "TPU v6e"), (VLLM, "Gaudi3"), (VLLM, "Trainium2"), (SGLANG, "TPU v6e"), (SGLANG, "Gaudi2")]


@pytest.mark.parametrize(("command", "gpu", "words"), REFUSED)
def test_a_device_that_an_engine_refuses(command: str, gpu: str, words: str) -> None:
    assert words in (refusal_of(command, gpu) or "")


@pytest.mark.parametrize(("command", "gpu"), PORTED)
def test_the_account_of_a_port_is_not_known(command: str, gpu: str) -> None:
    with pytest.raises(UnsupportedError, match="is not known to kvplan"):
        serve_check(command, gpu, offline=True)


def test_what_runs_on_a_device_that_is_old_enough() -> None:
    older = "docker run vllm/vllm-openai:v0.11.0 --model Qwen/Qwen3-8B --dtype float16"
    assert serve_check(older, "V100-PCIe-32GB", offline=True).starts
    assert serve_check(SGLANG, find_gpu("RTX 5090"), offline=True).starts
    assert kvplan.fit("Qwen/Qwen3-8B", "80GiB", engine="trtllm").fits


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_no_bigger_gpu_is_proposed_that_the_engine_refuses(engine: str) -> None:
    found = kvplan.fit("Qwen/Qwen3-8B", "L4", engine=engine, max_model_len=40960, tp=1, num_gpus=1)
    bigger = [change.options["gpu"] for change in found.changes if change.code == "gpu"]
    assert bigger == ["RTX 5090"]


@pytest.mark.parametrize("command", [VLLM, SGLANG])
def test_rocms_account_is_said_to_be_assumed(command: str) -> None:
    on_amd, on_nvidia = (_notes(command, gpu) for gpu in ("MI300X", "H200-SXM-141GB"))
    assert any("assumed for ROCm" in note for note in on_amd)
    assert not any("ROCm" in note for note in on_nvidia)


def _notes(command: str, gpu: str) -> tuple[str, ...]:
    found = serve_check(command, gpu, offline=True).fit
    assert found is not None
    assert found.boot.pool is not None
    return found.boot.pool.notes
