"""`kvplan validate` as a user starts it: real processes on a small model, several ranks, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvplan.report.schema import schema_text
from kvplan.validate import isolate, record
from kvplan.validate.levels import LEVELS
from kvplan.validate.together import num_processes
from tests.command import config, run

SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_text("validate")))
SMALL = {
    "model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_size": 256, "intermediate_size": 64,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "sliding_window": 96,
    "torch_dtype": "bfloat16",
}  # fmt: skip


def document_of(text: str) -> dict[str, Any]:
    """The JSON that was printed, after what torchrun may say before it."""
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found


def test_a_model_of_ones_own_without_a_gpu(tmp_path: Path) -> None:
    model, kept = config(tmp_path, **SMALL), tmp_path / "record.json"
    result = run(
        "validate", model, "--device", "cpu", "--quick", "--json", "--against", "transformers", "--out", str(kept)
    )
    assert result.exit_code == 0, result.stdout + result.stderr
    document = document_of(result.stdout)
    SCHEMA.validate(document)
    assert document == record.read(kept)
    assert document["verdict"] == "ok"
    assert document["failures"] == []
    # by hand: 256 tokens and more in chunks of 512 held whole at first: every layer has 2 heads of 2 · 64 · 2 bytes
    (case,) = document["cases"]
    assert (case["num_layers"], case["window"]) == (3, 96)
    rows = {(row["section"], row["term"]): row for row in document["rows"]}
    pools = rows["memory", "pools"]
    assert pools["predicted"] == pools["measured"] == 3 * document["readings"]["memory"]["pools"][0]["pages"] * 16 * 512
    assert rows["memory", "requested"]["error"] == 0
    assert rows["framework", "after the prompt"]["measured"] == 3 * 2 * 95 * 512  # two sequences, W − 1 tokens
    assert {"decode", "prefill"} == {row["term"] for row in document["rows"] if row["section"] == "correctness"}
    assert "record written to" in result.stderr


def test_several_processes_hold_what_the_plan_of_each_says(tmp_path: Path) -> None:
    model = config(tmp_path, **SMALL)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node", "2",
        "-m", "kvplan.validate", model, "--tp", "2", "--device", "cpu", "--json",
    ]  # fmt: skip
    env = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    document = document_of(done.stdout)
    SCHEMA.validate(document)
    assert document["verdict"] == "ok"
    held = [row["measured"] for row in document["rows"] if row["term"] == "cache"]
    # three layers, two sequences of 64 tokens, one of two heads each: 64 · 2 · 2 bytes
    assert held == [3 * 2 * 64 * 256] * 2


REFUSED = {
    "no GPU": (["--device", "cuda"], 2, "torch sees no GPU here"),
    "fp32": (["--dtype", "fp32"], 2, "the kernels do not run in fp32"),
    "int4": (["--kv-dtype", "int4", "--device", "cpu"], 2, "the kernels do not run in int4"),
    "a latent of int8": (
        ["deepseek-ai/DeepSeek-V3", "--kv-dtype", "int8", "--device", "cpu"],
        2,
        "a latent cache of int8",
    ),
    "a plot of another sort": (["gpt2", "--plot", "x.jpg", "--device", "cpu"], 2, ".png, .svg, .pdf"),
    "a latent variant of int8": (["--variants", "--kv-dtype", "int8", "--device", "cpu"], 2, "`variants` has one"),
    "no end": (["gpt2", "--minutes", "nan"], 2, "which has no end"),
    "an encoder's length without one": (
        ["gpt2", "--encoder-seq", "9", "--device", "cpu"],
        2,
        "nothing here has an encoder",
    ),
    "one file for two records": (["gpt2", "--variants", "--out", "x.json", "--device", "cpu"], 2, "name a folder"),
    "a place that is no file": (["gpt2", "--out", "/dev/null", "--device", "cpu"], 2, "neither a file nor a folder"),
    "a file in the way": (["gpt2", "--out", "/dev/null/x.json", "--device", "cpu"], 2, "cannot be written"),
    "what several processes do not take": (["gpt2", "--tp", "2", "--quick"], 2, "take no --quick"),
    "no tokens": (["gpt2", "--seq", "0"], 2, "`seq_len` is 0"),
    "no sequences": (["--batch", "0"], 2, "`batch_size` is 0"),
    # 12 layers' worth of 768 · 2 · 2 bytes a token: one of them alone is 96 GiB of the 8 that may be used
    "too long for any layer": (["gpt2", "--seq", "32M", "--device", "cpu"], 2, "takes 96 GiB, more than the 8 GiB"),
    "ranks without torchrun": (["gpt2", "--tp", "2"], 2, "tp 2 × pp 1 × cp 1 are 2 ranks, and 1 is running"),
    "ranks of two models": (["gpt2", "bert-base-uncased", "--tp", "2"], 2, "name one MODEL"),
    "a layer that is none": (["--case", "heads=3", "--device", "cpu"], 2, "`heads=3` lacks `key_dim`"),
    "params.json": (["meta-llama/Llama-2-7b", "--against", "transformers", "--device", "cpu"], 2, "Llama-2-7b-hf"),
    "against, of nothing": (["--against", "transformers"], 2, "name a MODEL"),
    "an unknown model": (["no such model", "--device", "cpu"], 2, "`no such model` is neither"),
}


@pytest.mark.parametrize(("args", "code", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(args: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probed = {"device": None} if "cuda" in args else {"device": CPU, "free_bytes": 1 << 34}
    monkeypatch.setattr(isolate, "run_job", lambda job, timeout_seconds: probed)
    result = run("validate", *args)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


CPU = {
    "kind": "cpu",
    "name": "some CPU",
    "date": "2026-01-02T03:04:05+00:00",
    "torch": "2",
    "triton": "3",
    "python": "3",
}


def test_without_torch_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "find_spec", lambda name: None)
    result = run("validate", "gpt2")
    assert result.exit_code == 2
    assert "measuring needs torch and triton, which are not installed" in result.stderr
    assert "pip install 'kvplan[gpu]'" in result.stderr


def test_a_term_that_is_off_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def job(asked: dict[str, Any], *, timeout_seconds: float) -> Any:
        if asked["job"] == "probe":
            return {"device": CPU, "free_bytes": 1 << 34}
        if asked["job"] == "memory":
            pools = [{"case": one["name"], "layers": 1, "pages": 1, "pool_bytes": 7} for one in asked["cases"]]
            return {
                "points": [{"point": at, "process": 0} for at in ("start", "run")],
                "pools": pools,
                "tallied_bytes": 7,
            }
        return []

    monkeypatch.setattr(isolate, "run_job", job)
    result = run("validate", "gpt2", "--device", "cpu")
    assert result.exit_code == 1
    assert "off: " in result.stdout


def test_two_models_of_one_name_leave_two_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(asked: dict[str, Any], *, timeout_seconds: float) -> Any:
        return (
            {"device": CPU, "free_bytes": 1 << 34} if asked["job"] == "probe" else isolate.failed("not run", "no time")
        )

    monkeypatch.setattr(isolate, "run_job", job)
    result = run("validate", "gpt2", "gpt2", "--device", "cpu", "--out", str(tmp_path / "here"))
    assert result.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == [f"some-cpu--gpt2--2026-01-02t03-04-05{more}.json" for more in ("-2", "")]


def test_processes_are_those_of_torchrun_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert num_processes() == 1
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert num_processes() == 8
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert num_processes() == 1


def test_levels_rise() -> None:
    quick, standard, full = (LEVELS[name] for name in ("quick", "standard", "full"))
    assert quick.host_bytes < standard.host_bytes < full.host_bytes
    assert quick.num_loads < standard.num_loads < full.num_loads
