"""What transformers' own cache classes hold, measured, against figures by hand and against the plan.

The measuring side knows no formula; the plan has never seen the cache. They meet here.
"""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
import transformers
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from kvplan import api
from kvplan.core.cache import Cache as PlannedCache
from kvplan.core.cache import caches_of
from kvplan.core.layout import sequence_cache_bytes
from kvplan.core.mixers import Mixer
from kvplan.core.plan import Plan
from kvplan.sources.load import load_model, raw_config
from kvplan.validate.cases import Load, cases_of
from kvplan.validate.compare import compare
from kvplan.validate.measure.framework import FrameworkError, NoFigure, measure_framework
from tests.models import LLAMA, spec

SMALL = LLAMA | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the job sets in its own process must not reach other tests' processes."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    verbosity = transformers.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(verbosity)


def config_of(name: str, **changes: Any) -> dict[str, Any]:
    return {**raw_config(load_model(name)), **changes}


# Worked by hand: layers · (heads of K + heads of V) · head dimension · bytes · tokens · sequences.
@pytest.mark.parametrize(
    ("name", "seq_len", "tensor_bytes", "layers"),
    [
        ("meta-llama/Llama-3.1-8B", 64, 32 * (8 + 8) * 128 * 2 * 64 * 2, [[32, "DynamicLayer", 524_288]]),
        # K and V of 8 groups are copied out to all 128 heads before they are cached
        ("tiiuae/falcon-40b", 16, 60 * (128 + 128) * 64 * 2 * 16 * 2, [[60, "DynamicLayer", 1_048_576]]),
        # 512 latent and 64 rotary numbers a token, whatever the number of heads
        ("deepseek-ai/DeepSeek-V3", 64, 61 * (512 + 64) * 2 * 64 * 2, [[61, "DynamicLayer", 147_456]]),
    ],
)
def test_layers_that_keep_every_token(name: str, seq_len: int, tensor_bytes: int, layers: list[Any]) -> None:
    found = measure_framework({"config": config_of(name), "seq_len": seq_len})
    assert found["tensor_bytes"] == found["storage_bytes"] == tensor_bytes
    assert found["layers"] == layers
    grown = tensor_bytes // seq_len * (seq_len + 1)
    assert found["after_decode"]["tensor_bytes"] == found["after_decode"]["storage_bytes"] == grown


