"""The published shape of `kvplan fit --json`, as types; `report.schema` makes the JSON Schema of them."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from kvplan.report.engine_schema import AccountInfo, Bytes, Count, PoolInfo, Positive, SettingsInfo, described

Concurrency = Annotated[float, Field(ge=0)]
ShareOfDevice = Annotated[float, Field(gt=0, le=1)]


@described
class FittedModel(TypedDict):
    """Which model, and where its facts come from."""

    id: str
    revision: str | None
    source: Literal["catalog", "hub", "directory", "config", "params", "gguf"]
    location: str
    model_type: str
    num_layers: Positive
    max_seq_len: int | None
    """Positions that the model states."""


@described
class WantedInfo(TypedDict):
    """What was asked for; null was searched."""

    max_model_len: int | None
    longest: bool
    """The longest that fits was asked for, whatever the model's own limit."""
    concurrency: int | None
    num_gpus: int | None
    layout_searched: bool
    kv_dtype_searched: bool
    kv_memory_bytes: int | None
    """The size of the pool, where it was given."""


@described
class ShareInfo(TypedDict):
    """The share of the device's memory."""

    least: ShareOfDevice | None
    """The least, in steps of 0.01, with which the settings hold the length and the requests asked for, else one."""
    safe: ShareOfDevice
    """The most that leaves room for what lies outside the share."""
    used: float


@described
class CurveInfo(TypedDict):
    """How many requests of one length the settings hold at once."""

    max_model_len: Positive
    concurrency: Count
    max_concurrency: Concurrency


@described
class ChangeInfo(TypedDict):
    """One change, or some together, that would make it fit."""

    code: str
    """pool, share, max_num_seqs, max_num_batched_tokens, enforce_eager, no_images, kv_dtype, together, shorter, fewer,
    quant, num_gpus, gpu; fewer_gpus where it fits."""
    options: dict[str, Any]
    """What to set, under kvplan's names; null is to leave out what is set."""
    cost: str
    max_model_len: Positive
    concurrency: Count


@described
class FitWarning(TypedDict):
    """Something to know of the facts that the answer rests on; `code` is stable, `message` is for people."""

    code: str
    message: str


@described
class FitDocument(TypedDict):
    """What `kvplan fit --json` prints. Bytes are whole numbers; consumers must tolerate new keys."""

    schema: Literal["kvplan/fit/1"]
    kvplan_version: str
    model: FittedModel
    wanted: WantedInfo
    fits: bool
    max_model_len: Positive
    """Tokens of one request."""
    concurrency: Count
    """Requests of that length at once; 0 where the engine does not start."""
    max_concurrency: Concurrency
    concurrency_range: list[Concurrency]
    """`max_concurrency` at the low and at the high end of the account's spread."""
    sure_max_model_len: int | None
    """The longest at the low end, where the length was searched."""
    bound: Literal["cache", "memory", "model", "max_num_seqs", "engine"]
    reason: str
    settings: SettingsInfo
    starts: bool
    certain: bool
    """Whether the start would go the same at either end of the spread, of what lies outside the share as well."""
    kv_memory_bytes: Bytes
    """What is left of one GPU for the cache."""
    spread_bytes: Bytes
    accounts: list[AccountInfo]
    """One a pipeline stage; none where the size of the pool was given instead of a GPU."""
    pool: PoolInfo | None
    share: ShareInfo | None
    curve: list[CurveInfo]
    changes: list[ChangeInfo]
    """From the cheapest."""
    command: str | None
    """What starts the engine so; null where it does not fit, or where its command line cannot say it."""
    notes: list[str]
    warnings: list[FitWarning]


@described
class ServeCheckDocument(TypedDict):
    """What `kvplan serve-check --json` prints."""

    schema: Literal["kvplan/serve-check/1"]
    kvplan_version: str
    starts: bool
    certain: bool
    """Whether it would be the same at either end of the account's spread."""
    refusal: str | None
    """Why the engine does not even look at the memory; null where it does."""
    hint: str | None
    """What to do about the refusal."""
    reasons: list[str]
    """Why it does not start, or what is tight."""
    read: dict[str, Any]
    """The command's options, under kvplan's names."""
    unread: list[str]
    """Flags that may bear on memory and were not understood: the answer leaves them out."""
    longest: int | None
    """Tokens of the longest request that the same settings could hold, were the length not limited: at most the model's
    own or the command's."""
    flags: list[str]
    """What would make it start, in the engine's own words, as `fit.changes` in the same order."""
    fit: FitDocument | None
    """Null where the engine refuses the flags as they stand."""
