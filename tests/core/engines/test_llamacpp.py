"""llama.cpp: libllama's own figures of 20 models, start-up logs, the pool, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import InputError, estimate, load_model
from kvplan.core.dtypes import FP16, parse_kv_dtype
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.llamacpp import profile
from kvplan.core.engines.llamacpp.devices import context_bytes, context_cells
from kvplan.core.engines.llamacpp.pool import longest_n_ctx
from kvplan.core.serving import resolve
from kvplan.core.units import MIB
from tests.models import LLAMA, spec
from tests.sources.gguf_writer import gguf_bytes

# libllama of build b11434 on the CPU without weights: bytes of keys, values and states.
DATA = Path(__file__).parents[2] / "data" / "engines" / "llamacpp.jsonl"
CASES = [json.loads(line) for line in DATA.read_text().splitlines()]
ENGINE = profile(None)
POOLED = ENGINE.pooled


def deployment(n_ctx, types=("f16", "f16"), **switches):
    key, value = (parse_kv_dtype(name) for name in types)
    return Deployment(dtype=FP16, key_dtype=key, value_dtype=value, max_model_len=n_ctx, switches=Switches(**switches))


def taken(model, asked):
    """Bytes of all devices and the host, from the public parts."""
    return context_bytes(model, asked, context_cells(model, asked, asked.max_model_len)).total


# libllama's figures.


def tensors_of(keys, arch):
    """As few tensors as the reader asks for: a table, a norm a layer, and what tells widths that no key states."""
    hidden, num_layers, vocab = keys["embedding_length"], keys["block_count"], keys["vocab_size"]
    table = [["token_embd.weight", [vocab, hidden], "F16"]]
    table += [[f"blk.{i}.attn_norm.weight", [hidden], "F32"] for i in range(num_layers)]
    if "expert_count" in keys and "expert_feed_forward_length" not in keys:
        table.append(["blk.0.ffn_down_exps.weight", [8, hidden, keys["feed_forward_length"]], "F16"])
    more = {
        "gemma3n": [
            ["per_layer_token_embd.weight", [vocab, 256], "F16"],
            ["blk.0.laurel_l.weight", [64, hidden], "F16"],
        ],
        "gpt2": [["position_embd.weight", [1024, hidden], "F16"]],
        "granitehybrid": [["blk.0.ffn_down_shexp.weight", [hidden, 1536], "F16"]],
    }
    return table + more.get(arch, [])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each model from a GGUF header with the keys that libllama was given."""
    folder, found = tmp_path_factory.mktemp("gguf"), {}
    for case in CASES:
        keys = dict(case["gguf"])
        arch = keys.pop("general.architecture")
        if arch == "gemma3n":
            keys["attention.sliding_window_pattern"] = 5  # what llama.cpp takes where it is not stated
        metadata = {"general.architecture": arch} | {f"{arch}.{key}": value for key, value in keys.items()}
        path = folder / f"{case['model']}.gguf"
        path.write_bytes(gguf_bytes(metadata, tensors_of(keys, arch)))
        found[case["model"]] = load_model(str(path))
    return found


def asked_of(run, keys):
    return deployment(
        run["n_ctx"] or keys["context_length"],
        run.get("types", ("f16", "f16")),
        max_num_seqs=run.get("n_seq_max"),
        num_ubatch_tokens=run.get("n_ubatch"),
        flash_attention=run.get("flash_attn"),
        swa_full=run.get("swa_full"),
        kv_unified=run.get("kv_unified"),
        num_speculative_tokens=run.get("n_rs_seq", 0),
    )


# Kimi-Linear crashed with three streams of a context of 10,000: that run has no figure.
RUNS = [
    pytest.param(case, run, id=f"{case['model']}-{i}")
    for case in CASES
    for i, run in enumerate(case["runs"])
    if not run.get("crashed")
]


def test_there_are_as_many_runs_as_were_made():
    assert len(RUNS) == 379
    assert sum("gives" in run.values[1] for run in RUNS) == 375


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_a_context_takes_what_libllama_takes(case, run, models):
    model, asked = models[case["model"]], asked_of(run, case["gguf"])
    if run.get("refused"):
        with pytest.raises(InputError, match="in one format"):
            POOLED.check(model, asked)
        return
    POOLED.check(model, asked)
    n_ctx, n_ctx_seq, num_bytes = run["gives"]
    pool = POOLED.pool(model, asked, None)
    assert (pool.num_tokens, pool.max_model_len) == (n_ctx, n_ctx_seq)
    assert pool.allocated_bytes == pool.kv_memory_bytes == taken(model, asked) == num_bytes
    assert pool.fits_one
    assert pool.longest_request == n_ctx_seq


