"""What an engine refuses of a command line, once its model is known, before it looks at the memory."""

import pytest

from kvplan import InputError, UnsupportedError
from kvplan.core.errors import RefusedError
from kvplan.inverse import serve_check
from kvplan.runtime.command import read_command
from tests.command import refusal_of, run

QWEN, AWQ, MOE = "Qwen/Qwen3-8B", "Qwen/Qwen3-8B-AWQ", "Qwen/Qwen3-30B-A3B"
VLLM, SGLANG = f"vllm serve {QWEN}", f"sglang serve --model-path {QWEN}"
OLDER = f"docker run vllm/vllm-openai:v0.19.0 --model {QWEN}"
POD = f"""
spec:
  containers:
  - name: vllm
    image: vllm/vllm-openai:v0.19.0
    args: ["--model", "{QWEN}", "--tensor-parallel-size", "4"]
    resources:
      limits:
        nvidia.com/gpu: 2
"""
COMPOSE = f"""
services:
  llm:
    image: vllm/vllm-openai:v0.19.0
    command: --model {QWEN} -tp 2
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              device_ids: ["3"]
              capabilities: [gpu]
"""
# vLLM 0.33: config/model.py `_verify_quantization`, model_loader/weight_utils.py `get_quant_config`, config/scheduler.py
# `verify_max_model_len`, config/parallel.py 1068, config/lora.py `MaxLoRARanks`, config/cache.py `CacheDType`.
REFUSED = [
    (f"{VLLM} --quantization awq", "needs a checkpoint that is stored so"),
    (f"{VLLM} -q gptq_marlin", "needs a checkpoint that is stored so"),
    (f"{OLDER} --quantization awq_marlin", "needs a checkpoint that is stored so"),
    (f"{SGLANG} --quantization awq", "needs a checkpoint that is stored so"),
    (f"{VLLM} --quantization bitsandbytes", "vLLM 0.33 has no such scheme"),
    (f"{VLLM} --no-enable-chunked-prefill --max-num-batched-tokens 2048 --max-model-len 16384", "less than the 16,384"),
    (f"{VLLM} --no-enable-chunked-prefill --max-num-batched-tokens 2048", "less than the 40,960"),
    (f"{VLLM} --compilation-config 3", "is no JSON object"),
    (f"{VLLM} --enable-lora --max-lora-rank 63", "no slots for adapters of rank 63"),
    (f"{VLLM} --enable-lora --max-lora-rank 1024", "no slots for adapters of rank 1024"),
    (f"CUDA_VISIBLE_DEVICES=0 {VLLM} -tp 2", "the layout takes 2 GPUs, and the process sees one GPU"),
    (f"CUDA_VISIBLE_DEVICES=0,1 {SGLANG} --tp 2 --pp-size 2", "takes 4 GPUs, and the process sees 2 GPUs"),
    (f"docker run --gpus 1 vllm/vllm-openai:v0.19.0 --model {QWEN} -dp 2", "takes 2 GPUs, and the process sees one"),
    (f"docker run --gpus '\"device=0,2\"' lmsysorg/sglang sglang serve --model-path {QWEN} --tp 4", "sees 2 GPUs"),
    (POD, "takes 4 GPUs, and the process sees 2 GPUs"),
    (COMPOSE, "takes 2 GPUs, and the process sees one GPU"),
    (f"{VLLM} --kv-cache-dtype fp4", "is not a format of vLLM's cache"),
    (f"{VLLM} --kv-cache-dtype q8_0", "is not a format of vLLM's cache"),
    (f"{VLLM} --kv-cache-dtype fp8_ds_mla", "packs the rows of sparse latent attention"),
    (
        f"CUDA_VISIBLE_DEVICES=0 vllm serve {MOE} -dp 4 --data-parallel-size-local 2",
        "takes 2 GPUs, and the process sees",
    ),
    (f"CUDA_VISIBLE_DEVICES=0 vllm serve {MOE} -dp 4 -dpl 2 -dpr 2", "takes 2 GPUs, and the process sees one GPU"),
    (f"CUDA_VISIBLE_DEVICES=0 vllm serve {MOE} -dp 4 -dpn 1 -tp 2", "takes 2 GPUs, and the process sees one GPU"),
    (f"CUDA_VISIBLE_DEVICES= {VLLM}", "the layout takes one GPU, and the process sees none"),
    (f"{VLLM} -dp 4 --data-parallel-rank 0", "has no experts"),
    (f"{VLLM} -dp 4 --data-parallel-external-lb --nnodes 4 --node-rank 0", "has no experts"),
    (f"{VLLM} -dp 2 --data-parallel-size-local 4", "`--data-parallel-size-local 4` is more than"),
    (f"{VLLM} --quantization none", "vLLM 0.33 has no such scheme"),
    (f"{VLLM} --dtype foo", "`--dtype foo` is not one of auto, half"),
    (f"{VLLM} --swap-space 4", "vLLM 0.33 no longer has `--swap-space`"),
    (f"{VLLM} --task=generate --num-scheduler-steps 8", "no longer has `--task` and `--num-scheduler-steps`"),
    (f"{VLLM} --use-v2-block-manager --device cuda", "no longer has `--use-v2-block-manager` and `--device`"),
    (f"{VLLM} --speculative-model [ngram] --num-speculative-tokens 3", "no longer has `--speculative-model`"),
    (f'{VLLM} --speculative-config \'{{"method":"eagle3","num_speculative_tokens":3}}\'', "names no `model`"),
]
TAKEN = [
    f"{VLLM} --quantization fp8",
    f"vllm serve {AWQ} --quantization awq_marlin",
    f"vllm serve {AWQ}",
    f"{VLLM} --no-enable-chunked-prefill --max-num-batched-tokens 16384 --max-model-len 16384",
    f"{VLLM} --enable-chunked-prefill --max-num-batched-tokens 2048",
    f"{VLLM} --max-lora-rank 63",  # no adapters without `--enable-lora`
    f"{VLLM} --enable-lora --max-lora-rank 64",
    f"CUDA_VISIBLE_DEVICES=0,1 {VLLM} -tp 2",
    f"CUDA_VISIBLE_DEVICES=$GPUS {VLLM} -tp 2",
    f"CUDA_VISIBLE_DEVICES=0 {VLLM} -tp 2 --nnodes 2 --node-rank 0",
    f"docker run --gpus all vllm/vllm-openai:v0.19.0 --model {QWEN} -tp 2",
    f"docker run vllm/vllm-openai:v0.8.5 --model {QWEN} --compilation-config 3",
    POD.replace("gpu: 2", "gpu: 4"),
    f"{VLLM} --kv-cache-dtype nvfp4",
    f"CUDA_VISIBLE_DEVICES=0 vllm serve {MOE} -dp 4 --data-parallel-size-local 1",
    f"CUDA_VISIBLE_DEVICES=0 vllm serve {MOE} -dp 4 -ep --data-parallel-rank 0",
    f"CUDA_VISIBLE_DEVICES=0 vllm serve {MOE} -dp 4 -dpn 3",
    f"CUDA_VISIBLE_DEVICES=0,1 {VLLM} -dp 4 --data-parallel-size-local 2 --data-parallel-start-rank 2 --headless",
    f"CUDA_VISIBLE_DEVICES=0 {VLLM} -dp 4 --data-parallel-start-rank 2 --data-parallel-address 10.0.0.1",
    f"CUDA_VISIBLE_DEVICES=0 {VLLM} -dp 4 --data-parallel-backend ray",
    f"{VLLM} --quantization None",
    f"{VLLM} --quantization ''",
    f"{VLLM} --dtype half",
    f"docker run vllm/vllm-openai:v0.8.5 --model {QWEN} --swap-space 4 --use-v2-block-manager --task generate",
    f"{VLLM} --disable-log-requests",
    f'{VLLM} --speculative-config \'{{"method":"ngram","num_speculative_tokens":3}}\'',
]


