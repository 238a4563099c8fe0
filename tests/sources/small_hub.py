"""A small Hugging Face Hub on the loopback, so that the real client can be tried against it.

It answers what the Hub answers for a model's commit and for its files, ranges and redirects included, and it
keeps a log of every request. A repository that misbehaves is a `Repo` with a `Refusal` or a `fault`.
"""

import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40
LATER_COMMIT = "b" * 40


@dataclass
class Refusal:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "no"}'


@dataclass
class Repo:
    files: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "v1": COMMIT})
    api: Refusal | None = None
    """How the question for the commit is refused."""
    resolve: Refusal | None = None
    """How every file is refused."""
    fault: str = ""
    """`stall` hangs at once, `stall-file` at the files, `cut` breaks off inside a file, `no-range` sends it all."""
    on_cdn: tuple[str, ...] = ()
    """Files that the Hub sends the client elsewhere for, as it does for large ones."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    has_token: bool
    sent_bytes: int

    @property
    def filename(self) -> str:
        return self.path.rpartition("/")[2] if "/resolve/" in self.path or "/on-cdn/" in self.path else ""


class SmallHub:
    """Two servers, the Hub and its CDN, since the client must not carry its token from one to the other."""

    def __init__(self, repos: dict[str, Repo]) -> None:
        self.repos = repos
        self.requests: list[Request] = []
        self.errors: list[str] = []
        self.closing = threading.Event()
        self.servers = [_Server(("127.0.0.1", 0), self) for _ in range(2)]
        self.url, self.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)

    def __enter__(self) -> "SmallHub":
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()
        assert not self.errors

    def requests_for(self, repo_id: str) -> list[Request]:
        return [request for request in self.requests if f"/{repo_id}/" in f"{request.path}/"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], hub: SmallHub) -> None:
        self.hub = hub
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the play; anything else is a fault of this file."""
        if not isinstance(error := sys.exc_info()[1], ConnectionError):
            self.hub.errors.append(repr(error))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *args: Any) -> None:
        """The log is `SmallHub.requests`."""

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            self.answer_commit(path, match[1], match[2] or "main")
        elif match := re.fullmatch(r"/(.+?)/(resolve|on-cdn)/(.+)/([^/]+)", path):
            self.answer_file(path, match[1], revision=match[3], filename=match[4], on_cdn=match[2] == "on-cdn")
        else:
            self.send(path, 404)

    def answer_commit(self, path: str, repo_id: str, revision: str) -> None:
        repo = self.server.hub.repos.get(repo_id)
        if repo is None:
            # As the Hub does: strangers are not told whether it exists.
            self.refuse(path, _missing(has_token="Authorization" in self.headers))
        elif repo.fault == "stall":
            self.send(path, 0)
        elif repo.api:
            self.refuse(path, repo.api)
        elif (commit := self.commit_of(repo, revision)) is None:
            self.refuse(path, Refusal(404, {"X-Error-Code": "RevisionNotFound"}))
        else:
            about = {"id": repo_id, "sha": commit, "siblings": [{"rfilename": name} for name in repo.files]}
            self.send(path, 200, {"Content-Type": "application/json"}, json.dumps(about).encode())

    def answer_file(self, path: str, repo_id: str, *, revision: str, filename: str, on_cdn: bool) -> None:
        repo = self.server.hub.repos[repo_id]
        commit = self.commit_of(repo, revision)
        if repo.fault == "stall-file":
            self.send(path, 0)
        elif repo.resolve:
            self.refuse(path, repo.resolve)
        elif commit is None:
            self.refuse(path, Refusal(404, {"X-Error-Code": "RevisionNotFound"}))
        elif filename not in repo.files:
            self.refuse(path, Refusal(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}))
        else:
            self.send_file(path, repo, filename, commit, redirect=filename in repo.on_cdn and not on_cdn)

    def send_file(self, path: str, repo: Repo, filename: str, commit: str, *, redirect: bool) -> None:
        body = repo.files[filename]
        etag = hashlib.sha1(commit.encode() + body, usedforsecurity=False).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit}
        if redirect:
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(body))}
            self.send(
                path,
                302,
                headers | {"Location": self.server.hub.cdn_url + path.replace("/resolve/", "/on-cdn/")},
            )
            return
        status = 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and repo.fault != "no-range":
            first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
            status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(body)}"
            body = body[first : last + 1]
        self.send(path, status, headers, body, cut=repo.fault == "cut")

    def commit_of(self, repo: Repo, revision: str) -> str | None:
        return revision if revision in repo.revisions.values() else repo.revisions.get(revision)

    def refuse(self, path: str, refusal: Refusal) -> None:
        self.send(path, refusal.status, refusal.headers, refusal.body)

    def send(
        self,
        path: str,
        status: int,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        cut: bool = False,
    ) -> None:
        """Writes the log and the answer; status 0 never answers, `cut` stops half-way through the body."""
        sent = b"" if self.command == "HEAD" else body[: len(body) // 2] if cut else body
        self.server.hub.requests.append(
            Request(self.command, path, self.headers.get("Range"), "Authorization" in self.headers, len(sent))
        )
        if status == 0:
            self.server.hub.closing.wait(60)
            return
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = self.close_connection or cut


def _missing(*, has_token: bool) -> Refusal:
    if has_token:
        return Refusal(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
    return Refusal(401, {"X-Error-Message": "Invalid username or password."})
