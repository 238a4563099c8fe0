"""The lines of a log: unpacked, decoded, cut, freed of colours and of what Docker, Kubernetes or syslog wrap them in.

To add a wrapper: its key in `_MESSAGE_KEYS` where it is JSON; where it names the process that wrote the line, a pattern
in `_SOURCES`; where an engine's prefix names a rank, one in `_RANKS`. Other prefixes need nothing: wordings are
searched, not matched.
"""

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from kvplan.core.errors import InputError

MAX_LINE = 2**16
"""Characters of a line that are read; SGLang's arguments, the longest line that matters, take about 12,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of what an engine wrote."""

    number: int
    text: str
    rank: str | None
    source: str | None
    """The container, pod or unit that wrote it, where the log mixes several."""


def raw_lines(source: Iterable[str] | str | os.PathLike[str] | BinaryIO) -> Iterator[str]:
    """The lines as they stand, each cut at `MAX_LINE`; gzip and UTF-16 are told by their first bytes.

    One without an end of line was cut, there or where the log was.
    """
    if isinstance(source, (str, os.PathLike)):
        try:
            with Path(source).open("rb") as stream:
                yield from _stream_lines(stream)
        except OSError as error:
            message = f"the log `{os.fspath(source)}` cannot be read: {error.strerror or error}"
            raise InputError(message, hint="give a text file, a .gz of one, or - for standard input") from error
    elif hasattr(source, "read"):
        yield from _stream_lines(cast("BinaryIO", source))
    else:
        for line in source:
            yield line[:MAX_LINE] if len(line) > MAX_LINE or line.endswith("\n") else line + "\n"


class _Joined(io.RawIOBase):
    """A stream whose first bytes were already read."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _stream_lines(stream: BinaryIO) -> Iterator[str]:
    head = stream.read(2)
    binary: io.BufferedIOBase = io.BufferedReader(_Joined(head, stream), 2**18)
    with ExitStack() as stack:
        if head == b"\x1f\x8b":
            binary = stack.enter_context(gzip.GzipFile(fileobj=binary))
            head = _peek(binary)
        encoding = "utf-16" if head in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = io.TextIOWrapper(binary, encoding=encoding, errors="replace", newline="\n")  # type: ignore[type-var]
        try:
            yield from _cut_lines(text)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return  # a .gz that was cut off: what came before it counts
        finally:
            text.detach()


def _peek(binary: gzip.GzipFile) -> bytes:
    try:
        return binary.peek(2)[:2]
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return b""


def _cut_lines(text: io.TextIOBase) -> Iterator[str]:
    while line := text.readline(MAX_LINE):
        yield line
        while line and not line.endswith("\n"):
            line = text.readline(MAX_LINE)


_COLOUR = re.compile(r"(?:\x1b|\\u001b|\\x1b|\\e|#033|\^\[)\[[0-9;]*[A-Za-z]")
_JSON = re.compile(r'(?P<prefix>[^{]{0,300}?)(?P<json>\{\s*".*\})\s*$', re.DOTALL)
_MESSAGE_KEYS = ("log", "message", "msg", "MESSAGE", "textPayload", "text", "line", "event", "content", "body")
_NESTED_KEYS = ("jsonPayload", "record", "fields")

_SOURCES = (
    # kubectl logs --prefix
    re.compile(r"\[pod/(?P<source>[^\]\s]+)\] "),
    # docker compose, with or without a time before it
    re.compile(r"(?:\d{4}-[\d:.TZ+\-]+ (?:[\d:.,]+ )?)?(?P<source>[A-Za-z][\w.\-]*) +\| "),
    # journald and syslog
    re.compile(
        r"(?:<\d+>)?(?:\d )?(?:[A-Z][a-z]{2} +\d+ [\d:]{8}|\d{4}-\d\d-\d\dT[\d:.]+\S*) [\w.\-]+ "
        r"(?P<source>[A-Za-z][\w.@\-]*)(?:\[\d+\])?: "
    ),
)

_RANKS = (
    # vLLM V1: (Worker_TP0 pid=…), (Worker_PP1_TP0_EP0 pid=…)
    (re.compile(r"\(Worker_((?:[A-Z]{2,3}\d+_?)+)[ )]"), "{0}"),
    # (EngineCore_DP0 pid=…), 0.10: (EngineCore_0 pid=…)
    (re.compile(r"\(EngineCore_(?:DP)?(\d+)[ )]"), "DP{0}"),
    # 0.8: (VllmWorker rank=0 pid=…)
    (re.compile(r"\(\w*Worker rank=(\d+)"), "rank {0}"),
    # V0: (VllmWorkerProcess pid=…); Ray: (RayWorkerWrapper pid=…, ip=…)
    (re.compile(r"\(\w*Worker\w* pid=(\d+), ip=([\d.a-f:]+)"), "pid {0} of {1}"),
    (re.compile(r"\(\w*Worker\w* pid=(\d+)"), "pid {0}"),
    # SGLang: [2026-01-01 00:00:00 DP0 TP0 EP0], also ATTN_CP0 and MOE_DP0
    (re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[\d.,]*((?: (?:[A-Z]{3,4}_)?[A-Z]{2,4}\d+)+)\]"), "{0}"),
    # SGLang to 0.3: [gpu=0], [gpu_id=0]
    (re.compile(r"\[gpu(?:_id)?=(\d+)\]"), "TP{0}"),
    # TensorRT-LLM: [TRT-LLM] [RANK 0] [I]; mpirun --tag-output: [1,0]<stdout>:
    (re.compile(r"\[RANK (\d+)\]"), "rank {0}"),
    (re.compile(r"\[1,(\d+)\]<std"), "rank {0}"),
)


def unwrap(raw: str, number: int) -> list[Line]:
    """What an engine wrote in one line of the log: mostly one line, several where a wrapper holds several.

    A number that a line was cut in, or may have been, is left out.
    """
    text = raw if raw.endswith("\n") else raw.rstrip("0123456789.,")
    text = _COLOUR.sub("", text) if "[" in text else text
    prefix, inner = _out_of_json(text)
    source = _source(prefix or inner)
    lines = []
    for part in inner.splitlines() or [""]:
        lines.append(Line(number=number, text=part, rank=_rank(prefix + part), source=source))
    return lines


def _out_of_json(text: str) -> tuple[str, str]:
    """What stands before a JSON object, and the message in it; no prefix where there is no such object."""
    found = _JSON.match(text) if '{"' in text or '{ "' in text else None
    if not found:
        return "", text
    try:
        record = json.loads(found["json"])
    except (ValueError, RecursionError):
        return "", text
    message = _message(record)
    return ("", text) if message is None else (found["prefix"], _COLOUR.sub("", message))


def _message(record: object) -> str | None:
    if not isinstance(record, dict):
        return None
    for key in _MESSAGE_KEYS:
        if isinstance(record.get(key), str):
            return str(record[key])
    for key in _NESTED_KEYS:
        message = _message(record.get(key))
        if message is not None:
            return message
    return None


def _source(text: str) -> str | None:
    for pattern in _SOURCES:
        found = pattern.match(text)
        if found:
            return found["source"]
    return None


def _rank(text: str) -> str | None:
    head = text[:400]
    for pattern, form in _RANKS:
        found = pattern.search(head)
        if found:
            return form.format(*(group.strip().rstrip("_") for group in found.groups()))
    return None
