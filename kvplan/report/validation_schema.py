"""The published shape of `kvplan validate --json` and of records, as types; `kvplan.report.schema` writes it out."""

from typing import Annotated, Any, Literal

from pydantic import Field, with_config
from typing_extensions import NotRequired, TypedDict

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Load = Annotated[list[int], Field(min_length=2, max_length=2)]
"""(sequences, tokens of each)."""
Verdict = Literal["ok", "off", "inconclusive", "info"]

described = with_config(use_attribute_docstrings=True)


@described
class DeviceState(TypedDict):
    """Clocks and heat at the time; null is unknown."""

    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_celsius: float | None
    power_watts: float | None
    source: str | None


@described
class DeviceInfo(TypedDict):
    """What was measured on, and the software on it; null is unknown, or a CPU has no such thing."""

    kind: Literal["cuda", "hip", "cpu"]
    """On a CPU, allocations are main memory's and kernels are interpreted: no figure is a GPU's."""
    name: str
    compute_capability: str | None
    num_sms: int | None
    l2_bytes: int | None
    memory_bytes: int | None
    driver: str | None
    runtime: str | None
    torch: str
    triton: str
    python: str
    date: str
    """UTC, ISO 8601."""
    state: DeviceState


@described
class CaseInfo(TypedDict):
    """One kind of layer under one load."""

    name: str
    kind: Literal[
        "full", "full_indexed", "sliding", "chunked", "shared", "latent", "latent_indexed", "compressed", "cross",
        "encoder", "sparse", "linear", "conv",
    ]  # fmt: skip
    num_heads: Positive
    num_kv_heads: Positive
    key_dim: Positive
    value_dim: Positive
    num_layers: Positive
    model_layers: NotRequired[Positive | None]
    window: int | None
    sinks: bool
    latent_dim: Count
    rope_dim: Count
    index_dim: NotRequired[Count]
    """Width of an indexer's key."""
    index_bits: NotRequired[Positive | None]
    index_pool: NotRequired[Count]
    """Tokens that share one key of the indexer; 0: each has its own."""
    ratio: NotRequired[Count]
    """Tokens that are folded into one entry; 0: there are no entries."""
    overlaps: NotRequired[bool]
    prefix_tokens: NotRequired[Count]
    """Tokens that stand before every sequence."""
    over_images: NotRequired[bool]
    """Cross-attention over images, of which there may be none."""
    state_bits: Positive | None
    """null: the model's type."""
    vector_elements: NotRequired[Count]
    conv_channels: Count
    conv_columns: Count
    conv_bits: NotRequired[Positive | None]
    transformers_kv_heads: int | None
    transformers_position_bytes: NotRequired[Count]
    transformers_keeps_all: NotRequired[bool]
    transformers_expands: NotRequired[bool]
    transformers_index_bits: NotRequired[Positive | None]
    in_transformers_cache: NotRequired[bool]
    batch: Positive
    seq_len: Count
    decode_steps: Count
    chunk: Positive
    page_size: Positive
    dtype: str
    kv_dtype: str


@described
class TermRow(TypedDict):
    """One term: what was predicted and what was measured."""

    section: str
    """memory, correctness, transient, work, framework or ranks; later versions may add some."""
    case: str
    """The name of a case, or of a part of the run."""
    term: str
    unit: str
    """bytes, flops, seconds or relative error."""
    predicted: float | None
    measured: float | None
    tolerance: float
    """The relative difference that agrees."""
    slack: float
    """The difference in units that agrees, however small the whole."""
    spread: float | None
    """Of the measurement itself, relative."""
    note: str
    error: float | None
    """(predicted - measured) / measured; below zero the plan counts too little."""
    verdict: Verdict
    """ok and off are judged; inconclusive spreads too widely to be; info lacks one of the sides."""


@described
class BestRates(TypedDict):
    """The highest rates of a sweep, and their shares of the ceilings measured in the same run."""

    bytes_per_second: float
    share_of_memory: float | None
    flops_per_second: float
    share_of_matmul: float | None


@described
class SpeedModelInfo(TypedDict):
    """t = overhead + the longer of bytes / (share · rate) and flops / (share · rate)."""

    overhead_seconds: float
    bytes_share: float | None
    """null where no call was bound by memory."""
    flops_share: float | None
    """null where no call was bound by arithmetic."""
    read_bytes_per_second: float
    matmul_flops_per_second: float


@described
class Allowed(TypedDict):
    """Errors of a speed model that agree."""

    median: float
    worst: float


@described
class FitInfo(TypedDict):
    """The speed model of one kind of layer and phase, made from half of its loads, judged on the others."""

    case: str
    phase: str
    num_points: Count
    spread: float
    best: BestRates
    verdict: Verdict
    note: NotRequired[str]
    """Why there is no model; what follows is then missing."""
    model: NotRequired[SpeedModelInfo]
    num_fitted: NotRequired[Count]
    num_judged: NotRequired[Count]
    median_error: NotRequired[float]
    p90_error: NotRequired[float]
    worst_error: NotRequired[float]
    bias: NotRequired[float]
    """The mean error with its sign; the others are magnitudes."""
    tolerance: NotRequired[Allowed]
    worst_load: NotRequired[Load]
    judged_loads: NotRequired[list[Load]]


@described
class Step(TypedDict):
    """A decode step of all layers of the model, also where fewer were tried; attention alone."""

    batch: Positive
    seq_len: Positive
    attention_seconds: float
    tokens_per_second: float


@described
class VariantInfo(TypedDict):
    """A textbook's variant beside multi-head attention at the same shape; null without a GPU, or without a cache."""

    name: str
    predicted_bytes: Count
    measured_bytes: Count
    memory_against_mha: float | None
    """How many times less."""
    decode_seconds: float | None
    decode_load: Load | None
    decode_speed_against_mha: float | None
    """How many times faster."""
    prefill_seconds: float | None
    prefill_load: Load | None
    prefill_speed_against_mha: float | None
    flash_memory_against_eager: float | None
    """How many times less one fused call holds; null where it is refused."""
    flash_speed_against_eager: float | None


@described
class FailureInfo(TypedDict):
    """A job, a check or a load that did not end well."""

    where: str
    kind: str
    message: str


@described
class ValidateDocument(TypedDict):
    """What `kvplan validate --json` prints and a record holds. Bytes are whole numbers; consumers tolerate new keys."""

    schema: Literal["kvplan/validate/1"]
    kvplan_version: str
    device: DeviceInfo
    model: dict[str, Any] | None
    """The model's identity; null for layers by hand and for the variants."""
    name: str
    inputs: dict[str, Any]
    """What was asked for."""
    cases: list[CaseInfo]
    readings: dict[str, Any]
    """What was measured, by job, before anything was compared with it; {"failure": …} in place of one that failed."""
    rows: list[TermRow]
    fits: list[FitInfo]
    tokens_per_second: list[Step]
    variants: NotRequired[list[VariantInfo]]
    failures: list[FailureInfo]
    verdict: Verdict
    total_seconds: float
