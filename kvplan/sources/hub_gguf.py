"""GGUF files of a repository on the Hub: which one is meant, and its header by range requests."""

from collections.abc import Callable, Collection

from kvplan.core.errors import InputError
from kvplan.core.text import join_words, printable
from kvplan.sources.gguf.file import PART, joined, part_names
from kvplan.sources.gguf.header import GgufHeader, read_header
from kvplan.sources.hub_ref import HubRef

MAX_LISTED = 8
_NOT_MODELS = ("mmproj", "imatrix", "-lora")


def chosen_file(ref: HubRef, files: Collection[str]) -> str | None:
    """The GGUF file of a repository that `ref` means; None where it has none.

    A file by its path, `:TAG` by the part of its name (`OWNER/NAME:Q4_K_M`), without either the only one. Raises
    InputError where several would do, or none does: which one is served decides the bytes.
    """
    models = sorted(name for name in files if name.endswith(".gguf") and _is_model(name))
    if ref.filename is not None:
        if ref.filename not in files:
            raise InputError(f"`{ref.repo_id}` has no file `{printable(ref.filename)}`", hint=_listed(ref, models))
        return ref.filename
    if ref.tag is not None:
        tagged = [name for name in models if _has_tag(name, ref.tag)]
        if len(tagged) != 1:
            found = f"{len(tagged)} GGUF files" if tagged else "no GGUF file"
            raise InputError(f"`{ref.repo_id}` has {found} called `{ref.tag}`", hint=_listed(ref, tagged or models))
        return tagged[0]
    if len(models) > 1:
        raise InputError(f"`{ref.repo_id}` holds {len(models)} GGUF models", hint=_listed(ref, models))
    return models[0] if models else None


def remote_header(name: str, part: Callable[[str, int, int], bytes], *, what: str) -> GgufHeader:
    """The header of a file, of all its parts where it is split; `part` takes (file, offset, number of bytes)."""

    def header(file: str) -> GgufHeader:
        return read_header(lambda offset, num_bytes: part(file, offset, num_bytes), what=what)

    return joined([header(file) for file in part_names(name)], what=what)


def _is_model(name: str) -> bool:
    """Whether it is a model of its own: no projector, no calibration data, and of a split file the first part."""
    last = name.rpartition("/")[2].lower()
    match = PART.fullmatch(last)
    return not any(word in last for word in _NOT_MODELS) and (match is None or int(match[2]) == 1)


def _has_tag(name: str, tag: str) -> bool:
    """`Q4_K_M` of `Model-Q4_K_M.gguf`, `Model.Q4_K_M.gguf`, `Q4_K_M/Model-Q4_K_M-00001-of-00003.gguf`."""
    stem = name.rpartition("/")[2].removesuffix(".gguf").lower()
    match = PART.fullmatch(f"{stem}.gguf")
    whole = match[1] if match else stem
    return whole.endswith((f"-{tag.lower()}", f".{tag.lower()}", f"_{tag.lower()}")) or whole == tag.lower()


def _listed(ref: HubRef, names: list[str]) -> str:
    shown = join_words([f"`{printable(name)}`" for name in names[:MAX_LISTED]]) if names else "none"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"name one like `hf://{ref.repo_id}/FILE.gguf` or `{ref.repo_id}:Q4_K_M`; there are {shown}{more}"