@pytest.mark.parametrize(("command", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(command: str, words: str) -> None:
    assert words in (_refusal(command) or "")


def _refusal(command: str) -> str | None:
    return refusal_of(command, "H100")


@pytest.mark.parametrize("command", TAKEN, ids=range(len(TAKEN)))
def test_what_is_taken(command: str) -> None:
    assert _refusal(command) is None


def test_too_few_gpus_were_rays_to_find_before_0_12() -> None:
    older = POD.replace("v0.19.0", "v0.10.0")
    assert _refusal(older) is None
    found = serve_check(older, "H100", offline=True).fit
    assert found is not None
    assert any("sees 2 GPUs: only Ray's further nodes have more" in note for note in found.notes)


def test_another_scheme_than_the_checkpoints() -> None:
    assert "stored in awq, which does not match `--quantization gptq`" in str(_refusal(f"vllm serve {AWQ} -q gptq"))
    assert "does not match `--quantization fp8`" in str(_refusal(f"vllm serve {AWQ} -q fp8"))


def test_weights_that_are_quantised_while_they_are_loaded() -> None:
    for command in (f"{OLDER} --quantization bitsandbytes", f"{SGLANG} --quantization bitsandbytes"):
        with pytest.raises(UnsupportedError, match="quantises as it loads them"):
            serve_check(command, "T4", offline=True)
    experts = "vllm serve Qwen/Qwen3-30B-A3B"
    for command in (f"{experts} --quantization mxfp4", f"{VLLM} -q mxfp8", f"{SGLANG} --quantization mxfp4"):
        with pytest.raises(UnsupportedError, match="quantises as it loads them"):
            serve_check(command, "H100", offline=True)
    assert _refusal("vllm serve openai/gpt-oss-20b --quantization mxfp4 --max-model-len 8192") is None
    found = serve_check(f"{SGLANG} --quantization w8a8_int8", "H100", offline=True)
    assert found.unread == ("--quantization w8a8_int8",)


def test_a_refusal_of_a_word_is_an_answer() -> None:
    result = run("serve-check", f"{VLLM} --kv-cache-dtype fp4", "--gpu", "H100")
    assert result.exit_code == 1
    assert "fp4" in result.stdout + result.stderr


def test_a_length_beyond_the_models_names_the_engines_own_flag() -> None:
    assert "`--json-model-override-args`" in str(_refusal(f"{SGLANG} --context-length 65536"))
    assert "`--hf-overrides`" in str(_refusal(f"{VLLM} --max-model-len 65536"))


def test_images_of_a_model_that_reads_nothing_else() -> None:
    gemma, qwen = "google/gemma-3-27b-it", "Qwen/Qwen2.5-VL-7B-Instruct"
    limit = """--limit-mm-per-prompt '{"image": 0}'"""
    for command, leaves_out in (
        (f"vllm serve {gemma} --max-model-len 8192 {limit}", True),
        (f"vllm serve {gemma} --max-model-len 8192", False),
        (f"vllm serve {qwen} --max-model-len 8192 {limit}", False),  # videos are still read
    ):
        found = serve_check(command, "H200-SXM-141GB", offline=True)
        assert found.fit is not None
        assert found.fit.serving.switches.no_images is leaves_out, command
        assert bool(found.unread) is (qwen in command), command


def test_a_version_stands_over_the_texts() -> None:
    found = serve_check(f"{OLDER} --dtype auto", "H100", engine="vllm@0.11", offline=True)
    assert found.fit is not None
    assert found.fit.serving.engine.version == "0.11"
    assert read_command(OLDER, "vllm").version == "0.19.0"
    assert read_command("llama-server -m x.gguf", "llama.cpp@b11434").version == "b11434"
    with pytest.raises(InputError, match="the command starts vllm, not sglang"):
        read_command(OLDER, "sglang@0.5.3")
    shown = run("serve-check", VLLM, "--gpu", "H100", "--engine", "vllm@0.11").stdout
    assert "engine vllm 0.11" in shown


@pytest.mark.parametrize(
    "flags",
    ["--quantization foo", "--no-enable-chunked-prefill --max-num-batched-tokens 2048", "--rope-scaling {}x"],
)
def test_what_a_refusal_names_is_understood(flags: str) -> None:
    found = serve_check(f"{VLLM} {flags}", "H100", offline=True)
    assert found.refusal
    assert found.unread == ()


def test_what_else_is_unread_stays_so() -> None:
    found = serve_check(f"{VLLM} --quantization foo --offload-group-size 8", "H100", offline=True)
    assert found.unread == ("--offload-group-size 8",)


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        ("""--speculative-config '{"method": "ngram", "num_speculative_tokens": 0}'""",
         "--speculative-config.num_speculative_tokens"),
        ("--spec-method ngram --spec-tokens 0", "--spec-tokens"),
        ("--compilation-config.max_cudagraph_capture_size x", "--compilation-config.max_cudagraph_capture_size"),
        ("--max-num-seqs many", "--max-num-seqs"),
    ],
)  # fmt: skip
def test_a_value_that_is_refused_is_that_of_its_own_flag(flags: str, flag: str) -> None:
    with pytest.raises(RefusedError, match=f"`{flag} [0-9a-z]+` is not a positive whole number") as caught:
        read_command(f"{VLLM} {flags}")
    assert caught.value.hint == f"give it another value, or leave `{flag}` out"
