"""The real `huggingface_hub` against a small Hub on the loopback, each environment in a process of its own.

`huggingface_hub` reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE when it is imported, hence the processes.
"""

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_hub import COMMIT, LATER_COMMIT, Refusal, Repo, SmallHub

from kvplan.core.errors import InputError
from kvplan.sources.hub import HubRef, fetch
from kvplan.sources.load import load_model

ROOT = Path(__file__).parents[2]
TOKEN = "hf_thisIsNoRealTokenAtAll"

DRIVER = """
import dataclasses, json, sys, time
from kvplan.core.errors import KvplanError
from kvplan.sources.hub import fetch, parse_ref

for text, options in json.loads(sys.argv[1]):
    start = time.monotonic()
    try:
        answer = {"files": dataclasses.asdict(fetch(parse_ref(text), **options))}
    except KvplanError as error:
        answer = {"error": str(error), "hint": error.hint, "exit": error.exit_code, "kind": type(error).__name__}
    print(json.dumps({**answer, "seconds": time.monotonic() - start}), flush=True)
"""

CONFIG = {"model_type": "llama", "num_hidden_layers": 2}
NEW_CONFIG = {"model_type": "llama", "num_hidden_layers": 3}
INDEX = {"metadata": {"total_size": 26_031_759_360}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
PARAMS = {"dim": 8192, "n_layers": 80}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def single_file(tensors: dict[str, Any], num_weight_bytes: int) -> bytes:
    header = as_json(tensors)
    return len(header).to_bytes(8, "little") + header + b"W" * num_weight_bytes


HEADER = {
    "a": {"dtype": "BF16", "shape": [1000, 500], "data_offsets": [0, 1_000_000]},
    "b": {"dtype": "F32", "shape": [250], "data_offsets": [1_000_000, 1_001_000]},
}
WEIGHTS = single_file(HEADER, 1_001_000)
HOSTILE = single_file({"a": {"dtype": "BF16", "shape": ["a", 10**9], "data_offsets": [0, 8]}}, 8)
SHARDED = {
    "config.json": as_json(CONFIG),
    "model.safetensors.index.json": as_json(INDEX),
    "model-00001-of-00002.safetensors": WEIGHTS,
    "modeling_evil.py": b"raise SystemExit",
}
GATED = Refusal(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."})
GATED_403 = Refusal(403, {"X-Error-Code": "GatedRepo"})
FORBIDDEN = Refusal(403, {"X-Error-Message": "Forbidden"})
BAD_TOKEN = Refusal(401, {"X-Error-Message": "Invalid credentials in Authorization header"})


def make_repos() -> dict[str, Repo]:
    config_only = {"config.json": as_json(CONFIG)}
    single = {**config_only, "model.safetensors": WEIGHTS}
    return {
        "ok/sharded": Repo(SHARDED),
        "gpt2": Repo(SHARDED),
        "ok/params": Repo({"params.json": as_json(PARAMS), "consolidated.00.pth": b"P" * 100}),
        "ok/both": Repo({**config_only, "params.json": as_json(PARAMS)}),
        "ok/single": Repo(single),
        "ok/elsewhere": Repo(single, on_cdn=("model.safetensors",)),
        "ok/no-range": Repo(single, fault="no-range"),
        "ok/no-total": Repo({**config_only, "model.safetensors.index.json": b"{}"}),
        "bad/gated": Repo(SHARDED, resolve=GATED),
        "bad/gated-403": Repo(SHARDED, resolve=GATED_403),
        "bad/private": Repo(SHARDED, api=FORBIDDEN),
        "bad/token": Repo(SHARDED, api=BAD_TOKEN),
        "bad/404": Repo(api=Refusal(404, {"X-Error-Code": "RepoNotFound"})),
        "bad/429": Repo(api=Refusal(429, {"Retry-After": "17"})),
        "bad/429-file": Repo(SHARDED, resolve=Refusal(429, {"RateLimit": '"resolvers";r=0;t=55'})),
        "bad/500": Repo(api=Refusal(500)),
        "bad/503-file": Repo(SHARDED, resolve=Refusal(503)),
        "bad/not-json": Repo({"config.json": b'{"model_type": "llama"'}),
        "bad/huge": Repo({"config.json": b" " * (4 * 1024**2 + 1)}),
        "bad/header": Repo({**config_only, "model.safetensors": HOSTILE}),
        "bad/length": Repo({**config_only, "model.safetensors": (2**62).to_bytes(8, "little") + b"W" * 99}),
        "bad/empty": Repo({**config_only, "model.safetensors": b""}),
        "bad/gguf": Repo({"a.Q4_K_M.gguf": b"GGUF", "README.md": b""}),
        "bad/pth": Repo({"pytorch/model.pth": b"P"}),
        "bad/other": Repo({"README.md": b""}),
        "bad/portal": Repo(api=Refusal(200, {"Content-Type": "text/html"}, b"<html>log in</html>")),
        "slow/api": Repo(SHARDED, fault="stall"),
        "slow/file": Repo(SHARDED, fault="stall-file"),
        "slow/cut": Repo(SHARDED, fault="cut"),
    }


@dataclass(frozen=True)
class Run:
    answers: list[dict[str, Any]]
    seconds: float
    output: str


def ask(*calls: tuple[str, dict[str, Any]] | str, endpoint: str, home: Path, **extra: str) -> Run:
    """What `fetch` answers to each call, in one new process."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    env = {key: value for key, value in mine.items() if not key.lower().endswith("_proxy")}
    env |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
        **extra,
    }
    listed = [(call, {}) if isinstance(call, str) else call for call in calls]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", DRIVER, json.dumps(listed)],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - start
    assert done.stderr == ""
    assert done.returncode == 0
    return Run([json.loads(line) for line in done.stdout.splitlines()], seconds, done.stdout)


@pytest.fixture(scope="module")
def hub() -> Iterator[SmallHub]:
    with SmallHub(make_repos()) as small_hub:
        yield small_hub


@pytest.fixture(scope="module")
def dead_endpoint() -> str:
    with SmallHub({}) as closed:
        return closed.url


FOUND: dict[str, dict[str, Any]] = {
    "ok/sharded": {
        "config": CONFIG,
        "stored": {"total_bytes": 26_031_759_360, "num_parameters": None, "dtypes": [],
                   "origin": "model.safetensors.index.json"},
        "notes": [],
    },
    "ok/sharded@v1": {"config": CONFIG, "notes": []},
    "gpt2": {"config": CONFIG, "repo_id": "gpt2"},
    "ok/params": {"config": None, "params": PARAMS, "stored": None, "notes": []},
    "ok/both": {"config": CONFIG, "params": None},
    "ok/single": {
        "config": CONFIG,
        "stored": {"total_bytes": 1_001_000, "num_parameters": 500_250, "dtypes": [["BF16", 500_000], ["F32", 250]],
                   "origin": "model.safetensors header"},
        "notes": [],
    },
}  # fmt: skip

REFUSED = {
    "no/such": ("HubError", "`no/such` does not exist on the Hub, or it is private and you are not logged in (401)"),
    "bad/404": ("HubError", "`bad/404` does not exist on the Hub (404)"),
    "bad/gated": ("HubError", "`bad/gated` is gated: the Hub shows its files only to accounts that accepted its terms"),
    "bad/private": ("HubError", "`bad/private` is private or restricted, and your account has no access to it (403)"),
    "ok/sharded@v9": ("HubError", "`ok/sharded` has no revision `v9` on the Hub"),
    "bad/429": ("HubError", "the Hub had too many requests from here, and it asks to wait 17 s (429)"),
    "bad/429-file": ("HubError", "the Hub had too many requests from here, and it asks to wait 55 s (429)"),
    "bad/500": ("HubError", "the Hub has a problem of its own (it answered 500)"),
    "bad/503-file": ("HubError", "the Hub has a problem of its own (it answered 503)"),
    "bad/portal": ("HubError", "about `bad/portal` could not be understood (JSONDecodeError)"),
    "bad/not-json": ("InputError", "`config.json` of `bad/not-json` is not valid JSON"),
    "bad/huge": ("InputError", "`config.json` of `bad/huge` is larger than 4 MiB"),
    "bad/header": ("InputError", "tensor `a` of `model.safetensors` of `bad/header` has a shape that is not"),
    "bad/length": ("InputError", "`model.safetensors` of `bad/length` states a header of 4,611,686,018,427,387,904 bytes"),
    "bad/empty": ("InputError", "`model.safetensors` of `bad/empty` is too short"),
    "bad/gguf": ("InputError", "`a.Q4_K_M.gguf` of `bad/gguf` ends inside its header"),
    "bad/pth": ("InputError", "it holds PyTorch checkpoints (.pth), which kvplan never opens"),
    "bad/other": ("InputError", "`bad/other` has neither `config.json` nor `params.json` at its top level"),
}  # fmt: skip


@pytest.fixture(scope="module")
def stranger(hub: SmallHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The answers to someone who is not logged in and has nothing cached."""
    names = [*FOUND, *REFUSED, "ok/no-range", "ok/no-total"]
    home = tmp_path_factory.mktemp("stranger") / "hf"
    return dict(zip(names, ask(*names, endpoint=hub.url, home=home).answers, strict=True))


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name: str, stranger: dict[str, dict[str, Any]]) -> None:
    files = stranger[name]["files"]
    assert (files["origin"], files["revision"]) == ("hub", COMMIT)
    for field, expected in FOUND[name].items():
        assert files[field] == expected, field


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, stranger: dict[str, dict[str, Any]]) -> None:
    kind, sentence = REFUSED[name]
    answer = stranger[name]
    assert sentence in answer["error"]
    assert "\n" not in answer["error"]
    assert not answer["error"].endswith(".")
    assert answer["hint"]
    assert answer["exit"] == (4 if kind == "HubError" else 2)
    assert answer["seconds"] < 5, "nothing of this is worth a retry"


