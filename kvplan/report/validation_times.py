"""The times of a validation: rates against the machine's ceilings, the speed model and how it fares, whole steps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvplan.core.errors import InputError
from kvplan.core.speed import SpeedModel
from kvplan.core.text import join_words, printable
from kvplan.report.page import Line, Table
from kvplan.report.validation_tables import (
    Document,
    Names,
    label,
    seconds_text,
    share,
    signed,
    word,
)

SECTION = "times"


def time_tables(document: Document, names: Names) -> list[Table]:
    """What was timed; nothing on a machine without a GPU."""
    fits = document["fits"]
    found = [_rates(fits, document["readings"].get("ceilings"), names), _models(fits, names)] if fits else []
    return found + ([_steps(document)] if document["tokens_per_second"] else [])


def timed_rows(document: Document) -> Iterator[dict[str, Any]]:
    """A row a load that was timed: the fitted model's seconds beside the measured.

    None is judged alone, and half of them made the model: what `fits` says of the other half is the verdict.
    """
    fits = {(fit["case"], fit["phase"]): fit for fit in document["fits"] if fit.get("model")}
    for found in document["readings"].get("throughput") or []:
        fit = fits.get((found["case"], found["phase"]))
        if fit is None or "failure" in found:
            continue
        predicted, measured = _modelled(fit["model"], found), found["seconds"]
        yield {
            "section": SECTION,
            "case": found["case"],
            "term": found["phase"],
            "unit": "seconds",
            "predicted": predicted,
            "measured": measured,
            "tolerance": fit["tolerance"]["worst"],
            "slack": 0.0,
            "spread": (found["high_seconds"] - found["low_seconds"]) / measured,
            "note": f"{found['batch']:,} × {found['seq_len']:,}",
            "error": None if predicted is None else (predicted - measured) / measured,
            "verdict": "info",
        }


def _fit_sentence(fit: Mapping[str, Any], names: Names) -> str:
    """`decode of full: median 8.0 %, worst 25 % at 1 × 2,048, measurements spread 2.0 %`."""
    batch, tokens = fit["worst_load"]
    return (
        f"{printable(fit['phase'])} of {label(fit, names)}: median {share(fit['median_error'])}, "
        f"worst {share(fit['worst_error'])} at {batch:,} × {tokens:,}, measurements spread {share(fit['spread'])}"
    )


def _modelled(model: Mapping[str, Any], found: Mapping[str, Any]) -> float | None:
    """None for a call that is bound by what no fitted call was bound by."""
    try:
        return SpeedModel(**model).seconds(found["bytes"], found["flops"])
    except InputError:
        return None


def _rates(fits: Sequence[Mapping[str, Any]], ceilings: Any, names: Names) -> Table:
    """The best of each sweep."""
    cells = tuple(
        (
            label(fit, names),
            printable(fit["phase"]),
            f"{fit['num_points']}",
            f"{fit['best']['bytes_per_second'] / 1e9:,.0f}",
            share(fit["best"]["share_of_memory"]),
            f"{fit['best']['flops_per_second'] / 1e12:,.1f}",
            share(fit["best"]["share_of_matmul"]),
        )
        for fit in fits
    )
    header = ("layers", "phase", "loads", "GB/s", "of ceiling", "TFLOP/s", "of ceiling")
    after = (Line(_ceilings(ceilings), "faint"),) if ceilings and "failure" not in ceilings else ()
    return Table(title="Best rates, one layer's attention", header=header, align="llrrrrr", rows=cells, after=after)


def _ceilings(ceilings: Mapping[str, Any]) -> str:
    """States are written as much as they are read, so their ceiling is the copy's."""
    kinds = (
        ("read", "read_bytes_per_second", 1e9, "GB/s"),
        ("copy", "copy_bytes_per_second", 1e9, "GB/s (for states)"),
        ("product", "matmul_flops_per_second", 1e12, "TFLOP/s"),
    )
    told = [f"{name} {ceilings[key] / unit:,.0f} {what}" for name, key, unit, what in kinds if ceilings[key]]
    return f"ceilings of the same run: {join_words(told)}"


def _models(fits: Sequence[Mapping[str, Any]], names: Names) -> Table:
    """t0, the shares, and the errors on calls that the model was not made from."""
    header = ("layers", "phase", "t0", "memory", "product", "n", "median", "p90", "worst", "bias", "verdict")
    return Table(
        title="Times: t0 + the longer of bytes and operations at a share of the ceilings, fitted on half the loads",
        header=header,
        align="llrrrrrrrrl",
        rows=tuple((label(fit, names), printable(fit["phase"]), *_fit_cells(fit)) for fit in fits),
        after=(*_tolerances(fits), *_fit_notes(fits, names)),
    )


def _fit_cells(fit: Mapping[str, Any]) -> tuple[str, ...]:
    if not fit.get("model"):
        return (*["-"] * 8, word(fit["verdict"]))
    model = fit["model"]
    shares = (share(model["bytes_share"]), share(model["flops_share"]))
    errors = (share(fit[name]) for name in ("median_error", "p90_error", "worst_error"))
    start = seconds_text(model["overhead_seconds"])
    return (start, *shares, f"{fit['num_judged']}", *errors, signed(fit["bias"]), word(fit["verdict"]))


def _tolerances(fits: Sequence[Mapping[str, Any]]) -> tuple[Line, ...]:
    allowed = {fit["phase"]: fit["tolerance"] for fit in fits if fit.get("tolerance")}
    told = [f"{printable(phase)} {share(one['median'])} and {share(one['worst'])}" for phase, one in allowed.items()]
    text = f"errors on the other half, n of them; allowed are a median and a worst of {', '.join(told)}"
    return (Line(text, "faint"),) if told else ()


def _fit_notes(fits: Sequence[Mapping[str, Any]], names: Names) -> Iterator[Line]:
    for fit in fits:
        if fit["verdict"] in ("off", "inconclusive"):
            yield Line(f"{fit['verdict']}: {_fit_sentence(fit, names)}", "bad" if fit["verdict"] == "off" else "plain")
        elif fit.get("note"):
            which = f"{printable(fit['phase'])} of {label(fit, names)}"
            yield Line(f"not judged: {which}: {printable(fit['note'])}", "faint")


def _steps(document: Document) -> Table:
    """A decode step of all layers that were tried, attention alone."""
    rows = tuple(
        (
            f"{step['batch']:,}",
            f"{step['seq_len']:,}",
            seconds_text(step["attention_seconds"]),
            f"{step['tokens_per_second']:,.0f}",
        )
        for step in document["tokens_per_second"]
    )
    title = "Decode steps, the attention of all the model's layers and nothing else"
    return Table(title=title, header=("sequences", "tokens each", "a step", "tokens/s"), align="rrrr", rows=rows)
