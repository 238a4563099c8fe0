"""What the Hugging Face Hub says about a model: its config, and the size of its stored weights.

Only small JSON files and the header of `model.safetensors` are read, all at one commit, and all through
`huggingface_hub`, whose cache, token and settings therefore hold here too. It is imported inside functions:
naming a model must stay fast. To read one more file: `_Repository.read` and `_from_cache`.
"""

import errno
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvplan.core.errors import HubError, InputError
from kvplan.core.units import format_bytes
from kvplan.sources.gguf.header import GgufHeader
from kvplan.sources.hub_errors import UnavailableError, asking, no_config, not_cached, too_slow
from kvplan.sources.hub_ref import HubRef, parse_ref
from kvplan.sources.json_file import MAX_CONFIG_BYTES, read_json_file
from kvplan.sources.quantization import SIDE_FILE, with_side_file
from kvplan.sources.safetensors import (
    INDEX_FILE,
    LENGTH_BYTES,
    MAX_INDEX_BYTES,
    SINGLE_FILE,
    StoredWeights,
    header_length,
    weights_of_file,
    weights_of_header,
    weights_of_index,
)

if TYPE_CHECKING:
    import logging

__all__ = ["HubFiles", "HubRef", "StoredWeights", "fetch", "parse_ref"]

DEFAULT_TIMEOUT_SECONDS = 14.0
"""Starting the process and importing the client take up to a second more: an answer comes within 15."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}
_THREAD = "kvplan-hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFiles:
    """What the Hub, or the cache of it, says about one model at one commit."""

    repo_id: str
    revision: str
    """The commit that everything was read at."""
    origin: str
    """`hub`, or `hub cache` when the answer came from the cache alone."""
    config: dict[str, Any] | None
    params: dict[str, Any] | None
    """`params.json`, the original format of Meta and Mistral; read only where there is no config."""
    stored: StoredWeights | None
    notes: tuple[str, ...]
    gguf: GgufHeader | None = None
    """Read where such a file was named, and where the repository holds nothing else that describes a model."""
    gguf_name: str | None = None


def fetch(ref: HubRef, *, offline: bool = False, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> HubFiles:
    """Everything kvplan reads about a repository, within `timeout_seconds` in all.

    A commit that the cache holds is answered from there, and so is everything in offline mode. When the Hub
    gives no answer, an older one from the cache is better than none, and a note says so. Raises HubError or,
    for content that cannot be used, InputError.
    """
    if not timeout_seconds > 0:
        raise InputError(f"the Hub cannot be given {timeout_seconds:g} seconds to answer", hint="give at least 1")
    # Read when it is imported: without this the library asks the Hub one more question, about AI agents.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import constants

    if offline or constants.is_offline_mode():
        cached = _from_cache(ref, ref.revision)
        if cached is None:
            raise not_cached(ref.repo_id, ref.revision)
        return cached
    pinned = _from_cache(ref, ref.revision) if _COMMIT.fullmatch(ref.revision or "") else None
    if pinned is not None and (pinned.stored is not None or pinned.gguf is not None):
        return pinned
    repository = _Repository(ref, timeout_seconds)
    try:
        return _within(timeout_seconds, repository)
    except HubError as error:
        cached = pinned
        if cached is None and isinstance(error, UnavailableError):
            cached = _from_cache(ref, repository.commit or ref.revision) or _from_cache(ref, ref.revision)
        if cached is None:
            raise
        note = f"{error}; this answer is from the cache (commit {cached.revision[:12]})"
        return replace(cached, notes=(note, *cached.notes))


def _within(seconds: float, repository: "_Repository") -> HubFiles:
    """The answer, or UnavailableError at the deadline: the library's own retries can last much longer.

    The thread is a daemon, so that one that hangs does not keep the process from leaving.
    """
    import queue
    import threading

    outcome: queue.SimpleQueue[HubFiles | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(repository.read())
        except Exception as error:
            outcome.put(error)

    _mute_retries()
    threading.Thread(target=work, daemon=True, name=_THREAD).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        raise too_slow(seconds, repository.doing) from None
    if isinstance(result, Exception):
        raise result
    return result


class _Repository:
    """One repository, read over the network at the commit that its revision is now."""

    def __init__(self, ref: HubRef, seconds: float) -> None:
        self.ref = ref
        self.seconds = seconds
        self.doing = "asking for the commit"
        self.commit: str | None = None
        self.files: frozenset[str] | None = None
        self.notes: list[str] = []

    def read(self) -> HubFiles:
        commit = self.resolve()
        config = None if self.ref.wants_gguf else self.json("config.json", MAX_CONFIG_BYTES)
        wants_params = config is None and not self.ref.wants_gguf
        params = self.json("params.json", MAX_CONFIG_BYTES) if wants_params else None
        if config is None and params is None:
            return self.gguf(commit)
        if config is not None and self.files is not None:
            config = dict(with_side_file(config, self.json(SIDE_FILE, MAX_CONFIG_BYTES)))
        index = self.json(INDEX_FILE, MAX_INDEX_BYTES)
        if index is None:
            stored = self.header()
        elif (stored := weights_of_index(index, what=_what(self.ref, INDEX_FILE))) is None:
            self.notes.append(f"`{INDEX_FILE}` states no total size, so the size of the stored weights is unknown")
        return HubFiles(
            repo_id=self.ref.repo_id,
            revision=commit,
            origin="hub",
            config=config,
            params=params,
            stored=stored,
            notes=tuple(self.notes),
        )

    def gguf(self, commit: str) -> HubFiles:
        """What the header of the repository's GGUF file says."""
        from kvplan.sources.hub_gguf import chosen_file, remote_header

        name = chosen_file(self.ref, self.files or ())
        if name is None:
            raise no_config(self.ref.repo_id, self.files)
        self.doing = f"reading the header of `{name}`"
        header = remote_header(name, lambda *at: self.part(*at)[0], what=_what(self.ref, name))
        return HubFiles(
            repo_id=self.ref.repo_id,
            revision=commit,
            origin="hub",
            config=None,
            params=None,
            stored=None,
            notes=tuple(self.notes),
            gguf=header,
            gguf_name=name,
        )

    def resolve(self) -> str:
        """The commit, so that all files are read at the same one, and the names of the files."""
        from huggingface_hub import HfApi

        with asking(self.ref.repo_id, self.ref.revision):
            info = HfApi().model_info(
                self.ref.repo_id,
                revision=self.ref.revision,
                expand=["sha", "siblings"],
                timeout=self.seconds,
            )
            names = [sibling.rfilename for sibling in info.siblings or ()]
        if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
            hint = "check HF_ENDPOINT: not every mirror answers like the Hub"
            raise HubError(f"the Hub names no commit for `{self.ref.repo_id}`", hint=hint)
        self.commit = info.sha
        self.files = frozenset(names) or None
        return info.sha

    def json(self, filename: str, max_bytes: int) -> dict[str, Any] | None:
        """One JSON file, from the cache where it is there at this commit; None when the commit has none."""
        import tempfile

        from huggingface_hub.errors import RemoteEntryNotFoundError

        if self.files is not None and filename not in self.files:
            return None
        self.doing = f"reading `{filename}`"
        with asking(self.ref.repo_id, self.ref.revision):
            try:
                path = self.download(filename, max_bytes)
            except RemoteEntryNotFoundError:
                return None
            except OSError as error:
                if error.errno not in _UNWRITABLE:
                    raise
                # A read-only or full cache must not keep anyone from an answer.
                with tempfile.TemporaryDirectory() as folder:
                    path = self.download(filename, max_bytes, cache_dir=folder)
                    return read_json_file(path, what=_what(self.ref, filename), max_bytes=max_bytes, finite=False)
        return read_json_file(path, what=_what(self.ref, filename), max_bytes=max_bytes, finite=False)

    def download(self, filename: str, max_bytes: int, *, cache_dir: str | None = None) -> Path:
        """The path of the file in the cache, at this commit, fetched when it is not there yet."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import silent_tqdm  # type: ignore[attr-defined]

        repo_id, named = self.ref.repo_id, self.ref.revision or "main"
        path = _cached(self.ref, filename, named, cache_dir)
        if path is not None and path.parent.name == self.commit:
            return path
        if _cached(self.ref, filename, self.commit, cache_dir) is None:
            self.check_size(filename, max_bytes)
        # First under the name that the user gave: only so does the cache learn which commit the name means,
        # and can answer for it offline. The second turn is for a branch that moved since `resolve`.
        for revision in (named, self.commit):
            path = Path(
                hf_hub_download(
                    repo_id,
                    filename,
                    revision=revision,
                    cache_dir=cache_dir,
                    etag_timeout=self.seconds,
                    tqdm_class=silent_tqdm,  # files this small need no progress bar
                )
            )
            if path.parent.name == self.commit:
                return path
        raise HubError(f"the Hub changed `{repo_id}` while it was read", hint="try again")

    def check_size(self, filename: str, max_bytes: int) -> None:
        """Asks before the download, which would fill the disk, and would retry where this fails at once."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.ref.repo_id, filename, revision=self.commit)
        size = get_hf_file_metadata(url, timeout=self.seconds).size
        if size is not None and size > max_bytes:
            message = f"{_what(self.ref, filename)} is larger than {format_bytes(max_bytes)}"
            raise InputError(message, hint="do not trust this repository: no honest file of this name is so large")

    def header(self) -> StoredWeights | None:
        """What the header of a single safetensors file says: its length first, then just the header."""
        if self.files is None or SINGLE_FILE not in self.files:
            return None
        self.doing = f"reading the header of `{SINGLE_FILE}`"
        what = _what(self.ref, SINGLE_FILE)
        prefix, _ = self.part(SINGLE_FILE, 0, LENGTH_BYTES)
        num_bytes = header_length(prefix, what=what)
        header, file_bytes = self.part(SINGLE_FILE, LENGTH_BYTES, num_bytes)
        return weights_of_header(header, num_bytes=num_bytes, what=what, file_bytes=file_bytes)

    def part(self, filename: str, first: int, num_bytes: int) -> tuple[bytes, int | None]:
        """Some bytes of a file, and the size of the whole where the answer states it."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        url = hf_hub_url(self.ref.repo_id, filename, revision=self.commit)
        headers = build_hf_headers() | {
            "Range": f"bytes={first}-{first + num_bytes - 1}",
            "Accept-Encoding": "identity",
        }
        received = bytearray()
        with (
            asking(self.ref.repo_id, self.ref.revision),
            get_session().stream("GET", url, headers=headers, timeout=self.seconds) as response,
        ):
            hf_raise_for_status(response)
            if response.status_code != 206:  # the whole file would follow
                hint = "check HF_ENDPOINT and the proxy: one of them does not serve parts of files"
                raise UnavailableError("the Hub sent a whole file where its header was asked for", hint=hint)
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) >= num_bytes:
                    break
            total = re.search(r"/(\d{1,20})$", response.headers.get("Content-Range", ""), re.ASCII)
        return bytes(received[:num_bytes]), int(total[1]) if total else None


def _from_cache(ref: HubRef, revision: str | None) -> HubFiles | None:
    """What `huggingface_hub`'s cache holds of a revision, without any network; None without a config."""
    if ref.wants_gguf:
        return _gguf_from_cache(ref, revision)
    config_path = _cached(ref, "config.json", revision)
    path = config_path or _cached(ref, "params.json", revision)
    if path is None:
        return None
    commit = path.parent.name
    content = read_json_file(path, what=_what(ref, path.name), max_bytes=MAX_CONFIG_BYTES, finite=False)
    if config_path and (side := _cached(ref, SIDE_FILE, commit)) is not None:
        content = dict(with_side_file(content, read_json_file(side, what=SIDE_FILE, max_bytes=MAX_CONFIG_BYTES)))
    stored = _stored_in_cache(ref, commit)
    note = "the size of the stored weights is unknown: the cache has neither their index nor the file"
    return HubFiles(
        repo_id=ref.repo_id,
        revision=commit,
        origin="hub cache",
        config=content if config_path else None,
        params=None if config_path else content,
        stored=stored,
        notes=() if stored else (note,),
    )