# Start-up logs of servers: MiB as they print them.

LOGS = {
    "Qwen3.5-9B, 4 sequences": ("Qwen/Qwen3.5-9B", (135168, ("f16", "f16")), {"max_num_seqs": 4}, "full 4,224.00 MiB",
                                "states 201.00 MiB"),
    "Qwen3.5-9B": ("Qwen/Qwen3.5-9B", (8192, ("f16", "f16")), {}, "full 256.00 MiB", "states 50.25 MiB"),
    "Qwen3.5-27B, q8_0": ("Qwen/Qwen3.5-27B", (131072, ("q8_0", "q8_0")), {"max_num_seqs": 4}, "full 4,352.00 MiB",
                          "states 598.50 MiB"),
    "Qwen3.5-27B, two drafted": ("Qwen/Qwen3.5-27B", (8192, ("f16", "f16")), {"num_speculative_tokens": 2},
                                 "full 512.00 MiB", "states 448.88 MiB"),
    "gpt-oss-120b": ("openai/gpt-oss-120b", (65535, ("f16", "f16")), {"max_num_seqs": 4}, "full 2,304.00 MiB",
                     "SWA 36.00 MiB"),
    "gpt-oss-20b, q8_0": ("openai/gpt-oss-20b", (8192, ("q8_0", "q8_0")), {"num_ubatch_tokens": 128},
                          "full 102.00 MiB", "SWA 3.19 MiB"),
    "gpt-oss-20b": ("openai/gpt-oss-20b", (131072, ("f16", "f16")), {"num_ubatch_tokens": 2048}, "full 3,072.00 MiB",
                    "SWA 54.00 MiB"),
    "gemma-4-12B, q8_0": ("google/gemma-4-12B-it", (8192, ("q8_0", "q8_0")), {"max_num_seqs": 4}, "full 68.00 MiB",
                          "SWA 765.00 MiB"),
    "gemma-4-12B": ("google/gemma-4-12B-it", (8192, ("f16", "f16")), {"max_num_seqs": 4, "num_ubatch_tokens": 2048},
                    "full 128.00 MiB", "SWA 1,920.00 MiB"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "asked", "switches", "full", "other"), LOGS.values(), ids=LOGS)
def test_the_log_prints_it(name, asked, switches, full, other):
    printed = POOLED.pool(load_model(name), deployment(*asked, kv_unified=True, **switches), None).notes[0]
    assert full in printed
    assert other in printed


def test_an_older_build_held_latents_as_heads():
    # DeepSeek-Coder-V2-Lite: 27 layers, 8 streams of 2048 cells: 2592 MiB of keys and 1728 of values, 16 heads each.
    model = load_model("deepseek-ai/DeepSeek-V2-Lite")
    assert 4320 * MIB == 27 * 8 * 2048 * 16 * (192 + 128) * 2
    pool = POOLED.pool(model, deployment(16384, max_num_seqs=8), None)
    assert pool.allocated_bytes == 27 * 8 * 2048 * 576 * 2
    assert any("key_length_mla" in note for note in pool.notes)
    old = POOLED.pool(model, deployment(16384, max_num_seqs=8, latent_cache="expanded"), None)
    assert old.allocated_bytes == 4320 * MIB
    assert "of latent attention it holds keys and values of every head" in old.notes


