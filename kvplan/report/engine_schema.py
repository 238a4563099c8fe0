"""The published shape of an engine's account and pool, as `estimate`, `fit` and `serve-check` print them."""

from typing import Annotated, Any, Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict

Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]

described = with_config(use_attribute_docstrings=True)


@described
class AccountItem(TypedDict):
    """One thing that memory goes to."""

    name: str
    bytes: Bytes
    spread_bytes: Bytes
    """How far observations lie from it, to either side."""
    basis: Literal["exact", "derived", "calibrated", "assumed"]
    source: str


@described
class AccountInfo(TypedDict):
    """The engine's account of one GPU of one pipeline stage: usable less taken is the pool."""

    stage: Count
    device_bytes: Bytes
    """What the engine's framework sees."""
    usable_bytes: Bytes
    taken: list[AccountItem]
    untaken: list[AccountItem]
    """What comes on top, outside `usable_bytes`."""
    kv_memory_bytes: int
    """What is left for the pool; negative where nothing is."""
    spread_bytes: Bytes
    """How far that may be off."""


@described
class PoolGroupInfo(TypedDict):
    """Layers that share block tables."""

    kind: str
    num_layers: Count
    block_size: Positive
    page_bytes: Bytes
    """One layer's part of one block, on one GPU."""
    blocks_per_request: Count
    window: int | None
    padding_layers: Count


@described
class PoolInfo(TypedDict):
    """What the engine makes of the memory of one GPU; with pipeline stages, of the tightest."""

    engine: str
    engine_version: str | None
    kv_memory_bytes: Bytes
    allocated_bytes: Bytes
    block_size: Positive
    bytes_per_block: Bytes
    num_blocks: Count
    num_tokens: Count
    """As this version of the engine prints it."""
    max_model_len: Positive
    max_concurrency: Annotated[float, Field(ge=0)]
    blocks_per_request: Count
    fits_one: bool
    longest_request: Count
    groups: list[PoolGroupInfo]
    notes: list[str]


@described
class SettingsInfo(TypedDict):
    """How the engine is started, every default resolved."""

    engine: str
    engine_version: str | None
    seq_len: Positive
    """What the engine is told as its length: of one request, for llama.cpp of all together."""
    dtype: str
    kv_dtype: str
    """Of keys, and of what is key and value at once."""
    value_dtype: str
    quant: str | None
    tp: Positive
    pp: Positive
    dp: Positive
    dcp: Positive
    pcp: Positive
    num_gpus: Positive
    gpu: str | None
    gpu_memory_bytes: int | None
    """What the driver of one GPU reports, before utilisation."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)]
    gpu_memory_utilization_stated: bool
    """False where it is the engine's own default."""
    options: dict[str, Any]
    """The switches that were set, under kvplan's names."""
