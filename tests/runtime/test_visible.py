"""How many GPUs a process sees: lists in variables, what a container is given, and what llama.cpp takes of them."""

import pytest

from kvplan.inverse import serve_check
from kvplan.runtime.command import read_command
from kvplan.runtime.starting import devices_of, options_of

QWEN = "Qwen/Qwen3-8B"
COMPOSE = f"""
services:
  llm:
    image: vllm/vllm-openai:v0.19.0
    command: --model {QWEN} -tp 2
    runtime: nvidia
    environment:
      - NVIDIA_VISIBLE_DEVICES=0
"""


@pytest.mark.parametrize(
    ("told", "seen"),
    [
        ("0,1", 2), ("0, 1", 2), ("''", 0), ("-1", 0), ("0,-1,1", 1), ("NoDevFiles", 0), ("0,1,x", 2), ("0,0", 0),
        ("GPU-1c2d,GPU-3e4f", 2), ("MIG-1c2d/1/0", 1), ("$GPUS", None), ("0,", 1), ("none", 0),
    ],
)  # fmt: skip
def test_a_list_ends_at_what_is_no_device(told: str, seen: int | None) -> None:
    quoted = told if told.startswith(("'", "$")) else f"'{told}'"
    assert read_command(f"CUDA_VISIBLE_DEVICES={quoted} vllm serve a/b -tp 2").num_devices == seen


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ("-e NVIDIA_VISIBLE_DEVICES=0", 1),
        ("-e NVIDIA_VISIBLE_DEVICES=0,2", 2),
        ("-e NVIDIA_VISIBLE_DEVICES=none", 0),
        ("-e NVIDIA_VISIBLE_DEVICES=void", 0),
        ("-e NVIDIA_VISIBLE_DEVICES=all", None),
        ("-e NVIDIA_VISIBLE_DEVICES=$X", None),
        ("--gpus all -e NVIDIA_VISIBLE_DEVICES=0", None),  # docker sets the variable itself
        ("--gpus 2 -e NVIDIA_VISIBLE_DEVICES=0", 2),
        ("--gpus 2 -e CUDA_VISIBLE_DEVICES=1", 1),
    ],
)
def test_what_a_container_is_given(flags: str, seen: int | None) -> None:
    assert read_command(f"docker run {flags} vllm/vllm-openai:v0.19.0 --model a/b").num_devices == seen


def test_what_a_service_is_given_and_outside_of_one() -> None:
    assert read_command(COMPOSE).num_devices == 1
    assert serve_check(COMPOSE, "H100", offline=True).refusal == "the layout takes 2 GPUs, and the process sees one GPU"
    assert read_command("NVIDIA_VISIBLE_DEVICES=0 vllm serve a/b").num_devices is None


@pytest.mark.parametrize(
    ("command", "devices", "shares"),
    [
        ("llama-server -m x.gguf", None, None),
        ("llama-server -m x.gguf -ts 3,1", 2, (3.0, 1.0)),
        ("CUDA_VISIBLE_DEVICES=0 llama-server -m x.gguf -ts 1,1", 1, None),
        ("CUDA_VISIBLE_DEVICES=0,1 llama-server -m x.gguf -ts 3,2,1", 2, (3.0, 2.0)),
        ("CUDA_VISIBLE_DEVICES=0,1,2 llama-server -m x.gguf", 3, None),
        ("llama-server -m x.gguf -ts 1,1 -sm none", 1, None),
        ("llama-server -m x.gguf -dev CUDA0,CUDA1", 2, None),
        ("LLAMA_ARG_DEVICE=CUDA0,CUDA1 llama-server -m x.gguf", 2, None),
        ("llama-server -m x.gguf --device CUDA1 -ts 1,1", 1, None),
    ],
)
def test_devices_that_layers_are_dealt_to(command: str, devices: int | None, shares: tuple[float, ...] | None) -> None:
    found = read_command(command)
    assert (found.unread, devices_of(found), options_of(found).get("tensor_split")) == ((), devices, shares)


@pytest.mark.parametrize("command", ["llama-server -m x.gguf -dev none", "CUDA_VISIBLE_DEVICES=-1 llama-server -m x"])
def test_without_a_device_the_cpu_has_every_layer(command: str) -> None:
    assert options_of(read_command(command))["num_gpu_layers"] == 0
