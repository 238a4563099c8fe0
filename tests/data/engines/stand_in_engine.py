"""Stands in for an engine: prints a start-up log as if it were its own, and then behaves as it is told.

    stand_in_engine.py [--log FILE] [--then WAY] [--pids FILE] serve MODEL …

The ways: serve (wait for requests, as a server does), exit, crash (half way), killed (half way, as by a kernel that is
out of memory), hang (half way), flood (lines without end), long (one line without end), deaf (serve, and ignore requests
to end), child (serve, with a child in the same group), stray (serve, with a child in a session of its own), orphan
(exit, and leave a child that holds the output).
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

_SLEEP = "import time; time.sleep(600)"


def main() -> None:
    words, told = sys.argv[1:], {"--log": "", "--then": "serve", "--pids": ""}
    while words and words[0] in told:
        told[words[0]], words = words[1], words[2:]
    if words == ["--version"]:
        return
    way, lines = told["--then"], Path(told["--log"]).read_text(encoding="utf-8").splitlines() if told["--log"] else []
    pids = [os.getpid()]
    if way == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if way in ("child", "stray", "orphan"):
        pids.append(subprocess.Popen([sys.executable, "-c", _SLEEP], start_new_session=way == "stray").pid)
    if told["--pids"]:
        # What a test is to find out: who is to be gone, what was said to the engine, what it was given.
        model = next((Path(word) for word in words if Path(word, "config.json").is_file()), None)
        seen = {
            "pids": pids, "words": words, "offline": os.environ.get("HF_HUB_OFFLINE"),
            "config": None if model is None else json.loads((model / "config.json").read_text(encoding="utf-8")),
            "files": [] if model is None else sorted(path.name for path in model.iterdir()),
        }  # fmt: skip
        Path(told["--pids"]).write_text(json.dumps(seen), encoding="utf-8")
    half = len(lines) // 2 if way in ("crash", "killed", "hang") else len(lines)
    if way not in ("flood", "long"):
        sys.stdout.write("".join(f"{line}\n" for line in lines[:half]))
        sys.stdout.flush()
    behave(way)


def behave(way: str) -> NoReturn:
    """What comes after the log."""
    if way == "crash":
        sys.stderr.write("Traceback (most recent call last):\nRuntimeError: the stand-in gives up\n")
        sys.exit(3)
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way in ("exit", "orphan"):
        sys.exit(0)
    while way in ("flood", "long"):
        sys.stdout.write(("x" * 99 + ("\n" if way == "flood" else " ")) * 1000)
    time.sleep(600)
    sys.exit(0)


if __name__ == "__main__":
    main()
