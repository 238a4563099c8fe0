"""One door: a name, an address or a path to a ModelSpec.

Order: an explicit path; a catalog name; what huggingface_hub has cached; the Hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvplan.core.errors import HubError, InputError
from kvplan.core.model import ModelSpec, Source
from kvplan.core.text import join_words, printable
from kvplan.sources import catalog
from kvplan.sources.config import spec_from_raw
from kvplan.sources.hub_ref import HubRef, parse_ref
from kvplan.sources.json_file import MAX_CONFIG_BYTES, read_json_file
from kvplan.sources.params_json import is_params
from kvplan.sources.quantization import SIDE_FILE, with_side_file

if TYPE_CHECKING:
    from kvplan.sources.hub import HubFiles

_CONFIG_FILES = ("config.json", "params.json")
_ADDRESSES = ("huggingface.co/", "www.huggingface.co/", "hf.co/")


@dataclass(frozen=True, slots=True)
class Said:
    """What the user says of the facts, whatever the source has."""

    overrides: Mapping[str, Any]
    assume: str | None = None


def load_model(
    source: str | PathLike[str],
    *,
    offline: bool = False,
    hub: bool = False,
    overrides: Mapping[str, Any] | None = None,
    assume: str | None = None,
    timeout_seconds: float = 14.0,
) -> ModelSpec:
    """The model that `source` names: a path, a catalog name, `OWNER/NAME[@REV]`, `hf://…` or a Hub address.

    `hub` goes to the Hub even for a catalog name, `offline` never goes there, `overrides` are the user's facts,
    `assume="full"` plans an architecture that kvplan does not know between two bounds.
    Raises InputError (bad name, file or key), UnsupportedError (architecture), HubError (gated, unreachable …).
    """
    said = Said(overrides or {}, assume)
    if isinstance(source, str) and not source.strip():
        raise InputError("the model has no name", hint="`kvplan models` lists the catalog")
    if not isinstance(source, str) or _is_path(source):
        return _from_path(Path(source).expanduser(), said)
    if hub and offline:
        raise InputError("`--hub` and `--offline` contradict each other", hint="give one of them")
    ref = parse_ref(source)
    if not hub and (ref is None or not (ref.revision or ref.wants_gguf)):
        model = catalog.load(ref.repo_id if ref else source, said.overrides)
        if model is not None:
            return model
    if (ref is None or "/" not in source) and _is_dir(source):
        return _from_path(Path(source), said)
    if ref is None:
        raise _unknown(source)
    return _from_hub(ref, said, offline=offline, hub=hub, timeout_seconds=timeout_seconds)


def raw_config(model: ModelSpec) -> Mapping[str, Any]:
    """The config.json that a loaded model was read from, as its authors wrote it: what a framework builds it from.

    Without what the user or the catalog set. Raises InputError for a params.json, which no framework reads.
    """
    if model.source.kind == "catalog":
        found = catalog.find(model.id)
        raw = catalog.read_entry(catalog.root() / found[1]).config if found else {}
    elif model.source.kind == "hub":
        from kvplan.sources.hub import fetch

        # What was read lies in huggingface_hub's cache: the Hub is not asked twice.
        raw = fetch(HubRef(repo_id=model.id, revision=model.source.revision), offline=True).config or {}
    else:
        path = Path(model.source.location)
        raw = read_json_file(path, what=path.name, max_bytes=MAX_CONFIG_BYTES, finite=False)
    if "model_type" not in raw:
        twin = catalog.find(f"{model.id}-hf")
        hint = f"{twin[0]} is the same model with one" if twin else "name a repository that has one"
        raise InputError(f"`{printable(model.id)}` has no config.json that a framework reads", hint=hint)
    return raw


def _is_path(text: str) -> bool:
    """Whether a string can only mean a file or folder; `a/b` means the Hub, `./a/b` the folder."""
    if "://" in text or text.lower().startswith(_ADDRESSES):
        return False
    if text.startswith(("./", "../", "/", "~", ".\\")) or text in (".", ".."):
        return True
    return text.endswith((".json", ".gguf")) or (text.endswith("/") and _is_dir(text))


def _is_dir(text: str) -> bool:
    """Whether a folder of that name can be looked into; a name too long for a file is none."""
    try:
        return Path(text).is_dir()
    except OSError:
        return False


def _unknown(name: str) -> InputError:
    close = catalog.suggest(name)
    hint = f"did you mean {' or '.join(close)}?" if close else "`kvplan models` lists the catalog"
    return InputError(f"`{printable(name)}` is neither a path, nor a catalog name, nor OWNER/NAME", hint=hint)


def _from_path(path: Path, said: Said) -> ModelSpec:
    try:
        return _from_checked_path(path, said)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"`{printable(str(path))}` cannot be read: {reason}", hint="check the path and its permissions"
        ) from error


def _from_checked_path(path: Path, said: Said) -> ModelSpec:
    if path.is_dir():
        return _from_directory(path, said)
    if not path.exists():
        raise InputError(
            f"`{printable(str(path))}` does not exist",
            hint="give a config.json, a params.json, a .gguf or their folder",
        )
    if path.suffix == ".gguf":
        return _from_gguf_file(path, said)
    raw = read_json_file(path, what=path.name, max_bytes=MAX_CONFIG_BYTES, finite=False)
    id = path.resolve().parent.name if path.name in _CONFIG_FILES else path.stem
    source = Source(kind="params" if is_params(raw) else "config", location=str(path))
    return spec_from_raw(raw, id=id, source=source, overrides=said.overrides, assume=said.assume)


def _from_directory(path: Path, said: Said) -> ModelSpec:
    for name in _CONFIG_FILES:
        if (path / name).is_file():
            stated = read_json_file(path / name, what=name, max_bytes=MAX_CONFIG_BYTES, finite=False)
            raw = with_side_file(stated, _side_file(path))
            source = Source(kind="directory", location=str(path / name))
            stored = _stored_in(path)
            return spec_from_raw(
                raw,
                id=path.resolve().name,
                source=source,
                overrides=said.overrides,
                stored_weight_bytes=stored,
                assume=said.assume,
            )
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return _from_gguf_file(files[0], said)
    if files:
        raise InputError(
            f"`{printable(str(path))}` holds {len(files)} GGUF files",
            hint=f"name one of them, e.g. {printable(str(files[0]), max_length=200)}",
        )
    raise InputError(
        f"`{printable(str(path))}` holds no {join_words(_CONFIG_FILES).replace(' and ', ' or ')}",
        hint="point at the folder that `hf download` or `save_pretrained` made",
    )


def _from_gguf_file(path: Path, said: Said) -> ModelSpec:
    from kvplan.sources.gguf.file import header_of_file
    from kvplan.sources.gguf.spec import spec_from_gguf

    source = Source(kind="gguf", location=str(path))
    return spec_from_gguf(header_of_file(path), id=path.stem, source=source, overrides=said.overrides)


def _side_file(folder: Path) -> dict[str, Any] | None:
    path = folder / SIDE_FILE
    return read_json_file(path, what=SIDE_FILE, max_bytes=MAX_CONFIG_BYTES) if path.is_file() else None


def _stored_in(path: Path) -> int | None:
    """What the safetensors files beside the config hold, where there are any."""
    from kvplan.sources.safetensors import INDEX_FILE, MAX_INDEX_BYTES, weights_of_file, weights_of_index

    index = path / INDEX_FILE
    if index.is_file():
        stored = weights_of_index(read_json_file(index, what=INDEX_FILE, max_bytes=MAX_INDEX_BYTES))
        return stored.total_bytes if stored else None
    single = path / "model.safetensors"
    return weights_of_file(single, what=single.name).total_bytes if single.is_file() else None


def _from_hub(ref: HubRef, said: Said, *, offline: bool, hub: bool, timeout_seconds: float) -> ModelSpec:
    try:
        files = _fetch(ref, offline=offline, cache_first=not hub, timeout_seconds=timeout_seconds)
    except HubError as error:
        close = catalog.suggest(ref.repo_id)
        if close and not hub:
            error.hint += f"; the catalog has {join_words(close)}"
        if _is_dir(ref.repo_id):
            error.hint += f"; the local folder is `./{ref.repo_id}`"
        raise
    if files.gguf is not None:
        return _from_gguf_on_hub(files, said)
    raw = files.config if files.config is not None else files.params
    notes = list(files.notes)
    if _is_dir(ref.repo_id):
        notes.append(f"a local folder `{ref.repo_id}` exists too; `./{ref.repo_id}` would read it")
    source = Source(
        kind="hub", location=f"{files.repo_id} ({files.origin})", revision=files.revision, notes=tuple(notes)
    )
    stored = files.stored.total_bytes if files.stored else None
    return spec_from_raw(
        raw or {},
        id=files.repo_id,
        source=source,
        overrides=said.overrides,
        stored_weight_bytes=stored,
        assume=said.assume,
    )


def _from_gguf_on_hub(files: "HubFiles", said: Said) -> ModelSpec:
    from kvplan.sources.gguf.spec import spec_from_gguf

    assert files.gguf is not None
    where = f"{files.repo_id}, {files.gguf_name} ({files.origin})"
    source = Source(kind="gguf", location=where, revision=files.revision, notes=files.notes)
    return spec_from_gguf(files.gguf, id=files.repo_id, source=source, overrides=said.overrides)


def _fetch(ref: HubRef, *, offline: bool, cache_first: bool, timeout_seconds: float) -> "HubFiles":
    """A name without a revision is answered from huggingface_hub's cache, where it is there, and says so."""
    from kvplan.sources.hub import fetch

    if cache_first and not offline and ref.revision is None:
        try:
            cached = fetch(ref, offline=True, timeout_seconds=timeout_seconds)
        except HubError:
            pass  # not cached: the Hub is asked
        else:
            note = f"read from huggingface_hub's cache (commit {cached.revision[:12]}); `--hub` asks the Hub again"
            return replace(cached, notes=(note, *cached.notes))
    return fetch(ref, offline=offline, timeout_seconds=timeout_seconds)
