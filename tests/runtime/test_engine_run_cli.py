"""`kvplan validate MODEL --against vllm` as a user starts it, with a program that stands in for the engine."""

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from inline_snapshot import snapshot

from kvplan.report.schema import schema_text
from tests.command import config, run
from tests.runtime.stand_in import DATA, STAND_IN, VLLM_LOG, all_gone, fake
from tests.sources.gguf_writer import gguf_bytes

LLAMA = "meta-llama/Llama-3.1-8B"
SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_text("engine-run")))
H100 = "0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 570.86.15\n"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="engines are started on Linux")


@pytest.fixture(autouse=True)
def _an_h100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists one, on a machine without anything else."""
    (tmp_path / "bin").mkdir()
    fake(tmp_path / "bin", "nvidia-smi", H100)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def engine(tmp_path: Path, then: str = "serve", log: Path = VLLM_LOG) -> tuple[str, str]:
    """The option that names the stand-in."""
    words = [*STAND_IN, "--log", str(log), "--then", then, "--pids", str(tmp_path / "told.json")]
    return "--engine-command", shlex.join(words)


def told(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    assert all_gone(found["pids"])
    return found


def plain(text: str, tmp_path: Path) -> str:
    """The same without what differs from run to run."""
    text = (
        text.replace(str(tmp_path), "TMP")
        .replace(str(DATA), "DATA")
        .replace(sys.executable, "python")
        .replace("DATA/engines/", "")
    )
    for pattern, word in (
        (r"kvplan-\w+/model", "kvplan-x/model"),
        (r"--port \d+", "--port N"),
    ):
        text = re.sub(pattern, word, text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ t][\d:-]+", "DATE", text)
    return re.sub(r"took \d+ s", "took N s", text)


def test_the_record(tmp_path: Path) -> None:
    out = tmp_path / "records" / "one.json"
    result = run("validate", LLAMA, "--against", "vllm", "--json", "--out", str(out), *engine(tmp_path))
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    SCHEMA.validate(document)
    assert document == json.loads(out.read_text(encoding="utf-8"))
    assert (document["verdict"], document["ended"], document["engine_version"]) == ("ok", "complete", "0.33.0")
    assert document["device"] == {
        "name": "NVIDIA H100 80GB HBM3", "driver": "570.86.15", "memory_bytes": 81_559 * 2**20, "num_gpus": 1,
    }  # fmt: skip
    rows = {(row["section"], row["name"]): row for row in document["start"]["rows"]}
    # as printed; 28,569 blocks of 16 tokens, each 32 layers · 8 heads · 2 · 128 · 2 bytes, in 55.8 GiB
    assert rows["given", "tokens"]["observed"] == rows["given", "tokens"]["predicted"] == 457_104
    assert rows["account", "weights"]["observed"] == 15 * 2**30
    assert "457,104 tokens" in out.with_suffix(".log").read_text(encoding="utf-8")
    assert "record written to" in result.stderr
    assert told(tmp_path)["config"]["architectures"] == ["LlamaForCausalLM"]
    assert "kvplan" not in told(tmp_path)["config"]


def test_a_folder_for_the_record(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    result = run("validate", LLAMA, "--against", "vllm", "--out", str(tmp_path / "records"), *engine(tmp_path))
    assert result.exit_code == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "records").iterdir())
    stem = r"nvidia-h100-80gb-hbm3--meta-llama-llama-3\.1-8b--vllm-0\.33\.0--[\dt-]+"
    assert re.fullmatch(rf"{stem}\.json {stem}\.log", " ".join(names))


def test_what_is_printed(tmp_path: Path) -> None:
    result = run("validate", LLAMA, "--against", "vllm", *engine(tmp_path))
    assert result.exit_code == 0
    head, _, rest = plain(result.stdout, tmp_path).partition("\n\n")
    assert head == snapshot("""\
