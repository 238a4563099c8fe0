"""`kvplan serve-check`: what is refused, what the settings hold, and what is shown of it."""

import json

import pytest

import kvplan
from kvplan.core.errors import RefusedError
from kvplan.core.units import rounded_down
from tests.command import run
from tests.test_cli_fit import CHECK


def test_flags_that_are_refused_whatever_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise RefusedError("no such flag", hint="another one")

    monkeypatch.setattr("kvplan.runtime.command.read_command", refuse)
    shown = run("serve-check", "vllm serve Qwen/Qwen3-8B", "--gpu", "H100")
    assert (shown.exit_code, shown.stdout.splitlines()[1:]) == (1, ["No such flag.", "To do: another one."])
    document = json.loads(run("serve-check", "vllm serve Qwen/Qwen3-8B", "--gpu", "H100", "--json").stdout)
    CHECK.validate(document)
    assert (document["refusal"], document["hint"], document["certain"]) == ("no such flag", "another one", True)


@pytest.mark.parametrize("length", ["auto", "-1", "=-1", "AUTO"])
def test_vllms_words_for_the_longest_are_one(length: str) -> None:
    flag = f"--max-model-len{length}" if length.startswith("=") else f"--max-model-len {length}"
    checked = kvplan.serve_check(f"vllm serve Qwen/Qwen3-8B {flag}", "L4")
    assert checked.fit is not None
    assert (checked.starts, checked.fit.max_model_len, checked.unread) == (True, 18576, ())
    held = run("fit", "--command", f"vllm serve Qwen/Qwen3-8B {flag}", "--gpu", "L4", "--json")
    assert (json.loads(held.stdout)["wanted"]["longest"], "not understood" in held.stderr) == (True, False)


def test_a_length_that_may_be_any_is_no_length_of_one() -> None:
    result = run(
        "serve-check", "vllm serve Qwen/Qwen3-8B --max-model-len auto --gpu-memory-utilization .8", "--gpu", "L4"
    )
    assert result.stdout.startswith("does not start on one L4, for a request of any length\n")
    assert " 1 × 4,096  less room" in result.stdout
    assert "1 token" not in result.stdout


def test_what_the_settings_hold_beside_what_was_asked_for() -> None:
    def second(command: str, *args: str) -> str:
        return str(run("serve-check", command, *args).stdout.splitlines()[1])

    long = "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 vllm serve Qwen/Qwen3-8B --max-model-len 65536"
    assert "could have" not in second(long, "--gpu", "H100")
    assert kvplan.serve_check(long, "H100").longest == 65536
    tight = second("sglang serve --model-path Qwen/Qwen3-8B --mem-fraction-static 0.95", "--gpu", "L4")
    assert tight == "The longest request with which it starts: 10,595 tokens."
    # One buffer of all: 4 · 10,240 cells, and any one request may have them all.
    shared = ("--model", "Qwen/Qwen3-8B", "--gpu", "RTX 4090")
    assert second("llama-server -m x.gguf -c 0", *shared) == (
        "They share the context: one request may have all 40,960 tokens."
    )
    # 8.56 GiB are 243 pieces of 256 cells (36 MiB each): 60 for each of four, 15,360 cells.
    apart = second("llama-server -m x.gguf -c 32768 -np 4", *shared)
    assert apart == "Without a limit of 8,192 tokens, a request could have 15,360."


def test_a_pool_of_sglang_is_told_in_tokens() -> None:
    found = kvplan.fit("Qwen/Qwen3-8B", engine="sglang", kv_memory_bytes=10 * 2**30, concurrency=4)
    assert found.command is not None
    assert found.boot.pool is not None
    # 36 · 8 · 128 · 2 · 2 = 147,456 bytes a token: 72,817 of them, and one slot is not a request's.
    assert found.command.endswith("--context-length 18204 --max-total-tokens 72817")
    again = kvplan.serve_check(found.command, "H100").fit
    assert again is not None
    assert again.boot.pool is not None
    assert again.boot.pool.num_tokens == found.boot.pool.num_tokens


