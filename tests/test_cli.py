"""What the command line prints: text, formats and help."""

import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from inline_snapshot import snapshot

from kvplan._version import __version__
from kvplan.report.schema import schema_text
from kvplan.validate import isolate
from tests.command import MODEL, config, run

SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_text()))


def test_the_flagship() -> None:
    result = run("estimate", MODEL, "--seq", "4096")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == snapshot("""\
meta-llama/Llama-2-70b: 68.98 B parameters, 80 layers, llama
facts from the catalog: Meta's params.json as shipped; dimensions as in llama-models==0.3.0:llama_m…
1 sequence of 4,096 tokens, weights bf16, KV cache bf16, flash attention, engine exact

On one GPU
                  GiB  share                            basis
  weights      128.48   98 %  ███████████████████████▌  exact
  KV cache       1.25  1.0 %  ▎                         exact
  activations    0.78  0.6 %  ▏                         derived
  context        1.00  0.8 %  ▏                         assumed
  total        131.51  100 %  ████████████████████████

Whole model
  parameters   68,976,648,192
  weights     137,953,296,384 bytes (128.48 GiB)  bf16: mlp 82 %, attention 18 %
  KV cache      1,342,177,280 bytes (1.25 GiB)    bf16
  per token           327,680 bytes (320 KiB)     the last token of one sequence

KV cache by layer
  layers     keep        bytes/token    needed
  80 × full  all tokens      327,680  1.25 GiB

Transient memory of the largest attention call, by backend (the plan counts flash)
           batch × query × key       eager        math  efficient      flash
  prefill  1 × 4,096 × 4,096     10.12 GiB    9.59 GiB     64 MiB     65 MiB
  decode   1 × 1 × 4,096        130.50 MiB  417.06 MiB     16 KiB  16.25 KiB
""")
    # 70B by hand: 80 layers · 8 KV heads · 128 · 2 · 2 bytes = 327,680 bytes per token, times 4,096.
    for figure in ("68,976,648,192", "137,953,296,384 bytes", "327,680 bytes", "1,342,177,280 bytes (1.25 GiB)"):
        assert figure in result.stdout


def test_the_flagship_as_json() -> None:
    result = run("estimate", MODEL, "--seq", "4096", "--json")
    document = json.loads(result.stdout)
    SCHEMA.validate(document)
    assert document["weights"]["num_parameters"] == 68_976_648_192
    assert document["weights"]["total_bytes"] == 137_953_296_384
    assert document["kv_cache"]["bytes_per_token"] == 327_680
    assert document["kv_cache"]["needed_bytes"] == 1_342_177_280
    assert document["kvplan_version"] == __version__


HELP = [
    (),
    ("estimate",),
    ("fit",),
    ("serve-check",),
    ("inspect",),
    ("validate",),
    ("models",),
    ("gpus",),
    ("completion",),
]


def no_job(job: dict[str, str], *, timeout_seconds: float) -> dict[str, object]:
    """In the place of what `validate` measures: a device, and nothing that worked on it."""
    if job["job"] == "probe":
        device = {
            "kind": "cpu",
            "name": "a CPU",
            "date": "2026-01-02T03:04:05",
            "torch": "",
            "triton": "",
            "python": "",
        }
        return {"device": device, "free_bytes": 1 << 34}
    return {"failure": {"kind": "crash", "message": "not tried"}}