vllm 0.33.0, meta-llama/Llama-3.1-8B on H100-SXM5-80GB, tp 1, started
random weights, NVIDIA H100 80GB HBM3, driver 570.86.15, DATE UTC, took N s
55.80 GiB for the cache, 457,104 tokens, 3.49 requests of 131,072
lines 3 to 59 of the log\
""")
    assert rest.splitlines()[-1].startswith("  within tolerance: 2 exact figures equal, left for the cache")
    assert plain(result.stderr, tmp_path) == snapshot(
        "note: running python stand_in_engine.py --log DATA/logs/vllm-0.33-llama.log --then serve --pids TMP/told.json serve TMP/kvplan-x/model --load-format dummy --skip-tokenizer-init --host 127.0.0.1 --port N\n"
    )


def test_an_engine_that_crashes(tmp_path: Path) -> None:
    result = run("validate", LLAMA, "--against", "vllm", *engine(tmp_path, "crash"))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-4:] == snapshot(
        [
            "  0.35 GiB total",
            "  Traceback (most recent call last):",
            "  RuntimeError: the stand-in gives up",
            "  failed: no figure of the cache could be set beside the plan",
        ]
    )
    kept = re.search(r"the engine's log is in (\S+)", result.stderr)
    assert kept is not None
    assert "the stand-in gives up" in Path(kept[1]).read_text(encoding="utf-8")
    assert all_gone(told(tmp_path)["pids"])


def test_an_engine_that_hangs(tmp_path: Path) -> None:
    given = ("validate", LLAMA, "--against", "vllm", "--minutes", "0.02", *engine(tmp_path, "hang"))
    result = run(*given, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    SCHEMA.validate(document)
    assert (document["verdict"], document["ended"], document["exit_code"]) == ("failed", "time out", None)
    assert len(document["last_lines"]) == 12
    assert all_gone(told(tmp_path)["pids"])


def test_an_engine_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.log").write_text("", encoding="utf-8")
    result = run("validate", LLAMA, "--against", "vllm", *engine(tmp_path, "exit", tmp_path / "empty.log"))
    assert result.exit_code == 1
    assert plain(result.stdout, tmp_path) == snapshot("""\