def test_what_trtllm_reads_from_a_file_is_shown() -> None:
    command = "trtllm-serve Qwen/Qwen3-8B --max_seq_len 16384"
    result = run("serve-check", command, "--gpu", "L4")
    content = '{"kv_cache_config": {"dtype": "fp8"}}'
    assert "--extra_llm_api_options kvplan.yaml     " in result.stdout
    assert f"kvplan.yaml for a coarser cache: {content}\n" in result.stdout
    assert "Put it into that file, or into the one that you have." in result.stdout
    flags = json.loads(run("serve-check", command, "--gpu", "L4", "--json").stdout)["flags"]
    assert any(flag.endswith(f"--extra_llm_api_options kvplan.yaml # kvplan.yaml: {content}") for flag in flags)
    # A bigger GPU leaves room enough at the engine's own share; two of these at the safe one.
    assert {"RTX 5090", "2 GPUs: --kv_cache_free_gpu_memory_fraction 0.45 --tp_size 2"} <= set(flags)


def test_figures_are_rounded_to_the_side_of_caution() -> None:
    assert rounded_down(7.998) == "7.99"
    assert rounded_down(8.29) == "8.29"
    one = run("serve-check", "vllm serve Qwen/Qwen3-8B --max-num-seqs 1 --max-model-len 4096", "--gpu", "L4").stdout
    assert "1 request runs at once at most" in one
    header, row, *_ = run("fit", "Qwen/Qwen3-8B", "--kv-memory", "1GiB", "--format", "csv").stdout.splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["gpu"] == ""
    ambiguous = run("fit", "Qwen/Qwen3-8B", "--kv-memory", "10G").stderr
    assert "vLLM by its case" in ambiguous
    assert "8K" not in run("fit", "Qwen/Qwen3-8B", "--gpu", "L4", "--gpus", "0").stderr


def test_what_lies_outside_the_share_has_its_word_in_a_fit() -> None:
    # The context and graphs of 0.9.2 take 1.46 ± 1.21 GiB of an RTX 4090; 10 % of it are 2.35, 5 % are 1.18.
    asked = ("Qwen/Qwen3-4B", "--engine", "vllm@0.9.2", "--gpu", "RTX 4090", "--gpus", "1", "-c", "8192")
    asked = (*asked, "--max-num-seqs", "256")
    close = run("fit", *asked, "--gpu-memory-utilization", "0.9")
    assert (close.exit_code, "At the far end of the spread of what lies outside the share" in close.stdout) == (0, True)
    wide = run("fit", *asked, "--gpu-memory-utilization", "0.95")
    assert (wide.exit_code, "At the high end of the account's spread it starts." in wide.stdout) == (1, True)
    safe = run("fit", *asked, "--gpu-memory-utilization", "0.88").stdout
    assert "it does not start" not in safe


def test_a_lack_of_a_few_mebibytes_is_no_nothing() -> None:
    # 15.26 of weights and the rest are 17.64 GiB, at this share 2.5 MiB more than vLLM allows itself.
    command = "vllm serve Qwen/Qwen3-8B --gpu-memory-utilization 0.8035"
    result = run("serve-check", command, "--gpu", "L4").stdout
    assert "-0.00" not in result
    assert "  left for the cache      -0.01  1.00\n" in result


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("vllm serve Qwen/Qwen3-8B --quantization awq", "needs a checkpoint that is stored so"),
        ("CUDA_VISIBLE_DEVICES=0 vllm serve Qwen/Qwen3-8B -tp 2", "the process sees one GPU"),
    ],
)
def test_fit_refuses_of_a_command_what_its_check_does(command: str, words: str) -> None:
    result = run("fit", "--command", command, "--gpu", "H100")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert run("serve-check", command, "--gpu", "H100").exit_code == 1


