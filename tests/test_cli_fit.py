"""`kvplan fit`, `kvplan serve-check`, and the engine's options of `estimate`, as they are printed."""

import json
from typing import Any

import jsonschema
import pytest
from inline_snapshot import snapshot

import kvplan
from kvplan.report.schema import build_schema, schema_text
from tests.command import MODEL, run


def strict(node: Any) -> Any:
    """The schema with every object closed: what kvplan prints must be published."""
    if isinstance(node, dict):
        closed = {key: strict(value) for key, value in node.items()}
        return closed | {"additionalProperties": False} if "properties" in node else closed
    return [strict(item) for item in node] if isinstance(node, list) else node


FIT, CHECK, ESTIMATE = (
    jsonschema.Draft202012Validator(strict(json.loads(schema_text(name))))
    for name in ("fit", "serve-check", "estimate")
)
ON_L4 = ("Qwen/Qwen3-8B", "--gpu", "L4", "--max-model-len", "32K")


def test_an_answer_that_fits() -> None:
    result = run("fit", "meta-llama/Llama-2-70b", "--kv-memory", "10GiB", "--concurrency", "4")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == snapshot("""\
fits: 8 requests of 4,096 tokens at once in a pool of 10 GiB
The model takes requests of 4,096 tokens at most.
Requests at once by length: 32 × 1,024, 16 × 2,048, 8 × 4,096.
No GPU is named: the limits that an engine sets by it are those of an H100.
meta-llama/Llama-2-70b: 68.98 B parameters, 80 layers, llama
facts from the catalog: Meta's params.json as shipped; dimensions as in llama-models==0.3.0:llama_m…
engine vllm 0.33, weights bf16, KV cache bf16

  vllm serve meta-llama/Llama-2-70b --max-model-len 4096 --kv-cache-memory-bytes 10737418240

Its pool
  blocks     2,048  of 16 tokens, 5 MiB each
  tokens    32,768  the log: "GPU KV cache size: 32,768 tokens"
  requests    8.00  the log: "Maximum concurrency for 4,096 tokens per request: 8.00x"
  of one     4,096  tokens: 256 blocks, 1.25 GiB
""")


def test_an_answer_with_its_account() -> None:
    result = run("fit", MODEL, "--gpu", "H100", "--gpus", "2")
    assert result.exit_code == 0
    title, *_ = result.stdout.splitlines()
    assert title.startswith("fits: ")
    assert title.endswith("requests of 4,096 tokens at once on 2 × H100-SXM5-80GB (tp 2)")
    assert "\n  vllm serve meta-llama/Llama-2-70b --max-model-len 4096 --tensor-parallel-size 2\n" in result.stdout
    assert "vllm 0.33's account of each GPU" in result.stdout
    assert "outside the share" in result.stdout


def test_an_answer_that_does_not_fit_says_what_would() -> None:
    result = run("fit", *ON_L4, "--gpus", "1")
    assert result.exit_code == 1
    assert result.stdout.startswith("does not fit: 1 request of 32,768 tokens on one L4\n")
    for change in ("--kv-cache-dtype fp8 ", "--max-model-len ", "2 GPUs: --tensor-parallel-size 2 "):
        assert f"\n  {change}" in result.stdout
    assert "vllm serve" not in result.stdout


def test_the_document_is_what_its_schema_says() -> None:
    cases: list[tuple[str, ...]] = [
        ON_L4,
        (*ON_L4, "--gpus", "1", "--concurrency", "4"),
        (MODEL, "--kv-memory", "10GiB"),
        ("Qwen/Qwen3-8B", "--engine", "llamacpp", "--gpu", "RTX 4090", "--kv-dtype", "q8_0/fp16"),
        ("Qwen/Qwen3-8B", "--engine", "sglang", "--gpu", "H100", "--option", "cuda_graph_max_bs=8"),
        ("google/gemma-3-27b-it", "--gpu", "H100", "--engine", "vllm@0.11"),
    ]
    for args in cases:
        result = run("fit", *args, "--json")
        FIT.validate(json.loads(result.stdout))
        assert result.exit_code == (0 if json.loads(result.stdout)["fits"] else 1)
    document = json.loads(run("fit", *ON_L4, "--json").stdout)
    assert document == kvplan.fit("Qwen/Qwen3-8B", "L4", max_model_len=32768).to_dict()
    assert document["settings"]["num_gpus"] == 2
    assert document["command"].endswith("--tensor-parallel-size 2")