def _gguf_from_cache(ref: HubRef, revision: str | None) -> HubFiles | None:
    """The header of a GGUF file that was downloaded; by a tag alone the cache is not searched."""
    from kvplan.sources.gguf.file import header_of_file

    path = _cached(ref, ref.filename, revision) if ref.filename else None
    if path is None or ref.filename is None:
        return None
    depth = ref.filename.count("/")
    return HubFiles(
        repo_id=ref.repo_id,
        revision=path.parents[depth].name,
        origin="hub cache",
        config=None,
        params=None,
        stored=None,
        notes=(),
        gguf=header_of_file(path),
        gguf_name=ref.filename,
    )


def _stored_in_cache(ref: HubRef, commit: str) -> StoredWeights | None:
    if (path := _cached(ref, INDEX_FILE, commit)) is not None:
        what = _what(ref, INDEX_FILE)
        return weights_of_index(read_json_file(path, what=what, max_bytes=MAX_INDEX_BYTES), what=what)
    if (path := _cached(ref, SINGLE_FILE, commit)) is not None:
        return weights_of_file(path, what=_what(ref, SINGLE_FILE))
    return None


def _cached(ref: HubRef, filename: str, revision: str | None, cache_dir: str | None = None) -> Path | None:
    """Where the cache keeps a file of a revision; a name stands for the commit that it last meant."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(ref.repo_id, filename, cache_dir=cache_dir, revision=revision)
    except (OSError, ValueError):  # unreadable, or not a cache: as good as none
        return None
    return Path(found) if isinstance(found, str) else None


def _what(ref: HubRef, filename: str) -> str:
    return f"`{filename}` of `{ref.repo_id}`"


def _mute_retries() -> None:
    """Keeps the library's warnings about our own requests off the terminal: what matters, we tell."""
    import logging

    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_is_wanted)


def _is_wanted(record: "logging.LogRecord") -> bool:
    return record.threadName != _THREAD or record.levelname != "WARNING"