def test_the_five_refusals_differ_in_sentence_and_hint(stranger: dict[str, dict[str, Any]]) -> None:
    answers = [stranger[name] for name in ("no/such", "bad/404", "bad/gated", "bad/private", "bad/500")]
    assert len({answer["error"] for answer in answers}) == 5
    assert "accept the terms at http://127.0.0.1" in stranger["bad/gated"]["hint"]
    assert "hf auth login" in stranger["no/such"]["hint"]


def test_a_server_without_ranges_costs_the_stored_size_only(stranger: dict[str, dict[str, Any]]) -> None:
    files = stranger["ok/no-range"]["files"]
    assert (files["config"], files["stored"]) == (CONFIG, None)
    assert "the Hub sent a whole file where its header was asked for" in files["notes"][0]


def test_an_index_without_a_total_is_noted(stranger: dict[str, dict[str, Any]]) -> None:
    files = stranger["ok/no-total"]["files"]
    assert (files["config"], files["stored"]) == (CONFIG, None)
    assert "states no total size" in files["notes"][0]


def test_no_weights_are_ever_sent(hub: SmallHub, stranger: dict[str, dict[str, Any]]) -> None:
    assert stranger
    assert all(request.path.startswith("/api/models/") or request.filename for request in hub.requests)
    asked = {request.filename for request in hub.requests} - {""}
    named = {"config.json", "params.json", "model.safetensors.index.json", "model.safetensors", "a.Q4_K_M.gguf"}
    assert asked == named
    parts = [request for request in hub.requests_for("ok/single") if request.filename == "model.safetensors"]
    header_end = len(WEIGHTS) - 1_001_000 - 1
    assert [(part.method, part.range) for part in parts] == [
        ("GET", "bytes=0-7"),
        ("GET", f"bytes=8-{header_end}"),
    ]
    assert sum(part.sent_bytes for part in parts) == header_end + 1
    assert not any(request.sent_bytes > 8 for request in hub.requests_for("bad/length") if request.range)


