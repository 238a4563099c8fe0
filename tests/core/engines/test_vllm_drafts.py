"""What drafts in vLLM, held to the parameters of vLLM 0.33's own classes, and worked by hand.

`draft_bytes` of a row in `tests/data/engines/vllm.jsonl`: the draft's table of tokens, its output head, all else.
"""

import json
from dataclasses import replace

import pytest

from kvplan import InputError, UnsupportedError, kv_pool
from kvplan.api import read_draft
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.vllm.activations import draft_states_bytes, profile_of
from kvplan.core.engines.vllm.drafts import held_weights, pass_layers
from kvplan.core.engines.vllm.extras import draft_buffers, draft_weights
from kvplan.core.engines.vllm.loading import extra_weights
from kvplan.core.engines.vllm.runner import runs_on_v2
from kvplan.core.errors import HubError
from kvplan.core.units import GIB
from kvplan.inverse import serve_check
from kvplan.sources.catalog import load
from tests.command import refusal_of
from tests.core.engines.test_vllm import ROWS, configs, deployment, draft_of
from tests.models import spec

DRAFTS = [row for row in ROWS if "draft_bytes" in row]
NOW = (0, 33)
LLAMA_8B = "meta-llama/Llama-3.1-8B"
EAGLE3 = {
    "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 1, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 131072, "vocab_size": 128256, "draft_vocab_size": 32000,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
# fc 3 · 4096 · 4096; q, k, v of 8192 into 4096 + 2 · 1024; o; 3 · 4096 · 14336; four norms
LAYER = 50_331_648 + 50_331_648 + 16_777_216 + 176_160_768 + 4 * 4096


def asked(draft=None, method="eagle3", tokens=3, **given):
    found = deployment(speculative_method=method, num_speculative_tokens=tokens, **given)
    return replace(found, draft=spec(draft) if isinstance(draft, dict) else draft)


def size(draft, method="eagle3", model=LLAMA_8B, **given):
    return draft_weights(load(model), asked(draft, method, **given), 0).num_bytes


@pytest.mark.parametrize("row", DRAFTS, ids=[row["id"] for row in DRAFTS])
def test_a_draft_has_the_parameters_of_vllms_own_class(row):
    how = {name: tuple(v) if isinstance(v, list) else v for name, v in row["switches"].items()}
    layout = {name: row[name] for name in ("dtype", "tp", "pp", "dcp")}
    given = replace(deployment(arch=row["gpu"], **layout, **how), draft=draft_of(row))
    model, method = spec(configs()[row["model"]]), row["switches"]["speculative_method"]
    table, head, rest = row["draft_bytes"]
    if method != "draft_model" and given.draft.hidden_size == model.hidden_size:
        table = 0
    if method == "eagle":
        head = 0
    found = draft_weights(model, given, row["pp"] - 1)
    # The int64 that map a head's tokens are a parameter of vLLM's class, too. Its tables are padded to 64 rows, experts
    # in mxfp4 to what the kernel takes; a head's quantised matrix that joins is within the spread.
    padding = extra_weights(model, given, row["pp"] - 1).num_bytes if given.draft.quantization else 0
    assert found.num_bytes - found.spread_bytes <= (table + head + rest) * 1.002
    assert table + head + rest <= (found.num_bytes + padding) * 1.002
    assert found.basis == "derived"
    assert draft_weights(model, replace(given, draft=None, switches=Switches()), row["pp"] - 1) is None


def test_weights_of_a_head_by_hand():
    assert size(EAGLE3) == 2 * (LAYER + 32_000 * 4096) + 8 * 32_000
    # Half of the layer's matrices and of the head on each of two ranks; fc, norms and the map whole.
    halved = LAYER - 50_331_648 - 4 * 4096 + 32_000 * 4096
    assert size(EAGLE3, tp=2) == 2 * (50_331_648 + 4 * 4096 + halved // 2) + 8 * 32_000
    # EAGLE-1: fc 2 · 4096 · 4096 without a bias, Llama's layer without its first norm; tables and norm are the model's.
    eagle = EAGLE3 | {"architectures": ["LlamaForCausalLMEagle"]}
    assert size(eagle, "eagle") == 2 * (33_554_432 + 218_103_808 + 4096)
    whole = load("meta-llama/Llama-3.2-1B")
    assert size(whole, "draft_model") == 2 * 1_235_814_400


def test_a_head_that_is_not_known_is_a_layer_without_experts():
    llama, mixed = size(None), size(None, model="openai/gpt-oss-120b")
    # As read above, but for what attention puts out, counted twice, too; a norm; and the map of tokens.
    assert llama == size(EAGLE3) + 2 * (16_777_216 - 2 * 4096) - 8 * 32_000
    # 0.53 GiB: the head that NVIDIA publishes, 17,280 wide.
    assert 0.5 * GIB < mixed < 0.6 * GIB
    found = draft_weights(load(LLAMA_8B), asked(), 0)
    assert found.basis == "assumed"
    assert found.spread_bytes == 2 * (218_103_808 + 2 * 4096)
    # EAGLE-1: a layer of 218,112,000 parameters, and 2 · 4096 × 4096 before it.
    assert size(None, "eagle") == 2 * (218_112_000 + 2 * 4096**2)
    with pytest.raises(UnsupportedError, match="caches latents"):
        find_engine("vllm").pooled.check(load("deepseek-ai/DeepSeek-V3"), asked(tp=8))


def test_what_stays_beside_a_head():
    llama, tokens = load(LLAMA_8B), {"max_num_batched_tokens": 8192}
    # One vector of 4096 a token in the newer runner, two in the older; ids and positions of 24 bytes.
    newer, older = (draft_buffers(llama, asked(EAGLE3, **tokens), release, 0).num_bytes for release in (NOW, (0, 19)))
    assert (newer, older) == (8192 * (4096 * 2 + 24), 8192 * (2 * 4096 * 2 + 24))
    assert draft_buffers(llama, deployment(), NOW, 0) is None
    # Three states of a token that the model hands to EAGLE-3; none to EAGLE-1.
    run = profile_of(llama, asked(EAGLE3, **tokens), NOW, 0)
    assert draft_states_bytes(run) == 8192 * 3 * 4096 * 2
    assert draft_states_bytes(replace(run, deployment=asked(None, "eagle", **tokens))) == 0


def test_a_named_draft_has_tables_of_its_own_only_where_they_differ():
    llama = load(LLAMA_8B)
    plain = extra_weights(llama, deployment(), 0).num_bytes
    assert extra_weights(llama, asked(EAGLE3), 0).num_bytes == plain
    # 4096 positions of 128 elements of 2 bytes; as long as the longest request where it is made for less.
    short = extra_weights(llama, asked(EAGLE3 | {"max_position_embeddings": 2048}, max_model_len=4096), 0).num_bytes
    assert short == plain + 4096 * 128 * 2
    narrow = spec(EAGLE3 | {"hidden_size": 2048, "target_hidden_size": 4096})
    names = [weight.shape for weight, _ in held_weights(llama, narrow, "eagle3") if weight.part == "embeddings"]
    assert (128256, 2048) in names


def test_which_runner_drafts():
    llama = load(LLAMA_8B)
    for method, release, newer in (
        ("eagle3", (0, 23), True),
        ("draft_model", (0, 30), False),
        ("draft_model", (0, 31), True),
        ("ngram", (0, 31), False),
        ("ngram", (0, 32), True),
        ("medusa", NOW, False),
    ):
        assert runs_on_v2(llama, asked(None, method), release) is newer
    assert not runs_on_v2(llama, asked(pp=2), (0, 29))
    assert runs_on_v2(llama, asked(pp=2), (0, 30))


def test_what_a_draft_caches():
    """A token of Llama-3.1-8B: 32 layers of 2 · 8 · 128 · 2 bytes; a head has one more, Llama-3.2-1B 16 of 64 wide."""
    token = 2 * 8 * 128 * 2
    given = {"engine": "vllm", "kv_memory_bytes": 2**35, "max_model_len": 4096, "num_speculative_tokens": 3}
    head = kv_pool(LLAMA_8B, speculative_method="eagle3", draft=spec(EAGLE3), **given)
    whole = kv_pool(LLAMA_8B, speculative_method="draft_model", draft="meta-llama/Llama-3.2-1B", **given)
    assert head.bytes_per_block == 16 * 33 * token
    assert whole.bytes_per_block == 16 * (32 + 16 // 2) * token


REFUSED = [
    (EAGLE3, {"method": "draft_model"}, "vocabular"),
    (EAGLE3 | {"hidden_size": 2048, "num_attention_heads": 16}, {}, "states of 2048"),
    (EAGLE3 | {"num_attention_heads": 30, "num_key_value_heads": 6, "head_dim": 128}, {"tp": 4}, "cannot be dealt out"),
    (EAGLE3, {"tokens": 0}, "how many tokens"),
    (EAGLE3, {"method": "eagle"}, "drafts by `eagle`"),
    (None, {"method": "draft_model"}, "names the model"),
    (None, {"method": None, "draft_model": "a/b"}, "how `a/b` drafts"),
    (None, {"method": "eagle", "pp": 2}, "numbers EAGLE's layers"),
]


@pytest.mark.parametrize(("draft", "given", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_what_vllm_does_not_start_with(draft, given, words):
    if words == "vocabular":
        draft = draft | {"architectures": ["LlamaForCausalLM"], "vocab_size": 32_000}
        draft.pop("draft_vocab_size")
    with pytest.raises((InputError, UnsupportedError), match=words):
        find_engine("vllm").pooled.check(load(LLAMA_8B), asked(draft, **given))


def test_whole_models_draft_from_0_15_on_and_on_one_stage():
    whole = load("meta-llama/Llama-3.2-1B")
    find_engine("vllm@0.15").pooled.check(load(LLAMA_8B), asked(whole, "draft_model"))
    # NotImplementedError of config/speculative.py, e.g. vllm-project/vllm issue 31883 for 0.13; before 0.10 the engine
    # before V1 ran it.
    for version in ("0.14", "0.11", "0.10"):
        with pytest.raises(InputError, match=r"runs no draft model before 0\.15"):
            find_engine(f"vllm@{version}").pooled.check(load(LLAMA_8B), asked(whole, "draft_model"))
    with pytest.raises(UnsupportedError, match=r"vLLM before 0\.10 runs a draft model"):
        find_engine("vllm@0.9").pooled.check(load(LLAMA_8B), asked(whole, "draft_model"))
    with pytest.raises(InputError, match="pipeline stages"):
        find_engine("vllm").pooled.check(load(LLAMA_8B), asked(whole, "draft_model", pp=2))


def test_a_draft_is_read_as_the_class_that_vllm_runs(tmp_path):
    plain = {name: value for name, value in EAGLE3.items() if name != "architectures"}
    (tmp_path / "config.json").write_text(json.dumps(plain | {"architectures": ["LlamaForCausalLM"]}))
    switches = Switches(speculative_method="eagle3", num_speculative_tokens=3, draft_model=str(tmp_path))
    found = read_draft("vllm", switches)
    assert found.architecture == "LlamaForCausalLMEagle3"
    assert size(found) == size(EAGLE3)
    assert read_draft("vllm", replace(switches, speculative_method="draft_model")).architecture == "LlamaForCausalLM"
    assert read_draft("vllm", replace(switches, speculative_method="ngram")) is None
    (tmp_path / "config.json").write_text(json.dumps(configs()["gemma-2-9b"]))
    with pytest.raises(UnsupportedError, match="a Gemma2ForCausalLM, drafts by `eagle3`"):
        read_draft("vllm", Switches(speculative_method="eagle3"), draft=tmp_path)


def test_a_draft_that_cannot_be_read_is_assumed_where_it_is_a_head():
    head = Switches(speculative_method="eagle3", num_speculative_tokens=3, draft_model="nobody/nothing")
    assert read_draft("vllm", head, offline=True) is None
    with pytest.raises(HubError, match="the draft model cannot be read"):
        read_draft("vllm", replace(head, speculative_method="draft_model"), offline=True)


def command(**config):
    return f"vllm serve {LLAMA_8B} --max-model-len 8192 --speculative-config '{json.dumps(config)}'"


def test_a_command_that_names_its_draft():
    given = {"model": "meta-llama/Llama-3.2-1B", "num_speculative_tokens": 3}
    found = serve_check(command(**given), gpu="H100", offline=True)
    draft = next(term for term in found.fit.boot.accounts[0].taken if term.name == "draft weights")
    assert draft.num_bytes == 2 * 1_235_814_400
    unread = serve_check(command(model="x/eagle3", num_speculative_tokens=3), gpu="H100", offline=True)
    assert any("`x/eagle3` was not read as a head" in note for note in unread.fit.boot.pool.notes)
    refused = serve_check(command(model="Qwen/Qwen3-0.6B", num_speculative_tokens=3), gpu="H100", offline=True)
    assert (refused.starts, "vocabularies differ" in refused.refusal) == (False, True)


def test_every_method_is_told_how_many_tokens():
    """config/speculative.py `_verify_args`; a named model's `n_predict` would count, where it was read."""
    for method, named in (("ngram", None), ("mtp", None), ("eagle3", "a/b"), ("draft_model", "a/b")):
        for version in ("vllm", "vllm@0.20"):
            given = deployment(speculative_method=method, draft_model=named)
            with pytest.raises(InputError, match="nothing says how many tokens"):
                find_engine(version).pooled.check(load(LLAMA_8B), given)
    assert "nothing says how many tokens" in str(refusal_of(command(method="ngram")))
    find_engine("vllm").pooled.check(load(LLAMA_8B), deployment(speculative_method="suffix"))
    named = deployment(speculative_method="mtp", draft_model="a/b")
    with pytest.raises(UnsupportedError, match="how many tokens `a/b` drafts by itself"):
        find_engine("vllm").pooled.check(load("Qwen/Qwen3.5-9B"), named)


def test_mtp_without_layers_for_it():
    reason = refusal_of(command(method="mtp", num_speculative_tokens=1))
    assert reason == f"`{LLAMA_8B}` stores no layers for multi-token prediction"
    asked_for = deployment(speculative_method="mtp", num_speculative_tokens=1)
    without = replace(load("Qwen/Qwen3.5-9B"), draft=None)
    with pytest.raises(UnsupportedError, match="kvplan finds no layers"):
        find_engine("vllm").pooled.check(without, asked_for)
    given = deployment(speculative_method="mtp", num_speculative_tokens=1, draft_model="a/b")
    with pytest.raises(UnsupportedError, match="what of `a/b` drafts"):
        find_engine("vllm").pooled.check(load(LLAMA_8B), given)


def test_a_draft_of_another_vocabulary():
    """151,936 tokens beside 128,256: int64 ids both ways, a mask (v1/spec_decode/vocab_mapping.py); the older runner."""
    draft, llama = load("Qwen/Qwen3-0.6B"), load(LLAMA_8B)
    given = asked(draft, "draft_model", heterogeneous_vocab=True)
    find_engine("vllm").pooled.check(llama, given)
    plain = asked(draft, "draft_model")
    more = draft_weights(llama, given, 0).num_bytes - draft_weights(llama, plain, 0).num_bytes
    assert more == 9 * 151_936 + 8 * 128_256
    assert (runs_on_v2(llama, plain, NOW), runs_on_v2(llama, given, NOW)) == (True, False)
    with pytest.raises(InputError, match="`draft_model` alone"):
        find_engine("vllm").pooled.check(llama, asked(EAGLE3, heterogeneous_vocab=True))


def test_a_method_that_vllm_has_and_kvplan_does_not_know_is_no_refusal():
    older = f"uv run --with vllm==0.19.0 {command(method='medusa', model='x/y', num_speculative_tokens=3)}"
    for line in (older, command(method="dflash", model="x/y", num_speculative_tokens=3)):
        with pytest.raises(UnsupportedError, match="loads to draft with is not known to kvplan"):
            serve_check(line, gpu="H100", offline=True)
    # 0.33's SpeculativeMethod has neither.
    for method in ("medusa", "foo"):
        reason = refusal_of(command(method=method, model="x/y", num_speculative_tokens=3))
        assert reason == f"vLLM has no method `{method}` to draft by"


def test_a_draft_of_fewer_tokens_is_noted():
    whole = replace(load("meta-llama/Llama-3.2-1B"), max_seq_len=4096)
    for engine, words in (
        ("vllm", "vLLM lowers max_model_len to it"),
        ("vllm@0.32", "longer requests are not drafted"),
    ):
        found = kv_pool(
            LLAMA_8B, engine=engine, kv_memory_bytes=2**35, max_model_len=8192, draft=whole,
            speculative_method="draft_model", num_speculative_tokens=3,
        )  # fmt: skip
        assert any(words in note for note in found.notes)


def test_layers_of_a_pass():
    llama = load(LLAMA_8B)
    assert pass_layers(llama, deployment()) == ()
    assert pass_layers(llama, asked(EAGLE3)) == spec(EAGLE3).layers
    assert len(pass_layers(llama, asked())) == 1