def test_a_window_keeps_one_token_less_and_its_prompt_alive() -> None:
    """A slice of the prompt is a view: 31 tokens of tensors on 64 of storage, until the next token joins 31 + 1."""
    per_token = 32 * (8 + 8) * 128 * 2
    found = measure_framework(
        {"config": config_of("mistralai/Mistral-7B-v0.1", sliding_window=32), "seq_len": 64, "batch": 1}
    )
    assert found["cache_class"] == "DynamicCache"
    assert found["layers"] == [[32, "DynamicSlidingWindowLayer", 31 * per_token // 32]]
    assert found["kinds"] == {"sliding": {"tensor_bytes": 31 * per_token, "storage_bytes": 64 * per_token}}
    assert found["after_decode"]["kinds"] == {
        "sliding": {"tensor_bytes": 31 * per_token, "storage_bytes": 32 * per_token}
    }
    assert found["bookkeeping_bytes"] == 32 * 8, "the window's width, one int64 a layer"


def test_cross_attention_keeps_the_encoders_tokens() -> None:
    """t5-small: 6 decoder layers, 8 heads of 64 for K and V each, in bf16."""
    found = measure_framework(
        {"config": config_of("google-t5/t5-small"), "seq_len": 20, "encoder_seq_len": 50, "batch": 3}
    )
    per_token = 6 * (8 + 8) * 64 * 2 * 3
    assert found["cache_class"] == "EncoderDecoderCache"
    assert {kind: counts["tensor_bytes"] for kind, counts in found["kinds"].items()} == {
        "full": 20 * per_token,
        "cross": 50 * per_token,
    }
    assert {kind: counts["tensor_bytes"] for kind, counts in found["after_decode"]["kinds"].items()} == {
        "full": 21 * per_token,
        "cross": 50 * per_token,
    }


def test_recurrent_states_do_not_grow() -> None:
    """Four layers of which the last attends: 3 · (64 channels · 4 columns bf16 + 4 states of 8 × 8 fp32) · 2 sequences."""
    config = {
        "model_type": "qwen3_next", "architectures": ["Qwen3NextForCausalLM"], "num_hidden_layers": 4,
        "hidden_size": 32, "intermediate_size": 64, "vocab_size": 100, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
        "linear_num_value_heads": 4, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    }  # fmt: skip
    found = measure_framework({"config": config, "seq_len": 70})
    states = 3 * (64 * 4 * 2 + 4 * 8 * 8 * 4) * 2
    per_token = (2 + 2) * 8 * 2 * 2
    assert found["layers"] == [[3, "LinearAttentionLayer", states // 3], [1, "DynamicLayer", 70 * per_token]]
    for reading, tokens in ((found, 70), (found["after_decode"], 71)):
        held = {kind: counts["storage_bytes"] for kind, counts in reading["kinds"].items()}
        assert held == {"linear": states, "full": tokens * per_token}


def test_an_encoder_keeps_nothing() -> None:
    found = measure_framework({"config": config_of("google-bert/bert-base-uncased"), "seq_len": 16})
    assert found["cache_class"] is None
    assert found["layers"] == []
    assert found["tensor_bytes"] == found["after_decode"]["storage_bytes"] == 0


WINDOWED = {"sliding_window": 24}
AGAINST_THE_PLAN = {
    "grouped heads": ("meta-llama/Llama-3.1-8B", {}, 2, 48, None),
    "every head": ("openai-community/gpt2", {}, 3, 40, None),
    "window, not full": ("mistralai/Mistral-7B-v0.1", WINDOWED, 2, 20, None),
    "window, full with the next": ("mistralai/Mistral-7B-v0.1", WINDOWED, 2, 23, None),
    "window, just full": ("mistralai/Mistral-7B-v0.1", WINDOWED, 2, 24, None),
    "window, passed": ("mistralai/Mistral-7B-v0.1", WINDOWED, 2, 60, None),
    "five windows to one": ("google/gemma-3-1b-it", {}, 2, 600, None),
    "sinks and windows": ("openai/gpt-oss-20b", {}, 2, 150, None),
    "latent": ("deepseek-ai/DeepSeek-V3", {}, 2, 48, None),
    "one group copied": ("tiiuae/falcon-7b", {}, 2, 48, None),
    "eight groups copied": ("tiiuae/falcon-40b", {}, 2, 12, None),
    "t5": ("google-t5/t5-small", {}, 2, 30, None),
    "t5, a longer encoder": ("google-t5/t5-small", {}, 2, 30, 70),
    "bart": ("facebook/bart-base", {}, 2, 30, 50),
}


@pytest.mark.parametrize(
    ("name", "changes", "batch", "seq_len", "encoder"), AGAINST_THE_PLAN.values(), ids=AGAINST_THE_PLAN
)
def test_the_plan_says_what_is_measured(
    name: str, changes: dict[str, Any], batch: int, seq_len: int, encoder: int | None
) -> None:
    config = config_of(name, **changes)
    found = measure_framework(
        {"config": config, "batch": batch, "seq_len": seq_len, "encoder_seq_len": encoder, "max_bytes": 300 * 2**20}
    )
    encodes = found["cache_class"] == "EncoderDecoderCache"

    def plan(tokens: int) -> Plan:
        encoder_seq_len = (encoder or seq_len) if encodes else None
        return api.estimate(
            spec(config), seq_len=tokens, batch_size=batch, encoder_seq_len=encoder_seq_len, dtype="bf16",
            engine="transformers",
        )  # fmt: skip

    prompt, longer = plan(seq_len), plan(seq_len + 1)
    assert found["tensor_bytes"] == prompt.kv_cache.reserved_bytes
    assert found["after_decode"]["tensor_bytes"] == longer.kv_cache.reserved_bytes
    assert held(found, "tensor_bytes") == reserved(prompt)
    assert held(found["after_decode"], "tensor_bytes") == reserved(longer)
    assert held(found, "storage_bytes") == during_prefill(prompt)
    # A window's next token is joined to the W − 1 that are kept, and the slice is a view of those W: what it needs.
    joined = {layer.kind: layer.needed_bytes for layer in longer.kv_cache.layers if layer.kind == "sliding"}
    assert held(found["after_decode"], "storage_bytes") == reserved(longer) | joined


def held(reading: dict[str, Any], what: str) -> dict[str, int]:
    return {kind: counts[what] for kind, counts in reading["kinds"].items()}


def reserved(plan: Plan) -> dict[str, int]:
    kinds = {layer.kind for layer in plan.kv_cache.layers}
    return {kind: sum(x.reserved_bytes for x in plan.kv_cache.layers if x.kind == kind) for kind in kinds}


def during_prefill(plan: Plan) -> dict[str, int]:
    """Bytes by kind while the prompt's storage is alive."""
    serving, total = plan.serving, dict.fromkeys((layer.kind for layer in plan.kv_cache.layers), 0)
    hold = serving.engine.during_prefill
    assert hold is not None
    pairs: list[tuple[int, Mixer, PlannedCache]] = [
        (count, *pair) for layer, count in plan.model.layer_counts() for pair in caches_of(layer, serving.kv_dtype)
    ]
    for count, mixer, cache in pairs:
        total[cache.kind] += count * serving.batch_size * sequence_cache_bytes(hold(cache, mixer), serving)
    return total


@pytest.mark.parametrize(
    ("name", "seq_len"),
    [
        ("LiquidAI/LFM2-350M", 20),
        ("ai21labs/AI21-Jamba-1.5-Mini", 20),
        ("deepseek-ai/DeepSeek-V3.2", 20),
        # 150 = 37 · 4 + 2 = 128 + 22: entries of both kinds, tokens that wait for the next, and a window that slides
        ("deepseek-ai/DeepSeek-V4-Flash", 150),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", 20),
        ("openai/whisper-tiny", 20),
    ],
)
def test_the_cases_say_what_is_measured(name: str, seq_len: int) -> None:
    """Kind by kind, after the prompt and one token later; images are none, and sound is as long as it must be."""
    model = load_model(name)
    cases = cases_of(model, Load(seq_len=64))
    load = {"batch": 2, "seq_len": seq_len, "encoder_seq_len": model.encoder_seq_len}
    found = measure_framework({"config": config_of(name), "dtype": "bf16", **load})
    rows = compare(cases, {"framework": found | load})
    assert [row for row in rows if row.verdict != "ok"] == []
    assert sum(row.measured or 0 for row in rows) > 0


def test_what_shows_no_cache_is_another_error() -> None:
    """Told as such; a class that is not there, or a config that makes no sense, stays a failure."""
    with pytest.raises(NoFigure, match="a list, which is no cache of transformers"):
        measure_framework({"config": SMALL | {"model_type": "rwkv", "architectures": None}, "seq_len": 5})
    with pytest.raises(FrameworkError) as unknown:
        measure_framework({"config": SMALL | {"model_type": "frobnicator"}, "seq_len": 5})
    assert not isinstance(unknown.value, NoFigure)


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("bf16", 2), ("fp16", 2)])
def test_the_dtype_is_the_caches(dtype: str, size: int) -> None:
    found = measure_framework({"config": SMALL, "dtype": dtype, "batch": 1, "seq_len": 10})
    assert found["tensor_bytes"] == 3 * (2 + 2) * 16 * size * 10


def test_a_reading_goes_into_json_and_names_what_was_measured() -> None:
    found = measure_framework({"config": SMALL, "seq_len": 5, "device": "cpu"})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["framework"] == "transformers"
    assert found["version"] == transformers.__version__
    assert found["torch"] == torch.__version__
    assert found["model_class"] == "LlamaForCausalLM"
    assert found["requested_bytes"] is None, "torch keeps no count on a CPU"
    assert found["tensor_bytes"] == sum(count * size for count, _, size in found["layers"])


def test_the_library_is_left_as_it_was() -> None:
    watched = [(kind, name) for kind in (Cache, DynamicCache, EncoderDecoderCache, DynamicLayer) for name in vars(kind)]
    before = [vars(kind)[name] for kind, name in watched]
    measure_framework({"config": SMALL, "seq_len": 5})
    with pytest.raises(FrameworkError):
        measure_framework({"config": SMALL, "seq_len": -1})
    assert all(vars(kind)[name] is method for (kind, name), method in zip(watched, before, strict=True))


def test_a_config_without_a_class_gets_the_one_that_generates() -> None:
    bare = {key: value for key, value in SMALL.items() if key != "architectures"}
    assert measure_framework({"config": bare, "seq_len": 5})["model_class"] == "LlamaForCausalLM"


def test_code_that_a_config_points_to_is_not_fetched() -> None:
    hostile = SMALL | {"auto_map": {"AutoConfig": "evil/repo--configuration.Evil"}, "trust_remote_code": True}
    assert measure_framework({"config": hostile, "seq_len": 5}) == measure_framework({"config": SMALL, "seq_len": 5})


def test_quantised_checkpoints_have_the_same_cache() -> None:
    quantised = SMALL | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    assert measure_framework({"config": quantised, "seq_len": 5}) == measure_framework({"config": SMALL, "seq_len": 5})


VERSION = transformers.__version__
REFUSED = {
    "unknown type": (
        {"model_type": "frobnicator"},
        f"transformers {VERSION} does not know the model type `frobnicator`",
    ),
    "no type": ({"model_type": ["llama"]}, "does not know the model type"),
    "unknown class": ({"architectures": ["FrobForCausalLM"]}, "has no model class `FrobForCausalLM`"),
    "no model class": ({"architectures": ["AutoTokenizer"]}, "has no model class `AutoTokenizer`"),
    "not a name": ({"architectures": [3]}, "has no model class `3`"),
    "cannot be built": ({"hidden_size": "wide"}, "cannot build `LlamaForCausalLM` from this config: .*hidden_size"),
    "cannot be run": ({"num_key_value_heads": 3}, "cannot run `LlamaForCausalLM` on torch's meta device"),
    "a state of its own": ({"model_type": "rwkv", "architectures": None}, "a list, which is no cache of transformers"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_one_sentence_where_there_is_no_figure(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FrameworkError, match=message) as refused:
        measure_framework({"config": SMALL | changes, "seq_len": 5})
    assert "\n" not in str(refused.value)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(FrameworkError, match="`fp8` is not a type") as refused:
        measure_framework({"config": SMALL, "dtype": "fp8"})
    assert refused.value.hint == "one of fp32, bf16, fp16"


def test_too_much_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"config": SMALL, "batch": 10_000, "seq_len": 100_000, "max_bytes": 10**9}
    # 3 layers of 128 GB each: held, and the largest call's operands and result beside it, after one token more
    layer = 10_000 * (2 + 2) * 16 * 2 * 100_001
    with pytest.raises(FrameworkError, match=f"takes {5 * layer} bytes, more than the 1000000000 ") as refused:
        measure_framework(job)
    assert refused.value.hint == "a smaller batch or seq_len"


@pytest.mark.parametrize("limit", [-1, 0])
def test_the_limit_is_what_the_measurement_takes(limit: int) -> None:
    """10 tokens of a batch of 2 in 3 layers, then 11; and twice the largest layer."""
    needed = (3 + 2) * (2 + 2) * 16 * 2 * 11 * 2
    job = {"config": SMALL, "seq_len": 10, "max_bytes": needed + limit}
    if limit < 0:
        with pytest.raises(FrameworkError, match="may be used"):
            measure_framework(job)
    else:
        assert measure_framework(job)["after_decode"]["tensor_bytes"] == needed // 5 * 3


class Sneaking(transformers.LlamaForCausalLM):
    """Puts something beside its keys, past all methods of its cache."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        layer = out.past_key_values.layers[0]
        layer.more_keys = layer.keys.clone()
        return out


class Forgetting(transformers.LlamaForCausalLM):
    """Gives nothing back to go on from."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return {"logits": super().forward(*args, **kwargs).logits}


class Borrowing(transformers.LlamaForCausalLM):
    """Fills a cache that was there before it ran."""

    own = DynamicCache()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs | {"past_key_values": self.own})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Sneaking, "not recorded: it holds 4480 bytes when the model runs and 3840 when its calls are repeated"),
        (Forgetting, "`Forgetting` is no encoder, but gives no cache back"),
        (Borrowing, "not recorded: where a `DynamicCache` comes from"),
    ],
)
def test_a_cache_that_is_filled_unseen_gives_no_figure(
    model: type, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = import_module("transformers")  # it puts another module in its place when it first loads a model
    monkeypatch.setattr(library, model.__name__, model, raising=False)
    # 3 layers of K and V, 2 heads of 16 in bf16, 5 tokens of 2 sequences: 3840 bytes; one layer's keys are 640
    with pytest.raises(FrameworkError, match=message):
        measure_framework({"config": SMALL | {"architectures": [model.__name__]}, "seq_len": 5})


def test_without_transformers_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(FrameworkError, match="transformers cannot be used: ") as missing:
        measure_framework({"config": SMALL})
    assert missing.value.hint == "pip install 'transformers>=5.23,<6'"
