"""Several processes over gloo against one oracle and against the plan's bytes per rank; the same by hand and by law."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from kvplan import estimate
from kvplan.api import load_model
from kvplan.core.dtypes import parse_kv_dtype
from kvplan.core.errors import InputError
from kvplan.core.layout import context_tokens
from kvplan.core.mixers import CrossAttention, FullAttention, LatentAttention, LinearAttention, SlidingAttention
from kvplan.core.model import Layer, ModelSpec
from kvplan.core.stages import stage_bounds
from kvplan.validate.case import Case
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.combine import unmerged
from kvplan.validate.kernels.decode import plan_decode
from kvplan.validate.kernels.launch import Config, Unsupported
from kvplan.validate.kernels.select import Choice
from kvplan.validate.measure import rank_step
from kvplan.validate.measure.deal import Job, Layout, Place, Share, share_of
from kvplan.validate.measure.ranks import run, transfers
from kvplan.validate.predict_ranks import rank_cache_bytes
from tests.models import HERE, spec

CPU = torch.device("cpu")
BF16 = parse_kv_dtype("bf16")


def case(name: str, kind: Any = "full", **given: Any) -> Case:
    """Two sequences of 33 tokens in pages of 8: ranks of one cp group hold unequal numbers of pages."""
    shape = {"num_heads": 4, "num_kv_heads": 2, "key_dim": 32, "value_dim": 32}
    return Case(name=name, kind=kind, **(shape | {"batch": 2, "seq_len": 33, "page_size": 8} | given))


FULL = case("full")
SLIDING = case("sliding", "sliding", value_dim=16, window=24, sinks=True)
TINY = case("tiny window", "sliding", num_kv_heads=1, key_dim=16, value_dim=16, window=3)
LATENT = case("latent", "latent", num_kv_heads=4, latent_dim=32, rope_dim=16)
STATES = case("states", "linear", num_kv_heads=8, key_dim=16, value_dim=32, conv_channels=64, conv_columns=3)
CASES = (FULL, SLIDING, LATENT, TINY)
ORDER = (0, 1, 2, 0, 3)


def job(tp: int, pp: int, cp: int, cases: tuple[Case, ...] = CASES, order: Any = ORDER) -> dict[str, Any]:
    stages = stage_bounds(len(order), pp)
    found = {"cases": [one.to_json() for one in cases], "layer_order": list(order), "stages": stages}
    return found | {"tp": tp, "pp": pp, "cp": cp, "seed": 3}


TWO = {"tp2": job(2, 1, 1), "pp2": job(1, 2, 1), "cp2": job(1, 1, 2), "states": job(2, 1, 1, (STATES,), [0, 0])}
FOUR = {"tp4": job(4, 1, 1), "tp2·cp2": job(2, 1, 2), "tp2·pp2": job(2, 2, 1), "cp4": job(1, 1, 4)}
JOBS = TWO | FOUR


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every job's, from two launches: the jobs of one world run one after another in the same processes."""
    found = {}
    for world, jobs in ((2, TWO), (4, FOUR)):
        folder = tmp_path_factory.mktemp("ranks")
        (folder / "jobs.json").write_text(json.dumps(list(jobs.values())))
        launch(world, folder / "jobs.json", folder / "readings.json")
        found |= dict(zip(jobs, json.loads((folder / "readings.json").read_text()), strict=True))
    return found


def launch(world: int, jobs: Path, out: Path) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command = [*start, "--nproc-per-node", str(world), "-m", "kvplan.validate.measure.ranks", str(jobs), str(out)]
    alone = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=os.environ | alone, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


def model_of(found: dict[str, Any]) -> ModelSpec:
    """The same layers as the plan knows them."""
    layers = tuple(Layer(mixers=(mixer(Case.from_json(one)),), weights=()) for one in found["cases"])
    return ModelSpec(
        id="test/ranks", model_type="test", source=HERE, hidden_size=64, vocab_size=8, layers=layers,
        layer_order=tuple(found["layer_order"]), embeddings=(), head=(),
    )  # fmt: skip


def mixer(one: Case) -> Any:
    dims = {"num_heads": one.num_heads, "key_dim": one.key_dim, "value_dim": one.value_dim}
    if one.kind == "latent":
        return LatentAttention(latent_dim=one.latent_dim, rope_dim=one.rope_dim, **dims)
    if one.kind == "linear":
        columns = {"conv_channels": one.conv_channels, "conv_columns": one.conv_columns}
        heads = {"num_heads": one.num_kv_heads, "num_key_heads": one.num_heads}
        return LinearAttention(**(dims | heads | columns))
    if one.window is not None:
        return SlidingAttention(num_kv_heads=one.num_kv_heads, window=one.window, **dims)
    return FullAttention(num_kv_heads=one.num_kv_heads, **dims)