@pytest.mark.parametrize("name", ["fit", "serve-check"])
def test_the_schema_files_are_fresh(name: str) -> None:
    assert json.loads(schema_text(name)) == build_schema(name), "run `python -m kvplan.report.schema`"
    assert run(name, "--json-schema").stdout == schema_text(name)


def test_the_curve_as_csv_and_the_page_as_markdown() -> None:
    header, *rows = run("fit", *ON_L4, "--format", "csv").stdout.splitlines()
    assert header == "model,engine,engine_version,gpu,num_gpus,tp,pp,kv_dtype,max_model_len,concurrency,max_concurrency"
    assert [row.split(",")[8] for row in rows][:3] == ["256", "512", "1024"]
    page = run("fit", *ON_L4, "--format", "md").stdout
    # With the engine's 256 requests the cache holds 4.65 of them, with five 5.01: the limit makes room for one more.
    command = "vllm serve Qwen/Qwen3-8B --max-model-len 32768 --max-num-seqs 5 --tensor-parallel-size 2"
    assert f"```sh\n{command}\n```" in page


def test_the_longest_and_the_widest() -> None:
    document = json.loads(run("fit", "Qwen/Qwen3-8B", "--gpu", "L4", "--max-model-len", "-1", "--json").stdout)
    assert document["settings"]["num_gpus"] == 1
    assert 15_000 < document["max_model_len"] < 40_960
    best = json.loads(run("fit", *ON_L4, "--gpus", "1", "--kv-dtype", "best", "--json").stdout)
    assert (best["fits"], best["settings"]["kv_dtype"]) == (True, "fp8")


