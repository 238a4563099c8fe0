"""A plan as data for programs: the JSON document of the contract, and tidy rows for CSV and pandas.

The document's keys are types in `report.schema`; to add one, add it there and here.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from kvplan._version import __version__
from kvplan.core.measured import Measured
from kvplan.core.model import SET_BY_USER
from kvplan.core.plan import AttentionPlan, Plan
from kvplan.core.text import printable
from kvplan.report.engine_data import account_infos, pool_info, settings_info

if TYPE_CHECKING:
    import pandas as pd

    from kvplan.report import schema

Row = dict[str, Any]


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The document `kvplan/estimate/1`."""
    document: schema.EstimateDocument = {
        "schema": "kvplan/estimate/1",
        "kvplan_version": __version__,
        "model": _model(plan),
        "inputs": _inputs(plan),
        "weights": _weights(plan),
        "kv_cache": _kv_cache(plan),
        "attention": _attention(plan),
        "per_gpu": _per_gpu(plan),
        "fits": plan.fits,
        "smallest_fit": _smallest_fit(plan),
        "speed": _speed(plan),
        "evidence": cast("dict[str, schema.Basis]", dict(plan.evidence)),
        "bounds": _bounds(plan),
        "accounts": account_infos(plan.accounts),
        "pool": pool_info(plan.pool),
        "overheads": [_overhead(measured) for measured in plan.overheads],
        "warnings": [{"code": warning.code, "message": warning.message} for warning in plan.warnings],
    }
    return cast("dict[str, Any]", document)


def _bounds(plan: Plan) -> "schema.Bounds | None":
    least = plan.bounds
    if least is None:
        return None
    return {
        "num_parameters": {"least": least.num_parameters, "most": plan.weights.num_parameters},
        "weights_bytes": {"least": least.weights_bytes, "most": plan.weights.total_bytes},
        "kv_cache_bytes": {"least": least.kv_cache_bytes, "most": plan.kv_cache.reserved_bytes},
        "reasons": list(least.reasons),
    }


def _overhead(measured: Measured) -> "schema.Overhead":
    return {
        "name": measured.name,
        "bytes": measured.num_bytes,
        "spread_bytes": measured.spread_bytes,
        "source": measured.source,
    }


