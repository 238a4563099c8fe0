"""Starting an engine, reading it in bounded memory, and leaving nothing of it: with a program that stands in for one."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.errors import InputError
from kvplan.core.units import GIB, MIB
from kvplan.runtime.engine_run import devices, guard, process, program
from kvplan.runtime.engine_run.model_folder import write_model_folder
from kvplan.runtime.engine_run.process import LineSplitter
from kvplan.runtime.engine_run.run import Order, engine_command, run_engine
from kvplan.runtime.lines import MAX_LINE
from tests.runtime.stand_in import STAND_IN, VLLM_LOG, all_gone, fake

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="engines are started on Linux")


@dataclass(frozen=True)
class Started:
    """An order for the stand-in, and what it will have told."""

    order: Order
    told: Path

    def seen(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.told.read_text(encoding="utf-8"))
        return found


Make = Callable[..., Started]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Orders for a stand-in that prints a log and then does as it is told."""

    def order(then: str = "serve", log: Path = VLLM_LOG, engine: str = "vllm", **changes: object) -> Started:
        told = tmp_path / "told.json"
        (tmp_path / "model").mkdir(exist_ok=True)
        write_model_folder(tmp_path / "model", {"model_type": "llama"}, None)
        words = (*STAND_IN, "--log", str(log), "--then", then, "--pids", str(told), "serve")
        made = Order(
            engine=engine, program=words, model_folder=tmp_path / "model", has_tokenizer=False, options={},
            timeout_seconds=60, log=tmp_path / "engine.log", say=lambda line: None,
        )  # fmt: skip
        return Started(replace(made, **changes), told)  # type: ignore[arg-type]

    return order


WAYS = {
    # (how it ended, its exit code, whether its pool was read, the last thing it said)
    "serve": ("complete", None, True, "Application startup complete"),
    "exit": ("complete", None, True, "Application startup complete"),
    "crash": ("exited", 3, False, "the stand-in gives up"),
    "killed": ("exited", -signal.SIGKILL, False, "Estimated CUDA graph memory"),
    "child": ("complete", None, True, "Application startup complete"),
    "stray": ("complete", None, True, "Application startup complete"),
    "orphan": ("complete", None, True, "Application startup complete"),
}


@pytest.mark.parametrize(("then", "expected"), WAYS.items(), ids=WAYS)
def test_what_comes_of_each_way_to_end(make: Make, then: str, expected: tuple[str, int | None, bool, str]) -> None:
    started = make(then)
    run = run_engine(started.order)
    ended, exit_code, has_pool, last = expected
    assert (run.ended, run.exit_code, run.all_ended) == (ended, exit_code, True)
    assert run.observation is not None
    assert ("num_tokens" in run.observation.figures) is has_pool
    assert last in run.tail[-1]
    assert all_gone(started.seen()["pids"])


def test_the_figures_are_those_of_the_log(make: Make) -> None:
    run = run_engine(make().order)
    assert run.observation is not None
    # as they stand in the file
    assert run.observation.version == "0.33.0"
    assert {name: run.observation.figures[name][0].value for name in ("kv_memory", "num_tokens", "graphs")} == {
        "kv_memory": 55.8,
        "num_tokens": 457_104,
        "graphs": 0.31,
    }


def test_the_copy_of_the_log_has_the_lines_by_their_numbers(make: Make) -> None:
    started = make()
    run = run_engine(started.order)
    assert run.observation is not None
    lines = started.order.log.read_text(encoding="utf-8").splitlines()
    assert "457,104 tokens" in lines[run.observation.figures["num_tokens"][0].line_number - 1]


def test_a_hang_ends_when_the_time_is_up(make: Make) -> None:
    started = make("hang", timeout_seconds=1.5)
    run = run_engine(started.order)
    assert (run.ended, run.exit_code) == ("time out", None)
    assert run.observation is not None
    assert "weights" in run.observation.figures
    assert all_gone(started.seen()["pids"])


def test_one_that_will_not_end_is_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "GRACE_SECONDS", 0.3)
    started = make("deaf")
    run = run_engine(started.order)
    assert (run.ended, run.all_ended) == ("complete", True)
    assert all_gone(started.seen()["pids"])


