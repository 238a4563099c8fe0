"""An engine's start-up log beside kvplan's prediction, figure by figure.

`answer` what comes out · `observed`, `served`, `ranks`, `device` what the log states · `account`, `pool`, `sglang`,
`llamacpp`, `arithmetic` the rows · `doubt` what cannot be judged · `failure`, `advice` sentences · `document` plain
data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvplan.core.boot import Boot, boot
from kvplan.core.device import visible_bytes
from kvplan.core.errors import KvplanError
from kvplan.core.hardware import Gpu
from kvplan.core.layout import as_loaded
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving
from kvplan.runtime.explain.account import Case, account_rows
from kvplan.runtime.explain.advice import advice
from kvplan.runtime.explain.answer import POOL_TOLERANCE, Answer, Failure, Findings, Row
from kvplan.runtime.explain.arithmetic import arithmetic_rows
from kvplan.runtime.explain.device import with_device
from kvplan.runtime.explain.document import start_to_dict
from kvplan.runtime.explain.doubt import Doubts, without_doubtful
from kvplan.runtime.explain.failure import explain_failure
from kvplan.runtime.explain.llamacpp import llamacpp_rows, read_note, read_rows
from kvplan.runtime.explain.observed import whole
from kvplan.runtime.explain.pool import flags_rows, given_rows, pools_of_boot
from kvplan.runtime.explain.ranks import degrees_of
from kvplan.runtime.explain.served import is_on_gpus, kv_memory_option, serving_of
from kvplan.runtime.explain.sglang import sglang_rows, shortage
from kvplan.runtime.observation import Observation

__all__ = ["POOL_TOLERANCE", "Explanation", "Failure", "Row", "explain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Answer):
    """One start of an engine beside what kvplan says of it."""

    def to_dict(self) -> dict[str, Any]:
        """The start as it stands in the document `kvplan/explain/1`."""
        return start_to_dict(self)


def explain(
    observation: Observation,
    model: ModelSpec | None,
    *,
    gpu: Gpu | None = None,
    overrides: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    notes: tuple[str, ...] = (),
    known_gpus: Sequence[Gpu] = (),
    draft: ModelSpec | None = None,
    stands_in: bool = False,
) -> Explanation:
    """Set what one start printed against what kvplan predicts for it.

    Without a model, or where it and the options do not go together, only the log's own sums are checked. `overrides`
    are options under kvplan's names that stand over the log's; `notes` what the caller has to say about model and GPU;
    `known_gpus` are those that a log without a name may mean, by their size; `draft` is the model that drafts;
    `stands_in` says that the model is another owner's of the same name, whose weights may be of another size. With a
    `tolerance` the pool is judged even where the account behind it rests on assumptions.
    """
    found = Findings(notes=list(notes))
    case = None if model is None else _case(observation, model, gpu, overrides or {}, known_gpus, found, draft)
    if case is not None:
        doubts = replace(case.doubts, weights=stands_in)
        found.rows += without_doubtful(_rows(case, found), doubts, observation.model)
    elif observation.engine == "llamacpp":
        found.rows += read_rows(observation)
        found.notes += read_note(observation)
    sums = arithmetic_rows(observation)
    if not found.rows:
        sums = [replace(row, judged="exact") for row in sums]
    rows = [*found.rows, *sums]
    if tolerance is not None:
        rows = [replace(row, judged="pool") if _is_pool(row) else row for row in rows]
    return Explanation(
        observation=observation,
        model=None if model is None else model.id,
        serving=None if case is None else case.serving,
        rows=tuple(rows),
        failure=_failure(observation, case),
        advice=advice(observation, case),
        notes=tuple(dict.fromkeys(found.notes)),
        tolerance=POOL_TOLERANCE if tolerance is None else tolerance,
        started=not observation.errors and _has_pool(observation),
    )


def _case(
    observation: Observation,
    model: ModelSpec,
    gpu: Gpu | None,
    overrides: Mapping[str, Any],
    known_gpus: Sequence[Gpu],
    found: Findings,
    draft: ModelSpec | None,
) -> Case | None:
    """The start in kvplan's words; None, and a note, where they make no sense together."""
    try:
        degrees = degrees_of(observation, {**observation.options, **overrides}, model)
        serving, notes = serving_of(observation, model, gpu, overrides, draft, degrees.options)
        found.notes += [*notes, *degrees.notes]
        device = with_device(observation, serving, known_gpus)
        serving = device.serving
        found.notes += device.notes
    except KvplanError as error:
        found.notes.append(f"nothing is predicted: {error}" + (f" ({error.hint})" if error.hint else ""))
        return None
    _check_architecture(observation, model, found)
    model = as_loaded(model, serving.engine)
    return Case(
        observation=observation,
        model=model,
        serving=serving,
        boot=_boot(observation, model, serving, found),
        told_gpu=gpu if gpu is not None and (gpu.memory_bytes or gpu.visible_bytes) else None,
        doubts=Doubts(ranks=not degrees.is_settled, device=not device.is_settled),
    )