def test_with_a_token(hub: SmallHub, tmp_path: Path) -> None:
    names = ["bad/token", "bad/gated-403", "bad/private", "no/such", "ok/elsewhere"]
    hub.requests.clear()
    run = ask(*names, endpoint=hub.url, home=tmp_path / "hf", HF_TOKEN=TOKEN)
    bad, gated, private, missing, found = run.answers
    assert bad["error"] == "the Hub did not accept your token, and without one it does not show `bad/token` (401)"
    assert "`hf auth login`" in bad["hint"]
    assert "is gated" in gated["error"]
    assert "is private" in private["error"]
    assert missing["error"] == "`no/such` does not exist on the Hub, or your account may not see it (404)"
    assert [answer["exit"] for answer in run.answers[:4]] == [4] * 4
    assert found["files"]["stored"]["num_parameters"] == 500_250
    at_cdn = [request for request in hub.requests if "/on-cdn/" in request.path]
    assert len(at_cdn) == 2
    assert not any(request.has_token for request in at_cdn), "the token stays with the Hub"
    assert all(request.has_token for request in hub.requests if request not in at_cdn)
    assert TOKEN not in run.output


def test_a_hub_that_stalls_is_given_up_at_the_deadline(hub: SmallHub, tmp_path: Path) -> None:
    calls = [(name, {"timeout_seconds": 2}) for name in ("slow/api", "slow/file", "slow/cut")]
    run = ask(*calls, endpoint=hub.url, home=tmp_path / "hf")
    api, file, cut = (answer["error"] for answer in run.answers)
    start = f"the Hub at `{hub.url}` did not answer within 2 s"
    assert api == f"{start} (asking for the commit)"
    assert file == f"{start} (reading `config.json`)"
    assert cut.startswith(start) or cut == f"the connection to the Hub at `{hub.url}` broke off"
    assert [answer["exit"] for answer in run.answers] == [4] * 3
    assert all(answer["seconds"] < 4 for answer in run.answers)
    assert run.seconds < sum(answer["seconds"] for answer in run.answers) + 5, "the process leaves at once"


