"""One program in a session of its own: its output line by line, in bounded memory, and its end, whatever happens."""

import os
import re
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from kvplan.core.errors import InputError
from kvplan.core.units import MIB
from kvplan.runtime.engine_run import guard
from kvplan.runtime.lines import MAX_LINE

MAX_LOG_BYTES = 64 * MIB
"""Of the copy that is kept; a start-up log has well below one."""
TAIL_LINES = 12
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CHUNK = 2**16
_POLL_SECONDS = 0.2
_DRAIN_SECONDS = 1.0
"""How long what a program left in the pipe, or a child that outlives it, is still listened to."""


class EngineProcess:
    """A program that was started; leave it by `with`, which ends it and all that it has started.

    Raises InputError where it cannot be started.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.token = secrets.token_hex(8)
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        """The last lines that say anything."""
        self.timed_out = False
        self.all_ended = False
        self._words, self._log_path = list(words), log
        self._environment = {**environment, guard.MARK: self.token}
        self._deadline = float("inf")
        self._log_bytes = 0
        self._exit_code: int | None = None

    def __enter__(self) -> "EngineProcess":
        self._log: BinaryIO = self._log_path.open("wb")
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, self.token, str(guard.GRACE_SECONDS)], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            self._process = subprocess.Popen(
                self._words, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._dismiss(done=True)
            message = f"`{self._words[0]}` cannot be started: {error.strerror or error}"
            raise InputError(message, hint="`--engine-command` names the program") from error
        self._tell(f"{self._process.pid}\n")
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and where it was ended from here; of a signal its negative number, as for Popen."""
        return self._exit_code

    def read_until(self, deadline: float) -> None:
        """Let `lines` end at that time of the monotonic clock, if not before."""
        self._deadline = min(self._deadline, deadline)

    def lines(self, *, timeout_seconds: float) -> Iterator[str]:
        """What the program says, until it says no more, is over, or the time is up."""
        assert self._process.stdout is not None
        fd, hard_end = self._process.stdout.fileno(), time.monotonic() + timeout_seconds
        self._deadline = min(self._deadline, hard_end)
        splitter = LineSplitter()
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while (left := self._deadline - time.monotonic()) > 0:
                self._note_exit()
                if selector.select(min(left, _POLL_SECONDS)):
                    data = os.read(fd, _CHUNK)
                    if not data:
                        break
                    yield from map(self._kept, splitter.split(data))
                elif self._exit_code is not None:
                    break
            else:
                self.timed_out = self._exit_code is None and time.monotonic() >= hard_end
        yield from map(self._kept, splitter.rest())
        self._await_exit()

    def end(self) -> None:
        """End the program and all that it has started; what will not end within seconds is killed."""
        try:
            self.all_ended = guard.end_all(self._process.pid, self.token, grace_seconds=guard.GRACE_SECONDS)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(guard.KILL_SECONDS)
            if self._process.stdout is not None:
                self._process.stdout.close()
        finally:
            self._dismiss(done=self.all_ended)

    def _note_exit(self) -> None:
        """Its exit code; the first time, too, that only so much more is read.

        It is not buried yet: until all of its group is ended, no other process may be given its number.
        """
        if self._exit_code is not None:
            return
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            self._exit_code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            self.read_until(time.monotonic() + _DRAIN_SECONDS)

    def _await_exit(self) -> None:
        """Of a program that closed its output, the exit code that follows at once."""
        until = min(self._deadline, time.monotonic() + _DRAIN_SECONDS)
        while self._exit_code is None and time.monotonic() < until:
            self._note_exit()
            time.sleep(_POLL_SECONDS / 10)

    def _kept(self, line: str) -> str:
        data = f"{line}\n".encode()
        if self._log_bytes <= MAX_LOG_BYTES:
            self._log_bytes += len(data)
            self._log.write(data if self._log_bytes <= MAX_LOG_BYTES else b"[kvplan keeps no more of this log]\n")
        if line.strip():
            self.tail.append(_COLOUR.sub("", line[:2000]).rstrip())
        return line

    def _tell(self, text: str) -> None:
        with suppress(OSError):
            assert self._guard.stdin is not None
            self._guard.stdin.write(text.encode())
            self._guard.stdin.flush()

    def _dismiss(self, *, done: bool) -> None:
        """Close the log, and the guard's input: it ends, and where not all is done it ends the rest first."""
        self._log.close()
        if done:
            self._tell(guard.DONE)
        with suppress(OSError):
            assert self._guard.stdin is not None
            self._guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(2 * guard.KILL_SECONDS)


class LineSplitter:
    """Bytes to lines, each at most `MAX_LINE` long; a progress bar's carriage return ends one, too."""

    def __init__(self) -> None:
        self._rest = b""
        self._skips = False

    def split(self, data: bytes) -> Iterator[str]:
        """The lines that these bytes complete; the rest of one that is too long is dropped."""
        *whole, last = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            if not self._skips:
                yield line[:MAX_LINE].decode(errors="replace")
            self._skips = False
        if self._skips:
            last = b""
        elif len(last) > MAX_LINE:
            yield last[:MAX_LINE].decode(errors="replace")
            self._skips, last = True, b""
        self._rest = last

    def rest(self) -> Iterator[str]:
        """A last line without its end."""
        if self._rest and not self._skips:
            yield self._rest.decode(errors="replace")
        self._rest = b""


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let a request to end leave by the same way as Ctrl-C; the main thread alone hears it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
