"""The published shape of `kvplan estimate --json`, as types, and the JSON Schemas that are made from such types.

`python -m kvplan.report.schema` writes the files in `schemas` anew. Changes within a major only add keys: a schema
leaves objects open, so that consumers tolerate keys that they do not know yet.
To add a key: its line in a type below, its value in `report.data`, and write the schemas anew. The types of
`kvplan validate` and `kvplan explain` are in modules of their own.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from kvplan.report.engine_run_schema import EngineRunDocument
from kvplan.report.engine_schema import AccountInfo, PoolInfo, SettingsInfo
from kvplan.report.explain_schema import ExplainDocument
from kvplan.report.fit_schema import FitDocument, ServeCheckDocument
from kvplan.report.validation_schema import ValidateDocument

SCHEMAS = Path(__file__).with_name("schemas")

Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Basis = Literal["exact", "derived", "calibrated", "assumed"]
RateBasis = Literal["measured", "data sheet"]

described = with_config(use_attribute_docstrings=True)


@described
class ModelInfo(TypedDict):
    """Which model, and where its facts come from."""

    id: str
    revision: str | None
    source: Literal["catalog", "hub", "directory", "config", "params", "gguf"]
    location: str
    """The file or the address that was read."""
    model_type: str
    architecture: str | None
    """The class that was counted."""
    num_layers: Positive
    """All layers, an encoder's included."""
    max_seq_len: int | None
    """Positions that the model states."""
    facts_set_by_user: dict[str, Any]
    """Facts of the architecture that the user gave, by key."""
    notes: list[str]


@described
class Inputs(SettingsInfo):
    """Everything that the plan was made for, every default resolved."""

    encoder_seq_len: int | None
    """None where the model has no encoder."""
    batch_size: Positive
    attention: str
    max_num_batched_tokens: Positive
    """Tokens of one forward pass at most."""


@described
class PartInfo(TypedDict):
    """One part of the model's weights."""

    parameters: Count
    total_bytes: Bytes


@described
class Weights(TypedDict):
    """The whole model's weights."""

    num_parameters: Count
    active_parameters: Count
    """Parameters that one token passes through."""
    total_bytes: Bytes
    dtype: str
    quantization: str | None
    stored_bytes: int | None
    """What the repository's files hold, where that was read."""
    draft_parameters: Count
    """What the checkpoint stores for multi-token prediction beside the model, part of no other figure."""
    draft_bytes: Bytes
    """The same in the plan's dtype and scheme."""
    parts: dict[str, PartInfo]


@described
class CacheGroup(TypedDict):
    """The caches of `count` equal layers, for the whole batch."""

    kind: str
    count: Positive
    bytes_per_token: Bytes
    """Of all `count` layers, while no window is full; an entry's bytes spread over its tokens."""
    tokens_per_entry: Positive
    """Tokens that share one entry of a compressed cache; 1 elsewhere."""
    max_tokens: int | None
    """The most tokens that a layer needs: its window; null where it needs all."""
    needed_bytes: Bytes
    reserved_bytes: Bytes


@described
class KVCache(TypedDict):
    """The whole model's cache, for the whole batch, before tensor parallelism; states included."""

    needed_bytes: Bytes
    """What the architecture needs, whatever the engine."""
    reserved_bytes: Bytes
    """What the engine holds for it."""
    bytes_per_token: Bytes
    """The marginal cost of one sequence's last token."""
    fixed_bytes_per_sequence: Bytes
    """What one sequence holds however long it is."""
    dtype: str
    layers: list[CacheGroup]


@described
class AttentionPass(TypedDict):
    """Transient bytes of the largest attention call of one pass, on one GPU, per backend."""

    kind: str
    batch_size: Positive
    query_tokens: Positive
    key_tokens: Count
    eager_bytes: Bytes
    math_bytes: Bytes
    efficient_bytes: Bytes
    flash_bytes: Bytes


@described
class Attention(TypedDict):
    """Transient attention memory; `backend` is the one that the plan counts in its activations."""

    backend: str
    prefill: AttentionPass | None
    decode: AttentionPass | None