# DeepSeek-R1, 61 layers, 2048 cells: 128 heads of 192 and 128, a latent of 512 and 64 of positions.
LATENTS = {
    "alone": (("f16", "f16"), 61 * 2048 * 576 * 2),
    "with_values": (("f16", "f16"), 61 * 2048 * (576 + 512) * 2),
    "expanded": (("f16", "f16"), 9760 * MIB),
    "with_values in 8 bits": (("q8_0", "q8_0"), 61 * 2048 * (576 + 512) * 34 // 32),
    "with_values of two formats": (("q8_0", "f16"), 61 * 2048 * (576 * 34 // 32 + 512 * 2)),
}


@pytest.mark.parametrize("case", LATENTS)
def test_what_is_kept_of_latents(case):
    types, num_bytes = LATENTS[case]
    model = load_model("deepseek-ai/DeepSeek-R1")
    asked = deployment(2048, types, latent_cache=case.partition(" ")[0])
    POOLED.check(model, asked)
    assert taken(model, asked) == num_bytes


def test_latents_alone_are_no_values_that_lie_transposed():
    """ik_llama.cpp keeps them in blocks without flash attention: there are no values to transpose."""
    model = load_model("deepseek-ai/DeepSeek-R1")
    POOLED.check(model, deployment(4096, ("q8_0", "q8_0"), flash_attention=False))
    for layout in ("with_values", "expanded"):
        with pytest.raises(InputError, match="flash attention only"):
            POOLED.check(model, deployment(4096, ("q8_0", "q8_0"), flash_attention=False, latent_cache=layout))
    with pytest.raises(InputError, match="in one format"):
        POOLED.check(model, deployment(4096, ("q8_0", "f16")))


def test_a_layout_of_latents_that_there_is_not():
    with pytest.raises(InputError, match="`latent_cache` cannot be `folded`"):
        POOLED.check(load_model("deepseek-ai/DeepSeek-R1"), deployment(4096, latent_cache="folded"))


# By hand.

HAND = {
    # 61 layers, latent 512 + 64 and an indexer of 128, f16: 61 · 4096 · 704 · 2
    "DeepSeek-V3.2": ("deepseek-ai/DeepSeek-V3.2", 4096, {}, 351_797_248),
    # The window of 4096 is not honoured: 32 layers · 8192 cells · 2 · 8 · 128 · 2
    "Mistral-7B-v0.1": ("mistralai/Mistral-7B-v0.1", 8192, {}, 32 * 8192 * 4096),
    # 10 full layers, 52 of min(131072, 1024 + 512) cells, 16 heads of 128: 16384 bytes a cell and layer
    "Gemma-3-27B": ("google/gemma-3-27b-it", 131072, {}, (10 * 131072 + 52 * 1536) * 16384 // 2),
    # 62 layers · 40 heads · (96 + 64) · 2 bytes: latents are held as heads
    "MiniCPM3-4B": ("openbmb/MiniCPM3-4B", 1024, {}, 62 * 1024 * 40 * (96 + 64) * 2),
    # 6 attention layers · 8 · 64 · 2 · 2 bytes, 10 convolutions of (3 − 1) · 2048 · 4
    "LFM2-1.2B": ("LiquidAI/LFM2-1.2B", 1024, {}, 6 * 1024 * 2048 + 10 * 2 * 2048 * 4),
    # Without flash attention the values of all 48 layers are as wide as the widest: 8 · 256 against 512.
    "gemma-4-12B": ("google/gemma-4-12B-it", 8192, {"flash_attention": False}, None),
}  # fmt: skip


@pytest.mark.parametrize(("name", "n_ctx", "switches", "num_bytes"), HAND.values(), ids=HAND)
def test_by_hand(name, n_ctx, switches, num_bytes):
    model = load_model(name)
    found = POOLED.pool(model, deployment(n_ctx, **switches), None).allocated_bytes
    if num_bytes is None:
        # 8 layers of 8192 cells with 512 of keys, 40 of 1536 with 2048, and 2048 of values in each
        num_bytes = (8 * 8192 * (512 + 2048) + 40 * 1536 * (2048 + 2048)) * 2
    assert found == num_bytes


def test_deepseek_v4_holds_a_window_entries_and_what_is_open():
    # 43 layers (Flash): windows of 128 + 512 → 768 cells of 512 · 2 bytes; entries of 4 tokens in 1024 cells and of
    # 128 in 256; states of 8 · 2 · (512 + 128) and 128 · 512, twice, in F32. All of it twice for two sequences.
    model = load_model("deepseek-ai/DeepSeek-V4-Flash")
    ratios = [mixer.ratio for i in model.layer_order for mixer in model.layers[i].mixers]
    four, many = ratios.count(4), ratios.count(128)
    raw = len(ratios) * 768 * 1024
    overlapping = four * (1024 * (512 + 128) * 2 + 8 * 1280 * 2 * 4)
    one = raw + overlapping + many * (256 * 1024 + 128 * 512 * 2 * 4)
    assert (four + many) > 30
    assert taken(model, deployment(4096)) == one
    assert taken(model, deployment(4096, max_num_seqs=2, kv_unified=True)) == 2 * one
    # No layer keeps every token as it is: a block is one of the windows'.
    pool = POOLED.pool(model, deployment(4096), None)
    assert pool.bytes_per_block == 256 * 1024 * pool.groups[0].num_layers


def test_a_window_that_is_not_honoured_is_said():
    model = load_model("mistralai/Mistral-7B-v0.1")
    notes = POOLED.pool(model, deployment(8192), None).notes
    assert any("does not honour" in note for note in notes)
    unknown = POOLED.pool(replace(model, model_type="never_heard_of"), deployment(8192), None)
    assert any("does not know whether" in note for note in unknown.notes)
    assert unknown.allocated_bytes == 32 * 8192 * 4096


# The pool.

QWEN = "Qwen/Qwen3.5-9B"


def test_the_pool_in_blocks():
    pool = POOLED.pool(load_model("openai/gpt-oss-20b"), deployment(8192, max_num_seqs=2), None)
    # Two streams of 4096 cells; 12 full layers of 2048 bytes a cell; windows of 128 + 512 → 768 cells
    assert (pool.num_blocks, pool.bytes_per_block, pool.blocks_per_request) == (32, 12 * 256 * 2048, 16)
    assert pool.max_concurrency == 2
    assert {(g.kind, g.num_layers, g.window, g.blocks_per_request) for g in pool.groups} == {
        ("full", 12, None, 16), ("sliding", 12, 128, 3)}  # fmt: skip
    assert pool.allocated_bytes == pool.num_blocks * pool.bytes_per_block + 12 * 2 * 768 * 2048


def test_in_one_buffer_one_sequence_may_take_all():
    pool = POOLED.pool(spec(), deployment(8192, max_num_seqs=4, kv_unified=True), None)
    assert (pool.max_model_len, pool.num_tokens, pool.max_concurrency) == (8192, 8192, 1)
    assert any("4 sequences share" in note for note in pool.notes)


@pytest.mark.parametrize("name", ["openai/gpt-oss-20b", QWEN, "deepseek-ai/DeepSeek-V4-Flash"])
@pytest.mark.parametrize("unified", [False, True])
@given(room=st.integers(0, 4000), seqs=st.integers(1, 5))
def test_the_longest_context_is_tight(name, unified, room, seqs):
    model, step = load_model(name), 256 if unified else 256 * seqs
    asked = deployment(1 << 20, max_num_seqs=seqs, kv_unified=unified)
    longest = longest_n_ctx(model, asked, room * MIB)
    pool = POOLED.pool(model, asked, room * MIB)
    assert pool.fits_one == (pool.allocated_bytes <= room * MIB)
    assert longest % step == 0
    if longest:
        assert taken(model, replace(asked, max_model_len=longest)) <= room * MIB
    assert taken(model, replace(asked, max_model_len=longest + step)) > room * MIB
    assert pool.longest_request <= pool.max_model_len


def test_what_does_not_fit_is_said():
    pool = POOLED.pool(spec(), deployment(8192), 1024 * MIB)
    # 32 layers · 16,384 bytes: 2048 tokens take 1 GiB
    assert not pool.fits_one
    assert pool.longest_request == 2048
    assert any("n_ctx up to 2,048 fits" in note for note in pool.notes)
    assert POOLED.pool(spec(), deployment(8192), 1).longest_request == 0


@pytest.mark.parametrize("name", ["openai/gpt-oss-20b", QWEN, "deepseek-ai/DeepSeek-V3.2"])
@given(tokens=st.integers(1, 100_000), requests=st.integers(1, 100), unified=st.booleans())
def test_what_requests_hold_never_falls(name, tokens, requests, unified):
    model, asked = load_model(name), deployment(4096, kv_unified=unified)
    (now,) = POOLED.held(model, asked, tokens, requests)
    assert now <= POOLED.held(model, asked, tokens + 1, requests)[0]
    assert now <= POOLED.held(model, asked, tokens, requests + 1)[0]
    same = replace(asked, max_model_len=tokens * requests, switches=replace(asked.switches, max_num_seqs=requests))
    assert now == taken(model, same)


@pytest.mark.parametrize("unified", [False, True])
def test_arrays_hold_what_their_numbers_hold(unified):
    np = pytest.importorskip("numpy")
    model, asked = load_model("openai/gpt-oss-20b"), deployment(4096, kv_unified=unified)
    tokens, requests = np.array([1, 700, 8192, 33_333]), np.array([1, 3, 8, 64])
    (found,) = POOLED.held(model, asked, tokens, requests)
    each = [POOLED.held(model, asked, int(t), int(r))[0] for t, r in zip(tokens, requests, strict=True)]
    assert found.dtype == np.int64
    assert found.tolist() == each


# What is refused.

REFUSED = {
    "fp8": (("fp8", "fp8"), {}, "not a format"),
    "values in blocks without flash attention": (("f16", "q8_0"), {"flash_attention": False}, "flash attention only"),
    "no sequence": (("f16", "f16"), {"max_num_seqs": 0}, "cannot be 0"),
    "too many sequences": (("f16", "f16"), {"max_num_seqs": 257}, "at most 256"),
    "no share": (("f16", "f16"), {"tensor_split": (0.0, 0.0)}, "not all of them 0"),
    "negative layers": (("f16", "f16"), {"num_gpu_layers": -1}, "cannot be -1"),
}


@pytest.mark.parametrize(("types", "switches", "message"), REFUSED.values(), ids=REFUSED)
def test_what_llama_cpp_refuses(types, switches, message):
    with pytest.raises(InputError, match=message):
        POOLED.check(spec(), deployment(4096, types, **switches))


def test_heads_that_are_no_whole_blocks():
    model = spec({**LLAMA, "head_dim": 80})
    POOLED.check(model, deployment(4096))
    with pytest.raises(InputError, match="heads of 80"):
        POOLED.check(model, deployment(4096, ("q8_0", "f16")))


def test_layouts_that_kvplan_does_not_know():
    for wrong in ({"tp": 2}, {"dcp": 2}, {"memory_share": 0.9}, {"pp": 3}):
        asked = replace(deployment(4096, tensor_split=(1.0, 1.0)), **wrong)
        with pytest.raises(InputError):
            POOLED.check(spec(), asked)


def test_of_encoder_decoders_t5_alone():
    POOLED.check(load_model("google/flan-t5-base"), deployment(512))
    with pytest.raises(InputError, match="T5 alone"):
        POOLED.check(load_model("openai/whisper-tiny"), deployment(448))


def test_the_cache_is_f16_whatever_the_model_computes_in():
    model = load_model("google/gemma-2-2b")
    assert model.dtype.name == "fp32"
    serving = resolve(model, seq_len=4096, engine="llamacpp")
    assert (serving.kv_dtype.name, serving.value_dtype.name) == ("fp16", "fp16")


def test_builds():
    assert profile("b11434").newer is None
    assert profile("B11500").newer == "B11500"
    for version in ("b9000", "b", "latest"):
        with pytest.raises(InputError):
            profile(version)


def test_a_draft_has_a_context_of_its_own():
    # 6 of 24 layers are attention of 2 · 2 · 256 · 2 bytes a cell, and one more drafts. The others' states, of which a
    # second one is kept: 3 · (2 · 16 · 128 + 16 · 128) + 16 · 128 · 128 elements in F32.
    model, states = load_model("Qwen/Qwen3.5-0.8B"), 18 * (18_432 + 262_144) * 4
    drafts = deployment(8192, num_speculative_tokens=1, speculative_method="mtp")
    assert taken(model, drafts) == 7 * 8192 * 2048 + 2 * states
    other = POOLED.pool(model, deployment(8192, num_speculative_tokens=1), None)
    assert other.allocated_bytes == 6 * 8192 * 2048 + 2 * states
    assert any("not counted" in note for note in other.notes)
    assert taken(model, deployment(8192)) == 6 * 8192 * 2048 + states


def test_weights_are_dealt_as_layers_are():
    # Llama-2-7B: 202,383,360 parameters a layer, tables of 32,000 · 4,096 each; the token table stays with the CPU.
    def weights(**how):
        plan = estimate("meta-llama/Llama-2-7b", engine="llamacpp", seq_len=64, **how)
        return [use.weights_bytes for use in plan.per_gpu]

    layer, table, norm = 2 * 202_383_360, 2 * 32_000 * 4096, 2 * 4096
    assert weights() == [32 * layer + table + norm]
    assert weights(num_gpu_layers=16) == [15 * layer + table + norm]
    # 33 places for layers and output: 17 on the first device, 16 on the second.
    assert weights(num_gpus=2) == [17 * layer, 15 * layer + table + norm]
    assert weights(tensor_split=[3, 1]) == [25 * layer, 7 * layer + table + norm]
    with pytest.raises(InputError, match="3 GPUs cannot be laid out"):
        weights(num_gpus=3, tensor_split=[3, 1])


def test_a_tied_output_is_a_copy_of_the_token_table():
    plan = estimate("google/gemma-2-2b-it", engine="llamacpp", seq_len=64)
    assert plan.per_gpu[0].weights_bytes == plan.weights.total_bytes