def _failure(observation: Observation, case: Case | None) -> Failure | None:
    """Why it did not start, with what its pools lack where the log counts them below nothing."""
    found = explain_failure(observation, case)
    lacking = shortage(case) if case is not None and case.serving.engine.name == "sglang" else ""
    return found if found is None or not lacking else replace(found, reasons=(*found.reasons, lacking))


def _boot(observation: Observation, model: ModelSpec, serving: Serving, found: Findings) -> Boot | None:
    """What kvplan makes of flags alone; None, and a note, without a GPU."""
    if serving.gpu is None or serving.engine.name == "llamacpp":
        if serving.gpu is None and serving.engine.name != "llamacpp" and is_on_gpus(observation):
            found.notes.append("nothing is predicted from flags alone: the log names no GPU, `--gpu` does")
        return None
    try:
        visible_bytes(serving.gpu)
        return boot(model, serving)
    except KvplanError as error:
        found.notes.append(f"nothing is predicted from flags alone: {error}")
        return None


def _check_architecture(observation: Observation, model: ModelSpec, found: Findings) -> None:
    stated = observation.facts.get("architecture")
    if stated and model.architecture and observation.engine in ("vllm", "sglang") and stated != model.architecture:
        found.notes.append(f"the log speaks of {stated}, `{model.id}` is a {model.architecture}: is it the same model?")


def _rows(case: Case, found: Findings) -> list[Row]:
    """The rows of one start; a pool that cannot be made is told, and the others stand."""
    engine = case.serving.engine.name
    makers = {"sglang": (account_rows, sglang_rows), "llamacpp": (llamacpp_rows,)}.get(
        engine, (account_rows, _given, _from_flags)
    )
    rows: list[Row] = []
    for make in makers:
        try:
            rows += make(case)
        except KvplanError as error:
            found.notes.append(str(error))
    return rows


def _given(case: Case) -> list[Row]:
    return given_rows(case.observation, case.model, case.serving)


def _from_flags(case: Case) -> list[Row]:
    if case.boot is None or kv_memory_option(case.observation) is not None:
        return []
    ends = pools_of_boot(case.model, case.serving, case.boot)
    basis = "assumed" if case.serving.engine.name == "trtllm" else "calibrated"
    return [] if ends is None else flags_rows(case.observation, ends, basis)  # type: ignore[arg-type]


def _is_pool(row: Row) -> bool:
    return row.predicted is not None and row.name in ("left for the cache", "pools") and row.section != "arithmetic"


def _has_pool(observation: Observation) -> bool:
    """Whether the start came as far as its cache."""
    if any((whole(observation, name) or 0) < 0 for name in ("num_tokens", "full_tokens", "swa_tokens")):
        return False
    return bool(observation.figures.keys() & {"num_tokens", "num_blocks", "max_concurrency", "cells", "kv_buffer"})