def test_what_a_command_says_stands_where_nothing_else_is_said() -> None:
    command = "vllm serve Qwen/Qwen3-8B --max-model-len 16384 --gpu-memory-utilization 0.8 --offload-group-size 8"
    result = run("fit", "--command", command, "--gpu", "H100", "--max-model-len", "8K", "--json")
    document = json.loads(result.stdout)
    assert (document["max_model_len"], document["settings"]["gpu_memory_utilization"]) == (8192, 0.8)
    assert "--offload-group-size 8" in result.stderr
    other = run("fit", "--command", command, "--gpu", "H100", "--engine", "sglang")
    assert (other.exit_code, other.stdout) == (2, "")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "missing argument 'MODEL'"),
        ((MODEL,), "a fit needs a GPU, or the bytes of the pool"),
        ((MODEL, "--gpu", "H100", "--engine", "exact"), "engine `exact` reserves no pool, so there is nothing to fit"),
        ((MODEL, "--gpu", "H100", "--option", "nonsense=1"), "`nonsense` is no option of any engine"),
        ((MODEL, "--gpu", "H100", "--tp", "2", "--option", "tp=4"), "`tp` is said twice"),
        ((MODEL, "--gpu", "H100", "--option", "swa_full=true"), "engine `vllm` has no option `swa_full`"),
        ((MODEL, "--gpu", "H100", "--max-model-len", "-5"), "`-5` is not a count"),
        ((MODEL, "--gpu", "H100", "--gpus", "3", "--tp", "2"), "3 GPUs cannot be laid out as tp 2 × pp 1"),
    ],
    ids=["no model", "no gpu", "no pool", "no option", "twice", "foreign option", "no length", "no layout"],
)
def test_what_cannot_be_asked(args: tuple[str, ...], sentence: str) -> None:
    result = run("fit", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    error, hint = result.stderr.splitlines()
    assert sentence in error
    assert hint.startswith("hint: ")


def test_a_command_that_starts() -> None:
    result = run("serve-check", "vllm serve Qwen/Qwen3-8B -tp 2 --max-model-len 32768", "--gpu", "L4")
    assert result.exit_code == 0
    title, longest, *_ = result.stdout.splitlines()
    assert title.startswith("starts on 2 × L4 (tp 2), for ")
    assert title.endswith(" requests of 32,768 tokens at once")
    assert longest == "Without a limit of 32,768 tokens, a request could have 40,960."


def test_a_command_that_does_not_start() -> None:
    command = "VLLM_USE_V1=1 vllm serve Qwen/Qwen3-8B --port 80 --max-model-len 32768 --offload-group-size 8"
    result = run("serve-check", command, "--gpu", "L4")
    assert result.exit_code == 1
    assert result.stdout.startswith("does not start on one L4, for 1 request of 32,768 tokens\n")
    assert "Not understood, and left out: `--offload-group-size 8`." in result.stdout
    assert "--port" not in result.stdout
    document = json.loads(run("serve-check", command, "--gpu", "L4", "--json").stdout)
    CHECK.validate(document)
    assert (document["starts"], document["unread"]) == (False, ["--offload-group-size 8"])
    assert 15_000 < document["longest"] < 32_768
    assert f"--max-model-len {document['longest']}" in document["flags"]
    assert len(document["flags"]) == len(document["fit"]["changes"])


def test_a_command_is_judged_with_the_limits_that_it_has() -> None:
    # 18,576 tokens are there with the engine's 256 requests at once, 24,480 with one: the command has the 256.
    for length, code in (("18576", 0), ("18592", 1), ("auto", 0)):
        found = run("serve-check", f"vllm serve Qwen/Qwen3-8B --max-model-len {length}", "--gpu", "L4", "--json")
        document = json.loads(found.stdout)
        assert (found.exit_code, document["fit"]["max_model_len"]) == (code, 18592 if code else 18576), length
        assert document["fit"]["settings"]["options"] == {}


def test_a_length_beyond_the_models_is_refused_as_the_engine_refuses_it() -> None:
    command = "vllm serve Qwen/Qwen3-8B --max-model-len 65536"
    result = run("serve-check", command, "--gpu", "H100")
    assert (result.exit_code, result.stdout.splitlines()[1]) == (
        1,
        "vllm refuses requests of 65,536 tokens: the model states 40,960; VLLM_ALLOW_LONG_MAX_MODEL_LEN=1",
    )
    assert run("serve-check", f"VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 {command}", "--gpu", "H100").exit_code == 0
    scaled = run("serve-check", f"{command} --hf-overrides '{{\"rope_parameters\": 1}}'", "--gpu", "H100")
    assert (scaled.exit_code, "left out: `--hf-overrides" in scaled.stdout) == (0, True)
    line = run("fit", "Qwen/Qwen3-8B", "--gpu", "H100", "--max-model-len", "64K").stdout
    assert "\n  VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 vllm serve Qwen/Qwen3-8B --max-model-len 65536" in line


def test_a_context_of_llama_cpp_is_dealt_out() -> None:
    command = "llama-server -m Qwen3-8B.gguf -c 32768 -np 4 -ngl 99 -ctk q8_0 -ctv q8_0"
    result = run("serve-check", command, "--model", "Qwen/Qwen3-8B", "--gpu", "RTX 4090", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (document["fit"]["max_model_len"], document["fit"]["concurrency"]) == (8192, 4)
    assert document["fit"]["settings"]["seq_len"] == 32768


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("vllm serve Qwen/Qwen3-8B",), "a command does not say what it runs on"),
        (("echo hello", "--gpu", "H100"), ""),
        (("vllm serve", "--gpu", "H100"), "the command names no model"),
    ],
    ids=["no gpu", "no engine", "no model"],
)
def test_a_command_that_cannot_be_judged(args: tuple[str, ...], sentence: str) -> None:
    result = run("serve-check", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert "hint: " in result.stderr


def test_estimate_shows_the_engines_account_and_pool() -> None:
    asked = ("estimate", "Qwen/Qwen3-8B", "--engine", "vllm", "--gpu", "H100", "--block-size", "32", "--seq", "8K")
    shown = run(*asked).stdout
    assert "vllm 0.33's account of the GPU" in shown
    assert '"Maximum concurrency for 8,192 tokens per request: ' in shown
    document = json.loads(run(*asked, "--option", "enforce_eager=true", "--json").stdout)
    ESTIMATE.validate(document)
    assert document["inputs"]["options"] == {"block_size": 32, "enforce_eager": True}
    assert document["inputs"]["gpu_memory_utilization"] == 0.92
    assert document["pool"]["block_size"] == 32
    (account,) = document["accounts"]
    left = account["usable_bytes"] - sum(item["bytes"] for item in account["taken"])
    assert account["kv_memory_bytes"] == document["pool"]["kv_memory_bytes"] == left
    assert "CUDA graphs (estimate)" not in {item["name"] for item in account["taken"]}


def test_estimate_takes_parallelism_and_formats_of_engines() -> None:
    asked = ("--engine", "vllm", "--tp", "16", "--dcp", "2", "--dp", "2", "--gpu", "H100", "--json")
    document = json.loads(run("estimate", MODEL, *asked).stdout)
    ESTIMATE.validate(document)
    assert {name: document["inputs"][name] for name in ("tp", "dp", "dcp", "pcp", "num_gpus")} == {
        "tp": 16, "dp": 2, "dcp": 2, "pcp": 1, "num_gpus": 32
    }  # fmt: skip
    pair = json.loads(run("estimate", MODEL, "--kv-dtype", "q8_0/f16", "--json").stdout)
    assert (pair["inputs"]["kv_dtype"], pair["inputs"]["value_dtype"]) == ("q8_0", "fp16")
    # A head of 128 by hand: 128 bytes and 4 scales of 2 for keys, 256 for values; 8 heads, 80 layers, 4096 tokens.
    assert pair["kv_cache"]["needed_bytes"] == 4096 * 80 * 8 * (136 + 256)


def test_groups_of_unlike_layers_are_shown() -> None:
    # 62 layers: 10 full ones, 52 sliding ones in groups of 9, 9, 9, 9, 8, 8, each as wide as 10 (vLLM 0.33).
    shown = run("fit", "google/gemma-3-27b-it", "--kv-memory", "10GiB", "--max-model-len", "8K").stdout
    rows = [line.split("  ")[1].strip() for line in shown.partition("Its groups of layers\n")[2].splitlines()[1:]]
    assert sorted(rows) == ["10 × full", *["8 × sliding (window 1,024)"] * 2, *["9 × sliding (window 1,024)"] * 4]
    assert "the groups reserve 8 layers more than there are" in shown


def test_facts_that_an_answer_rests_on_are_warned_of() -> None:
    result = run("fit", "Qwen/Qwen3-8B", "--gpu", "H100", "--quant", "int4", "--json")
    document = json.loads(result.stdout)
    FIT.validate(document)
    assert [warning["code"] for warning in document["warnings"]] == ["quantization-assumed"]
    assert "warning: weights are planned in int4" in result.stderr
    assert "note: put a checkpoint in int4 in the place of `Qwen/Qwen3-8B`" in result.stderr
    assert "--quantization" not in document["command"]


def test_options_stand_in_one_field_of_csv() -> None:
    asked = ("--engine", "vllm", "--option", "enforce_eager=true", "--max-num-seqs", "8", "--format", "csv")
    header, row = run("estimate", "Qwen/Qwen3-8B", *asked).stdout.splitlines()
    fields = dict(zip(header.split(","), row.split(","), strict=True))
    assert fields["options"] == "enforce_eager=True max_num_seqs=8"


def test_a_share_that_leaves_no_room_says_for_what() -> None:
    result = run("fit", "Qwen/Qwen3-8B", "--gpu", "H100", "--gpus", "1", "--gpu-memory-utilization", "0.999")
    assert result.exit_code == 1
    told = " ".join(result.stdout.split())
    assert "for CUDA context, which needs 500 MiB: there is no room for it." in told


def test_an_estimate_that_fits_and_does_not_start_says_no_negative_bytes() -> None:
    asked = ("estimate", "Qwen/Qwen3-8B", "--engine", "vllm", "--gpu", "H100", "--seq", "8K")
    result = run(*asked, "--gpu-memory-utilization", "0.999")
    assert "does not start, although 58.85 GiB would be free: the warnings say why" in result.stdout
    assert "warning: the share leaves 80.99 MiB of the GPU for CUDA context" in result.stderr
    assert "too much" not in result.stdout


def test_one_token_is_no_plural_and_windows_are_no_lengths_to_list() -> None:
    assert run("fit", MODEL, "--kv-memory", "1GiB", "-c", "1").stdout.startswith(
        "fits: 204 requests of 1 token at once"
    )
    told = " ".join(run("fit", "openai/gpt-oss-20b", "--kv-memory", "2GiB", "--gpu", "L4").stdout.split())
    lengths = told.partition("by length: ")[2].partition(".")[0].split(", ")
    assert [entry.split(" × ")[1] for entry in lengths[:5]] == ["1,024", "2,048", "4,096", "8,192", "16,384"]


def test_layouts_that_an_engine_has_no_account_of_are_passed_over() -> None:
    # SGLang reserves 1 GiB for each 8 ranks: of 63 stages and more that is all of an L4.
    asked = ("--gpu", "L4", "--engine", "sglang", "--concurrency", "1000", "-c", "128K")
    result = run("fit", "meta-llama/Llama-3.1-405B", *asked)
    assert (result.exit_code, result.stdout.split(":")[0]) == (1, "does not fit")


def test_a_llama_server_takes_four_requests_where_nobody_says_how_many() -> None:
    # tools/server/server.cpp of b11434: `n_parallel` below 0 is 4, in one buffer, so that windows are kept of all four.
    asked = ("--model", "google/gemma-3-4b-it", "--gpu", "RTX 4090", "--json")
    pools = [
        json.loads(run("serve-check", f"llama-server -m x.gguf -c 32768 {flags}", *asked).stdout)["fit"]["pool"]
        for flags in ("", "-np -1", "-np 4 -kvu", "-np 1")
    ]
    assert pools[0] == pools[1] == pools[2] != pools[3]
    line = run("fit", "google/gemma-3-4b-it", "--engine", "llamacpp", "--gpu", "RTX 4090").stdout
    assert "\n  llama-server -m gemma-3-4b-it.gguf -c 131072 -np 1 -ngl 999\n" in line


def test_what_an_engine_refuses_is_a_no_where_the_question_is_whether_it_starts() -> None:
    command = "vllm serve Qwen/Qwen3-8B -tp 3"
    checked = run("serve-check", command, "--gpu", "H100")
    planned = run("estimate", "Qwen/Qwen3-8B", "--tp", "3", "--engine", "vllm")
    assert (checked.exit_code, planned.exit_code) == (1, 2)
    sentence = "32 attention heads of `Qwen/Qwen3-8B` cannot be dealt out to `tp` 3"
    assert planned.stderr.startswith(f"error: {sentence}\n")
    assert checked.stdout.splitlines()[:3] == [
        "does not start on H100-SXM5-80GB: the engine refuses the flags",
        f"{sentence}.",
        "To do: a `tp` that divides it.",
    ]
    refused = run("serve-check", command, "--gpu", "H100", "--json")
    document = json.loads(refused.stdout)
    CHECK.validate(document)
    assert (refused.exit_code, document["starts"], document["fit"], document["refusal"]) == (1, False, None, sentence)
    assert kvplan.serve_check(command, "H100").to_dict() == document
