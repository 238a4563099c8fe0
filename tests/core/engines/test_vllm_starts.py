"""vLLM from 0.21 on: which model runner runs, what a first start compiles with, and what the newer sampler keeps."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine_log_rows import account_of, observations
from kvplan.core.dtypes import BF16
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.vllm.activations import activation_peak, profile_of, sampler_bytes, warm_peak_bytes
from kvplan.core.engines.vllm.compiling import table_bytes
from kvplan.core.engines.vllm.overheads import estimates, non_torch, sampler_states, taken, untaken
from kvplan.core.engines.vllm.runner import runs_on_v2
from kvplan.core.units import MIB
from kvplan.core.weights import parse_quant
from kvplan.sources.catalog import load
from kvplan.sources.gpus import find_gpu
from tests.models import spec

RELEASES = [(0, minor) for minor in range(17, 34)]


def deployed(gpu="RTX 4090", tp=1, pp=1, **switches):
    return Deployment(
        dtype=BF16, key_dtype=BF16, value_dtype=BF16, max_model_len=8192, tp=tp, pp=pp, gpu=find_gpu(gpu),
        switches=Switches(**switches),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Qwen/Qwen3-8B", 22),
        ("meta-llama/Llama-3.1-8B", 23),
        ("mistralai/Mistral-Small-24B-Instruct-2501", 23),
        ("deepseek-ai/DeepSeek-V2-Lite", 24),
        ("Qwen/Qwen2.5-7B-Instruct", 25),
        ("google/gemma-3-27b-it", 25),
        ("Qwen/Qwen3-30B-A3B", 29),  # experts
        ("Qwen/Qwen3.5-4B", 29),  # recurrent states
        ("openai/gpt-oss-20b", 29),
    ],
)
def test_the_newer_runner_took_over_model_by_model(name, first):
    model = load(name)
    assert [minor for _, minor in RELEASES if runs_on_v2(model, deployed(), (0, minor))] == list(range(first, 34))


def test_quantised_models_came_with_0_24_and_pooling_ones_last():
    qwen = replace(load("Qwen/Qwen3-8B"), quantization=parse_quant("fp8"))
    pooling = load("BAAI/bge-m3")
    assert [runs_on_v2(qwen, deployed(), (0, minor)) for minor in (22, 23, 24)] == [False, False, True]
    assert [runs_on_v2(pooling, deployed(), (0, minor)) for minor in (28, 29)] == [False, True]


@pytest.mark.parametrize(
    ("release", "tp", "each", "buffer"),
    [
        ((0, 21), 1, 2 + 4 + 4 + 4, 128 * 151936 * 4),  # the older runner: a row of fp32 for each multiprocessor
        ((0, 22), 1, 2 + 4, 0),  # the newer one upcasts
        ((0, 25), 8, 2 + 4, 0),
        ((0, 27), 1, 2, 0),  # and no longer does
        ((0, 32), 2, 2 + 2 + 1, 0),  # of two ranks: its half, all gathered, and put in order
        ((0, 33), 1, 2 + 4 + 4 + 4, 0),  # samples as the warm-up: filtered logits and their probabilities
    ],
)
def test_the_sampler_by_runner_and_release(release, tp, each, buffer):
    run = profile_of(load("Qwen/Qwen3-8B"), deployed(tp=tp), release, 0)
    assert sampler_bytes(run) == (2048 + 256) * 4096 * 2 + 256 * 151936 * each + buffer


def test_a_patch_of_the_sampler_costs_what_was_measured():
    # vllm-project/vllm#57926 on L4, Qwen2.5-0.5B: 1,733,440 tokens before, 1,710,928 after, of 24 · 2 · 2 · 64 · 2 bytes.
    model, asked = load("Qwen/Qwen2.5-0.5B"), deployed("L4")
    before, after = (activation_peak(model, asked, release, 0).num_bytes for release in ((0, 32), (0, 33)))
    assert after - before == pytest.approx((1_733_440 - 1_710_928) * 12288, abs=8 * MIB)


def test_a_first_start_compiles_with_a_table_of_the_vocabulary():
    qwen, now = load("Qwen/Qwen3-8B"), (0, 31)
    assert table_bytes(qwen, deployed(), now, first=True) == 151936 * 4096 * 2
    assert table_bytes(qwen, deployed(tp=2), now, first=True) == 151936 * 4096
    assert table_bytes(qwen, deployed(), now, first=False) == 0
    assert table_bytes(qwen, deployed(), (0, 20), first=True) == 0
    assert table_bytes(qwen, deployed(enforce_eager=True), now, first=True) == 0
    assert table_bytes(load("Qwen/Qwen3.5-4B"), deployed(), now, first=True) == 0  # looks tokens up beside images
    peak, warm = activation_peak(qwen, deployed(), now, 0), warm_peak_bytes(qwen, deployed(), now, 0)
    assert peak.num_bytes == 151936 * 4096 * 2 + 2048 * 4096 * 2 + 8 * MIB + 128 * 1024 + 12 * MIB
    assert warm < peak.num_bytes - 900 * MIB
    assert peak.num_bytes - peak.spread_bytes <= warm


def test_a_table_may_stay_before_0_31():
    qwen = load("Qwen/Qwen3-8B")
    before, after = (activation_peak(qwen, deployed(), release, 0) for release in ((0, 30), (0, 31)))
    assert before.num_bytes == after.num_bytes
    assert before.spread_bytes - 96 * MIB - before.num_bytes // 20 == 151936 * 4096 * 2


def test_the_newer_sampler_counts_the_tokens_of_each_request():
    qwen = load("Qwen/Qwen3-8B")
    states = sampler_states(qwen, deployed(), 0)
    assert states.num_bytes == 256 * 4 * (151936 + 4748)
    assert sampler_states(qwen, deployed(max_num_seqs=1), 0).num_bytes == 4 * (151936 + 4748)
    assert sampler_states(qwen, deployed(pp=2), 0) is None

    def has(terms, release):
        return "sampler states" in {item.name for item in terms(qwen, deployed(), release, 0)}

    # Before 0.27 what torch holds besides weights is not counted; before 0.22 the older runner runs.
    assert [has(taken, (0, minor)) for minor in (21, 22, 26, 27, 33)] == [False, False, False, True, True]
    assert [has(untaken, (0, minor)) for minor in (21, 22, 26, 27, 33)] == [False, True, True, False, False]


def test_the_newer_runner_estimates_graphs_from_0_29_on():
    qwen, experts = load("Qwen/Qwen3-8B"), load("Qwen/Qwen3-30B-A3B")
    assert [m for _, m in RELEASES if estimates(qwen, deployed(), (0, m))] == [21, *range(29, 34)]
    assert [m for _, m in RELEASES if estimates(experts, deployed(), (0, m))] == list(range(21, 34))


def test_collectives_take_less_over_pcie():
    assert non_torch(deployed("RTX 4090", tp=2), (0, 31)).num_bytes == 500 * MIB
    assert non_torch(deployed("H100-SXM5-80GB", tp=2), (0, 31)).num_bytes == 1350 * MIB
    assert non_torch(replace(deployed(tp=2), gpu=None), (0, 31)).num_bytes == 1350 * MIB
    assert non_torch(deployed(), (0, 31)).num_bytes == 200 * MIB


@given(st.sampled_from(RELEASES), st.sampled_from([1, 2, 4]), st.integers(1, 1024))
def test_one_of_the_two_accounts_has_graphs(release, tp, requests):
    asked = deployed(tp=tp, max_num_seqs=requests)
    inside, beyond = ([item.name for item in terms(spec(), asked, release, 0)] for terms in (taken, untaken))
    assert [*inside, *beyond].count("CUDA graphs (estimate)") + [*inside, *beyond].count("CUDA graphs") == 1
    assert not any(name == "CUDA graphs" for name in inside)


PRINTED = {row["id"]: row for row in observations() if row["engine"] == "vllm"}


@pytest.mark.parametrize(
    ("key", "term", "tolerance"),
    [
        ("obs401", "activations", 0.02),  # Qwen3-8B on RTX 4090, 0.27: the first start
        ("obs402", "activations", 0.06),  # and the next
        ("obs403", "activations", 0.06),  # Qwen2.5-0.5B, 0.27: the first start
        ("obs158", "activations", 0.06),  # a step of 8192 tokens
        ("obs406", "activations", 0.08),  # Qwen3-235B-A22B at tp 4, 0.27, with the graphs' estimate
        ("obs428", "activations", 0.06),  # Gemma 4 E4B on L4
        ("obs400", "consumed", 0.06),  # Llama-3.1-8B on A100, 0.31: weights, non-torch, the sampler's counts
        ("obs158", "consumed", 0.06),
        ("obs406", "consumed", 0.25),
    ],
)
def test_logs_from_0_27_on(key, term, tolerance):
    account = account_of(PRINTED[key])
    assert account.predicted[term] == pytest.approx(account.printed[term], abs=tolerance)


@pytest.mark.parametrize("key", sorted(key for key, row in PRINTED.items() if row["compiled"]))
def test_no_pool_lies_beyond_the_margin(key):
    account = account_of(PRINTED[key])
    if account is not None and account.printed.get("pool"):
        assert account.predicted["pool"] - account.printed["pool"] <= account.predicted["margin"] + 0.01


def test_logs_whose_device_was_worked_out_add_up_within_the_margin():
    # Cold Qwen2.5-7B of 0.22 on a GPU of 44.4 GiB: 0.95 · 44.4 - 14.29 - 0.37 - 26.32 = 1.20 GiB are the two terms that
    # are not printed; 0.5 · 44.4 - 8.61 - 0.64 - 11.11 = 1.84 of a warm Qwen3.5-4B; half a GiB of doubt about the device.
    for key, left in (("obs407", 1.20), ("obs408", 1.84)):
        account = account_of(PRINTED[key])
        assert account.predicted["activations"] + account.predicted["non-torch"] == pytest.approx(left, abs=0.3), key
