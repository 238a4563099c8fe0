"""SGLang's pools, held to what SGLang 0.5.23's own configurators made of 23 configurations, and to its logs.

`tests/data/engines/sglang.jsonl`: the engine's code, run with its device queries stubbed: a configuration of
`configs.jsonl`, a budget after states have had their share, and the bytes of a token and the slots that came out.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import InputError, UnsupportedError, load_model
from kvplan.core.dtypes import parse_dtype, parse_kv_dtype
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.sglang.budget import graph_max_bs, image_factor, mem_fraction, prefill_graph_sizes
from kvplan.core.engines.sglang.layers import pp_bounds, stages
from kvplan.core.engines.sglang.slots import cell_size, page_size, slots_for
from kvplan.core.engines.sglang.states import split
from kvplan.core.engines.table import find_engine
from kvplan.core.hardware import Gpu
from kvplan.sources.gpus import find_gpu
from tests.models import LLAMA, spec

DATA = Path(__file__).parents[2] / "data" / "engines"
ROWS = [json.loads(line) for line in (DATA / "sglang.jsonl").read_text().splitlines()]
GIB = 2**30
SGLANG = find_engine("sglang").pooled


@cache
def configs():
    rows = map(json.loads, (DATA / "configs.jsonl").read_text().splitlines())
    return {row["model"]: row["config"] for row in rows}


def known(name):
    return spec(configs()[name])


def deployment(kv_dtype="bf16", gpu=None, **given):
    names = {n: given.pop(n) for n in ("tp", "pp", "dp", "dcp", "max_model_len", "memory_share") if n in given}
    key = parse_kv_dtype(kv_dtype)
    shape = {"max_model_len": 4096} | names
    return Deployment(
        dtype=parse_dtype("bf16"), key_dtype=key, value_dtype=key, gpu=gpu, switches=Switches(**given), **shape
    )


def stage(model, **given):
    (only,) = stages(model, deployment(**given))
    return only


def cell(model, **given):
    return cell_size(stage(model, **given), deployment(**given))


def pool(model, num_bytes, **given):
    return SGLANG.pool(model, deployment(**given), num_bytes)


@pytest.mark.parametrize("row", ROWS, ids=[f"{r['model']}-tp{r['tp']}-{r['kv_dtype']}-page{r['page']}" for r in ROWS])
def test_tokens_are_those_of_sglangs_own_configurators(row):
    given = {"tp": row["tp"], "kv_dtype": row["kv_dtype"], "block_size": row["page"]}
    held = stage(known(row["model"]), **given)
    slots = slots_for(held, deployment(**given), row["kv_bytes"], row["page"])
    assert cell_size(held, deployment(**given)) == row["cell"]
    assert (slots.total, slots.sliding) == (row["tokens"], row["sliding_tokens"])
    assert held.state_bytes == row["state_slot_bytes"]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        # 61 layers: (512 + 64) · 2 + 128 + 128 // 128 · 4 = 1,284; fp8 512 + 16 + 128 + 132 = 788; raw 576 + 132 = 708
        ("deepseek-ai/DeepSeek-V3.2", {}, 78_324),
        ("deepseek-ai/DeepSeek-V3.2", {"kv_dtype": "fp8"}, 48_068),
        ("deepseek-ai/DeepSeek-V3.2", {"kv_dtype": "fp8", "gpu": "B200"}, 43_188),
        ("deepseek-ai/DeepSeek-V3.2", {"kv_dtype": "fp8", "attention_backend": "trtllm"}, 43_188),
        ("deepseek-ai/DeepSeek-V3.2", {"kv_dtype": "fp8", "gpu": "B200", "attention_backend": "flashmla_kv"}, 48_068),
        # 576 / 2 + 576 // 16 = 324
        ("deepseek-ai/DeepSeek-V3", {"kv_dtype": "nvfp4"}, 61 * 324),
        # 32 layers · 8 heads · 256 · (1 + 1/32)
        ("meta-llama/Llama-3.1-8B", {"kv_dtype": "mxfp8"}, 32 * (2048 + 64)),
        # one layer of MTP beside 61: 78,324 + 1,284
        ("deepseek-ai/DeepSeek-V3.2", {"speculative_method": "mtp", "num_speculative_tokens": 1}, 79_608),
        ("meta-llama/Llama-3.1-8B", {"speculative_method": "eagle", "num_speculative_tokens": 3}, 33 * 4096),
        ("meta-llama/Llama-3.1-8B", {"speculative_method": "ngram"}, 32 * 4096),
        # attention over 4 of 8 ranks: tp 2 for its heads, 4 of 8 heads
        ("meta-llama/Llama-3.1-8B", {"tp": 8, "dp": 4, "attention_dp": True}, 32 * 2048),
        # heads over tp / dcp = 4 ranks, 2 of 8
        ("meta-llama/Llama-3.1-8B", {"tp": 8, "dcp": 2}, 32 * 1024),
        # 12 of 48 layers are full attention: 2 heads · 512 · 2
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", {}, 12 * 2048),
        # Every layer keeps every token: 62 · 16 heads · 256 · 2
        ("google/gemma-3-27b-it", {}, 507_904),
    ],
)
def test_bytes_of_one_token(name, given, expected):
    given = {**given, "gpu": find_gpu(given["gpu"])} if "gpu" in given else given
    assert cell(load_model(name), **given) == expected


def test_sharing_keys_and_values_saves_nothing():
    # Gemma 4 E4B logs 71,680 bytes a token for its 35 sliding layers, 15 of which only read another layer's:
    # 644,444 tokens take 21.51 GB of keys and as much of values.
    held = stage(load_model("google/gemma-4-E4B-it"))
    assert held.sliding_bytes == 71_680 == 35 * 2 * 512 * 2
    assert sum(group.count for group in held.full) == 7
    assert round(644_445 * 71_680 / 2 / GIB, 2) == 21.51


@pytest.mark.parametrize(
    ("name", "given", "tokens", "printed"),
    [
        ("moonshotai/Kimi-K2.5", {"tp": 8}, 2_454_421, "KV size: 160.63 GB"),
        ("deepseek-ai/DeepSeek-V3", {"kv_dtype": "fp8"}, 524_288, "KV size: 17.16 GB"),
        ("zai-org/GLM-4.7-Flash", {"tp": 2}, 383_872, "KV size: 19.36 GB"),
        ("Qwen/Qwen3-30B-A3B", {}, 1_669_816, "K size: 76.44 GB, V size: 76.44 GB"),
        ("Qwen/Qwen3-0.6B", {}, 104_273, "K size: 5.57 GB, V size: 5.57 GB"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {"tp": 4}, 1_557_504, "K size: 2.23 GB, V size: 2.23 GB"),
        ("Qwen/Qwen3.5-27B", {}, 535_124, "K size: 16.33 GB, V size: 16.33 GB"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else None,
)
def test_what_logs_print(name, given, tokens, printed):
    found = pool(load_model(name), 400 * GIB, max_pool_tokens=tokens, max_model_len=8192, **given)
    assert f"KV Cache is allocated. #tokens: {tokens}, {printed}" in found.notes


def test_only_listed_classes_have_a_pool_of_sliding_layers():
    assert not stage(known("llama-4-scout")).sliding
    listed = stage(replace(known("llama-4-scout"), architecture="Llama4ForConditionalGeneration"))
    assert sum(group.count for group in listed.sliding) == 36
    assert not stage(known("gemma-2-27b")).sliding


@pytest.mark.parametrize(
    ("name", "tp", "expected"),
    [
        # 36 layers · (8192 · 3 · 2 + 32 · 128 · 128 · 4)
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 1, 77_266_944),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 4, 19_316_736),
    ],
)
def test_a_slot_of_states(name, tp, expected):
    assert stage(load_model(name), tp=tp).state_bytes == expected


def test_groups_that_tp_does_not_divide_are_held_by_each_rank():
    # Granite: 8192 inner channels and one group of 128: (8192 + 2 · 4 · 128) / 4 = 2304 channels on each of 4 ranks.
    layers = 36 * (2304 * 3 * 2 + 32 * 64 * 128 * 4)
    assert stage(known("granite-4.0-h-small"), tp=4).state_bytes == layers


def test_a_logged_pool_of_states():
    # SGLang 0.5.17, Qwen3.5-27B's shape, states in bf16: 43 slots print 0.12 GB of columns and 3.09 GB of states.
    held = stage(load_model("Qwen/Qwen3.5-27B"), state_dtype="bf16")
    columns = held.state_layers * 10_240 * 3 * 2
    assert round(44 * columns / GIB, 2) == 0.12
    assert round(44 * (held.state_bytes - columns) / GIB, 2) == 3.09
    assert cell(load_model("Qwen/Qwen3.5-27B")) == 65_536


def test_the_split_between_states_and_tokens():
    # 1900 · 0.9 / 1.9 = 900; ⌊(900 − 100) / 100⌋ = 8 slots, and one more is allocated.
    found = split(1900, 100, deployment())
    assert (found.slots, found.kv_bytes) == (8, 1000)
    exact = split(1900, 100, deployment(prefix_caching=False, max_num_seqs=5))
    assert (exact.slots, exact.kv_bytes) == (5, 1300)
    # 4 drafted tokens a request: ⌊(9000 − 100 · 5) / (100 · (1 + 4/3))⌋ = 36 slots, 12 requests at once.
    drafts = split(19_000, 100, deployment(speculative_method="eagle", num_speculative_tokens=3))
    assert (drafts.slots, drafts.draft_bytes, drafts.kv_bytes) == (36, 5200, 19_000 - 3700 - 5200)


def test_a_hybrids_pool_pays_for_states_and_tokens():
    found = pool(load_model("Qwen/Qwen3-Next-80B-A3B-Instruct"), 48 * GIB, max_model_len=262_144)
    slot, rest = 77_266_944, 48 * GIB
    slots = int((rest * 0.9 / 1.9 - slot) // slot)
    assert found.num_tokens == (rest - (slots + 1) * slot) // 24_576
    assert found.allocated_bytes == (slots + 1) * slot + (found.num_tokens + 1) * 24_576
    assert any(f"max_mamba_cache_size: {slots}," in note for note in found.notes)
    assert found.max_concurrency == min(found.num_tokens / 262_144, slots // 3)


def test_a_pool_of_sliding_layers_by_the_number_of_requests():
    given = {"prefix_caching": False, "max_num_seqs": 16, "max_num_batched_tokens": 4096, "max_model_len": 131_072}
    found = pool(known("gpt-oss-20b"), 8 * GIB, **given)
    # 16 requests · (127 + 128 + 1 + 1) + 2 chunks of 4096 + 1
    sliding = 16 * 257 + 8192 + 1
    full = (8 * GIB - sliding * 24_576) // 24_576
    assert found.num_tokens == full
    assert f"full_layer_tokens={full}, swa_layer_tokens={sliding}" in "".join(found.notes)
    small = pool(known("gpt-oss-20b"), 44_237 * 100)
    assert not small.fits_one
    assert small.notes == ("SWA pool (80 tokens) cannot hold even one request: its window has 127 tokens",)


def test_rows_beyond_the_slots():
    # One page more: (98,304 + 1) · 524,288; an indexer has ⌊(tokens + 64 + 1) / 64⌋ pages of 64 · 132 bytes.
    assert pool(known("llama-2-7b"), 48 * GIB).allocated_bytes == 98_305 * 524_288
    found = pool(load_model("deepseek-ai/DeepSeek-V3.2"), 10 * GIB)
    tokens = 10 * GIB // 78_324 // 64 * 64
    pages = (tokens + 65) // 64
    assert (found.block_size, found.num_tokens) == (64, tokens)
    assert found.allocated_bytes == 61 * ((tokens + 64) * 1152 + pages * 64 * 132)


def test_stages_agree_on_the_fewest_tokens():
    assert pp_bounds(126, deployment(pp=4)) == [(0, 31), (31, 62), (62, 94), (94, 126)]
    assert pp_bounds(10, deployment(pp=3)) == [(0, 3), (3, 6), (6, 10)]
    assert pp_bounds(10, deployment(pp=2, stage_layers=(7, 3))) == [(0, 7), (7, 10)]
    found = pool(known("llama-3.1-405b"), 10 * GIB, tp=8, pp=4)
    assert found.num_tokens == 10 * GIB // (32 * 512)
    assert len(SGLANG.held(known("llama-3.1-405b"), deployment(tp=8, pp=4), 100, 2)) == 4


def test_a_stage_without_attention_sets_no_limit():
    # Nemotron-H's four attention layers stand at 7, 18, 29 and 40 of 52.
    model = known("nemotron-h-8b")
    cut = (5, 47)
    first, second = stages(model, deployment(pp=2, stage_layers=cut))
    assert (first.full, first.state_layers > 0, len(second.full)) == ((), True, 1)
    assert pool(model, 20 * GIB, pp=2, stage_layers=cut).num_tokens > 0


@pytest.mark.parametrize(
    ("asked", "tokens", "expected"),
    [(None, 98_304, 4096), (None, 20_000, 2500), (None, 4100, 2048), (None, 1000, 500), (64, 98_304, 64)],
)
def test_running_requests(asked, tokens, expected):
    # ⌊tokens / 4096 · 512⌋ held to 2048-4096, and at most half the tokens; 48 where drafting is on.
    drafting = pool(known("llama-2-7b"), None, max_pool_tokens=tokens, speculative_method="eagle", max_num_seqs=asked)
    assert f"max_running_requests={asked or 48}," in drafting.notes[0]
    found = pool(known("llama-2-7b"), None, max_pool_tokens=tokens, max_num_seqs=asked)
    assert f"max_running_requests={expected}," in found.notes[0]
    assert f"max_total_num_tokens={tokens}," in found.notes[0]


def test_the_default_fraction():
    h100, t4 = find_gpu("H100"), find_gpu("T4")
    # 512 + 1.5 · 8192 + 1024 / 8 + 2 · 256 + 8 · 58 = 13,904 MiB of 81,559
    assert prefill_graph_sizes(8192) == 58
    assert mem_fraction(known("llama-3.1-8b"), deployment(gpu=h100), h100) == round((81_559 - 13_904) / 81_559, 3)
    # MLA: 1.5 · 1024 for prefill's graphs; tp 8: one GiB, graphs to 512
    reserved = 512 + 12_288 + 1024 + 1024 + 1536
    assert mem_fraction(known("deepseek-v3"), deployment(gpu=h100, tp=8), h100) == round(1 - reserved / 81_559, 3)
    # 512 + 1.5 · 2048 + 128 + 2 · 8 + 8 · 42
    small = t4.memory_bytes / 2**20
    assert mem_fraction(known("llama-3.1-8b"), deployment(gpu=t4), t4) == round((small - 4064) / small, 3)
    assert [graph_max_bs(deployment(gpu=find_gpu(n))) for n in ("T4", "L4", "A100-40GB", "H100", "B200")] == [
        8, 48, 32, 256, 512,
    ]  # fmt: skip


def test_an_image_encoder_takes_a_share():
    # 32 layers of 1280: 52.4 M against 25.2 M; 0.95 · (1 − 0.1 · 1.0833)
    assert image_factor(load_model("MiniMaxAI/MiniMax-M3")) == pytest.approx(
        0.95 * (1 - 0.1 * (32 * 1280**2 / 24 / 2**20 - 1))
    )
    h100 = find_gpu("H100")
    model = load_model("MiniMaxAI/MiniMax-M3")
    with_images, without = (mem_fraction(model, deployment(gpu=h100, tp=8, no_images=no), h100) for no in (False, True))
    assert with_images < without


def test_the_account_adds_up():
    gpu = find_gpu("H100")
    (account,) = SGLANG.budget(known("llama-3.1-8b"), deployment(gpu=gpu, memory_share=0.8), (16 * GIB,))
    assert account.device_bytes == gpu.visible_bytes
    # free before the weights · 0.8 − weights
    context, weights = account.taken
    assert weights.num_bytes == 16 * GIB
    assert account.kv_memory_bytes == int((gpu.visible_bytes - context.num_bytes) * 0.8) - 16 * GIB
    table = next(item for item in account.untaken if "table" in item.name)
    assert table.num_bytes == (4096 + 1) * 4096 * 4
    with pytest.raises(InputError, match="GPU"):
        SGLANG.budget(known("llama-3.1-8b"), deployment(), (GIB,))


def test_a_logged_start():
    # Qwen3-30B-A3B on an MI355X, fraction 0.911: 56.98 GB of weights of 287.18 leave 1,669,816 tokens of 98,304 bytes.
    model = load_model("Qwen/Qwen3-30B-A3B")
    gpu = Gpu(name="MI355X", memory_bytes=288 * GIB, visible_bytes=int(287.98 * GIB))
    given = deployment(gpu=gpu, memory_share=0.911)
    (account,) = SGLANG.budget(model, given, (int(56.98 * GIB),))
    tokens = SGLANG.pool(model, given, account.kv_memory_bytes).num_tokens
    spread = account.spread_bytes / 98_304
    # The log's own rest is 287.18 · 0.911 − 56.98 = 204.6 GB; it kept 152.9 GB for the pool after a workspace of 51.75.
    assert abs(tokens - int((152.88 + 51.75) * GIB / 98_304)) < spread + 0.01 * tokens


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tp": 3}, "32 heads out to 3 ranks"),
        ({"tp": 4, "dp": 3, "attention_dp": True}, "data-parallel"),
        ({"tp": 4, "dcp": 3}, "decode context"),
        ({"pp": 2, "stage_layers": (30, 3)}, "30+3 layers"),
        ({"speculative_method": "mtp"}, "multi-token"),
        ({"speculative_method": "draft_model"}, "model that drafts"),
        ({"num_speculative_tokens": 2}, "need a method"),
        ({"swa_full_tokens_ratio": 2.0}, "swa_full_tokens_ratio"),
        ({"mamba_full_memory_ratio": 0.0}, "mamba_full_memory_ratio"),
    ],
)
def test_what_sglang_refuses(given, words):
    with pytest.raises(InputError) as error:
        pool(spec(LLAMA), 10 * GIB, **given)
    assert words in str(error.value)


def test_what_cannot_be_told():
    with pytest.raises(InputError, match="not known"):
        pool(spec(LLAMA), None)
    mixed = replace(deployment(), value_dtype=parse_kv_dtype("fp8"))
    with pytest.raises(InputError, match="one format"):
        SGLANG.pool(spec(LLAMA), mixed, GIB)
    with pytest.raises(InputError, match="encoder-decoder"):
        pool(load_model("google-t5/t5-11b"), GIB)
    with pytest.raises(InputError, match="no cache"):
        pool(load_model("BAAI/bge-m3"), GIB)
    with pytest.raises(InputError, match="pages of 64"):
        pool(load_model("deepseek-ai/DeepSeek-V3.2"), GIB, block_size=1)
    with pytest.raises(UnsupportedError, match="mamba1"):
        pool(load_model("ai21labs/AI21-Jamba-1.5-Mini"), 10 * GIB)


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [("llama-2-7b", 1000), ("nemotron-h-8b", 100 * 2**20), ("gpt-oss-20b", 0), ("deepseek-v3", 70_000)],
)
def test_memory_that_is_too_small(name, num_bytes):
    found = pool(known(name), num_bytes)
    assert (found.num_tokens, found.num_blocks, found.allocated_bytes, found.max_concurrency) == (0, 0, 0, 0.0)
    assert (found.fits_one, found.longest_request, len(found.notes)) == (False, 0, 1)


def test_one_request_fits_to_the_last_token():
    # 4096 tokens of 524,288 bytes
    exact = 4096 * 524_288
    assert pool(known("llama-2-7b"), exact).fits_one
    found = pool(known("llama-2-7b"), exact - 1)
    assert (found.fits_one, found.longest_request) == (False, 4095)


@pytest.mark.parametrize("name", ["gpt-oss-20b", "granite-4.0-h-small", "whisper-large-v3", "deepseek-v3"])
def test_kinds_add_up_to_what_is_held(name):
    given = deployment(speculative_method="eagle", num_speculative_tokens=1)
    for how in (deployment(), given):
        assert sum(SGLANG.kinds(known(name), how, 3000, 5).values()) == SGLANG.held(known(name), how, 3000, 5)[0]


def test_deepseek_v4_by_hand():
    model = load_model("deepseek-ai/DeepSeek-V4-Flash")
    found = pool(model, 100 * GIB, max_num_seqs=64, max_model_len=131_072)
    # 43 windows of 0.1 · 584; 21 layers with entries of 4 tokens, 584 + 132, and a ring of 8 in 128 slots in fp32;
    # 20 with entries of 128, whose rings go by requests: ⌈66 · 128 + 1⌉₁₂₈ rows of 2 · 512 · 4 bytes.
    each = 0.1 * 584 * 43 + (584 + 132) / 4 * 21 + 584 / 128 * 20 + 0.1 * 8 / 128 * 16 * (512 + 128) * 21
    fixed = 20 * (67 * 128) * 4096
    assert found.num_tokens == int((100 * GIB - fixed) / each) // 256 * 256
    assert found.block_size == 256
    one, two = (SGLANG.held(model, deployment(), 4096, n)[0] for n in (1, 2))
    assert 0 < one < two


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40_000), st.integers(1, 64), st.integers(0, 4000))
def test_more_is_never_less(tokens, requests, more):
    for name in ("gpt-oss-20b", "nemotron-h-8b", "deepseek-v3"):
        model = known(name)
        few, long, many = (
            SGLANG.held(model, deployment(), t, r)[0]
            for t, r in ((tokens, requests), (tokens + more, requests), (tokens, requests + 1))
        )
        assert few <= long
        assert few < many


def test_held_takes_arrays():
    tokens, requests = np.array([[1, 500, 70_000]]), np.array([[1], [32]])
    for model in (known("gpt-oss-20b"), known("granite-4.0-h-small"), load_model("deepseek-ai/DeepSeek-V4-Flash")):
        (table,) = SGLANG.held(model, deployment(), tokens, requests)
        for i, r in enumerate((1, 32)):
            for j, t in enumerate((1, 500, 70_000)):
                assert table[i][j] == SGLANG.held(model, deployment(), t, r)[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(2**32, 2**38), st.sampled_from(["gpt-oss-20b", "granite-4.0-h-small", "llama-2-7b", "deepseek-v3"]))
def test_the_pool_is_as_large_as_the_memory(num_bytes, name):
    # SGLang allocates one page of rows in each pool beyond the bytes that it counted with.
    found = pool(known(name), num_bytes)
    extra = sum(group.num_layers * group.page_bytes for group in found.groups if group.kind != "linear")
    assert found.allocated_bytes <= num_bytes + extra
    assert num_bytes - found.allocated_bytes <= 2 * extra + cell(known(name))


def test_pages_of_backends():
    assert page_size(spec(LLAMA), deployment(attention_backend="fa4")) == 128
    assert page_size(spec(LLAMA), deployment()) == 1
    assert page_size(load_model("deepseek-ai/DeepSeek-V3.2"), deployment()) == 64


def test_version():
    assert find_engine("sglang@0.5.23").version == "0.5.23"
    assert find_engine("sglang@0.6").newer == "0.6"
    assert find_engine("sglang@0.5.17").newer == "0.5.17"
    with pytest.raises(InputError, match=r"0\.3"):
        find_engine("sglang@0.3")
    assert find_engine("sglang").newer is None


def test_a_pool_of_a_given_size_is_for_keys_and_values():
    # Qwen3-Next: 12 layers · 2 heads · (256 + 256) · 2 = 24,576 bytes a token; what an account leaves pays for states too.
    from kvplan import kv_pool

    model = load_model("Qwen/Qwen3-Next-80B-A3B-Instruct")
    given = kv_pool(model, engine="sglang", kv_memory_bytes=24_576 * 100_000, max_model_len=4096)
    shared = kv_pool(model, engine="sglang", kv_memory_bytes=24_576 * 100_000, max_model_len=4096, states_apart=False)
    assert given.num_tokens == 100_000 > shared.num_tokens
