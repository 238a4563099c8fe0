"""What stands beside a model in SGLang, held to what SGLang 0.5.23's own modules make of 14 drafts and 12 sets of slots.

`tests/data/engines/sglang_beside.jsonl`, made by `make_sglang.py` beside it: a configuration of `configs.jsonl`, a draft
or slots for adapters, and the bytes of a token, the tokens or the bytes of the buffers that came out.
"""

import json
from functools import cache
from pathlib import Path

import pytest

from kvplan import InputError, kv_pool, load_model
from kvplan.api import read_draft
from kvplan.core.dtypes import parse_dtype, parse_kv_dtype
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.sglang.adapters import lora_slots
from kvplan.core.engines.sglang.budget import graph_max_bs
from kvplan.core.engines.sglang.drafts import draft_weights, own_token_bytes
from kvplan.core.engines.sglang.layers import draft_layers, stages
from kvplan.core.engines.sglang.slots import cell_size, slots_for
from kvplan.core.engines.sglang.states import drafted_tokens
from kvplan.core.engines.table import find_engine
from kvplan.core.weights import draft_bytes as stored_draft
from kvplan.inverse import serve_check
from kvplan.sources.gpus import find_gpu
from tests.models import LLAMA, spec

DATA = Path(__file__).parents[2] / "data" / "engines"
ROWS = [json.loads(line) for line in (DATA / "sglang_beside.jsonl").read_text().splitlines()]
DRAFTS, ADAPTERS = [row for row in ROWS if "method" in row], [row for row in ROWS if "loras" in row]
EAGLE3 = DRAFTS[0]["draft"]
EAGLE = {**EAGLE3, "architectures": ["LlamaForCausalLMEagle"]}
GIB = 2**30
SGLANG = find_engine("sglang").pooled
LLAMA_8B = "meta-llama/Llama-3.1-8B"


@cache
def configs():
    rows = map(json.loads, (DATA / "configs.jsonl").read_text().splitlines())
    return {row["model"]: row["config"] for row in rows}


def deployment(draft=None, kv_dtype="bf16", dtype="bf16", **given):
    names = {n: given.pop(n) for n in ("tp", "pp", "dp", "dcp", "gpu", "memory_share") if n in given}
    key = parse_kv_dtype(kv_dtype)
    return Deployment(
        dtype=parse_dtype(dtype), key_dtype=key, value_dtype=key, max_model_len=4096, draft=draft,
        switches=Switches(**given), **names,
    )  # fmt: skip


def drafting(row):
    draft = row["draft"]
    config = configs()[draft] if isinstance(draft, str) else draft
    return deployment(
        None if config is None else spec(config), row.get("kv", "bf16"), tp=row.get("tp", 1),
        block_size=row.get("page", 1), speculative_method=row["method"],
    )  # fmt: skip


def draft_bytes(draft, **given):
    model = load_model(LLAMA_8B)
    return draft_weights(model, deployment(None if draft is None else spec(draft), **given)).num_bytes


def named(row):
    draft = row["draft"] if isinstance(row["draft"], str) else row["draft"] and row["draft"]["architectures"][0]
    return f"{row['model']}-{draft}-tp{row.get('tp', 1)}"


@pytest.mark.parametrize("row", DRAFTS, ids=named)
def test_a_token_and_the_tokens_beside_a_draft(row):
    given, model = drafting(row), spec(configs()[row["model"]])
    (stage,) = stages(model, given)
    slots = slots_for(stage, given, row["kv_bytes"], row.get("page", 1))
    assert cell_size(stage, given) == row["cell"]
    assert (slots.total, slots.sliding) == (row["tokens"], row["sliding"] or 0)


@pytest.mark.parametrize("row", ADAPTERS, ids=lambda row: f"{row['model']}-{'+'.join(row['modules'])}-tp{row['tp']}")
def test_slots_for_adapters_are_sglangs_own_buffers(row):
    given = deployment(
        tp=row["tp"], max_loras=row["loras"], max_lora_rank=row["rank"], lora_target_modules=tuple(row["modules"])
    )
    assert lora_slots(spec(configs()[row["model"]]), given).num_bytes == row["bytes"]