vllm, meta-llama/Llama-3.1-8B: said nothing that is known
random weights, NVIDIA H100 80GB HBM3, driver 570.86.15, DATE UTC, took N s
vllm ended by itself with exit code 0 and said nothing
failed: no figure of the cache could be set beside the plan
""")


def test_an_engine_with_another_pool_is_off(tmp_path: Path) -> None:
    changed = tmp_path / "changed.log"
    changed.write_text(
        VLLM_LOG.read_text(encoding="utf-8").replace("457,104 tokens", "400,000 tokens"), encoding="utf-8"
    )
    result = run("validate", LLAMA, "--against", "vllm", *engine(tmp_path, log=changed))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == snapshot("  beyond tolerance: tokens (457,104 predicted)")


def test_an_engine_that_refuses_to_start_is_set_beside_the_plan_too(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "nvidia-smi", "0, GPU-aaaa, NVIDIA L4, 23034, 570.86.15\n")
    log = tmp_path / "first.log"
    whole = (DATA / "logs" / "vllm-0.19-too-long.log").read_text(encoding="utf-8")
    log.write_text(whole.partition("(APIServer pid=1) INFO 04-15 10:05:00")[0], encoding="utf-8")
    given = ("validate", "Qwen/Qwen3-8B", "--against", "vllm", *engine(tmp_path, "exit", log))
    document = json.loads(run(*given, "--json").stdout)
    SCHEMA.validate(document)
    assert (document["ended"], document["exit_code"], document["start"]["started"]) == ("exited", 0, False)
    rows = {row["name"]: row["verdict"] for row in document["start"]["rows"] if row["section"] == "given"}
    # 2,560 blocks of 16 tokens · 36 layers · 8 heads · 2 · 128 · 2 bytes
    assert rows == {"one request of 40,960": "equal", "longest that fits": "equal"}
    assert document["verdict"] in ("ok", "off")
    page = run(*given).stdout
    assert "did not start" in page.splitlines()[0]
    assert page.splitlines()[-1] == "  vllm ended by itself with exit code 0"


def test_options_reach_the_engine_in_its_own_words(tmp_path: Path) -> None:
    result = run(
        "validate", LLAMA, "--against", "vllm", "--seq", "128K", "--tp", "1", "--kv-dtype", "fp8", "--max-num-seqs", "64",
        "--gpu-memory-utilization", "0.8", "--block-size", "32", "--engine-option", "enforce_eager=true",
        "--option", "stage_layers=16,16", *engine(tmp_path),
    )  # fmt: skip
    assert result.exit_code in (0, 1), result.stderr
    words = told(tmp_path)["words"]
    assert words[0] == "serve"
    assert shlex.join(words[2 : words.index("--load-format")]) == snapshot(
        "--kv-cache-dtype fp8 --tensor-parallel-size 1 --gpu-memory-utilization 0.8 --max-num-seqs 64 --max-model-len 131072 --block-size 32 --enforce-eager"
    )


def test_a_folder_of_ones_own_brings_its_tokenizer(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    config(own, auto_map={"AutoConfig": "modeling_own.Config"})
    (own / "tokenizer.json").write_text("{}", encoding="utf-8")
    run("validate", str(own), "--against", "vllm", *engine(tmp_path))
    seen = told(tmp_path)
    assert seen["files"] == ["config.json", "tokenizer.json"]
    assert "auto_map" not in seen["config"]
    assert "--skip-tokenizer-init" not in seen["words"]
    assert "dummy" in seen["words"]


REFUSED = {
    "nothing installed": ([LLAMA, "--against", "sglang"], "sglang is not installed here"),
    "vllm neither": ([LLAMA, "--against", "vllm"], "vllm is not installed here"),
    "no such program": ([LLAMA, "--against", "vllm", "--engine-command", "no-such-vllm"], "`no-such-vllm` is no program"),
    "two models": ([LLAMA, "gpt2", "--against", "vllm"], "name one MODEL"),
    "no model": (["--against", "vllm"], "name a MODEL"),
    "params.json": (["meta-llama/Llama-2-7b", "--against", "vllm"], "has no config.json"),
    "what is measured without an engine": ([LLAMA, "--against", "vllm", "--quick"], "--against vllm takes no --quick"),
    "facts of one's own": ([LLAMA, "--against", "vllm", "--set", "vocab_size=9"], "takes no --set"),
    "an engine's option without one": (["gpt2", "--max-num-seqs", "9"], "--max-num-seqs is for --against vllm and sglang"),
    "no option": ([LLAMA, "--against", "vllm", "--engine-option", "no_such=1"], "`no_such` is no option of any engine"),
    "no value": ([LLAMA, "--against", "vllm", "--engine-option", "enforce_eager"], "is not NAME=VALUE"),
    "no whole number": ([LLAMA, "--against", "vllm", "--engine-option", "max_loras=x"], "`max_loras` cannot be `x`"),
    "twice": ([LLAMA, "--against", "vllm", "--tp", "2", "--engine-option", "tp=4"], "`tp` is given twice"),
    "no place": ([LLAMA, "--against", "vllm", "--out", "/dev/null/x.json"], "cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(args: list[str], said: str) -> None:
    result = run("validate", *args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "hint:" in result.stderr


STARTED = {
    "more GPUs than there are": (["--tp", "2"], "2 GPUs are needed, and 1 are here"),
    "what vLLM cannot be told": (["--engine-option", "swa_full=true"], "vllm cannot be told `swa_full`"),
    "a share that is none": (["--gpu-memory-utilization", "9"], "`gpu_memory_utilization` cannot be 9"),
    "no GPU of that name": (["--gpu", "H9000"], "no GPU named `H9000`"),
}


@pytest.mark.parametrize(("args", "said"), STARTED.values(), ids=STARTED)
def test_what_is_refused_before_the_engine_is_started(tmp_path: Path, args: list[str], said: str) -> None:
    result = run("validate", LLAMA, "--against", "vllm", *args, *engine(tmp_path))
    assert result.exit_code == 2, result.stdout
    assert said in result.stderr
    assert not (tmp_path / "told.json").exists()


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("kvplan.runtime.engine_run.devices.has_other_gpu", lambda: False)
    result = run("validate", LLAMA, "--against", "vllm", *engine(tmp_path))
    assert result.exit_code == 2
    assert "no GPU is here: nvidia-smi lists none" in result.stderr
    named = run("validate", LLAMA, "--against", "vllm", "--gpu", "H100", *engine(tmp_path))
    assert named.exit_code == 0, named.stderr


def test_a_gpu_that_the_table_does_not_have(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "nvidia-smi", H100.replace("H100 80GB HBM3", "Q9000"))
    result = run("validate", LLAMA, "--against", "vllm", "--json", *engine(tmp_path))
    document = json.loads(result.stdout)
    assert document["device"]["name"] == "NVIDIA Q9000"
    rows = {(row["section"], row["name"]): row for row in document["start"]["rows"]}
    assert rows["given", "tokens"]["verdict"] == "equal"


def test_a_gguf_file_is_refused(tmp_path: Path) -> None:
    small = json.loads((DATA / "gguf" / "models.json").read_text(encoding="utf-8"))["llama"]
    vocabulary = {"tokenizer.ggml.tokens": ["a"] * 5000}
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(small["metadata"] | vocabulary, small["tensors"], data=100))
    result = run("validate", str(path), "--against", "vllm", *engine(tmp_path))
    assert result.exit_code == 2
    assert "is a GGUF file, and an engine is given a config.json" in result.stderr
