"""The catalogs as rows: models, the types of models, and GPUs."""

import re
from typing import Any

from kvplan._version import __version__
from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.text import printable
from kvplan.core.units import format_count
from kvplan.core.weights import active_parameters, num_parameters
from kvplan.report.data import Row
from kvplan.report.page import Page, Table, gib

ATTENTION_KINDS = (
    "full",
    "full_indexed",
    "sliding",
    "chunked",
    "shared",
    "latent",
    "latent_indexed",
    "compressed",
    "linear",
    "conv",
    "cross",
    "encoder",
)
"""The kinds of mixers, as `core.mixers` calls them."""


def listing_document(name: str, rows: list[Row]) -> dict[str, Any]:
    """Rows for programs: schema `kvplan/models/1`, `kvplan/types/1` or `kvplan/gpus/1`."""
    return {"schema": f"kvplan/{name}/1", "kvplan_version": __version__, name: rows}


def model_row(model: ModelSpec, *, aliases: tuple[str, ...] = (), gated: bool = False) -> Row:
    """One model of the catalog.

    `kv_bytes_per_token` is what a token costs while no window is full, `kv_bytes_per_token_long` what it costs
    once all are; both in the checkpoint's dtype.
    """
    short = long = 0
    for layer, count in model.layer_counts():
        for _, cache in caches_of(layer, model.dtype or BF16):
            if not cache.over_encoder:
                folded = count * cache.entry_bytes // cache.tokens_per_entry
                short += count * cache.bytes_per_token + folded
                long += (count * cache.bytes_per_token if cache.max_tokens is None else 0) + folded
    return {
        "id": model.id,
        "model_type": model.model_type,
        "num_parameters": num_parameters(model),
        "active_parameters": active_parameters(model),
        "num_layers": model.num_layers,
        "attention": attention_kinds(model),
        "max_seq_len": model.max_seq_len,
        "dtype": model.dtype.name if model.dtype else None,
        "quantization": model.quantization.method if model.quantization else None,
        "kv_bytes_per_token": short,
        "kv_bytes_per_token_long": long,
        "gated": gated,
        "aliases": list(aliases),
    }


def attention_kinds(model: ModelSpec) -> list[str]:
    """The kinds of its layers, in the order that they first stand in."""
    return list(dict.fromkeys(mixer.kind for i in model.layer_order for mixer in model.layers[i].mixers))


def models_page(rows: list[Row]) -> Page:
    """The catalog of models as a table."""
    header = ("id", "type", "parameters", "layers", "attention", "dtype", "KV bytes/token", "past windows")
    cells = tuple(
        (
            printable(row["id"]),
            printable(row["model_type"]),
            format_count(row["num_parameters"]),
            str(row["num_layers"]),
            " + ".join(row["attention"]),
            _stored(row),
            f"{row['kv_bytes_per_token']:,}",
            f"{row['kv_bytes_per_token_long']:,}"
            if row["kv_bytes_per_token_long"] != row["kv_bytes_per_token"]
            else "",
        )
        for row in rows
    )
    return _single_table(header, "llrrllrr", cells)


def _stored(row: Row) -> str:
    """The dtype, and what the weights are quantised with."""
    words = [row["dtype"] or "", printable(row["quantization"] or "")]
    return " ".join(filter(None, words))


def is_of_kind(row: Row, kind: str) -> bool:
    """Whether a model has layers of that kind; `latent` are those with an indexer too."""
    return any(own == kind or own.startswith(f"{kind}_") for own in row["attention"])


def is_of_family(model_type: str, family: str) -> bool:
    """Whether a model type is of a family: the type itself, or where that is all letters its lineage (`qwen`)."""
    model_type, family = model_type.lower(), family.lower()
    return model_type == family or (family.isalpha() and model_type.startswith(family))


def lineages(rows: list[Row]) -> list[str]:
    """The names that families of these models begin with: the letters before a figure or a mark."""
    return sorted({match.group() for row in rows if (match := re.match("[a-z]{2,}", row["model_type"].lower()))})


def type_row(model_type: str, *, models: int, follows: str) -> Row:
    """One model type that kvplan reads."""
    return {"model_type": model_type, "models": models, "follows": follows}


def types_page(rows: list[Row]) -> Page:
    """The model types as a table."""
    cells = tuple((printable(row["model_type"]), str(row["models"] or ""), row["follows"]) for row in rows)
    return _single_table(("type", "in the catalog", "follows"), "lrl", cells)


def gpu_row(gpu: Gpu) -> Row:
    """One device of the table."""
    return {
        "name": gpu.name,
        "vendor": gpu.vendor,
        "memory_bytes": gpu.memory_bytes,
        "memory_note": gpu.memory_note,
        "visible_bytes": gpu.visible_bytes,
        "marketed_gb": gpu.marketed_gb,
        "bandwidth_bytes_per_second": gpu.bandwidth_bytes_per_second,
        "bf16_flops": gpu.bf16_flops,
        "fp16_flops": gpu.fp16_flops,
        "fp8_flops": gpu.fp8_flops,
        "interconnect_bytes_per_second": gpu.interconnect_bytes_per_second,
        "arch": gpu.arch,
        "source": gpu.source,
        "note": gpu.note,
    }


def gpus_page(rows: list[Row]) -> Page:
    """The table of GPUs as a table."""
    header = ("name", "vendor", "memory GiB", "marketed GB", "GB/s", "bf16 TFLOPS", "fp8 TFLOPS", "arch")
    cells = tuple(
        (
            printable(row["name"]),
            printable(row["vendor"]),
            "" if row["memory_bytes"] is None else gib(row["memory_bytes"]),
            _scaled(row["marketed_gb"], 1),
            _scaled(row["bandwidth_bytes_per_second"], 1e9),
            _scaled(row["bf16_flops"], 1e12),
            _scaled(row["fp8_flops"], 1e12),
            printable(row["arch"]),
        )
        for row in rows
    )
    return _single_table(header, "llrrrrrl", cells)


def _single_table(header: tuple[str, ...], align: str, rows: tuple[tuple[str, ...], ...]) -> Page:
    return Page(title="", tables=(Table(title="", header=header, align=align, rows=rows),))


def _scaled(rate: float | None, unit: float) -> str:
    return "" if rate is None else f"{rate / unit:,.0f}"
