"""The model and the GPU that an engine's log names: a Hub id, a folder, a snapshot in the Hub's cache, a GGUF file.

A model is tried in this order: the path itself; `OWNER/NAME` where the path lies in the Hub's cache; the name at the
door (`load_model`: catalog, cache, Hub); its last part in the catalog, where one model only has it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvplan.core.errors import InputError, KvplanError
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.text import printable
from kvplan.sources import catalog
from kvplan.sources.load import load_model
from kvplan.sources.records import named_gpu

_CACHED = re.compile(r"models--([\w.\-]+?)--([\w.\-]+)/snapshots/")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_QUANT = re.compile(r"[-._](?:UD[-_])?(?:I?Q\d+(?:_\w+)*|F16|BF16|F32|FP16|MXFP4\w*|TQ\d\w*|GGUF)$", re.IGNORECASE)
"""What a GGUF file's name ends in besides the model's."""


def model_of_log(name: str, *, title: str | None = None, **how: Any) -> tuple[ModelSpec, str]:
    """(the model, how it was found: "" where the log's own name says it) of what a log calls a model.

    `title` is what a GGUF file calls itself; `how` is what `load_model` takes. Raises what that raises where nothing
    of the order above leads to a model.
    """
    first: KvplanError | None = None
    for candidate, note in _candidates(name):
        try:
            return load_model(candidate, **how), note
        except KvplanError as error:
            first = first or error
    for part in _last_parts(name, title):
        found = catalog.find(part)
        model = catalog.load(found[0]) if found else None
        if model is not None:
            said = f"`{printable(name, max_length=60)}`" if name else "the model"
            how_found = "by its last part" if part in name else f"as it calls itself `{printable(title or '')}`"
            return model, f"{said} is taken as {model.id} of the catalog, {how_found}"
    raise first or InputError(f"`{printable(name, max_length=60)}` names no model", hint="`--model` says which it is")


def _candidates(name: str) -> Iterator[tuple[str, str]]:
    """What to give `load_model`, and the note that goes with it."""
    if _is_local(name):
        if _exists(name):
            yield name, f"read from {printable(name)}"
        cached = _CACHED.search(name + "/")
        if cached:
            repo = f"{cached[1]}/{cached[2]}"
            yield repo, f"`{printable(name, max_length=60)}` lies in the Hub's cache: taken as {repo}"
    else:
        yield name, ""


def _is_local(name: str) -> bool:
    return (
        name.startswith(("/", "./", "../", "~", ".\\"))
        or re.match(r"[A-Za-z]:[\\/]", name) is not None
        or (name.endswith(".gguf") and name.count("/") != 1)
    )


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError):
        return False


def _last_parts(name: str, title: str | None) -> Iterator[str]:
    """Names of a model alone, from the fullest to the barest."""
    parts = [part for part in re.split(r"[\\/]", name) if part]
    seen = []
    for text in (*parts[-1:], *parts[-2:-1], title or ""):
        bare = _SHARD.sub("", text.strip().partition(":")[0].removesuffix(".gguf"))
        shorter = _QUANT.sub("", bare)
        seen += [bare, shorter, _QUANT.sub("", shorter), shorter.replace(" ", "-")]
    return iter(part for part in dict.fromkeys(seen) if part and not part.startswith("sha256"))


def gpu_of_log(name: str | None) -> tuple[Gpu | None, str]:
    """(the device, a note where it is not settled) of what a log calls its GPUs, ` + ` between unlike ones."""
    if not name:
        return None, ""
    if " + " in name:
        return None, f"the log names unlike GPUs, {printable(name)}: `--gpu` names the one that decides"
    try:
        return named_gpu(name), ""
    except InputError:
        return None, f"the log names a GPU that kvplan does not know, {printable(name)}: `--gpu` says its like"
