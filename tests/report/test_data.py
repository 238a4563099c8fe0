"""The JSON document and its rows: the contract's figures, the schema, and hostile strings."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from kvplan.core.hardware import Gpu, MeasuredDevice
from kvplan.core.model import Fact, ModelSpec
from kvplan.core.plan import Plan, plan_memory
from kvplan.core.serving import resolve
from kvplan.core.units import GIB, MIB
from kvplan.report import data, schema
from tests.models import LLAMA, spec

H80 = Gpu(name="H80", memory_bytes=80 * GIB)
MEASURED = MeasuredDevice(context_bytes=300 * MIB, read_bytes_per_second=3e12, source="a record")
BASE = LLAMA | {"architectures": None, "num_key_value_heads": 8}
MISTRAL = BASE | {"model_type": "mistral", "sliding_window": 1024}
MIXTRAL = BASE | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def plan(config: dict[str, Any] | None = None, **how: Any) -> Plan:
    """The plan of a config of the tests."""
    model = spec(config)
    return plan_memory(model, resolve(model, **how))


PLANS = {
    "plain": lambda: plan(),
    "fits": lambda: plan(gpu=H80),
    "does not fit": lambda: plan(gpu=H80, batch_size=256, num_gpus=2),
    "fits nowhere": lambda: plan(gpu=replace(H80, memory_bytes=2**20)),
    "unknown memory": lambda: plan(gpu=replace(H80, memory_bytes=None)),
    "stages": lambda: plan(gpu=H80, num_gpus=4, pp=2),
    "window": lambda: plan(MISTRAL, engine="transformers", seq_len=8192),
    "experts": lambda: plan(MIXTRAL, kv_dtype="fp8", quant="int4"),
    "encoder only": lambda: plan(BERT),
    "known bandwidth": lambda: plan(gpu=replace(H80, bandwidth_bytes_per_second=3.35e12)),
    "measured": lambda: plan(gpu=replace(H80, measured=MEASURED)),
}


def strict(node: Any) -> Any:
    """The schema with every object closed: what kvplan prints must be published."""
    if isinstance(node, dict):
        closed = {"additionalProperties": False} if "properties" in node else {}
        return {key: strict(value) for key, value in node.items()} | closed
    return [strict(item) for item in node] if isinstance(node, list) else node


STRICT = jsonschema.Draft202012Validator(strict(json.loads(schema.schema_text())))


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_every_document_is_what_the_schema_says_and_nothing_else(make: Any) -> None:
    document = json.loads(data.dump_json(data.plan_to_dict(make())))
    STRICT.validate(document)
    parts = ("weights_bytes", "kv_cache_bytes", "activation_bytes", "graph_bytes", "context_bytes")
    for gpu in document["per_gpu"]:
        assert gpu["total_bytes"] == sum(gpu[part] for part in parts)
    assert (
        sum(part["parameters"] for part in document["weights"]["parts"].values())
        == (document["weights"]["num_parameters"])
    )
    assert (
        sum(group["needed_bytes"] for group in document["kv_cache"]["layers"]) == (document["kv_cache"]["needed_bytes"])
    )


def test_the_schema_file_is_fresh() -> None:
    assert json.loads(schema.schema_text()) == schema.build_schema(), "run `python -m kvplan.report.schema`"


def test_the_schema_is_one_and_leaves_room_for_new_keys() -> None:
    published = json.loads(schema.schema_text())
    jsonschema.Draft202012Validator.check_schema(published)
    newer = data.plan_to_dict(plan()) | {"a_key_of_tomorrow": 1}
    jsonschema.Draft202012Validator(published).validate(newer)
    with pytest.raises(jsonschema.ValidationError):
        STRICT.validate(newer)


def test_defaults_are_resolved() -> None:
    # Llama-2-7B's shape: 32 layers · 32 heads · 128 · 2 (K, V) · 2 bytes = 524,288 bytes per token.
    document = data.plan_to_dict(plan(gpu=H80))
    assert document["inputs"] == {
        "seq_len": 4096,
        "encoder_seq_len": None,
        "batch_size": 1,
        "dtype": "bf16",
        "kv_dtype": "bf16",
        "value_dtype": "bf16",
        "quant": None,
        "tp": 1,
        "pp": 1,
        "dp": 1,
        "dcp": 1,
        "pcp": 1,
        "num_gpus": 1,
        "gpu": "H80",
        "gpu_memory_bytes": 80 * GIB,
        "gpu_memory_utilization": 1.0,
        "gpu_memory_utilization_stated": False,
        "engine": "exact",
        "engine_version": None,
        "attention": "flash",
        "max_num_batched_tokens": 4096,
        "options": {},
    }
    assert document["kv_cache"] == {
        "needed_bytes": 4096 * 524_288,
        "reserved_bytes": 4096 * 524_288,
        "bytes_per_token": 524_288,
        "fixed_bytes_per_sequence": 0,
        "dtype": "bf16",
        "layers": [
            {
                "kind": "full",
                "count": 32,
                "bytes_per_token": 524_288,
                "max_tokens": None,
                "tokens_per_entry": 1,
                "needed_bytes": 4096 * 524_288,
                "reserved_bytes": 4096 * 524_288,
            }
        ],
    }
    assert document["fits"] is True
    assert document["smallest_fit"] == {"num_gpus": 1, "tp": 1, "pp": 1}


def test_a_window_and_an_engine_that_holds_one_token_less() -> None:
    # 32 layers · 8 KV heads · 128 · 2 · 2 bytes = 131,072 per token; transformers keeps W − 1 = 1023 of them.
    cache = data.plan_to_dict(plan(MISTRAL, engine="transformers", seq_len=8192))["kv_cache"]
    assert cache["layers"][0]["max_tokens"] == 1024
    assert (cache["needed_bytes"], cache["reserved_bytes"]) == (1024 * 131_072, 1023 * 131_072)
    assert cache["bytes_per_token"] == 0


def test_an_encoder_alone_has_no_decode_and_no_cache() -> None:
    document = data.plan_to_dict(plan(BERT))
    assert document["attention"]["decode"] is None
    assert document["attention"]["prefill"]["kind"] == "encoder"
    assert document["kv_cache"]["layers"] == []


def test_without_a_gpu_nothing_is_said_about_fitting() -> None:
    document = data.plan_to_dict(plan())
    assert document["fits"] is None
    assert document["smallest_fit"] is None
    assert document["per_gpu"][0]["capacity_bytes"] is None


def test_the_speed_is_there_where_a_bandwidth_is_known() -> None:
    # Llama-2-7B's shape: 6,607,343,616 parameters less the token table of 32000 × 4096, and 4096 tokens of 524,288.
    read = 2 * (6_738_415_616 - 32000 * 4096) + 4096 * 524_288
    assert data.plan_to_dict(plan(gpu=H80))["speed"] is None
    document = data.plan_to_dict(plan(gpu=replace(H80, measured=MEASURED)))
    assert document["speed"] == {
        "decode_read_bytes": read,
        "decode_seconds_at_least": pytest.approx(read / 3e12),
        "tokens_per_second_at_most": pytest.approx(3e12 / read),
        "bandwidth_bytes_per_second": 3e12,
        "basis": "measured",
        "source": "a record",
    }
    assert document["evidence"]["context"] == "calibrated"
    assert document["overheads"][1] == {
        "name": "CUDA context", "bytes": 300 * MIB, "spread_bytes": 32 * MIB, "source": "a record",
    }  # fmt: skip


def with_facts(*facts: Fact) -> ModelSpec:
    """A model with facts of the user's."""
    return replace(spec(), facts=facts)


