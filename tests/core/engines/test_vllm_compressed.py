"""DeepSeek-V4 in vLLM: pages worked by hand, 184 configurations planned by older releases' own code, a public log.

`tests/data/engines/vllm_older.jsonl`: `make_vllm_older.py` ran each release's planning functions. What 0.33 made of the
model is in `vllm.jsonl`, with that of the others.
"""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import InputError, KvplanError, UnsupportedError, estimate
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.vllm.extras import draft_weights
from kvplan.core.engines.vllm.loading import rotary_bytes
from kvplan.core.engines.vllm.packed import packed_groups
from kvplan.core.engines.vllm.pages import Spec
from kvplan.core.engines.vllm.pool import layout
from kvplan.core.engines.vllm.rules import rules_of
from kvplan.sources.catalog import load
from tests.core.engines.test_vllm import DATA, GIB, configs, deployment, pool
from tests.models import spec

FLASH, PRO = "deepseek-v4-flash", "deepseek-v4-pro"
PLAIN = "FLASHINFER_MLA_SPARSE_DSV4"
OLDER = [json.loads(line) for line in (DATA / "vllm_older.jsonl").read_text().splitlines()]


def model_of(name):
    return spec(configs()[name])


def pages(name, **given):
    """(kind, tokens of a block, window) of each cache and its page."""
    asked = deployment(**given)
    groups = layout(model_of(name), asked, rules_of(None)[0]).groups
    return {(s.kind, s.block_size, s.window): s.page_bytes for group in groups for _, s in group.layers}


def test_pages_by_hand():
    # Rows of 448 + 64 · 2 + 8 = 584 bytes, keys of 128 + 4; values and gates in fp32, 2 · 512 and 2 · 128 of them, twice
    # as many where entries overlap. Pages are multiples of 576 bytes.
    groups = layout(model_of(FLASH), deployment(), rules_of(None)[0]).groups
    found = [sorted({s.page_bytes for _, s in group.layers}) for group in groups]
    window = 65 * 576  # ⌈64 · 584 / 576⌉
    assert found[:2] == [[window], [window]]
    assert found[2] == [3 * 576, 15 * 576, 65 * 576]  # 2 rows, 64 keys of 132 bytes, 64 rows
    assert found[3] == [15 * 576, 57 * 576]  # 4 tokens · 512 · 4 bytes, 4 · 2048 · 4
    assert found[4] == [57 * 576]  # 8 · 1024 · 4


def test_pages_of_one_format_by_hand():
    found = pages(FLASH, arch="10.0", attention_backend=PLAIN)
    assert found["latent_sliding", 64, 128] == 64 * 512 * 2
    assert found["waiting", 8, 128] == 8 * 1024 * 4
    fp8 = pages(FLASH, arch="10.0", attention_backend=PLAIN, kv_dtype="fp8")
    assert fp8["latent_sliding", 64, 128] == 64 * 512
    assert fp8["indexer", 256, None] == 17 * 512  # 64 · 132 = 8,448


def test_a_block_is_as_wide_as_the_entries_of_all_layers():
    # Flash: 21 layers of 4 tokens an entry, 20 of 128.
    assert pool(model_of(FLASH), GIB).bytes_per_block == 21 * (37440 + 8640) + 20 * 1728
    assert pool(model_of(PRO), GIB).bytes_per_block == 30 * (37440 + 8640) + 31 * 1728


@pytest.mark.parametrize("row", OLDER, ids=[f"{i} {row['version']}" for i, row in enumerate(OLDER)])
def test_pool_is_what_an_older_release_plans(row):
    given = {name: row[name] for name in ("pp", "max_model_len", "max_num_batched_tokens")}
    if row["num_gpu_blocks_override"]:
        given["num_gpu_blocks_override"] = row["num_gpu_blocks_override"]
    if row["drafts"]:
        given |= {"num_speculative_tokens": 1, "speculative_method": "mtp"}
    if row["rows"] != "fp8_ds_mla":
        given["attention_backend"] = PLAIN
    asked = deployment(arch="10.0", kv_dtype="auto" if row["rows"] == "bf16" else row["rows"], **given)
    model, engine = model_of(row["model"]), find_engine(f"vllm@{row['version']}").pooled
    engine.check(model, asked)
    found, want = engine.pool(model, asked, row["kv_memory_bytes"]), row["expect"]
    assert found.num_blocks == want["num_blocks"]
    assert found.max_concurrency == want["max_concurrency"]
    assert found.bytes_per_block == want["bytes_per_block"]
    assert found.longest_request == want["longest"]
    groups = layout(model, asked, rules_of(row["version"])[0]).groups
    ours = [[len(group.layers), group.first.block_size, group.page_bytes()] for group in groups]
    assert sorted(ours) == sorted(want["groups"])