def test_the_deadline_leaves_a_second_of_fifteen_to_the_process() -> None:
    for door in (fetch, load_model):
        assert inspect.signature(door).parameters["timeout_seconds"].default == 14


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_deadline_must_leave_time(seconds: float) -> None:
    with pytest.raises(InputError, match="seconds to answer"):
        fetch(HubRef(repo_id="a/b", revision=None), timeout_seconds=seconds)


def test_a_dead_endpoint_is_unreachable(dead_endpoint: str, tmp_path: Path) -> None:
    (answer,) = ask("ok/sharded", endpoint=dead_endpoint, home=tmp_path / "hf").answers
    assert answer["error"] == f"the Hub at `{dead_endpoint}` could not be reached (ConnectError)"
    assert "HF_ENDPOINT" in answer["hint"]
    assert answer["exit"] == 4
    assert answer["seconds"] < 5


def test_offline_without_a_cache(hub: SmallHub, tmp_path: Path) -> None:
    hub.requests.clear()
    calls = [("ok/sharded", {"offline": True}), (f"ok/sharded@{COMMIT}", {"offline": True})]
    main, pinned = ask(*calls, endpoint=hub.url, home=tmp_path / "hf").answers
    (by_setting,) = ask("ok/sharded", endpoint=hub.url, home=tmp_path / "hf", HF_HUB_OFFLINE="1").answers
    assert main["error"] == "`ok/sharded` is not in the cache, and offline mode forbids asking the Hub"
    assert pinned["error"].startswith(f"`ok/sharded` at revision `{COMMIT}` is not in the cache")
    assert by_setting["error"] == main["error"]
    assert main["exit"] == 4
    assert not hub.requests


def test_the_cache_answers(hub: SmallHub, dead_endpoint: str, tmp_path: Path) -> None:
    home = tmp_path / "hf"
    with SmallHub(make_repos()) as own:
        repo = own.repos["ok/sharded"]
        pinned = f"ok/sharded@{COMMIT}"
        first = ask("ok/sharded", "ok/sharded@v1", "ok/single", endpoint=own.url, home=home).answers
        assert [answer["files"]["origin"] for answer in first] == ["hub"] * 3

        own.requests.clear()
        offline = {"offline": True}
        cached = ask(("ok/sharded", offline), ("ok/sharded@v1", offline), pinned, endpoint=own.url, home=home)
        for answer in cached.answers:
            assert answer["files"] == {**first[0]["files"], "origin": "hub cache"}
        assert not own.requests, "offline, and for a commit that is cached, nothing is asked"

        (again,) = ask("ok/sharded", endpoint=own.url, home=home).answers
        assert again["files"] == first[0]["files"]
        assert [request.path for request in own.requests] == ["/api/models/ok/sharded"]

        repo.revisions["main"] = LATER_COMMIT
        repo.files = {**SHARDED, "config.json": as_json(NEW_CONFIG)}
        moved, old = ask("ok/sharded", pinned, endpoint=own.url, home=home).answers
        assert (moved["files"]["revision"], moved["files"]["config"]) == (LATER_COMMIT, NEW_CONFIG)
        assert (old["files"]["revision"], old["files"]["config"]) == (COMMIT, CONFIG)

        repo.api = Refusal(503)
        busy, last = ask("ok/sharded", ("ok/sharded", offline), endpoint=own.url, home=home).answers
        assert busy["files"]["config"] == last["files"]["config"] == NEW_CONFIG
        assert busy["files"]["notes"] == [
            "the Hub has a problem of its own (it answered 503); this answer is from the cache (commit bbbbbbbbbbbb)"
        ]
        assert busy["files"]["origin"] == "hub cache"
    unreachable, half = ask("ok/sharded", f"ok/single@{COMMIT}", endpoint=dead_endpoint, home=home).answers
    assert "could not be reached" in unreachable["files"]["notes"][0]
    assert unreachable["files"]["config"] == NEW_CONFIG
    assert half["files"]["config"] == CONFIG
    assert "the size of the stored weights is unknown" in half["files"]["notes"][1]


def test_a_cache_that_cannot_be_written_is_no_obstacle(hub: SmallHub, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    run = ask("ok/sharded", endpoint=hub.url, home=tmp_path / "hf", HF_HUB_CACHE=str(blocked / "hub"))
    (answer,) = run.answers
    assert answer["files"]["config"] == CONFIG
