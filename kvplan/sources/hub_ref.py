"""Which text names a model on the Hugging Face Hub, and which repository and revision it names.

Pure text: nothing is asked, and `huggingface_hub` is not imported, since every command passes through here.
A new shape of address is a branch in `_path_on_hub` or `_ref_from_path`, and a line in the test table.
"""

import os
import re
from dataclasses import dataclass

from kvplan.core.errors import InputError
from kvplan.core.text import printable

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_VIEWS = {"tree", "blob", "resolve", "raw", "commit", "commits"}
_NOT_MODELS = {"datasets", "spaces", "buckets", "kernels", "collections", "papers", "docs", "blog"}
_FILE_ENDINGS = (".json", ".gguf", ".yaml", ".yml", ".safetensors")
_PLAIN = re.compile(r"([\w.\-]+(?:/[\w.\-]+)?)(?:/|@([^:]*))?(?::([\w.\-]+))?", re.ASCII)
_PART = re.compile(r"\w(?:[\w.\-]{0,94}\w)?", re.ASCII)
_REVISION = re.compile(r"[\w.\-]+(?:/[\w.\-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRef:
    """A model repository as the user named it."""

    repo_id: str
    """`OWNER/NAME`, or a one-word name of the early days such as `gpt2`."""
    revision: str | None
    """Branch, tag or commit; None is the main branch."""
    filename: str | None = None
    """A GGUF file of the repository."""
    tag: str | None = None
    """What the name of that file ends in, such as `Q4_K_M`."""

    @property
    def wants_gguf(self) -> bool:
        """Whether a GGUF file is meant, though the repository may have a config."""
        return self.filename is not None or self.tag is not None


def parse_ref(text: str) -> HubRef | None:
    """The repository that `text` names, or None when it has not the shape of a Hub reference.

    Shapes: `OWNER/NAME[@REV][:TAG]`, `NAME[@REV]`, `hf://[models/]OWNER/NAME[@REV][/PATH]`, and addresses pasted
    from the browser; a path is kept where it is a GGUF file. Raises InputError for a shape that is right and a
    content that is not.
    """
    text = text.strip()
    if (path := _path_on_hub(text)) is not None:
        return _ref_from_path(path, text)
    match = _PLAIN.fullmatch(text)
    if match is None or text.startswith(".") or match[1].endswith(("/.", "/..", *_FILE_ENDINGS)):
        return None
    if "/" not in match[1] and not _is_repo_id(match[1]):
        return None
    if match[3] is not None and "/" not in match[1]:
        return None
    return _checked(match[1], match[2], text, tag=match[3])


def _path_on_hub(text: str) -> str | None:
    """What stands behind the host of a Hub address; None for anything else."""
    if text.startswith("hf://"):
        return text[len("hf://") :]
    bare = re.sub(r"^https?://", "", text, flags=re.IGNORECASE)
    own = re.sub(r"^https?://", "", os.environ.get("HF_ENDPOINT", "").strip().rstrip("/"), flags=re.IGNORECASE)
    for host in (own, *_HOSTS):
        if host and bare.lower().startswith(f"{host.lower()}/"):
            return bare[len(host) + 1 :]
    return None


def _ref_from_path(path: str, text: str) -> HubRef:
    from urllib.parse import unquote

    segments = [segment for segment in re.split(r"[?#]", path)[0].split("/") if segment]
    if segments[:1] == ["models"]:
        segments = segments[1:]
    if not segments or (segments[0] in _NOT_MODELS):
        kind = f"an address under `{segments[0]}`" if segments else "no repository"
        raise InputError(f"`{printable(text)}` names {kind}, not a model", hint="give OWNER/NAME of a model")
    one_word = len(segments) == 1 or "@" in segments[0] or segments[1] in _VIEWS
    *owner, last = segments[: 1 if one_word else 2]
    rest = segments[len(owner) + 1 :]
    name, at, revision = last.partition("@")
    if at:
        rest = [revision, *rest]
    elif rest and rest[0] in _VIEWS:
        rest = rest[1:]
    else:
        rest = ["", *rest]
    # Refs such as refs/pr/1 are the only revisions with slashes that an address shows unescaped.
    depth = 3 if rest[:1] == ["refs"] else 1
    picked, path_in_repo = unquote("/".join(rest[:depth])), unquote("/".join(rest[depth:]))
    filename = path_in_repo if path_in_repo.endswith(".gguf") else None
    return _checked("/".join([*owner, name]), picked or None, text, filename=filename)


def _checked(
    repo_id: str, revision: str | None, text: str, *, filename: str | None = None, tag: str | None = None
) -> HubRef:
    if not _is_repo_id(repo_id):
        hint = "write OWNER/NAME: letters, digits, `-`, `_` and `.`, at most 96 of them in each part"
        raise InputError(f"`{printable(text)}` holds no valid name of a repository", hint=hint)
    if revision is not None and (
        not _REVISION.fullmatch(revision) or ".." in revision or revision.startswith("-") or len(revision) > 255
    ):
        hint = "a revision is a branch, a tag or a commit, such as `main` or `refs/pr/1`"
        raise InputError(f"`{printable(revision)}` is no valid revision", hint=hint)
    return HubRef(repo_id=repo_id, revision=revision, filename=filename, tag=tag)


def _is_repo_id(repo_id: str) -> bool:
    """The Hub's own rules for names."""
    parts = repo_id.split("/")
    shaped = len(parts) <= 2 and all(_PART.fullmatch(part) for part in parts)
    return shaped and "--" not in repo_id and ".." not in repo_id and not repo_id.endswith(".git")