def test_tokens_of_0_20_are_blocks_of_a_group():
    # 48 GiB / 1,051,776 = 49,002 blocks in 5 groups, the least block has 4 tokens.
    found = pool(model_of(FLASH), 48 * GIB, "vllm@0.20", kv_dtype="fp8", max_model_len=65536)
    assert (found.num_blocks, found.num_tokens) == (49002, 39200)


def test_a_public_refusal_of_0_22():
    """vllm-project/vllm#44376, 2 × GH200: "6.66 GiB KV cache is needed", 5.44 GiB were there, 13,528 tokens at most."""
    given = {"kv_dtype": "fp8", "max_model_len": 30000, "max_num_batched_tokens": 16384, "tp": 2, "block_size": 256}
    found = pool(model_of(FLASH), int(5.441 * GIB), "vllm@0.22", **given)
    assert round(found.blocks_per_request * found.bytes_per_block / GIB, 2) == 6.66
    assert not found.fits_one
    # 5.44 GiB is rounded: from 5.435 to 5.445.
    low, high = (pool(model_of(FLASH), int(x * GIB), "vllm@0.22", **given).longest_request for x in (5.435, 5.445))
    assert low <= 13528 <= high
    assert found.longest_request == 13528


REFUSED = [
    ({"block_size": 128}, "blocks of 256"),
    ({"block_size": 512}, "blocks of 256"),
    ({"tp": 8, "dcp": 2}, "decode context"),
    ({"hybrid_manager": False}, "hybrid manager"),
    ({"kv_dtype": "nvfp4_ds_mla"}, "fp8_ds_mla"),
    ({"kv_dtype": "int8_per_token_head"}, "fp8_ds_mla"),
    ({"arch": "8.0", "kv_dtype": "fp8_ds_mla"}, "compute capability 8.0"),
    ({"arch": "10.0", "attention_backend": "FLASHINFER_MLA_SPARSE"}, "not a backend of DeepSeek-V4"),
    ({"arch": "9.0", "attention_backend": PLAIN}, "on Blackwell"),
    ({"arch": "10.0", "attention_backend": PLAIN, "kv_dtype": "fp8_ds_mla"}, "bf16 or fp8"),
    ({"arch": "12.0", "attention_backend": "FLASHMLA_SPARSE"}, "compute capability 12"),
    ({"kv_dtype": "bf16"}, "fp8_ds_mla"),
    ({"tp": 16, "kv_dtype": "fp8"}, "8 groups of the output projection"),
    ({"num_speculative_tokens": 3, "speculative_method": "eagle"}, "by `eagle` is not known"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_what_is_refused(given, words):
    with pytest.raises(KvplanError, match=words):
        find_engine("vllm").pooled.check(model_of(FLASH), deployment(**given))


@pytest.mark.parametrize(
    ("version", "given", "words"),
    [
        ("0.19", {"kv_dtype": "fp8"}, "from 0.20 on"),
        ("0.22", {"arch": "10.0", "attention_backend": PLAIN, "kv_dtype": "fp8"}, "from vLLM 0.23 on"),
        ("0.23", {"arch": "12.0", "kv_dtype": "fp8"}, "compute capability 12.0"),
    ],
)
def test_what_older_releases_lack(version, given, words):
    with pytest.raises(KvplanError, match=words):
        find_engine(f"vllm@{version}").pooled.check(model_of(FLASH), deployment(**given))


def test_what_they_take():
    """Each beside one of the refusals above."""
    for version, flags in (
        ("0.20", {"kv_dtype": "fp8"}),
        ("0.30", {"kv_dtype": "fp8_ds_mla"}),
        ("0.23", {"arch": "10.0", "attention_backend": PLAIN, "kv_dtype": "fp8"}),
        ("0.24", {"arch": "12.0", "kv_dtype": "fp8"}),
        ("0.33", {"tp": 8, "kv_dtype": "fp8", "num_speculative_tokens": 3, "speculative_method": "mtp"}),
    ):
        find_engine(f"vllm@{version}").pooled.check(model_of(FLASH), deployment(**flags))


def test_the_layout_on_other_makers_gpus_is_not_known():
    asked = deployment(kv_dtype="fp8")
    amd = replace(asked, gpu=replace(asked.gpu, vendor="AMD", arch="gfx950"))
    with pytest.raises(UnsupportedError, match="AMD"):
        find_engine("vllm").pooled.check(model_of(FLASH), amd)


def test_backends_of_the_model_are_no_other_models():
    with pytest.raises(InputError, match="not an attention backend of `llama`"):
        pool(load("meta-llama/Llama-3.1-8B"), GIB, attention_backend=PLAIN)
    with pytest.raises(InputError, match="not an attention backend of vLLM"):
        pool(model_of(FLASH), GIB, attention_backend="NONSENSE")


def test_entries_of_another_length_are_not_known():
    changed = {**configs()[FLASH], "compress_rate_hca": 64}
    with pytest.raises(UnsupportedError, match="4 or 128"):
        pool(spec(changed), GIB)


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V4-Pro", "nvidia/DeepSeek-V4-Flash-NVFP4"])
def test_a_ratio_more_than_there_are_layers_is_a_draft(name):
    assert load(name).draft.num_layers == 1


def test_a_checkpoint_without_such_a_ratio_has_no_draft():
    assert load("RedHatAI/DeepSeek-V4-Flash-NVFP4-FP8").draft is None


def test_weights_of_the_draft_and_tables_of_positions():
    """vLLM 0.33's own classes on the meta device, as rank 0 of 8.

    The draft less its table and head, which are the model's: 753,711,916 − 2 · 132,382,720 bytes; the states of 8,192
    tokens in 4 streams; fp32 tables of 1,048,576 positions · 64, one for layers with entries and one for those without.
    """
    given = {"tp": 8, "num_speculative_tokens": 1, "speculative_method": "mtp", "max_num_batched_tokens": 8192}
    found = draft_weights(model_of(FLASH), deployment(**given), 0)
    assert found.num_bytes - 8192 * 4 * 4096 * 2 == pytest.approx(488_946_476, abs=100_000)
    table = 1_048_576 * 64 * 4
    flash, pro = model_of(FLASH), model_of(PRO)
    assert rotary_bytes(flash, deployment(), flash.layers) == 2 * table
    assert rotary_bytes(pro, deployment(), pro.layers) == table
    assert rotary_bytes(pro, deployment(), pro.layers, pro.draft.mixers) == 2 * table


def test_the_format_that_nobody_names():
    """attention.py `_resolve_kv_cache_dtype` of 0.30 and later; earlier releases stop."""
    asked = {"gpu": "B200", "tp": 8, "seq_len": 4096}
    assert estimate("deepseek-ai/DeepSeek-V4-Flash", engine="vllm@0.30", **asked).serving.kv_dtype.name == "fp8_ds_mla"
    plain = estimate("deepseek-ai/DeepSeek-V4-Flash", engine="vllm", attention_backend=PLAIN, **asked)
    assert plain.serving.kv_dtype.name == "bf16"
    for version, named in (("0.29", {}), ("0.33", {"kv_dtype": "bf16"})):
        with pytest.raises(InputError, match="in fp8_ds_mla, not in bf16"):
            estimate("deepseek-ai/DeepSeek-V4-Flash", engine=f"vllm@{version}", **asked, **named)


def test_a_plan_holds_what_the_groups_hold():
    plan = estimate("deepseek-ai/DeepSeek-V4-Flash", engine="vllm", gpu="H200", num_gpus=8, seq_len=65536)
    found = {row.kind: row.reserved_bytes for row in plan.kv_cache.layers}
    assert sum(found.values()) == plan.pool.blocks_per_request * plan.pool.bytes_per_block
    assert plan.pool.fits_one


@given(
    st.lists(st.sampled_from([0, 4, 128]), min_size=1, max_size=24),
    st.sampled_from([(0, 20), (0, 23), (0, 27), (0, 29), (0, 33)]),
)
def test_every_cache_stands_in_one_group(ratios, release):
    layers = []
    for i, ratio in enumerate([4, *ratios]):
        layers.append((i, Spec(kind="latent_sliding", block_size=64, window=128, padded_bytes=37440)))
        if ratio:
            page = 37440 if ratio == 4 else 1728
            layers.append((i, Spec(kind="compressed", block_size=256, padded_bytes=page)))
            layers.append((i, Spec(kind="waiting", block_size=4 * (2 - (ratio == 4)), window=8, padded_bytes=32832)))
        if ratio == 4:
            layers.append((i, Spec(kind="indexer", block_size=256, padded_bytes=8640)))
            layers.append((i, Spec(kind="waiting", block_size=4, window=8, padded_bytes=8640)))
    groups = packed_groups(layers, release)
    together = [(layer, s.kind, s.block_size) for group in groups for layer, s in group.layers]
    assert sorted(together) == sorted((layer, s.kind, s.block_size) for layer, s in layers)
    assert all(len({s.block_size for _, s in group.layers}) == 1 for group in groups)