def test_fit_reads_a_command_as_its_check_does() -> None:
    images = "vllm serve google/gemma-3-27b-it --max-model-len 8192 --limit-mm-per-prompt '{\"image\":0}'"
    fitted = json.loads(run("fit", "--command", images, "--gpu", "H100", "--json").stdout)
    checked = json.loads(run("serve-check", images, "--gpu", "H100", "--json").stdout)["fit"]
    weights = [found["accounts"][0]["taken"][0] for found in (fitted, checked)]
    assert weights[0] == weights[1]
    assert weights[0]["bytes"] < 51 * 2**30  # without the tower, 0.79 GiB
    # `-c` is what both requests have together.
    server = run("fit", "Qwen/Qwen3-8B", "--command", "llama-server -m x.gguf -c 8192 -np 2", "--gpu", "L4").stdout
    assert "fits: 2 requests of 4,096 tokens" in server
    assert "llama-server -m Qwen3-8B.gguf -c 8192 -np 2 -ngl 999" in server


def test_an_open_length_is_certain_where_some_length_starts_at_both_ends() -> None:
    command = "vllm serve Qwen/Qwen3-8B --max-model-len auto"
    answer = json.loads(run("serve-check", command, "--gpu", "L4", "--json").stdout)
    assert (answer["starts"], answer["certain"]) == (True, True)
    assert answer["fit"]["sure_max_model_len"] < answer["fit"]["max_model_len"]
    tight = command.replace("auto", str(answer["fit"]["max_model_len"]))
    assert json.loads(run("serve-check", tight, "--gpu", "L4", "--json").stdout)["certain"] is False


def test_sglang_starts_with_a_pool_that_holds_no_request_of_the_whole_length() -> None:
    """managers/tp_worker.py: requests are cut to what the pool holds; nothing is refused at the start."""
    result = run("serve-check", "python3 -m sglang.launch_server --model-path Qwen/Qwen3-32B", "--gpu", "H100")
    assert result.exit_code == 0
    assert "SGLang starts, and takes requests of 16,738 tokens at most." in result.stdout
    assert "Even at the low end" in result.stdout
    # 131 GiB of weights leave no pool at all.
    large = "python3 -m sglang.launch_server --model-path meta-llama/Llama-3.3-70B-Instruct"
    assert run("serve-check", large, "--gpu", "H100").exit_code == 1


def test_experts_are_dealt_out_over_prefill_ranks_too() -> None:
    """vLLM 0.33, fused_moe/config.py 1110-1113: tp · pcp · dp ranks."""
    deep = "vllm serve deepseek-ai/DeepSeek-V3 --enable-expert-parallel --max-model-len 4096"
    wide, split = (
        kvplan.serve_check(f"{deep} {how}", "B200").fit.boot.accounts[0].taken[0].num_bytes
        for how in ("-tp 8", "-tp 2 -pcp 4")
    )
    # 656.6 GiB of experts an eighth of them on each, the rest split by tp.
    assert wide < split < 2 * wide
    assert run("serve-check", f"{deep} -tp 2 -pcp 4 -dcp 4", "--gpu", "B200").exit_code == 3
    assert run("serve-check", f"{deep} -tp 2 -pcp 4 -dcp 3", "--gpu", "B200").exit_code == 1


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve Qwen/Qwen3-4B --kv-cache-dtype turboquant_k8v4 --max-model-len 4096 --attention-backend TRITON_ATTN",
        "vllm serve deepseek-ai/DeepSeek-V3 -tp 8 --block-size 1",
    ],
)
def test_what_rocm_takes(command: str) -> None:
    assert run("serve-check", command, "--gpu", "MI300X").exit_code == 0


def test_quotes_of_bash() -> None:
    command = 'vllm serve Qwen/Qwen3-8B --speculative-config $\'{"method": "ngram", "num_speculative_tokens": 3}\''
    assert (
        json.loads(run("serve-check", command, "--gpu", "H100", "--json").stdout)["read"]["speculative_method"]
        == "ngram"
    )


def test_a_limit_of_requests_shortens_none_of_them() -> None:
    """SGLang's limit is no number that has to be held at once."""
    command = "sglang serve --model-path Qwen/Qwen3-8B --max-running-requests 64"
    found = run("serve-check", command, "--gpu", "H100").stdout
    assert "for 8 requests of 40,960 tokens at once" in found
    assert "SGLang starts, and takes" not in found
