"""What vLLM takes besides weights and cache: formulas worked by hand, laws, and every start-up log that prints a term."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine_log_rows import account_of, observations
from kvplan.core.dtypes import BF16
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.vllm.activations import (
    activation_peak,
    forward_bytes,
    moe_workspace_bytes,
    profile_of,
    sampler_bytes,
)
from kvplan.core.engines.vllm.defaults import default_max_num_batched_tokens, default_max_num_seqs, is_v1
from kvplan.core.engines.vllm.encoder import held_by_encoder
from kvplan.core.engines.vllm.extras import draft_weights, lora_slots
from kvplan.core.engines.vllm.loading import extra_weights, rotary_bytes
from kvplan.core.engines.vllm.overheads import taken, untaken
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.fit.told import told
from kvplan.core.serving import resolve
from kvplan.core.units import GIB, MIB
from kvplan.sources.catalog import load
from kvplan.sources.gpus import find_gpu
from tests.models import spec

H100 = find_gpu("H100-SXM5-80GB")
NOW, SWEEP, SORTING = (0, 33), (0, 19), (0, 16)


def deployed(tp=1, pp=1, gpu=H100, max_model_len=8192, **switches):
    return Deployment(
        dtype=BF16, key_dtype=BF16, value_dtype=BF16, max_model_len=max_model_len, tp=tp, pp=pp, gpu=gpu,
        switches=Switches(**switches),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tp", "mebibytes"),
    [
        # 131072 positions · 128 elements · 2 bytes; all matrices fill their blocks.
        ("meta-llama/Llama-3.1-8B", 1, 32),
        ("meta-llama/Meta-Llama-3-8B", 1, 2),
        # 32768 · 128 · 2, and 28 layers · (32 - 31.5 for qkv, 260 - 259 for gate and up, 130 - 129.5 for down), and two
        # tables of 1039.5 in 1040.
        ("Qwen/Qwen2.5-7B-Instruct", 1, 8 + 28 * 2 + 1),
        # 8192 · 256 · 2; per layer 82 - 81 for gate and up; the table is 1125 in 1126.
        ("google/gemma-2-2b-it", 1, 4 + 26 + 1),
        # 32768 · 128 · 2 elements of 2 bytes, whatever tp.
        ("mistralai/Mixtral-8x7B-v0.1", 2, 8),
    ],
)
def test_loading_takes_rotary_tables_and_blocks(name, tp, mebibytes):
    found = extra_weights(load(name), deployed(tp=tp), 0)
    assert found.num_bytes == pytest.approx(mebibytes * MIB, abs=2.5 * MIB)
    assert found.basis == "derived"


def test_rotary_tables_of_scaled_sliding_and_partly_rotated_heads():
    def tables(name):
        model = load(name)
        return rotary_bytes(model, deployed(), model.layers)

    # Eight times 131072 positions for the full layers, and one table for the sliding ones.
    assert tables("google/gemma-3-27b-it") == (8 + 1) * 131072 * 128 * 2
    # A latent's rotary key; two fifths of 80; a quarter of 256 in three dimensions; positions that are learnt.
    assert tables("deepseek-ai/DeepSeek-V2-Lite") == 163840 * 64 * 2
    assert tables("microsoft/phi-2") == 2048 * 32 * 2
    assert tables("Qwen/Qwen3.5-27B") == 4 * 262144 * 64 * 2
    assert tables("facebook/opt-1.3b") == 0
    assert tables("meta-llama/Llama-4-Scout-17B-16E-Instruct") == 10485760 * 128 * 2


def test_vocabularies_are_padded_to_64_rows():
    # 49155 to 49216: 61 rows of 4096, one table; the rotary table 131072 · 128; blocks of 512 bytes fill.
    granite = load("ibm-granite/granite-3.1-8b-instruct")
    plain = replace(granite, vocab_size=49216)
    padded = 61 * 4096 * 2
    assert extra_weights(granite, deployed(), 0).num_bytes - extra_weights(plain, deployed(), 0).num_bytes == padded


def test_mxfp4_experts_are_padded():
    # 32 experts of 24 layers: gate and up 2 · 2880 × 2880 as 2 · 2944 × 3072, down 2880 × 2880 as 3072 × 2944, of 4.25
    # bits; a rotary table of 131072 · 64 · 2; blocks add a little.
    plain, padded = 3 * 2880 * 2880, 3 * 2944 * 3072
    experts = 24 * 32 * (padded - plain) * 17 // 32
    found = extra_weights(load("openai/gpt-oss-20b"), deployed(), 0).num_bytes
    assert found == pytest.approx(experts + 131072 * 64 * 2, abs=24 * MIB)


def test_the_sampler_holds_logits_of_the_whole_vocabulary():
    llama = load("meta-llama/Llama-3.1-8B")
    outputs = (8192 + 1024) * 4096 * 2
    for release, each, buffer in (
        (SORTING, 2 + 4 + 32, 0),  # a sort: values, indices, and the room that it sorts in
        (SWEEP, 2 + 4 + 4 + 4, 132 * 128256 * 4),  # probabilities and noise; a row of fp32 for each multiprocessor
        (NOW, 2 + 4 + 4 + 4, 0),  # filtered logits and their probabilities
    ):
        for tp in (1, 8):
            run = profile_of(llama, deployed(tp=tp), release, 0)
            assert (run.tokens, run.rows) == (8192, 1024)
            assert sampler_bytes(run) == outputs + 1024 * 128256 * each + buffer


def test_the_forward_pass_is_widest_in_the_mlp():
    # Two streams, attention's output, gate and up and their product; 0.19 holds 36 MiB more.
    run = profile_of(load("codellama/CodeLlama-7b-hf"), deployed(), SWEEP, 0)
    assert forward_bytes(run) == 8192 * (3 * 4096 + 3 * 11008) * 2 + 36 * MIB
    early = profile_of(load("codellama/CodeLlama-7b-hf"), deployed(tp=2), SORTING, 0)
    assert forward_bytes(early) == 8192 * (2 * 4096 + 2048 + 3 * 5504) * 2


def test_a_stage_that_hands_on_holds_two_more_streams_and_does_not_sample():
    llama = load("meta-llama/Llama-3.1-8B")
    first, last = (profile_of(llama, deployed(pp=4), SWEEP, stage) for stage in (0, 3))
    assert forward_bytes(first) == 8192 * (5 * 4096 + 3 * 14336) * 2 + 36 * MIB
    peaks = [activation_peak(llama, deployed(pp=4), SWEEP, stage).num_bytes for stage in range(4)]
    assert peaks[0] == forward_bytes(first) + 32 * MIB + 12 * MIB
    assert peaks[3] == sampler_bytes(last) + 32 * MIB + 12 * MIB


@pytest.mark.parametrize(
    ("name", "tp", "mebibytes"),
    [
        # 8192 tokens · 2 experts · (max(14336 / 2, 4096) + max(2 · 14336 / 2, 4096)) · 2 bytes
        ("mistralai/Mixtral-8x7B-v0.1", 2, 672),
        # 8192 · 8 · (max(768, 2048) + max(1536, 2048)) · 2
        ("Qwen/Qwen3-30B-A3B", 1, 512),
        # 8192 · 1 · (max(2048, 5120) + max(4096, 5120)) · 2
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 4, 160),
        ("openai/gpt-oss-20b", 1, 0),
        ("meta-llama/Llama-3.1-8B", 1, 0),
    ],
)
def test_experts_work_in_buffers_that_stay(name, tp, mebibytes):
    assert moe_workspace_bytes(profile_of(load(name), deployed(tp=tp), SWEEP, 0)) == mebibytes * MIB
    assert moe_workspace_bytes(profile_of(load(name), deployed(tp=tp), SORTING, 0)) == 0


def test_images_stay_beside_what_they_became():
    # 32 images of 256 tokens, 56² pixels a token; two of 3025 tokens, 28² pixels.
    gemma, mistral = load("google/gemma-3-27b-it"), load("mistralai/Mistral-Small-3.1-24B-Instruct-2503")
    assert held_by_encoder(gemma, deployed(), 8192, SWEEP) == 8192 * (5376 + 3 * 56 * 56) * 2
    assert held_by_encoder(mistral, deployed(), 8192, SWEEP) == 2 * 3025 * (5120 + 3 * 28 * 28) * 2
    assert held_by_encoder(gemma, deployed(no_images=True), 8192, SWEEP) == 0
    assert held_by_encoder(load("meta-llama/Llama-3.1-8B"), deployed(), 8192, SWEEP) == 0


def test_lora_slots():
    # q 4096 + 4096, k and v 4096 + 1024, o 4096 + 4096, gate, up and down 4096 + 14336, in 32 layers; two tables.
    llama = load("meta-llama/Llama-3.1-8B")
    layer, table = 2 * 8192 + 2 * 5120 + 3 * 18432, 128256 + 4096
    one = lora_slots(llama, deployed(max_loras=1), 0)
    assert one.num_bytes == 16 * (32 * layer + 2 * table) * 2
    more = lora_slots(llama, deployed(max_loras=4, max_lora_rank=64), 0)
    assert more.num_bytes == 16 * one.num_bytes
    # On two ranks: the side along which the matrix is dealt out is halved, the other is whole.
    half = 2 * (4096 + 2048) + 2 * (4096 + 512) + 3 * (4096 + 7168)
    assert lora_slots(llama, deployed(max_loras=1, tp=2), 0).num_bytes == 16 * (32 * half + 2 * table) * 2
    assert lora_slots(llama, deployed(), 0) is None


@pytest.mark.parametrize(
    ("name", "tp", "tensors"),
    [
        # 28 layers; gate and up 52.5 MiB, down 26.25, o 4.5 leave rests, qkv of 6 MiB leaves none.
        ("Qwen/Qwen2.5-1.5B-Instruct", 1, 28 * 3),
        # Every matrix is a multiple of 2 MiB.
        ("meta-llama/Llama-3.1-8B", 1, 0),
        # Per layer four packed matrices, and the scales of gate and up, 2.02 MiB, and of down, 1.01.
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", 1, 28 * 6),
        # Half of gate and up, 26.25, and of down, 13.125; half of qkv is 3 MiB, of o 2.25.
        ("Qwen/Qwen2.5-1.5B-Instruct", 2, 28 * 4),
    ],
)
def test_loading_may_leave_a_rest_with_each_tensor(name, tp, tensors):
    found = extra_weights(load(name), deployed(tp=tp), 0)
    assert found.spread_bytes == (16 + tensors) * MIB + found.num_bytes // 5


def test_what_drafts_loads_weights():
    llama, deepseek = load("meta-llama/Llama-3.1-8B"), load("deepseek-ai/DeepSeek-V3")
    assert draft_weights(llama, deployed(), 0) is None
    assert draft_weights(llama, deployed(speculative_method="ngram", num_speculative_tokens=4), 0) is None
    # A layer of 218,112,000 parameters, and 2 · 4096 × 4096 before it.
    eagle = draft_weights(llama, deployed(speculative_method="eagle", num_speculative_tokens=4), 0)
    assert (eagle.num_bytes, eagle.basis) == (2 * (218_112_000 + 2 * 4096**2), "assumed")
    staged = deployed(speculative_method="mtp", num_speculative_tokens=1, pp=2)
    assert draft_weights(deepseek, staged, 0) is None
    assert draft_weights(deepseek, staged, 1).num_bytes > 11 * GIB  # 11.6 B parameters in fp8
    with pytest.raises(InputError, match="stores no layers"):
        draft_weights(llama, deployed(speculative_method="mtp", num_speculative_tokens=1), 0)
    with pytest.raises(UnsupportedError, match="is not known"):
        draft_weights(llama, deployed(speculative_method="draft_model", num_speculative_tokens=1), 0)


@pytest.mark.parametrize(
    ("gpu", "release", "usage", "tokens", "sequences"),
    [
        ("H100-SXM5-80GB", NOW, None, 8192, 1024),
        ("H100-SXM5-80GB", NOW, "llm", 16384, 1024),
        ("B200-SXM-180GB", NOW, "server", 16384, 1024),
        ("B200-SXM-180GB", SWEEP, "server", 8192, 1024),
        ("A100-SXM4-80GB", SWEEP, "server", 2048, 256),
        ("A100-SXM4-80GB", (0, 8), "server", 8192, 1024),
        ("L4", SWEEP, "llm", 8192, 256),
        ("T4", (0, 8, 5), "server", 4096, 256),  # V0
        ("H100-SXM5-80GB", (0, 6, 4), "server", 4096, 256),
    ],
)
def test_default_limits(gpu, release, usage, tokens, sequences):
    deployment = deployed(gpu=find_gpu(gpu), max_model_len=4096, usage=usage)
    assert default_max_num_batched_tokens(deployment, release) == tokens
    assert default_max_num_seqs(deployment, release) == sequences


def test_limits_that_are_set_and_limits_of_long_and_few_requests():
    assert default_max_num_batched_tokens(deployed(max_num_batched_tokens=777), NOW) == 777
    assert default_max_num_seqs(deployed(max_num_seqs=3), NOW) == 3
    assert default_max_num_batched_tokens(deployed(max_num_seqs=3, max_model_len=1000), NOW) == 3000
    assert default_max_num_seqs(deployed(max_num_batched_tokens=512), NOW) == 512
    assert default_max_num_batched_tokens(deployed(max_model_len=131072), (0, 7)) == 2048
    assert default_max_num_batched_tokens(deployed(max_model_len=131072), (0, 6, 3)) == 512
    assert default_max_num_batched_tokens(deployed(gpu=None), NOW) == 2048
    assert not is_v1(deployed(gpu=find_gpu("T4")), (0, 9))
    assert is_v1(deployed(gpu=find_gpu("T4")), (0, 10))


@pytest.mark.parametrize("release", [(0, 5), (0, 7), (0, 11), SORTING, SWEEP, (0, 21), NOW])
def test_terms_by_version(release):
    names = {item.name for item in taken(spec(), deployed(), release, 0)}
    beyond = {item.name for item in untaken(spec(), deployed(), release, 0)}
    assert names >= {"extra weights", "activation peak", "non-torch"}
    assert ("CUDA graphs (estimate)" in names) == (release >= (0, 21)) == ("CUDA graphs" not in beyond)
    assert "CUDA context" in beyond
    eager = deployed(enforce_eager=True)
    assert not any(
        "graphs" in item.name for item in (*taken(spec(), eager, release, 0), *untaken(spec(), eager, release, 0))
    )
    assert all(
        item.num_bytes >= 0 and item.spread_bytes >= 0 and item.source for item in taken(spec(), deployed(), release, 0)
    )


@given(st.integers(1, 2048), st.integers(1, 2048), st.integers(1, 4096), st.sampled_from([(0, 11), SWEEP, NOW]))
def test_more_requests_or_longer_steps_never_take_less(requests, further, tokens, release):
    def peak(sequences, batched):
        deployment = deployed(max_num_seqs=sequences, max_num_batched_tokens=batched)
        return activation_peak(spec(), deployment, release, 0).num_bytes

    assert peak(requests, tokens) <= peak(requests + further, tokens) <= peak(requests + further, tokens + further)


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([SORTING, SWEEP, NOW]))
def test_more_ranks_never_take_more_of_each_but_outside_torch(tp, release):
    def terms(ranks):
        return {item.name: item.num_bytes for item in taken(spec(), deployed(tp=ranks), release, 0)}

    one, shared = terms(1), terms(tp)
    assert all(shared[name] <= one[name] for name in ("activation peak", "CUDA graphs (estimate)") if name in one)


PRINTED = {row["id"]: row for row in observations() if row["engine"] == "vllm" and not row["inferred"]}
SWEPT = sorted(key for key, row in PRINTED.items() if row["source"].startswith("llm-d-incubation") and row["model"])
OLDER = ["obs063", "obs064", "obs065", "obs067", "obs069", "obs071", "obs073", "obs078", "obs177", "obs184", "obs187"]
OLDER.append("obs183")


@pytest.mark.parametrize("key", SWEPT)
def test_every_run_of_the_sweep_on_h100(key):
    account = account_of(PRINTED[key])
    ours, theirs = account.predicted, account.printed
    assert ours["weights"] == pytest.approx(theirs["weights"], rel=0.015, abs=0.006)
    assert ours["activations"] == pytest.approx(theirs["activations"], abs=0.055)
    assert ours["non-torch"] == pytest.approx(theirs["non-torch"], abs=0.22)
    assert ours["graphs"] == pytest.approx(theirs["graphs"], abs=0.27)
    assert ours["pool"] == pytest.approx(theirs["pool"], rel=0.004)


@pytest.mark.parametrize("key", OLDER)
def test_activations_of_older_versions(key):
    """vLLM 0.6-0.16 on T4, RTX 3090, RTX 4090 and H100: the sort rules the sampler, three streams the pass."""
    account = account_of(PRINTED[key])
    assert account.predicted["activations"] == pytest.approx(account.printed["activations"], abs=0.036)


@pytest.mark.parametrize("key", [row["id"] for row in observations() if row["id"].startswith("grid")])
def test_activations_over_requests_and_tokens(key):
    """One model with 8 to 2048 requests and 2048 to 32768 tokens a step, on a GPU that is not named."""
    row = next(row for row in observations() if row["id"] == key)
    requests, tokens = int(row["max_num_seqs"]), int(row["max_num_batched_tokens"])
    deployment = deployed(max_num_seqs=requests, max_num_batched_tokens=tokens, max_model_len=tokens)
    peak = activation_peak(load(row["model"]), deployment, (0, 10), 0).num_bytes / GIB
    assert peak == pytest.approx(float(row["activation_gib"]), abs=0.021)


def test_every_stage_has_an_account_of_its_own_layers():
    # 62 layers on 7 stages: some alike, none of the ends.
    model, asked = load("google/gemma-3-27b-it"), deployed(pp=7)
    accounts = find_engine("vllm@0.19").pooled.budget(model, asked, (5, 6, 6, 6, 6, 6, 7))
    assert [account.stage for account in accounts] == list(range(7))
    for stage, account in enumerate(accounts):
        assert account.taken[1:] == taken(model, asked, SWEEP, stage)
        assert account.untaken == untaken(model, asked, SWEEP, stage)


@pytest.mark.parametrize(
    ("name", "engine", "gpu", "dtype"),
    [
        ("google/gemma-2-9b", "vllm", "L4", "bf16"),  # stored in fp32
        ("google/gemma-2-9b", "vllm@0.7", "L4", "bf16"),
        ("google/gemma-2-9b", "vllm", "T4", "fp32"),  # overflows in fp16, and there is no bf16
        ("LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct", "vllm", "L4", "bf16"),
        ("LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct", "vllm@0.7", "L4", "fp16"),
        ("LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct", "sglang", "L4", "fp16"),
        ("Qwen/Qwen2.5-7B-Instruct", "vllm", "T4", "fp16"),
        ("Qwen/Qwen2.5-7B-Instruct", "sglang", "T4", "fp16"),
        ("Qwen/Qwen2.5-7B-Instruct", "vllm", "L4", "bf16"),
        ("LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct", "exact", "L4", "fp32"),
    ],
)
def test_what_auto_makes_of_a_checkpoints_dtype(name, engine, gpu, dtype):
    model = load(name)
    serving = resolve(model, engine=engine, gpu=find_gpu(gpu))
    assert (serving.dtype.name, serving.kv_dtype.name) == (dtype, dtype)
    assert "dtype" not in told(model, serving)
    assert resolve(model, engine=engine, gpu=find_gpu(gpu), dtype="auto").dtype == serving.dtype