@pytest.mark.parametrize(
    ("draft", "given", "expected"),
    [
        # fc 3 · 4096 · 4096; q, k, v of 8192 into 4096 + 2 · 1024; o; 3 · 4096 · 14336; four norms; 32,000 tokens out,
        # 128,256 in: 950,026,240 elements of 2 bytes
        (EAGLE3, {}, 2 * (50_331_648 + 50_331_648 + 16_777_216 + 176_160_768 + 4 * 4096 + (128_256 + 32_000) * 4096)),
        # Half of the tables and of the layer on each of two ranks; fc and norms whole.
        (EAGLE3, {"tp": 2}, 2 * (50_331_648 + (243_269_632 + 656_408_576) // 2 + 4 * 4096)),
        (EAGLE3, {"dtype": "fp32"}, 4 * 950_026_240),
        # fc 2 · 4096 · 4096 and its bias; a layer of Llama without its first norm; both tables
        (EAGLE, {}, 2 * (33_554_432 + 4096 + 218_103_808 + 4096 + 2 * 128_256 * 4096)),
    ],
    ids=["eagle3", "tp2", "fp32", "eagle"],
)
def test_the_weights_of_a_head(draft, given, expected):
    method = "eagle" if draft is EAGLE else "eagle3"
    assert draft_bytes(draft, speculative_method=method, **given) == expected


def test_what_else_a_head_holds():
    def size(**changes):
        return draft_bytes(EAGLE3 | changes, speculative_method="eagle3") - draft_bytes(
            EAGLE3, speculative_method="eagle3"
        )

    layers = {"eagle_aux_hidden_state_layer_ids": [1, 2, 3, 4], "norm_before_fc": True}
    assert size(num_aux_hidden_states=1) == -2 * 2 * 4096**2
    assert size(eagle_config=layers) == 2 * (4096**2 + 4 * 4096)
    assert size(fc_norm=True) == 2 * 3 * 4096
    # A second layer reads 4096 elements, not 8192; a head without `draft_vocab_size` has the whole vocabulary.
    assert size(num_hidden_layers=2) == 2 * (218_103_808 + 3 * 4096)
    assert size(draft_vocab_size=None) == 2 * (128_256 - 32_000) * 4096
    assert size(tie_word_embeddings=True) == -2 * 32_000 * 4096


def test_a_draft_in_fp32_is_loaded_in_16_bits():
    assert draft_bytes(EAGLE3 | {"torch_dtype": "float32"}, speculative_method="eagle3") == 2 * 950_026_240


def test_layers_for_multi_token_prediction_are_loaded_with_both_tables():
    # Qwen3.5-27B logs 5.46 GB; its copy was quantised, this one is not: 248,320 · 5120 · 2 bytes twice, and the layer.
    model = load_model("Qwen/Qwen3.5-27B", overrides={"text_config.mtp_num_hidden_layers": 1})
    held = draft_weights(model, deployment(speculative_method="mtp")).num_bytes
    tables = 2 * 248_320 * 5120 * 2
    assert held - tables == 2 * sum(weight.num_parameters for weight in model.draft.weights)
    assert held / GIB == pytest.approx(5.46, rel=0.02)
    # DeepSeek-V3 stores its own copies: nothing comes on top.
    deepseek = load_model("deepseek-ai/DeepSeek-V3")
    given = deployment(speculative_method="mtp")
    own = draft_weights(deepseek, given).num_bytes
    assert own == stored_draft(deepseek, parse_dtype("bf16"), deepseek.quantization)


def test_a_head_that_nobody_names_is_assumed():
    found = draft_weights(load_model(LLAMA_8B), deployment(speculative_method="eagle3"))
    # A layer of Llama, 3 · 4096 · 4096, both tables of 128,256 · 4096
    assert found.num_bytes == 2 * (218_103_808 + 2 * 4096 + 3 * 4096**2 + 2 * 128_256 * 4096)
    assert found.basis == "assumed"
    assert found.spread_bytes > found.num_bytes // 2


@pytest.mark.parametrize(("method", "expected"), [(None, 0), ("ngram", 0), ("eagle", 1)])
def test_layers_that_are_counted_where_no_draft_is_named(method, expected):
    given = deployment(speculative_method=method)
    assert draft_layers(spec(LLAMA), given) == (expected, 0)
    assert (draft_weights(spec(LLAMA), given) is None) == (expected == 0)


def test_the_pool_of_a_draft_has_its_own_shape():
    # Llama-3.2-1B: 16 layers · 8 heads · 64 · 2 · 2 bytes; SGLang counts 16 of the model's 32 layers for it.
    model, draft = load_model(LLAMA_8B), load_model("meta-llama/Llama-3.2-1B")
    given = deployment(draft, speculative_method="draft_model")
    found = SGLANG.pool(model, given, 48 * GIB)
    (stage,) = stages(model, given)
    assert stage.draft_bytes == 65_536
    assert own_token_bytes(model, given, stage.draft_bytes) == (32_768, 0)
    assert found.num_tokens == 48 * GIB // 196_608
    assert found.allocated_bytes == (found.num_tokens + 1) * (131_072 + 32_768)
    assert any("8.00 GB" in note and "draft" in note for note in found.notes)


def test_both_pools_of_a_draft_that_slides():
    # gpt-oss: 8 heads · 64 · 2 · 2 bytes; 12 of 24 layers slide.
    model, draft = spec(configs()["gpt-oss-120b"]), spec(configs()["gpt-oss-20b"])
    given = deployment(draft, speculative_method="draft_model")
    assert draft_layers(model, given) == (24, 12)
    assert own_token_bytes(model, given, 0) == (12 * 2048, 12 * 2048)
    found = SGLANG.pool(model, given, 48 * GIB)
    sliding = int(found.num_tokens * 0.8)
    assert found.allocated_bytes == 30 * 2048 * (found.num_tokens + 1 + sliding + 1)


def test_a_pool_wider_than_its_share_comes_out_of_the_rest():
    # Kimi-K2 counts 1152 bytes for a layer; the head has 4 heads · 112 · 2 · 2 bytes a token on each of 2 ranks.
    model = spec(configs()["kimi-k2"])
    draft = spec(EAGLE3 | {"hidden_size": 7168, "num_attention_heads": 64, "vocab_size": 163_840})
    given = deployment(draft, speculative_method="eagle3", tp=2, gpu=find_gpu("B300"), memory_share=0.9)
    (account,) = SGLANG.budget(model, given, (200 * GIB,))
    found = SGLANG.pool(model, given, account.kv_memory_bytes)
    beyond = next(item for item in account.untaken if "draft" in item.name)
    assert beyond.num_bytes == (found.num_tokens + 1) * (2 * 4 * 112 * 2 - 1152)


def test_the_account_pays_for_draft_and_slots_before_the_pool():
    model, draft = load_model(LLAMA_8B), spec(EAGLE3)
    gpu = find_gpu("H100")
    plain, beside = (
        SGLANG.budget(model, deployment(head, gpu=gpu, memory_share=0.8, **given), (15 * GIB,))[0]
        for head, given in (
            (None, {}), (draft, {"speculative_method": "eagle3", "max_loras": 8, "lora_target_modules": ("q_proj",)})
        )
    )  # fmt: skip
    # 8 slots of rank 16 of 32 layers: 3 · 4096 in, 4096 + 2 · 1024 out
    slots = 8 * 16 * 32 * (3 * 4096 + 6144) * 2
    assert plain.kv_memory_bytes - beside.kv_memory_bytes == 2 * 950_026_240 + slots


def test_older_versions_load_what_drafts_after_the_pools():
    given = deployment(spec(EAGLE3), gpu=find_gpu("H100"), memory_share=0.8, speculative_method="eagle3")
    new, old = (
        find_engine(f"sglang@{version}").pooled.budget(load_model(LLAMA_8B), given, (15 * GIB,))[0]
        for version in ("0.5.14", "0.5.13.post1")
    )
    assert old.kv_memory_bytes - new.kv_memory_bytes == 2 * 950_026_240
    assert old.untaken[0].name == "draft weights"


def test_graphs_are_captured_for_at_most_the_requests_that_are_asked_for():
    gpu = find_gpu("H100")
    assert [graph_max_bs(deployment(gpu=gpu, max_num_seqs=asked)) for asked in (None, 16, 1000)] == [256, 16, 256]
    assert graph_max_bs(deployment(gpu=gpu, max_num_seqs=16, cuda_graph_max_bs=64)) == 64
    # The 48 requests of drafting are set after that.
    assert graph_max_bs(deployment(gpu=gpu, speculative_method="eagle")) == 256


@pytest.mark.parametrize(
    ("method", "asked", "expected"), [(None, 0, 0), ("eagle3", 5, 6), ("eagle3", 0, 4), ("ngram", 0, 12)]
)
def test_tokens_that_are_verified_at_once(method, asked, expected):
    assert drafted_tokens(deployment(speculative_method=method, num_speculative_tokens=asked)) == expected


@pytest.mark.parametrize(
    ("draft", "given", "words"),
    [
        (None, {"speculative_method": "draft_model"}, "nothing names"),
        (None, {"speculative_method": "eagle", "draft_model": "o/d"}, "`o/d` was not read"),
        ({}, {"speculative_method": "eagle3"}, "drafts by `eagle3`"),
        (EAGLE3, {"speculative_method": "eagle"}, "drafts by `eagle`"),
        (EAGLE3 | {"hidden_size": 2048}, {"speculative_method": "eagle3"}, "states of 2048 elements"),
        (EAGLE3 | {"target_hidden_size": 2048}, {"speculative_method": "eagle3"}, "states of 2048 elements"),
        (EAGLE3, {"speculative_method": "draft_model"}, "128,256 tokens of the draft"),
        ({}, {"speculative_method": "draft_model", "tp": 2, "dp": 2, "attention_dp": True}, "STANDALONE"),
        (
            {"num_attention_heads": 2, "num_key_value_heads": 2},
            {"speculative_method": "draft_model", "tp": 4},
            "2 heads",
        ),
        (EAGLE3, {"speculative_method": "eagle3", "pp": 2}, "pipeline stages"),
        ({}, {"speculative_method": "draft_model", "max_loras": 1}, "no LoRA beside"),
        (None, {"max_loras": 1, "tp": 4, "dp": 2, "attention_dp": True}, "`dp` is `tp`"),
    ],
)
def test_what_cannot_stand_beside(draft, given, words):
    beside = None if draft is None else spec({**LLAMA, **draft})
    with pytest.raises(InputError) as error:
        SGLANG.check(spec(LLAMA), deployment(beside, **given))
    assert words in str(error.value)


def test_a_checkpoint_with_layers_of_its_own_is_no_whole_draft():
    model = load_model("deepseek-ai/DeepSeek-V3")
    with pytest.raises(InputError, match="multi-token prediction alone"):
        SGLANG.check(model, deployment(model, speculative_method="draft_model"))
    # The same checkpoint named as a head is its own layer.
    given = deployment(model, speculative_method="eagle")
    SGLANG.check(model, given)
    alone = deployment(speculative_method="mtp")
    assert draft_layers(model, given) == draft_layers(model, alone) == (1, 0)
    assert draft_weights(model, given).num_bytes == draft_weights(model, alone).num_bytes
    assert own_token_bytes(model, given, 0) == own_token_bytes(model, alone, 0) == (1152, 0)


def test_slots_of_layers_that_are_not_known_are_assumed():
    slots = {"max_loras": 8, "lora_target_modules": ("all",)}
    hybrid = lora_slots(load_model("Qwen/Qwen3-Next-80B-A3B-Instruct"), deployment(**slots))
    assert (hybrid.basis, hybrid.spread_bytes) == ("assumed", hybrid.num_bytes // 3)
    assert lora_slots(spec(LLAMA), deployment(**slots)).basis == "derived"
    assert lora_slots(spec(LLAMA), deployment()) is None
    # Nothing named is everything.
    assert lora_slots(spec(LLAMA), deployment(max_loras=8)) == lora_slots(spec(LLAMA), deployment(**slots))


def test_experts_that_are_dealt_out_whole():
    # 128 experts of 768: on 4 ranks 32 whole ones or 128 of 192, of 48 layers; 2 · (2048 + w) + (w + 2048) each
    model = spec(configs()["qwen3-30b-a3b"])
    slots = {"max_loras": 1, "max_lora_rank": 1, "lora_target_modules": ("down_proj",), "tp": 4}
    assert lora_slots(model, deployment(**slots)).num_bytes == 2 * 48 * 128 * (2048 + 192)
    assert lora_slots(model, deployment(**slots, expert_parallel=True)).num_bytes == 2 * 48 * 32 * (2048 + 768)


def test_a_draft_is_read_as_any_model_is(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(EAGLE3))
    line = (
        f"python -m sglang.launch_server --model-path {LLAMA_8B} --speculative-algorithm EAGLE3"
        f" --speculative-draft-model-path {tmp_path} --speculative-num-steps 3 --speculative-eagle-topk 4"
    )
    found = serve_check(line, "H100", offline=True)
    assert found.starts
    assert found.fit.serving.draft.architecture == "LlamaForCausalLMEagle3"
    same = kv_pool(LLAMA_8B, engine="sglang", gpu="H100", draft=spec(EAGLE3), speculative_method="eagle3")
    by_path = kv_pool(
        LLAMA_8B, engine="sglang", gpu="H100", draft_model=str(tmp_path), speculative_method="eagle3",
        num_speculative_tokens=3,
    )  # fmt: skip
    assert same.num_tokens == by_path.num_tokens < kv_pool(LLAMA_8B, engine="sglang", gpu="H100").num_tokens


def test_a_draft_that_cannot_be_read_is_one_sentence():
    switches = Switches(speculative_method="eagle3", draft_model="nobody/has-this-head")
    with pytest.raises(Exception, match="the draft model cannot be read: `nobody/has-this-head`") as error:
        read_draft("sglang", switches, offline=True)
    assert "local folder" in error.value.hint
    # An engine that plans none asks for none.
    assert read_draft("vllm", switches, offline=True) is None
