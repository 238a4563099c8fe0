"""Ending every process of an engine, and a guard that does so when kvplan itself is killed.

Run as a file of its own, with nothing but the standard library: `python guard.py TOKEN SECONDS`. It reads standard
input until that is closed, which the kernel does when kvplan ends however it ends. The first word is the engine's
process group; unless another one says that all is done, the guard ends what is left.

A process belongs to the engine when it is in the engine's group or session, or was started with its token in the
environment: that finds the ones that left the group (Linux alone shows those).
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

MARK = "KVPLAN_ENGINE_RUN"
"""The variable that every process of one run inherits, whatever group it moves to."""
GRACE_SECONDS, KILL_SECONDS = 10.0, 10.0
"""How long an engine may take to end in order, and how long the kernel may take to end it."""
DONE = "done"
_NO_GROUP = -1
_POLL_SECONDS = 0.05
_PROC = Path("/proc")
_GONE = ("Z", "X")


def end_all(group: int, token: str, *, grace_seconds: float) -> bool:
    """Ask the processes of a run to end, then make them; whether none is left."""
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, KILL_SECONDS)):
        until = time.monotonic() + seconds
        asked: set[int] = set()
        while left := members(group, token):
            for pid in left if number == signal.SIGKILL else left - asked:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            asked |= left
            if time.monotonic() >= until:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return True
    return False


def members(group: int, token: str) -> set[int]:
    """The living processes of a run. Without /proc: the group, as the negative number by which `kill` knows it."""
    if not (_PROC / "self" / "stat").exists():
        return {-group} if group > 0 and _is_there(group) else set()
    return {int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and _belongs(entry, group, token)}


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _belongs(entry: Path, group: int, token: str) -> bool:
    try:
        # After the name, which may hold anything: state, parent, process group, session (proc(5)).
        state, _, own_group, session = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
        if state in _GONE:
            return False
        if str(group) in (own_group, session):
            return True
        return f"{MARK}={token}".encode() in (entry / "environ").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return False


def watch(token: str, grace_seconds: float) -> None:
    """Wait until whoever holds the other end of standard input is gone; end what it has left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    said = sys.stdin.read().split()
    if DONE not in said:
        end_all(int(said[0]) if said else _NO_GROUP, token, grace_seconds=grace_seconds)


if __name__ == "__main__":
    watch(sys.argv[1], float(sys.argv[2]))
