"""Every way the Hub can refuse, as one sentence and a next step.

The only place that knows the exceptions of `huggingface_hub` and of the HTTP client below it. They are told
apart by name: the client is httpx or httpx2 depending on the version, and it is no dependency of ours.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from kvplan.core.errors import HubError, InputError, KvplanError
from kvplan.core.text import printable

_HTTP_CLIENTS = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
_LOGIN = "run `hf auth login` or set HF_TOKEN"
_NETWORK = "check the network, the proxy and HF_ENDPOINT, or give the path of a config.json"


class UnavailableError(HubError):
    """The Hub gave no answer now, but may later: the cache may answer instead."""


@contextmanager
def asking(repo_id: str, revision: str | None) -> Iterator[None]:
    """Around each call of `huggingface_hub`: whatever it raises leaves as a KvplanError."""
    try:
        yield
    except KvplanError:
        raise
    except Exception as error:
        raise explain(error, repo_id, revision) from error


def endpoint() -> str:
    """Scheme and host of the Hub in use; an address may carry a password, which stays out."""
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return printable(f"{parts.scheme}://{parts.hostname or ''}{port}")


def explain(error: Exception, repo_id: str, revision: str | None) -> KvplanError:
    """The sentence for an exception that came out of `huggingface_hub`."""
    error = _root(error)
    names = {kind.__name__ for kind in type(error).__mro__}
    clients = {kind.__module__.partition(".")[0] for kind in type(error).__mro__} & _HTTP_CLIENTS
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in names:
        return _gated(repo_id)
    if "RevisionNotFoundError" in names:
        hint = "name a branch, a tag or a full commit that it has, or leave the revision out"
        return HubError(f"`{repo_id}` has no revision `{revision or 'main'}` on the Hub", hint=hint)
    if "RemoteEntryNotFoundError" in names:
        return HubError(f"a file of `{repo_id}` is listed by the Hub but not there", hint="try again")
    if "OfflineModeIsEnabled" in names:
        return not_cached(repo_id, revision)
    if "HFValidationError" in names:
        return InputError(f"`{repo_id}` is no valid name of a repository", hint="write it as OWNER/NAME")
    if isinstance(status, int):
        return _status(status, error, repo_id)
    if names & {"RemoteProtocolError", "ReadError"} or (type(error) is OSError and error.errno is None):
        return UnavailableError(f"the connection to the Hub at `{endpoint()}` broke off", hint=f"try again; {_NETWORK}")
    if clients or isinstance(error, (ConnectionError, TimeoutError)):
        return UnavailableError(
            f"the Hub at `{endpoint()}` could not be reached ({type(error).__name__})", hint=_NETWORK
        )
    if isinstance(error, OSError) and error.errno is not None:
        message = f"the cache of `huggingface_hub` cannot be used: {error.strerror}"
        return HubError(message, hint="set HF_HOME to a folder that can be written")
    message = f"the answer of `{endpoint()}` about `{repo_id}` could not be understood ({type(error).__name__})"
    return UnavailableError(message, hint=f"if a proxy or mirror stands between, it may have answered: {_NETWORK}")


def not_cached(repo_id: str, revision: str | None) -> HubError:
    """Offline, and the cache has no config of it."""
    where = f"`{repo_id}` at revision `{revision}`" if revision else f"`{repo_id}`"
    hint = f"go online once, or fetch it elsewhere: hf download {repo_id} config.json"
    return HubError(f"{where} is not in the cache, and offline mode forbids asking the Hub", hint=hint)


def too_slow(seconds: float, doing: str) -> UnavailableError:
    """The deadline passed."""
    message = f"the Hub at `{endpoint()}` did not answer within {seconds:g} s ({doing})"
    return UnavailableError(message, hint=f"try again later; {_NETWORK}")


def no_config(repo_id: str, files: Collection[str] | None) -> InputError:
    """A repository that is there, without a file that describes a model."""
    names = tuple(files or ())
    found = (row for row in _INSTEAD if any(name.endswith(row[0]) for name in names))
    _, holds, hint = next(found, ("", "", "name a repository with a `config.json` at its top level"))
    message = f"`{repo_id}` has neither `config.json` nor `params.json` at its top level"
    return InputError(f"{message}; it holds {holds}" if holds else message, hint=hint)


_INSTEAD = (
    ("adapter_config.json", "an adapter", "name the base model that the adapter is for"),
    ("model_index.json", "a pipeline of several models", "download one of its folders and give that path"),
    (".gguf", "GGUF files that are no models of their own", "name the model that they belong to"),
    (
        ".pth",
        "PyTorch checkpoints (.pth), which kvplan never opens",
        "look for its twin with a `config.json`",
    ),
)
"""File ending, what the repository then holds, next step; the first that matches is told."""


def _gated(repo_id: str) -> HubError:
    message = f"`{repo_id}` is gated: the Hub shows its files only to accounts that accepted its terms"
    return HubError(message, hint=f"accept the terms at {endpoint()}/{repo_id}, then {_LOGIN}")


def _status(status: int, error: Any, repo_id: str) -> KvplanError:
    """Errors that the status code tells apart."""
    has_token = "authorization" in error.response.request.headers
    spelling = f"check the spelling of OWNER/NAME at {endpoint()}/models"
    if status == 401 and has_token:
        message = f"the Hub did not accept your token, and without one it does not show `{repo_id}` (401)"
        return HubError(message, hint="log in again with `hf auth login`, or correct or unset HF_TOKEN")
    if status == 401:
        message = f"`{repo_id}` does not exist on the Hub, or it is private and you are not logged in (401)"
        return HubError(message, hint=f"{spelling}; if it is yours, {_LOGIN}")
    if status == 403:
        message = f"`{repo_id}` is private or restricted, and your account has no access to it (403)"
        return HubError(message, hint=f"ask its owner for access; with another account, {_LOGIN}")
    if status == 404:
        doubt = ", or your account may not see it" if has_token else ""
        return HubError(f"`{repo_id}` does not exist on the Hub{doubt} (404)", hint=spelling)
    if status == 429:
        message = f"the Hub had too many requests from here, and {_wait(error.response.headers)} (429)"
        return UnavailableError(message, hint=f"wait; for a higher limit {_LOGIN}")
    if status >= 500:
        return UnavailableError(f"the Hub has a problem of its own (it answered {status})", hint="try again later")
    return HubError(f"the Hub answered {status} about `{repo_id}`", hint=_NETWORK)


def _wait(headers: Any) -> str:
    """When a 429 says to come back, in either of the two headers that the Hub sends."""
    found = re.fullmatch(r"(\d{1,6})", headers.get("retry-after", "").strip(), re.ASCII)
    found = found or re.search(r";\s*t=(\d{1,6})", headers.get("ratelimit", ""), re.ASCII)
    return f"it asks to wait {found[1]} s" if found else "it does not say for how long"


def _root(error: Exception) -> Exception:
    """The exception behind "not found in the cache", which `huggingface_hub` says of any failure."""
    while type(error).__name__ == "LocalEntryNotFoundError" and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