@pytest.mark.parametrize("then", ["flood", "long"])
def test_a_flood_is_read_in_bounded_memory(make: Make, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    monkeypatch.setattr(process, "MAX_LOG_BYTES", MIB)
    started = make(then, timeout_seconds=1.5)
    tracemalloc.start()
    try:
        run = run_engine(started.order)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert run.ended == "time out"
    assert peak < 8 * MIB
    assert started.order.log.stat().st_size < MIB + 2 * MAX_LINE
    if then == "flood":  # more than the copy keeps has come
        assert "keeps no more" in started.order.log.read_text(encoding="utf-8")
    assert all_gone(started.seen()["pids"])


def test_what_the_engine_is_told(make: Make) -> None:
    started = make(options={"max_model_len": 4096, "tp": 2, "stage_layers": (16, 16), "pp": 2})
    run = run_engine(started.order)
    seen = started.seen()
    words = seen["words"]
    assert isinstance(words, list)
    assert words[:2] == ["serve", str(started.order.model_folder)]
    port = int(words[-1])
    assert words[2:-1] == [
        "--max-model-len", "4096", "--tensor-parallel-size", "2", "--pipeline-parallel-size", "2", "--load-format",
        "dummy", "--skip-tokenizer-init", "--host", "127.0.0.1", "--port",
    ]  # fmt: skip
    assert 1024 <= port < 65536
    assert seen["offline"] == "1"
    assert seen["config"] == {"model_type": "llama"}
    assert "VLLM_PP_LAYER_PARTITION=16,16" in run.command


def test_sglang_is_told_in_its_own_words(make: Make) -> None:
    order = make(engine="sglang", options={"max_model_len": 4096, "kv_dtype": "fp8"}).order
    words, environment = engine_command(replace(order, program=("python3", "-m", "sglang.launch_server")))
    assert words[:7] == [
        "python3", "-m", "sglang.launch_server", "--model-path", str(order.model_folder), "--context-length", "4096",
    ]  # fmt: skip
    assert words[words.index("--load-format") :][:3] == ["--load-format", "dummy", "--skip-tokenizer-init"]
    assert environment["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("last", ["max_total_num_tokens", "fired up"])
def test_sglang_is_through_with_its_scheduler_or_its_server(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.setattr("kvplan.runtime.engine_run.run.SETTLE_SECONDS", 0.2)
    said = [
        "[2026-01-01 00:00:00] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=63.27 GB, mem usage=15.08 GB.",
        "[2026-01-01 00:00:01] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 412000, K size: 25.15 GB, V size: 25.15 GB",
        "[2026-01-01 00:00:02] max_total_num_tokens=412000, chunked_prefill_size=8192, max_prefill_tokens=16384, "
        "max_running_requests=2048, context_len=131072, available_gpu_mem=9.61 GB",
        "[2026-01-01 00:00:03] The server is fired up and ready to roll!",
    ]
    log = tmp_path / "sglang.log"
    log.write_text("\n".join(said if last == "fired up" else said[:-1]), encoding="utf-8")
    started = make(log=log, engine="sglang")
    run = run_engine(started.order)
    assert run.ended == "complete"
    assert run.observation is not None
    assert run.observation.engine == "sglang"
    assert run.observation.figures["num_tokens"][0].value == 412_000
    assert last in run.tail[-1]
    assert all_gone(started.seen()["pids"])


def test_a_program_that_cannot_be_started_is_refused(make: Make, tmp_path: Path) -> None:
    wrong = tmp_path / "vllm"
    wrong.write_text("no program", encoding="utf-8")
    wrong.chmod(0o755)
    with pytest.raises(InputError, match="cannot be started"):
        run_engine(make(program=(str(wrong), "serve")).order)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("then", ["hang", "deaf"])
def test_nothing_is_left_when_kvplan_is_ended(make: Make, tmp_path: Path, number: signal.Signals, then: str) -> None:
    """The script stands for kvplan: it starts an engine with two children and is ended in the midst of it."""
    started = make("stray" if then == "hang" else then, log=tmp_path / "empty.log")
    started.order.log.with_name("empty.log").write_text("", encoding="utf-8")
    script = (
        "import signal, sys; from pathlib import Path; from kvplan.runtime.engine_run import guard, run\n"
        # A shell starts what runs in the background with SIGINT ignored, and a child inherits that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "guard.GRACE_SECONDS = 0.3\n"
        "folder = Path(sys.argv[1])\n"
        "run.run_engine(run.Order(engine='vllm', program=tuple(sys.argv[2:]), model_folder=folder / 'model',\n"
        "    has_tokenizer=True, options={}, timeout_seconds=60, log=folder / 'engine.log', say=lambda line: None))\n"
    )
    kvplan = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), *started.order.program], stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    until = time.monotonic() + 60
    while not started.told.is_file() or not started.told.read_text(encoding="utf-8").endswith("}"):
        assert time.monotonic() < until
        assert kvplan.poll() is None
        time.sleep(0.02)
    kvplan.send_signal(number)
    code = kvplan.wait(60)
    by_itself = {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGHUP: 128 + signal.SIGHUP}
    assert code == by_itself.get(number, -number)
    # By itself it is done before it ends; killed, the guard does it after.
    assert all_gone(started.seen()["pids"], within_seconds=40 if number == signal.SIGKILL else 0)


def test_a_group_that_nobody_is_in_is_ended() -> None:
    assert guard.members(-1, "no such token") == set()
    assert guard.end_all(-1, "no such token", grace_seconds=1)


def test_another_run_is_left_alone() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    environments = [os.environ | {guard.MARK: token} for token in ("one", "another")]
    mine, other = (subprocess.Popen(sleep, env=environment) for environment in environments)
    try:
        assert guard.members(-1, "one") == {mine.pid}
        mine.kill()
        mine.wait()
        assert guard.end_all(-1, "one", grace_seconds=1)
        assert other.poll() is None
    finally:
        for child in (mine, other):
            child.kill()
            child.wait()


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=30))
def test_lines_do_not_depend_on_how_they_come(data: bytes, cuts: list[int]) -> None:
    def split(pieces: list[bytes]) -> list[str]:
        splitter = LineSplitter()
        return [line for piece in pieces for line in splitter.split(piece)] + list(splitter.rest())

    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    pieces.append(data[at:])
    assert split(pieces) == split([data])
    whole = data.replace(b"\r", b"\n").split(b"\n")
    assert split([data]) == [line.decode(errors="replace") for line in (whole if whole[-1] else whole[:-1])]