def planned(found: dict[str, Any]) -> list[int]:
    layout = {axis: found[axis] for axis in ("tp", "pp", "cp")}
    return rank_cache_bytes(model_of(found), seq_len=33, batch_size=2, kv_dtype=BF16, page_size=8, **layout)


@pytest.mark.parametrize("name", JOBS)
def test_every_layout_computes_what_one_oracle_does(readings, name):
    found, reading = JOBS[name], readings[name]
    expected = [
        (found["cases"][index]["name"], stage)
        for stage, (start, stop) in enumerate(found["stages"])
        for index in dict.fromkeys(found["layer_order"][start:stop])
    ]
    assert [(check["case"], check["stage"]) for check in reading["checks"]] == expected
    assert all(check["ok"] and 0 < check["error"] <= 0.01 for check in reading["checks"]), reading["checks"]


@pytest.mark.parametrize("name", JOBS)
def test_every_rank_holds_the_bytes_that_the_plan_gives_it(readings, name):
    assert [rank["cache_bytes"] for rank in readings[name]["ranks"]] == planned(JOBS[name])


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        # tokens held of one sequence, in whole pages of 8, of the layers full, sliding, latent, full, tiny window
        ("cp4", [(16, 8, 16, 16, 8), (8, 8, 8, 8, 0), (8, 8, 8, 8, 8), (8, 8, 8, 8, 8)]),  # 33 = 9 + 8 + 8 + 8
        ("cp2", [(24, 16, 24, 24, 8), (16, 16, 16, 16, 8)]),  # 33 = 17 + 16; the window's 24 = 12 + 12; 3 = 2 + 1
        ("tp4", [(40, 24, 40, 40, 8)] * 4),
    ],
)
def test_bytes_by_hand(readings, name, tokens):
    kv_heads = 1 if name == "tp4" else 2  # two KV heads over four ranks: each has a replica of one
    full, sliding, latent, tiny = kv_heads * (32 + 32) * 2, kv_heads * (32 + 16) * 2, (32 + 16) * 2, (16 + 16) * 2
    by_hand = [2 * (a * full + b * sliding + c * latent + d * full + e * tiny) for a, b, c, d, e in tokens]
    assert [rank["cache_bytes"] for rank in readings[name]["ranks"]] == by_hand


def test_states_are_dealt_out_by_heads_and_their_columns_by_channels(readings):
    one = 2 * (4 * 16 * 32 * 4 + 32 * 3 * 2)  # sequences · (states in fp32 + columns in bf16), half of each
    assert [rank["cache_bytes"] for rank in readings["states"]["ranks"]] == [2 * one] * 2
    assert [rank["kv_heads"] for rank in readings["states"]["ranks"]] == [{"states": 4}] * 2


@pytest.mark.parametrize(("name", "held"), [("tp2", (1, 1, 1, 1)), ("tp4", (1, 1, 1, 1)), ("cp4", (2, 2, 1, 1))])
def test_a_rank_holds_the_kv_heads_that_its_query_heads_read(readings, name, held):
    for rank in readings[name]["ranks"]:
        assert rank["kv_heads"] == dict(zip(("full", "sliding", "latent", "tiny window"), held, strict=True))


@pytest.mark.parametrize(("name", "hops"), [("tp2", []), ("cp2", []), ("pp2", [(0, 1)]), ("tp2·pp2", [(0, 2), (1, 3)])])
def test_activations_arrive_as_they_were_sent(readings, name, hops):
    transfers = readings[name]["transfers"]
    assert [(one["from"], one["to"]) for one in transfers] == hops
    widest = 2 * 4 * 32 * 4  # sequences · heads · dimension in fp32
    assert all(one["ok"] and one["bytes"] == widest for one in transfers)


def test_activations_that_change_on_the_way_show():
    sent = {"sent": "a", "received": None, "sent_bytes": 4}
    last = {"sent": None, "received": "b", "sent_bytes": 4}
    assert transfers([sent, sent, last | {"received": "a"}, last], 2) == [
        {"from": 0, "to": 2, "bytes": 4, "ok": True},
        {"from": 1, "to": 3, "bytes": 4, "ok": False},
    ]


