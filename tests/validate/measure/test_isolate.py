"""Jobs in processes of their own: however one ends, the caller has a reading or the reason why there is none.

Most processes here are a line of shell in the interpreter's place, given the same arguments: the third is the file that
the reading is written to.
"""

import json
import os
from types import SimpleNamespace

import pytest
import torch

from kvplan.core.errors import InputError
from kvplan.validate import isolate
from kvplan.validate.case import Case
from kvplan.validate.isolate import environment, is_failure, require_torch, run_job
from kvplan.validate.measure import __main__ as jobs
from kvplan.validate.suite.record import plain

TINY = Case(name="t", kind="full", num_heads=4, num_kv_heads=2, key_dim=16, value_dim=16, seq_len=20, decode_steps=2)
JOB = {"job": "probe", "device": "cpu"}


@pytest.fixture
def process(monkeypatch, tmp_path):
    """A process that runs these lines in Python's place."""

    def instead(lines: str) -> None:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setattr(isolate, "sys", SimpleNamespace(executable=str(script)))

    return instead


@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        ("kill -KILL $$", "out of memory", "the operating system ended the process, as it does when memory runs out"),
        ("echo one >&2; echo two >&2; kill -SEGV $$", "crash", "ended by SIGSEGV: two"),
        ("kill -ABRT $$", "crash", "ended by SIGABRT: it said nothing"),
        ("kill -40 $$", "crash", "ended by signal 40: it said nothing"),
        ("echo 'ImportError: no such thing' >&2; exit 3", "crash", "exit code 3: ImportError: no such thing"),
        ("exit 0", "crash", "exit code 0: it said nothing"),
        ("""printf '{"points": [' > "$3"; kill -KILL $$""", "out of memory", "the operating system ended the process, as it does when memory runs out"),
        ("""printf '\\377' > "$3" """, "crash", "exit code 0: it said nothing"),
    ],
    ids=["killed", "segfault", "abort", "another signal", "error", "silence", "half a reading", "no reading"],
)  # fmt: skip
def test_a_process_that_does_not_end_well(lines, kind, message, process):
    process(lines)
    reading = run_job(JOB, timeout_seconds=60)
    assert reading == {"failure": {"kind": kind, "message": message}}
    assert is_failure(reading)


def test_a_process_that_does_not_end(process):
    process("exec sleep 600")
    assert run_job(JOB, timeout_seconds=0.2) == {"failure": {"kind": "timeout", "message": "not done after 0 seconds"}}


def test_what_a_process_says_besides_does_not_matter(process):
    """Nor whether it lives on after its reading: one that was written counts."""
    process("""echo '{"not": "this"}'; echo warning >&2; cat > "$3"; kill -SEGV $$""")
    job = {"job": "memory", "device": "cpu", "cases": [TINY.to_json()], "name": "Ü × 2"}
    assert run_job(job, timeout_seconds=60) == job


def test_a_list_of_rows_is_no_failure():
    assert not is_failure([{"failure": {}}])
    assert not is_failure({"points": []})


@pytest.mark.parametrize(("device", "interpret"), [("cpu", "1"), ("cuda", None), ("auto", None)])
def test_a_process_has_torchs_allocator_by_default(device, interpret, monkeypatch):
    """Interpreted on a CPU and nowhere else, whatever this process was told."""
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "expandable_segments:True")
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = environment(device)
    assert found.get("TRITON_INTERPRET") == interpret
    assert not any(name.startswith("PYTORCH_") for name in found)
    assert found["PATH"] == os.environ["PATH"]


def test_the_environment_is_the_processs(process):
    process("""printf '"%s"' "$TRITON_INTERPRET" > "$3" """)
    assert [run_job(JOB | {"device": device}, timeout_seconds=60) for device in ("cpu", "cuda")] == ["1", ""]


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (set(), "measuring needs torch and triton, which are not installed"),
        ({"torch"}, "measuring needs triton, which is not installed"),
        ({"triton"}, "measuring needs torch, which is not installed"),
    ],
)
def test_without_torch_there_is_a_sentence(there, said, monkeypatch):
    monkeypatch.setattr(isolate, "find_spec", lambda name: name if name in there else None)
    with pytest.raises(InputError, match=said) as caught:
        require_torch()
    assert "pip install 'kvplan[gpu]'" in caught.value.hint


def test_with_torch_there_is_none(monkeypatch):
    monkeypatch.setattr(isolate, "find_spec", lambda name: name)
    require_torch()


def test_a_real_process_reads_what_this_one_reads():
    job = {"job": "memory", "device": "cpu", "cases": [TINY.to_json()]}
    reading = run_job(job, timeout_seconds=300)
    assert reading["pools"] == jobs.memory(job)["pools"]
    assert reading["tallied_bytes"] == 32 * 2 * 32 * 2 + 2 * 4 + 4
    assert [point["point"] for point in reading["points"]] == ["start", "pool", "run"]


def test_a_real_process_tells_its_error():
    job = {"job": "memory", "device": "cpu", "cases": [TINY.to_json() | {"colour": "red"}]}
    assert run_job(job, timeout_seconds=300) == {"failure": {"kind": "TypeError", "message": "a case has no `colour`"}}


def test_every_job_of_a_cpu_gives_what_json_can_tell():
    """The jobs themselves, in this process."""
    found = jobs.probe(JOB)
    assert found["device"]["kind"] == "cpu"
    assert found["free_bytes"] > 0
    given = {"device": "cpu", "cases": [TINY.to_json()]}
    (row,) = jobs.throughput(
        given
        | {
            "loads": {"t": {"decode": [[1, 20]]}},
            "effort": {"rounds": 1, "warm_ups": 1, "min_calls": 1, "max_calls": 1},
        }
    )
    assert row["bytes"] == 20 * 2 * 32 * 2
    rows = jobs.transient(given | {"shapes": [[1, 4, 4], [2, 1, 8]]})
    assert [(row["backend"], row["queries"]) for row in rows] == [
        (backend, queries) for queries in (4, 1) for backend in ("eager", "math", "flash")
    ]
    for reading in (found, row, rows):
        assert json.loads(json.dumps(plain(reading), allow_nan=False)) == plain(reading)


def test_a_gpu_that_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert jobs.probe({"job": "probe", "device": "cuda"}) == {"device": None}
    assert jobs.probe({"job": "probe", "device": "auto"})["device"]["kind"] == "cpu"


def test_a_gpu_has_a_number():
    """`torch.cuda.set_device` takes no device without one."""
    assert jobs._device({"device": "cuda"}) == torch.device("cuda", 0)
    assert jobs._device({"device": "cuda:1"}) == torch.device("cuda", 1)
    assert jobs._device({"device": "cpu"}) == torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("first\nsecond"), {"kind": "ValueError", "message": "first"}),
        (KeyError(), {"kind": "KeyError", "message": ""}),
        (MemoryError("3 pages are needed"), {"kind": "out of memory", "message": "3 pages are needed"}),
        (torch.OutOfMemoryError("CUDA out of memory."), {"kind": "out of memory", "message": "CUDA out of memory."}),
        (InputError("no such model", hint="see the list"), {"kind": "InputError", "message": "no such model (see the list)"}),
    ],
)  # fmt: skip
def test_an_error_in_a_line(error, expected):
    assert jobs._failure(error) == expected


def test_a_cpu_that_has_no_room_says_so_in_torchs_words():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert jobs._failure(caught.value)["kind"] == "out of memory"
