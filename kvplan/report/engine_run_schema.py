"""The published shape of `kvplan/engine-run/1`, as types; `kvplan.report.schema` writes it out."""

from typing import Annotated, Any, Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict

from kvplan.report.explain_schema import StartInfo

Count = Annotated[int, Field(ge=0)]

described = with_config(use_attribute_docstrings=True)


@described
class RunModel(TypedDict):
    """The model whose geometry the random weights have."""

    id: str
    model_type: str
    num_layers: Count


@described
class RunDevice(TypedDict):
    """The GPU, as its driver names it."""

    name: str
    memory_bytes: int | None
    driver: str | None
    """null where nvidia-smi was not asked, or not there."""
    num_gpus: int | None
    """That the engine could see."""


@described
class EngineRunDocument(TypedDict):
    """What `kvplan validate --against vllm --json` prints."""

    schema: Literal["kvplan/engine-run/1"]
    kvplan_version: str
    engine: Literal["vllm", "sglang"]
    engine_version: str | None
    model: RunModel
    device: RunDevice
    date: str
    """UTC, ISO 8601."""
    command: str
    """The line that was run, with the variables that were set for it."""
    options: dict[str, Any]
    """What the engine was told, in kvplan's words."""
    ended: Literal["complete", "exited", "time out"]
    """complete: ended from outside once its pool was sized; exited: by itself before that."""
    exit_code: int | None
    """Of an engine that exited; of a signal its negative number."""
    all_ended: bool
    """False where a process of the engine would not end even when it was killed."""
    total_seconds: Annotated[float, Field(ge=0)]
    last_lines: list[str]
    """The end of its output, unless it was complete."""
    start: StartInfo | None
    """What was printed beside what was predicted, as in `kvplan/explain/1`. null where the engine printed nothing that
    is known."""
    verdict: Literal["ok", "off", "failed"]
    """off: a figure is beyond tolerance; failed: there is none to judge."""