def test_a_reading_says_where_each_rank_stood(readings):
    reading = readings["tp2·cp2"]
    assert {key: reading[key] for key in ("world", "tp", "pp", "cp", "backend")} == {
        "world": 4, "tp": 2, "pp": 1, "cp": 2, "backend": "gloo",
    }  # fmt: skip
    places = [(rank["rank"], rank["tp"], rank["cp"], rank["stage"]) for rank in reading["ranks"]]
    assert places == [(0, 0, 0, 0), (1, 1, 0, 0), (2, 0, 1, 0), (3, 1, 1, 0)]
    assert all(rank["requested_bytes"] is None and rank["node"] == 0 for rank in reading["ranks"])
    assert [rank["stage"] for rank in readings["tp2·pp2"]["ranks"]] == [0, 0, 1, 1]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A world of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", world_size=1, rank=0)
    yield
    dist.destroy_process_group()


def lose_a_token(one: Case, layout: Layout, place: Place) -> Share:
    share = share_of(one, layout, place)
    return Share(share.heads, share.kv_heads, share.tokens[:-1])


def forget_sinks(*args: Any, sinks_H: Any) -> Any:
    return plan_combine(*args)


plan_combine = rank_step.plan_combine


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("name", "wrong"), [("share_of", lose_a_token), ("plan_combine", forget_sinks), ("fill", lambda *args: None)]
)
def test_what_goes_wrong_shows(monkeypatch, name, wrong):
    assert [check["ok"] for check in run(job(1, 1, 1, (SLIDING,), [0]), CPU)["checks"]] == [True]
    monkeypatch.setattr(rank_step, name, wrong)
    assert [check["ok"] for check in run(job(1, 1, 1, (SLIDING,), [0]), CPU)["checks"]] == [False]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("kv_dtype", "dtype"), [("int8", "bf16"), ("fp8", "bf16"), ("fp16", "fp16")])
def test_a_cache_of_another_type(kv_dtype, dtype):
    cases = (case("full", kv_dtype=kv_dtype, dtype=dtype, seq_len=9), case("encoder", "encoder"))
    reading = run(job(1, 1, 1, cases, [1, 0]), CPU)
    assert [(check["case"], check["ok"]) for check in reading["checks"]] == [("full", True)]
    a_head = 2 * (32 + {"int8": 4, "fp8": 0, "fp16": 32}[kv_dtype])  # int8: one fp32 scale per vector
    assert [rank["cache_bytes"] for rank in reading["ranks"]] == [2 * 16 * 2 * a_head]


@pytest.mark.usefixtures("alone")
def test_a_layer_of_two_caches():
    own, cross = case("self", seq_len=9), case("cross", "cross", seq_len=12)
    reading = run(job(1, 1, 1, (own, cross), [[0, 1]]), CPU)
    assert [(check["case"], check["ok"]) for check in reading["checks"]] == [("self", True), ("cross", True)]
    dims = {"num_heads": 4, "num_kv_heads": 2, "key_dim": 32, "value_dim": 32}
    both = Layer(mixers=(FullAttention(**dims), CrossAttention(**dims)), weights=())
    model = replace(model_of(job(1, 1, 1, (FULL,), [0])), layers=(both,))
    load = {"seq_len": 9, "encoder_seq_len": 12, "batch_size": 2, "kv_dtype": BF16, "page_size": 8}
    assert [rank["cache_bytes"] for rank in reading["ranks"]] == rank_cache_bytes(model, **load)
    assert rank_cache_bytes(model, **(load | {"encoder_seq_len": 17}))[0] == 2 * (16 + 24) * 256


@pytest.mark.usefixtures("alone")
def test_a_layout_needs_as_many_ranks_as_it_has():
    with pytest.raises(Unsupported, match="tp 2 · pp 1 · cp 1 are 2 ranks, and 1 were started"):
        run(job(2, 1, 1), CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tp": 3}, "4 heads are not dealt out evenly over tp 3"),
        ({"stages": [[0, 4]]}, "do not deal 5 layers over pp 1"),
        ({"stages": [[0, 3], [3, 5]]}, "do not deal 5 layers over pp 1"),
        ({"cases": [FULL.to_json()] * 4}, "two cases have the same name"),
        ({"cases": [case("full", kv_dtype="int4").to_json()]}, "no kernel reads a cache of int4"),
        ({"cases": [case("full", dtype="fp32").to_json()]}, "activations are fp32"),
        ({"cases": [case("full", num_heads=12, num_kv_heads=3).to_json()], "tp": 2}, "share 3 KV heads unevenly"),
    ],
)
def test_a_job_that_cannot_be_dealt_out_is_refused_before_any_rank_waits(change, message):
    with pytest.raises(Unsupported, match=message):
        Job.from_json(job(1, 1, 1) | change)