def test_a_line_that_is_too_long_is_cut_once() -> None:
    splitter = LineSplitter()
    pieces = [b"a" * MAX_LINE, b"b" * 10, b"c" * MAX_LINE, b"\nnext\n"]
    lines = [line for piece in pieces for line in splitter.split(piece)]
    assert lines == ["a" * MAX_LINE, "next"]


def test_the_model_folder_has_a_tokenizer_but_no_weights_and_no_code(tmp_path: Path) -> None:
    own, folder = tmp_path / "own", tmp_path / "model"
    own.mkdir()
    folder.mkdir()
    for name in (
        "config.json", "params.json", "tokenizer.json", "preprocessor_config.json", "merges.txt", "model.safetensors",
        "model.safetensors.index.json", "modeling_own.py", "README.md",
    ):  # fmt: skip
        (own / name).write_text("{}", encoding="utf-8")
    config = {"model_type": "llama", "auto_map": {"AutoConfig": "modeling_own.Config"}}
    assert write_model_folder(folder, config, own)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "merges.txt", "preprocessor_config.json", "tokenizer.json",
    ]  # fmt: skip
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == {"model_type": "llama"}


SMI = """0, GPU-aaaa-1, NVIDIA H100 80GB HBM3, 81559, 570.86.15
1, GPU-bbbb-2, NVIDIA L4, 23034, 570.86.15
2, GPU-cccc-3, NVIDIA GB10, [N/A], 570.86.15
"""
VISIBLE = {
    "all": (None, ["NVIDIA H100 80GB HBM3", "NVIDIA L4", "NVIDIA GB10"]),
    "by number": ("1", ["NVIDIA L4"]),
    "by the beginning of its id": ("GPU-bbbb", ["NVIDIA L4"]),
    "two": ("0, 2", ["NVIDIA H100 80GB HBM3", "NVIDIA GB10"]),
    "none": ("", []),
    "hidden": ("-1", []),
}


@pytest.mark.parametrize(("visible", "names"), VISIBLE.values(), ids=VISIBLE)
def test_the_gpus_that_cuda_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    fake(tmp_path, "nvidia-smi", SMI)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = devices.seen_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert [gpu.name for gpu in found] == names
    by_name = {gpu.name: gpu.memory_bytes for gpu in found}
    assert by_name.get("NVIDIA L4", 23_034 * MIB) == 23_034 * MIB < 23 * GIB
    assert by_name.get("NVIDIA GB10") is None


def test_no_driver_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "nvidia-smi", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert devices.seen_gpus({}) == ()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert devices.seen_gpus({}) == ()


def test_the_program_is_the_script_on_the_path_else_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="vllm is not installed here") as refused:
        program.find_program("vllm", None)
    assert "pip install vllm" in refused.value.hint
    with pytest.raises(InputError, match="sglang is not installed here"):
        program.find_program("sglang", None)
    fake(tmp_path, "vllm", "")
    assert program.find_program("vllm", None) == ("vllm", "serve")
    fake(tmp_path, "python3", "")  # a Python that has every module
    assert program.find_program("sglang", None) == (str(tmp_path / "python3"), "-m", "sglang.launch_server")


def test_a_command_of_ones_own() -> None:
    python = sys.executable
    assert program.find_program("vllm", f"{python} -m vllm.entrypoints.cli.main")[-1] == "serve"
    assert program.find_program("vllm", f"{python} serve") == (python, "serve")
    assert program.find_program("sglang", f"{python} -m sglang.launch_server") == (python, "-m", "sglang.launch_server")
    for wrong in ("", "'", "no-such-program serve"):
        with pytest.raises(InputError):
            program.find_program("vllm", wrong)


def test_the_version_is_that_of_the_programs_own_python(tmp_path: Path) -> None:
    from importlib.metadata import version

    assert program.installed_version("click", (sys.executable, "-m", "click")) == version("click")
    script = tmp_path / "click"
    script.write_text(f"#!{sys.executable}\n", encoding="utf-8")
    script.chmod(0o755)
    assert program.installed_version("click", (str(script),)) == version("click")
    script.write_text("#!/bin/sh\n", encoding="utf-8")
    assert program.installed_version("click", (str(script),)) is None
    assert program.installed_version("no-such-package", (sys.executable,)) is None
