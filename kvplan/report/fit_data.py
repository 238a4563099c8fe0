"""A fit as data for programs: the document `kvplan/fit/1`, and the curve as tidy rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from kvplan._version import __version__
from kvplan.core.fit import Change, Fit
from kvplan.report.data import Row, plain
from kvplan.report.engine_data import account_infos, pool_info, settings_info

if TYPE_CHECKING:
    from kvplan.report import fit_schema as schema


def fit_to_dict(fit: Fit, command: str | None) -> dict[str, Any]:
    """The document `kvplan/fit/1`; `command` is the line that starts the engine so."""
    found = fit.boot
    document: schema.FitDocument = {
        "schema": "kvplan/fit/1",
        "kvplan_version": __version__,
        "model": _model(fit),
        "wanted": _wanted(fit),
        "fits": fit.fits,
        "max_model_len": fit.max_model_len,
        "concurrency": fit.concurrency,
        "max_concurrency": fit.max_concurrency,
        "concurrency_range": list(fit.concurrency_range),
        "sure_max_model_len": fit.sure_max_model_len,
        "bound": fit.bound,
        "reason": fit.reason,
        "settings": settings_info(fit.serving),
        "starts": found.starts,
        "certain": fit.is_certain,
        "kv_memory_bytes": found.kv_memory_bytes,
        "spread_bytes": found.spread_bytes,
        "accounts": account_infos(found.accounts),
        "pool": pool_info(found.pool),
        "share": _share(fit),
        "curve": [
            {
                "max_model_len": point.max_model_len,
                "concurrency": point.concurrency,
                "max_concurrency": point.max_concurrency,
            }
            for point in fit.curve
        ],
        "changes": [_change(change) for change in fit.changes],
        "command": command if fit.fits else None,
        "notes": list(fit.notes),
        "warnings": [{"code": warning.code, "message": warning.message} for warning in fit.warnings],
    }
    return cast("dict[str, Any]", document)


def serve_check_to_dict(
    fit: Fit | None,
    *,
    options: Mapping[str, object],
    unread: tuple[str, ...],
    longest: int | None,
    flags: tuple[str, ...],
    refusal: str | None,
    hint: str | None,
) -> dict[str, Any]:
    """The document `kvplan/serve-check/1`; `flags` are the changes of the fit in the engine's words."""
    reasons = [] if fit is None else list(fit.boot.reasons) if fit.boot.reasons or fit.fits else [fit.reason]
    document: schema.ServeCheckDocument = {
        "schema": "kvplan/serve-check/1",
        "kvplan_version": __version__,
        "starts": fit is not None and fit.fits and refusal is None,
        "certain": refusal is not None or fit is None or fit.is_certain,
        "refusal": refusal,
        "hint": hint,
        "reasons": reasons if refusal is None else [refusal, *reasons],
        "read": {name: plain(value) for name, value in options.items()},
        "unread": list(unread),
        "longest": longest,
        "flags": list(flags),
        "fit": None if fit is None else cast("schema.FitDocument", fit_to_dict(fit, None)),
    }
    return cast("dict[str, Any]", document)


def curve_rows(fit: Fit) -> list[Row]:
    """One row a length, with the settings in each: rows of several answers can be stacked."""
    serving = fit.serving
    asked: Row = {
        "model": fit.model.id,
        "engine": serving.engine.name,
        "engine_version": serving.engine.version,
        "gpu": serving.gpu.name if serving.gpu and fit.gpu_is_named else None,
        "num_gpus": serving.num_gpus,
        "tp": serving.tp,
        "pp": serving.pp,
        "kv_dtype": serving.kv_dtype.name,
    }
    return [
        {
            **asked,
            "max_model_len": point.max_model_len,
            "concurrency": point.concurrency,
            "max_concurrency": round(point.max_concurrency, 4),
        }
        for point in fit.curve
    ]


def _model(fit: Fit) -> "schema.FittedModel":
    model = fit.model
    return {
        "id": model.id,
        "revision": model.source.revision,
        "source": model.source.kind,
        "location": model.source.location,
        "model_type": model.model_type,
        "num_layers": model.num_layers,
        "max_seq_len": model.max_seq_len,
    }


def _wanted(fit: Fit) -> "schema.WantedInfo":
    want = fit.want
    return {
        "max_model_len": want.max_model_len,
        "longest": want.longest,
        "concurrency": want.concurrency,
        "num_gpus": want.num_gpus,
        "layout_searched": want.search_layout,
        "kv_dtype_searched": want.best_kv_dtype,
        "kv_memory_bytes": fit.kv_memory_bytes,
    }


def _share(fit: Fit) -> "schema.ShareInfo | None":
    share = fit.share
    return None if share is None else {"least": share.least, "safe": share.safe, "used": share.used}


def _change(change: Change) -> "schema.ChangeInfo":
    return {
        "code": change.code,
        "options": {name: plain(value) for name, value in change.options.items()},
        "cost": change.cost,
        "max_model_len": change.max_model_len,
        "concurrency": change.concurrency,
    }