@pytest.mark.parametrize("command", HELP, ids=lambda command: " ".join(command) or "kvplan")
def test_every_help_has_examples_and_they_run(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 100
    examples = [line.strip() for line in result.stdout.partition("Examples:\n")[2].splitlines()]
    assert examples
    (tmp_path / "my-model").mkdir()
    config(tmp_path / "my-model")
    config(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(isolate, "run_job", no_job)
    for example in examples:
        name, *args = shlex.split(example.partition(" > ")[0])
        if name == "kvplan":
            assert run(*args).exit_code in (0, 1), example


def test_the_help_of_the_whole() -> None:
    assert run("--help").stdout == snapshot("""\
Usage: kvplan [OPTIONS] [COMMAND] [ARGS]...

  What serving a language model takes: weights, KV cache and working memory, in
  exact bytes.

  Exit codes: 0 answered; 1 answered: it does not fit, or is out of tolerance; 2
  bad input; 3 architecture not supported; 4 the Hub was not reached or shows
  nothing; 101 a bug.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
  completion   The completion script for a shell.
  estimate     What MODEL takes per GPU, and whether it fits.
  explain      An engine's start-up log beside the prediction.
  fit          The longest context, most requests, fewest GPUs for MODEL.
  gpus         The GPUs that --gpu knows.
  inspect      The layers of MODEL as they were read.
  models       The models of the offline catalog.
  serve-check  Whether a command such as 'vllm serve …' starts.
  validate     Measure MODEL's attention on this machine against the plan.

  Examples:
    kvplan estimate meta-llama/Llama-2-70b --seq 4096
    kvplan estimate Qwen/Qwen3-8B --seq 32K --batch 16 --gpu H100
    kvplan fit Qwen/Qwen3-8B --gpu L4 --max-model-len 32K --concurrency 8
    kvplan inspect ./my-model/config.json
    kvplan validate mistralai/Mistral-7B-v0.1 --quick
""")


def test_the_help_of_estimate() -> None:
    assert run("estimate", "--help").stdout == snapshot("""\
Usage: kvplan estimate [OPTIONS] MODEL

  What serving MODEL takes: weights, KV cache, activations, per GPU; with --gpu,
  whether it fits.

  MODEL is OWNER/NAME[@REV], a Hub address, a name from `kvplan models`, a
  folder, a GGUF, a config.json or a params.json. Counts may be written 8k
  (8000) or 8K (8192), sizes 80GB or 80GiB.

Options:
  -c, --seq, --context COUNT      Tokens held per sequence [4096].
  --batch COUNT                   Sequences at once [1].
  --encoder-seq COUNT             Tokens of the encoder [as --seq].
  --engine ENGINE                 Engine: exact, transformers, vllm, sglang,
                                  trtllm or llamacpp, with a version as in
                                  vllm@0.19 [exact].
  --dtype DTYPE                   Weights and activations: fp32, bf16, fp16 [as
                                  the checkpoint].
  --kv-dtype DTYPE                KV cache: those, fp8, int8, q8_0 …, or K/V [as
                                  --dtype].
  --quant SCHEME                  Plan weights in fp8, int8, int4 or none [as
                                  the checkpoint].
  --tp COUNT                      GPUs of one tensor-parallel stage [all].
  --pp COUNT                      Pipeline stages [1].
  --dp COUNT                      Replicas, or ranks of attention over data [1].
  --ep                            Deal out whole experts over the ranks.
  --dcp COUNT                     Ranks of decode context parallelism, within tp
                                  [1].
  --pcp COUNT                     Ranks of prefill context parallelism [1].
  --gpu GPU                       A GPU, e.g. H100 (`kvplan gpus` lists them),
                                  or a size, e.g. 80GiB.
  --gpus COUNT                    How many of them [tp · pp].
  --gpu-memory SIZE               Memory of one GPU, instead of what its driver
                                  reports.
  --gpu-memory-utilization FLOAT  The share that may be used [the engine's, else
                                  1].
  --block-size COUNT              Tokens of a block [the engine's].
  --max-num-seqs COUNT            Requests at once at most [the engine's
                                  default].
  --max-num-batched-tokens COUNT  Tokens of one pass [the engine's default].
  --option NAME=VALUE             Another option of the engine, e.g.
                                  enforce_eager=true.
  --attention BACKEND             Backend: eager, math, efficient, flash
                                  [flash].
  --json-schema                   Print the JSON Schema of the answer and exit.
  --set KEY=VALUE                 Set a fact of the config yourself.
  --assume [full]                 Bounds for an architecture that kvplan does
                                  not know.
  --offline                       Never ask the Hub.
  --hub                           Ask the Hub even where the catalog has the
                                  model.
  --timeout SECONDS               Seconds to wait for the Hub.
  --format [text|json|csv|md]     How to print the answer [text].
  --json                          The same as --format json.
  -h, --help                      Show this message and exit.

  Examples:
    kvplan estimate meta-llama/Llama-2-70b --seq 4096
    kvplan estimate mistralai/Mixtral-8x7B-v0.1 --seq 32K --batch 8 --gpu H100 --gpus 4
    kvplan estimate ./config.json --kv-dtype fp8 --quant int4 --json
    kvplan estimate Qwen/Qwen3-8B --gpu 24GiB --gpu-memory-utilization 0.9
""")


def test_without_a_command_the_help_is_shown() -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout == run("--help").stdout


def test_version() -> None:
    assert run("--version").stdout == f"kvplan {__version__}\n"


def test_set_is_remembered(tmp_path: Path) -> None:
    path = config(tmp_path)
    result = run("estimate", path, "--set", "vocab_size=1000", "--set", "num_hidden_layers=2", "--json")
    document = json.loads(result.stdout)
    assert document["model"]["facts_set_by_user"] == {"vocab_size": 1000, "num_hidden_layers": 2}
    assert document["model"]["num_layers"] == 2


def test_sizes_and_counts() -> None:
    args = ("--seq", "8k", "--gpu-memory", "80GB", "--gpu-memory-utilization", "0.5", "--json")
    document = json.loads(run("estimate", MODEL, *args).stdout)
    assert document["inputs"]["seq_len"] == 8000
    assert document["inputs"]["gpu_memory_bytes"] == 80 * 10**9
    assert document["per_gpu"][0]["capacity_bytes"] == 40 * 10**9
    named = json.loads(run("estimate", MODEL, "--gpu", "H100", "--gpu-memory", "1TiB", "--json").stdout)
    assert named["inputs"]["gpu"] == "H100-SXM5-80GB"
    assert named["fits"] is True


def test_a_record_of_the_device_is_used_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {
        "context_bytes": 300 * 2**20,
        "read_bytes_per_second": 3e12,
        "driver": "580.65.06",
        "torch": "2.13.0",
        "date": "2026-01-02T03:04:05+00:00",
        "record": "a-record.json",
    }
    document = {"schema": "kvplan/devices/1", "devices": {"NVIDIA H100 80GB HBM3": entry}}
    (tmp_path / "devices.json").write_text(json.dumps(document))
    asked = ("estimate", "Qwen/Qwen3-8B", "--gpu", "H100")
    before = json.loads(run(*asked, "--gpu-memory", "80GiB", "--json").stdout)
    monkeypatch.setenv("KVPLAN_RECORDS", str(tmp_path))
    shown = run(*asked).stdout
    source = (
        "kvplan validate on NVIDIA H100 80GB HBM3, driver 580.65.06, torch 2.13.0, 2026-01-02, record a-record.json"
    )
    assert f"context and bandwidth as measured: {source}" in " ".join(shown.split())
    for gpu in ("H100", "NVIDIA H100 80GB HBM3"):
        found = json.loads(run("estimate", "Qwen/Qwen3-8B", "--gpu", gpu, "--gpu-memory", "80GiB", "--json").stdout)
        SCHEMA.validate(found)
        assert (before["evidence"]["context"], found["evidence"]["context"]) == ("assumed", "calibrated")
        assert found["overheads"][1]["source"] == found["speed"]["source"] == source
        gained = before["per_gpu"][0]["context_bytes"] - found["per_gpu"][0]["context_bytes"]
        assert gained == (512 - 300) * 2**20
        assert (before["speed"]["basis"], found["speed"]["basis"]) == ("data sheet", "measured")
    (tmp_path / "devices.json").write_text("{")
    broken = run(*asked)
    assert (broken.exit_code, broken.stdout) == (2, "")
    assert str(tmp_path / "devices.json") in broken.stderr
    assert "KVPLAN_RECORDS" in broken.stderr
    assert run("estimate", "Qwen/Qwen3-8B", "--gpu", "80GiB").exit_code == 0


def test_a_gpu_of_unknown_memory_asks_for_it() -> None:
    result = run("estimate", MODEL, "--gpu", "GB10")
    assert result.exit_code == 0
    assert "--gpu-memory" in result.stderr


def test_csv_and_markdown() -> None:
    header, *rows = run("estimate", MODEL, "--gpu", "H100", "--gpus", "2", "--format", "csv").stdout.splitlines()
    assert header.startswith("model,seq_len,")
    assert len(rows) == 2
    assert run("estimate", MODEL, "--format", "md").stdout == snapshot("""\
### meta-llama/Llama-2-70b: 68.98 B parameters, 80 layers, llama

facts from the catalog: Meta's params.json as shipped; dimensions as in llama-models==0.3.0:llama\\_m…

1 sequence of 4,096 tokens, weights bf16, KV cache bf16, flash attention, engine exact

**On one GPU**

|  | GiB | share | basis |
| :--- | ---: | ---: | :--- |
| weights | 128.48 | 98 % | exact |
| KV cache | 1.25 | 1.0 % | exact |
| activations | 0.78 | 0.6 % | derived |
| context | 1.00 | 0.8 % | assumed |
| total | 131.51 | 100 % |  |

**Whole model**

|  |  |  |
| :--- | :--- | :--- |
| parameters | 68,976,648,192 |  |
| weights | 137,953,296,384 bytes (128.48 GiB) | bf16: mlp 82 %, attention 18 % |
| KV cache | 1,342,177,280 bytes (1.25 GiB) | bf16 |
| per token | 327,680 bytes (320 KiB) | the last token of one sequence |

**KV cache by layer**

| layers | keep | bytes/token | needed |
| :--- | :--- | ---: | ---: |
| 80 × full | all tokens | 327,680 | 1.25 GiB |

**Transient memory of the largest attention call, by backend (the plan counts flash)**

|  | batch × query × key | eager | math | efficient | flash |
| :--- | :--- | ---: | ---: | ---: | ---: |
| prefill | 1 × 4,096 × 4,096 | 10.12 GiB | 9.59 GiB | 64 MiB | 65 MiB |
| decode | 1 × 1 × 4,096 | 130.50 MiB | 417.06 MiB | 16 KiB | 16.25 KiB |
""")


def test_the_schema_can_be_printed() -> None:
    result = run("estimate", "--json-schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["$id"] == "urn:kvplan:estimate:1"


def test_inspect() -> None:
    result = run("inspect", MODEL)
    assert result.exit_code == 0
    assert "Layers: 80 × A" in result.stdout
    assert "full, 64 heads, 8 KV heads, dim 128" in result.stdout
    assert "q_proj" in run("inspect", MODEL, "--tensors").stdout
    document = json.loads(run("inspect", MODEL, "--json").stdout)
    assert document["schema"] == "kvplan/inspect/1"
    assert document["num_parameters"] == 68_976_648_192


def test_models() -> None:
    result = run("models", "Llama-2-70b")
    assert result.exit_code == 0
    assert result.stdout == snapshot("""\
id                         type   parameters  layers  attention  dtype  KV bytes/token  past windows
meta-llama/Llama-2-70b-hf  llama     68.98 B      80  full       fp16          327,680
meta-llama/Llama-2-70b     llama     68.98 B      80  full       bf16          327,680
""")
    rows = json.loads(run("models", "--json").stdout)["models"]
    assert MODEL in {row["id"] for row in rows}
    small = json.loads(run("models", "--max-params", "1B", "--family", "qwen3", "--json").stdout)["models"]
    assert {row["id"] for row in small} >= {"Qwen/Qwen3-0.6B"}
    assert all(row["num_parameters"] <= 10**9 and row["model_type"] == "qwen3" for row in small)
    latent = json.loads(run("models", "--attention", "latent", "--json").stdout)["models"]
    assert {row["model_type"] for row in latent} >= {"deepseek_v3"}
    linear = json.loads(run("models", "--attention", "linear", "--json").stdout)["models"]
    assert {row["model_type"]: row["attention"] for row in linear}["qwen3_next"] == ["linear", "full"]


def listed(*args: str) -> list[dict[str, Any]]:
    """The rows of `kvplan models … --json`."""
    rows: list[dict[str, Any]] = json.loads(run("models", *args, "--json").stdout)["models"]
    return rows


def test_models_of_a_lineage() -> None:
    types = {row["model_type"] for row in listed("--family", "qwen")}
    assert types >= {"qwen2", "qwen3", "qwen3_moe", "qwen3_next"}
    assert all(name.startswith("qwen") for name in types)
    assert {row["model_type"] for row in listed("--family", "qwen3_moe")} == {"qwen3_moe"}


def test_models_between_two_sizes() -> None:
    sizes = [row["num_parameters"] for row in listed("--min-params", "7B", "--max-params", "9B")]
    assert sizes
    assert all(7 * 10**9 <= size <= 9 * 10**9 for size in sizes)


def test_models_with_an_indexer_are_latent_too() -> None:
    latent = {row["id"] for row in listed("--attention", "latent")}
    assert latent > {row["id"] for row in listed("--attention", "latent_indexed")} > set()


def test_models_by_their_quantisation() -> None:
    assert {row["quantization"] for row in listed("--quant", "mxfp4")} == {"mxfp4"}
    assert MODEL in {row["id"] for row in listed("--quant", "none")}


def test_model_types() -> None:
    rows = json.loads(run("models", "--types", "--json").stdout)["types"]
    types = {row["model_type"]: row for row in rows}
    assert types["llama"]["follows"] == "transformers 5.23"
    assert types["llama"]["models"] > 20
    assert types["chatglm"]["follows"] == "remote code"
    assert run("models", "deepseek", "--types", "--format", "csv").stdout.startswith("model_type,models,follows\n")
    assert {
        row["model_type"] for row in json.loads(run("models", "--types", "--family", "t5", "--json").stdout)["types"]
    } == {"t5"}


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--family", "zzz"), "no model type that kvplan reads is of the family `zzz`"),
        (("--attention", "zzz"), "`zzz` is no kind of attention"),
        (("--quant", "zzz"), "`zzz` is no quantisation of the catalog"),
    ],
)
def test_a_filter_that_nothing_has_says_what_there_is(args: tuple[str, ...], sentence: str) -> None:
    result = run("models", *args)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == f"error: {sentence}"
    assert "full, " in result.stderr or "llama, " in result.stderr or "fp8, " in result.stderr


def test_gpus() -> None:
    result = run("gpus", "h100 sxm")
    assert result.exit_code == 0
    assert "H100-SXM5-80GB" in result.stdout
    (row,) = json.loads(run("gpus", "h100 sxm", "--json").stdout)["gpus"]
    assert row["memory_bytes"] == 81_559 * 2**20
    header, *_ = run("gpus", "--format", "csv").stdout.splitlines()
    assert header.startswith("name,vendor,memory_bytes,")


def test_a_listing_of_nothing_says_so() -> None:
    for name in ("models", "gpus"):
        result = run(name, "no such thing")
        assert result.exit_code == 0
        assert "note: none of the" in result.stderr
        assert run(name, "no such thing", "--json").exit_code == 0
        assert run(name, "no such thing", "--format", "csv").exit_code == 0