def test_one_split_leaves_nothing_to_merge():
    cache = PagedCache.allocate(
        num_pages=1, page_size=16, num_kv_heads=1, key_dim=16, value_dim=16, dtype=torch.bfloat16, num_seqs=1,
        max_tokens=16, device="cpu",
    )  # fmt: skip
    choice = Choice("decode", Config(16, 4, 1, num_splits=1), "given")
    _, launches = plan_decode(torch.zeros(1, 1, 16, dtype=torch.bfloat16), cache, scale=1.0, choice=choice)
    with pytest.raises(Unsupported, match="one split leaves no partial results"):
        unmerged(launches)


@given(num_tokens=st.integers(0, 300), cp=st.integers(1, 9), window=st.none() | st.integers(1, 300), data=st.data())
def test_a_context_parallel_rank_holds_the_tokens_one_would_count(num_tokens, cp, window, data):
    index = data.draw(st.integers(0, cp - 1))
    seen = range(num_tokens)[-window:] if window else range(num_tokens)
    assert context_tokens(num_tokens, cp, index, window) == sum(i % cp == index for i in seen)


@pytest.mark.parametrize(
    ("model", "tp", "kv_dtype", "by_hand"),
    [
        # layers · KV heads · (key + value) · 2 B, of 63 pages of 16 tokens
        ("meta-llama/Llama-3.1-8B", 2, "bf16", 32 * 4 * 256 * 2 * 1008),
        ("meta-llama/Llama-3.1-8B", 16, "bf16", 32 * 1 * 256 * 2 * 1008),  # 8 KV heads: each rank has a replica of one
        ("meta-llama/Llama-3.1-8B", 2, "int8", 32 * 4 * (256 + 8) * 1008),  # two fp32 scales per token and head
        ("deepseek-ai/DeepSeek-V3", 8, "bf16", 61 * 576 * 2 * 1008),  # the latent is whole on every rank
    ],
)
def test_published_models_by_hand(model, tp, kv_dtype, by_hand):
    held = rank_cache_bytes(
        load_model(model), seq_len=1000, batch_size=3, kv_dtype=parse_kv_dtype(kv_dtype), page_size=16, tp=tp
    )
    assert held == [3 * by_hand] * tp


@given(
    tp=st.sampled_from([1, 2, 4]), pp=st.integers(1, 3), seq_len=st.integers(1, 99), batch=st.integers(1, 3),
    window=st.integers(1, 60),
)  # fmt: skip
def test_in_pages_of_one_token_a_rank_holds_what_the_plan_says(tp, pp, seq_len, batch, window):
    model = spec(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=window)
    held = rank_cache_bytes(model, seq_len=seq_len, batch_size=batch, kv_dtype=BF16, page_size=1, tp=tp, pp=pp)
    plan = estimate(model, seq_len=seq_len, batch_size=batch, tp=tp, pp=pp)
    assert held[::tp] == [use.kv_cache_bytes for use in plan.per_gpu[::tp]]


@given(cp=st.integers(1, 8), seq_len=st.integers(1, 99), window=st.integers(1, 60))
def test_in_pages_of_one_token_a_context_parallel_group_holds_one_cache(cp, seq_len, window):
    model = spec(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=window)
    given = {"seq_len": seq_len, "batch_size": 1, "kv_dtype": BF16, "page_size": 1}
    assert sum(rank_cache_bytes(model, cp=cp, **given)) == rank_cache_bytes(model, **given)[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tp": 3}, "do not divide over tp 3"),
        ({"pp": 33}, "has 32 layers"),
        ({"cp": 0}, "`cp` is 0"),
        ({"page_size": True}, "`page_size` is True"),
    ],
)
def test_layouts_that_make_no_sense_are_refused(given, message):
    load = {"seq_len": 9, "batch_size": 1, "kv_dtype": BF16, "page_size": 16}
    with pytest.raises(InputError, match=message):
        rank_cache_bytes(spec(), **(load | given))
