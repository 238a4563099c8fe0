"""Commands in manifests of Docker Compose and Kubernetes."""

import pytest

from kvplan.core.errors import InputError
from kvplan.runtime.command import read_command
from kvplan.runtime.manifest import container_commands

COMPOSE_LIST = """
version: "3.8"
services:
  cache:
    image: redis:7
    command: redis-server --save 60 1
  llm:
    image: "vllm/vllm-openai:v0.19.0"
    environment:
      - VLLM_ATTENTION_BACKEND=FLASHINFER
    command:
      - --model=Qwen/Qwen3-8B
      - --max-model-len
      - "${MAX_LEN:-16384}"   # tokens # of a request
      - '--kv-cache-dtype=fp8'
    ports: ["8000:8000"]
"""
COMPOSE_FOLDED = """
  vllm:
    image: vllm/vllm-openai:v0.19.0
    command: >
      --model Qwen/Qwen3-8B
      --max-model-len 16384
      --kv-cache-dtype fp8
    environment:
      VLLM_ATTENTION_BACKEND: FLASHINFER
    healthcheck:
      test: ["CMD", "curl"]
"""
COMPOSE_PLAIN = """
    image: vllm/vllm-openai:v0.19.0
    environment: ["VLLM_ATTENTION_BACKEND=FLASHINFER"]
    command: --model Qwen/Qwen3-8B --max-model-len 16384
      --kv-cache-dtype fp8
"""
KUBERNETES = """
spec:
  containers:
  - name: sidecar
    image: busybox
    command: ["sleep", "1d"]
  - name: vllm
    image: vllm/vllm-openai:v0.19.0
    command:
    - python3
    - -m
    - vllm.entrypoints.openai.api_server
    args: ["--model", "Qwen/Qwen3-8B", "--max-model-len",
           "16384", "--kv-cache-dtype=fp8"]
    env:
    - name: VLLM_ATTENTION_BACKEND
      value: "FLASHINFER"
    - name: HF_TOKEN
      valueFrom: {secretKeyRef: {name: hf, key: token}}
    resources:
      limits: {nvidia.com/gpu: 1}
"""
KUBERNETES_SHELL = """
      - image: vllm/vllm-openai:v0.19.0
        command: ["/bin/sh", "-c"]
        args: ["VLLM_ATTENTION_BACKEND=FLASHINFER vllm serve Qwen/Qwen3-8B --max-model-len 16384 --kv-cache-dtype fp8"]
"""


@pytest.mark.parametrize(
    "text",
    [COMPOSE_LIST, COMPOSE_FOLDED, COMPOSE_PLAIN, KUBERNETES, KUBERNETES_SHELL],
    ids=["compose list", "compose folded", "compose plain", "kubernetes", "kubernetes shell"],
)
def test_a_manifest_says_what_its_command_line_would(text: str) -> None:
    found = read_command(text)
    assert (found.engine, found.version, found.model) == ("vllm", "0.19.0", "Qwen/Qwen3-8B")
    assert found.options == {"max_model_len": 16_384, "kv_dtype": "fp8", "attention_backend": "FLASHINFER"}
    assert found.unread == ()


def test_an_entrypoint_stands_before_the_command() -> None:
    found = read_command("image: my/own:1\nentrypoint: /app/llama-server\ncommand: -m /m/a.gguf -c 4096")
    assert (found.engine, found.model, found.options) == ("llamacpp", "/m/a.gguf", {"max_model_len": 4096})


def test_words_keep_what_yaml_quotes() -> None:
    text = """
    image: vllm/vllm-openai
    command: ["--model", "a/b", "--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}']
    """
    found = read_command(text)
    assert (found.options["speculative_method"], found.options["num_speculative_tokens"]) == ("ngram", 3)


@pytest.mark.parametrize(
    "text", ["image: redis:7", "command: [--model, a/b]", "command:", "image:", "- command: [", "args:\n- |"]
)
def test_a_manifest_that_starts_no_engine(text: str) -> None:
    with pytest.raises(InputError, match="starts no engine"):
        read_command(text)


def test_a_command_line_is_no_manifest() -> None:
    assert container_commands("vllm serve a/b --max-model-len 4096\n# image: vllm/vllm-openai") == []


KUBERNETES_INIT = """
apiVersion: v1
kind: Pod
spec:
  initContainers:
  - name: download
    image: busybox
    command: ["sh", "-c", "echo hi"]
  containers:
  - name: vllm
    image: vllm/vllm-openai:v0.19.0
    command: ["vllm", "serve", "Qwen/Qwen3-8B"]
    args: ["-tp=2"]
"""


def test_a_container_before_the_engines_runs_something_else() -> None:
    found = read_command(KUBERNETES_INIT)
    assert (found.engine, found.version, found.model, found.options) == ("vllm", "0.19.0", "Qwen/Qwen3-8B", {"tp": 2})


def test_a_script_without_an_engine_is_passed_over() -> None:
    assert read_command("bash -c 'echo hi'; vllm serve a/b -tp 2").options == {"tp": 2}
    with pytest.raises(InputError, match="starts no engine"):
        read_command("bash -c 'echo hi'")
    with pytest.raises(InputError, match="a server of its own"):
        read_command("bash -c 'ollama run llama3'")


KUBERNETES_VARIABLES = """
containers:
- name: vllm
  image: vllm/vllm-openai:v0.19.0
  command: ["vllm", "serve", "$(MODEL)"]
  args: ["-tp=$(GPUS)", "--max-model-len=$(UNSET)"]
  env:
  - name: MODEL
    value: Qwen/Qwen3-8B
  - name: GPUS
    value: "2"
"""
UNIT = """
[Unit]
Description=a server
[Service]
Environment=CUDA_VISIBLE_DEVICES=0
Environment="MODEL=Qwen/Qwen3-8B"
ExecStart=-/usr/bin/vllm serve $MODEL --tensor-parallel-size 2
Restart=always
"""


def test_variables_of_a_container_in_its_words() -> None:
    found = read_command(KUBERNETES_VARIABLES.replace(', "--max-model-len=$(UNSET)"', ""))
    assert (found.model, found.options) == ("Qwen/Qwen3-8B", {"tp": 2})
    with pytest.raises(InputError, match="not a positive whole number"):
        read_command(KUBERNETES_VARIABLES)


def test_a_unit_of_systemd() -> None:
    found = read_command(UNIT)
    assert (found.model, found.options, found.num_devices) == ("Qwen/Qwen3-8B", {"tp": 2}, 1)