def test_the_users_facts_are_named_and_stay_json() -> None:
    facts = (
        Fact("vocab_size", 32000, "--set"),
        Fact("hidden_size", 4096, "config.json"),
        Fact("rope_theta", float("nan"), "--set"),
        Fact("layer_types", ("full", "sliding"), "--set"),
        Fact("nested", {"a": (1, None)}, "--set"),
    )
    model = with_facts(*facts)
    document = data.plan_to_dict(plan_memory(model, resolve(model)))
    assert json.loads(data.dump_json(document))["model"]["facts_set_by_user"] == {
        "vocab_size": 32000,
        "rope_theta": "nan",
        "layer_types": ["full", "sliding"],
        "nested": {"a": [1, None]},
    }


def test_json_is_ascii_sorted_and_the_same_every_time() -> None:
    model = replace(spec(), id="zoë\u202e/\x1b[2J\udc80")
    texts = {data.dump_json(data.plan_to_dict(plan_memory(model, resolve(model)))) for _ in range(3)}
    (text,) = texts
    assert text.isascii()
    assert "\x1b" not in text
    assert text.endswith("}\n")
    document = json.loads(text)
    assert document["model"]["id"] == model.id
    assert list(document) == sorted(document)


def test_not_a_number_never_leaves() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        data.dump_json({"x": float("nan")})


def test_rows_are_one_a_gpu_and_sum_to_their_total() -> None:
    rows = data.plan_rows(plan(gpu=H80, num_gpus=4, pp=2))
    assert [(row["rank"], row["stage"]) for row in rows] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert {row["fits"] for row in rows} == {True}
    assert rows[0]["model"] == "test/model"


def test_csv_quotes_what_needs_it_and_escapes_what_could_steer() -> None:
    rows = [{"name": 'a,"b"\n\x1b[31m', "none": None, "flag": True, "many": ["full", "sliding"], "number": 1}]
    assert data.dump_csv(rows) == ('name,none,flag,many,number\n"a,""b""\\n\\x1b[31m",,true,full|sliding,1\n')
    assert data.dump_csv([]) == "\n"


def test_the_frame_keeps_whole_numbers() -> None:
    pytest.importorskip("pandas")
    frame = data.plan_to_frame(plan(gpu=H80, num_gpus=2))
    assert len(frame) == 2
    assert frame["total_bytes"].dtype == "int64"
    assert frame["gpu_memory_utilization"].dtype == "float64"