def dump_json(document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """JSON with sorted keys and nothing but ASCII: the same document is the same bytes."""
    return json.dumps(document, sort_keys=True, allow_nan=False, ensure_ascii=True, indent=2) + "\n"


def plan_rows(plan: Plan) -> list[Row]:
    """One row a GPU: what was planned, and where its bytes go."""
    asked: Row = {"model": plan.model.id, **_inputs(plan)}
    asked["options"] = " ".join(f"{name}={value}" for name, value in asked["options"].items())
    return [{**asked, **use, "fits": plan.fits} for use in _per_gpu(plan)]


def plan_to_frame(plan: Plan) -> "pd.DataFrame":
    """`plan_rows` as a DataFrame; bytes stay whole numbers."""
    import pandas as pd

    return pd.DataFrame(plan_rows(plan))


def dump_csv(rows: list[Row]) -> str:
    """Rows as CSV with a header; an absent value is an empty field, lines end in LF."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_field(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def plain(value: object) -> Any:
    """A fact's value as JSON holds it: tuples become lists, and what JSON has no word for becomes text."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value)


def _csv_field(value: object) -> object:
    if isinstance(value, list):
        return "|".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return printable(value, max_length=1000) if isinstance(value, str) else value


def _model(plan: Plan) -> "schema.ModelInfo":
    model = plan.model
    return {
        "id": model.id,
        "revision": model.source.revision,
        "source": model.source.kind,
        "location": model.source.location,
        "model_type": model.model_type,
        "architecture": model.architecture,
        "num_layers": model.num_layers,
        "max_seq_len": model.max_seq_len,
        "facts_set_by_user": {fact.key: plain(fact.value) for fact in model.facts if fact.origin == SET_BY_USER},
        "notes": list(model.source.notes),
    }


def _inputs(plan: Plan) -> "schema.Inputs":
    serving = plan.serving
    return {
        "seq_len": serving.seq_len,
        "encoder_seq_len": serving.encoder_seq_len,
        "batch_size": serving.batch_size,
        **settings_info(serving),
        "attention": serving.attention_backend,
        "max_num_batched_tokens": serving.max_num_batched_tokens,
    }


def _weights(plan: Plan) -> "schema.Weights":
    weights = plan.weights
    return {
        "num_parameters": weights.num_parameters,
        "active_parameters": weights.active_parameters,
        "total_bytes": weights.total_bytes,
        "dtype": weights.dtype,
        "quantization": weights.quantization,
        "stored_bytes": weights.stored_bytes,
        "draft_parameters": weights.draft_parameters,
        "draft_bytes": weights.draft_bytes,
        "parts": {
            name: {"parameters": size.parameters, "total_bytes": size.total_bytes}
            for name, size in weights.parts.items()
        },
    }


def _kv_cache(plan: Plan) -> "schema.KVCache":
    cache = plan.kv_cache
    return {
        "needed_bytes": cache.needed_bytes,
        "reserved_bytes": cache.reserved_bytes,
        "bytes_per_token": cache.bytes_per_token,
        "fixed_bytes_per_sequence": cache.fixed_bytes_per_sequence,
        "dtype": cache.dtype,
        "layers": [
            {
                "kind": group.kind,
                "count": group.count,
                "bytes_per_token": group.bytes_per_token,
                "max_tokens": group.max_tokens,
                "tokens_per_entry": group.tokens_per_entry,
                "needed_bytes": group.needed_bytes,
                "reserved_bytes": group.reserved_bytes,
            }
            for group in cache.layers
        ],
    }


def _attention(plan: Plan) -> "schema.Attention":
    passes = {attention.phase: _attention_pass(attention) for attention in plan.attention}
    return {
        "backend": plan.serving.attention_backend,
        "prefill": passes.get("prefill"),
        "decode": passes.get("decode"),
    }


def _attention_pass(attention: AttentionPlan) -> "schema.AttentionPass":
    return {
        "kind": attention.kind,
        "batch_size": attention.batch_size,
        "query_tokens": attention.query_tokens,
        "key_tokens": attention.key_tokens,
        "eager_bytes": attention.bytes_per_backend["eager"],
        "math_bytes": attention.bytes_per_backend["math"],
        "efficient_bytes": attention.bytes_per_backend["efficient"],
        "flash_bytes": attention.bytes_per_backend["flash"],
    }


def _per_gpu(plan: Plan) -> "list[schema.GpuInfo]":
    return [
        {
            "rank": use.rank,
            "stage": use.stage,
            "weights_bytes": use.weights_bytes,
            "kv_cache_bytes": use.kv_cache_bytes,
            "activation_bytes": use.activation_bytes,
            "graph_bytes": use.graph_bytes,
            "context_bytes": use.context_bytes,
            "total_bytes": use.total_bytes,
            "capacity_bytes": use.capacity_bytes,
            "free_bytes": use.free_bytes,
        }
        for use in plan.per_gpu
    ]


def _smallest_fit(plan: Plan) -> "schema.SmallestFitInfo | None":
    found = plan.smallest_fit
    return None if found is None else {"num_gpus": found.num_gpus, "tp": found.tp, "pp": found.pp}


def _speed(plan: Plan) -> "schema.Speed | None":
    floor = plan.speed
    if floor is None:
        return None
    return {
        "decode_read_bytes": floor.decode_read_bytes,
        "decode_seconds_at_least": floor.decode_seconds_at_least,
        "tokens_per_second_at_most": floor.tokens_per_second_at_most,
        "bandwidth_bytes_per_second": floor.bandwidth_bytes_per_second,
        "basis": cast("schema.RateBasis", floor.basis),
        "source": floor.source,
    }