@described
class GpuInfo(TypedDict):
    """What one GPU holds; with tensor parallelism, the fullest rank of its stage."""

    rank: Count
    stage: Count
    weights_bytes: Bytes
    kv_cache_bytes: Bytes
    activation_bytes: Bytes
    graph_bytes: Bytes
    context_bytes: Bytes
    total_bytes: Bytes
    capacity_bytes: int | None
    """Driver-reported memory · utilisation; null where no GPU was named or its memory is not known."""
    free_bytes: int | None
    """Negative where it does not fit."""


@described
class SmallestFitInfo(TypedDict):
    """The fewest GPUs of the same sort that would do, and their layout."""

    num_gpus: Positive
    tp: Positive
    pp: Positive


@described
class Speed(TypedDict):
    """What reading memory alone allows one decode step; arithmetic and communication are not counted."""

    decode_read_bytes: Bytes
    """What is read one after another until every sequence has its next token."""
    decode_seconds_at_least: Annotated[float, Field(gt=0)]
    tokens_per_second_at_most: Annotated[float, Field(gt=0)]
    """Of all sequences together, whether the plan fits or not."""
    bandwidth_bytes_per_second: Annotated[float, Field(gt=0)]
    basis: RateBasis
    source: str


@described
class Overhead(TypedDict):
    """A measured figure that `context_bytes` is made of."""

    name: str
    bytes: Bytes
    spread_bytes: Bytes
    source: str


@described
class Warning(TypedDict):
    """Something to know before acting on the plan; `code` is stable, `message` is for people."""

    code: str
    message: str


@described
class Between(TypedDict):
    """Two bounds; the figures elsewhere in the document are `most`."""

    least: Count
    most: Count


@described
class Bounds(TypedDict):
    """An architecture that kvplan does not know, as `--assume full` plans it."""

    num_parameters: Between
    weights_bytes: Between
    kv_cache_bytes: Between
    """Reserved, for the whole batch."""
    reasons: list[str]
    """What is not understood, and what makes the difference."""


@described
class EstimateDocument(TypedDict):
    """What `kvplan estimate --json` prints. Bytes are whole numbers; consumers must tolerate new keys."""

    schema: Literal["kvplan/estimate/1"]
    kvplan_version: str
    model: ModelInfo
    inputs: Inputs
    weights: Weights
    kv_cache: KVCache
    attention: Attention
    per_gpu: list[GpuInfo]
    fits: bool | None
    """null where no GPU was named, or its memory is not known."""
    smallest_fit: SmallestFitInfo | None
    speed: Speed | None
    """null where no GPU of known bandwidth was named, and where no tokens are generated."""
    evidence: dict[str, Basis]
    """How sure each figure is."""
    bounds: Bounds | None
    """null where the architecture is understood."""
    accounts: list[AccountInfo]
    """The engine's own account of the GPU of each stage; none without a GPU or such an engine."""
    pool: PoolInfo | None
    """What the engine makes of the memory that is left for the cache."""
    overheads: list[Overhead]
    """What `context_bytes` is the sum of."""
    warnings: list[Warning]


DOCUMENTS: dict[str, Any] = {
    "estimate": EstimateDocument,
    "explain": ExplainDocument,
    "fit": FitDocument,
    "serve-check": ServeCheckDocument,
    "validate": ValidateDocument,
    "engine-run": EngineRunDocument,
}
"""The types by the command that prints them."""


def build_schema(command: str = "estimate") -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what a command prints."""
    schema = TypeAdapter(DOCUMENTS[command]).json_schema(mode="serialization")
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "$id": f"urn:kvplan:{command}:1"} | schema


def schema_text(command: str = "estimate") -> str:
    """The published schema as it lies in its file."""
    return (SCHEMAS / f"{command}-1.json").read_text(encoding="utf-8")


def write_schemas() -> None:
    """Write the published schemas anew."""
    for command in DOCUMENTS:
        text = json.dumps(build_schema(command), indent=2, ensure_ascii=True, sort_keys=True)
        (SCHEMAS / f"{command}-1.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_schemas()
