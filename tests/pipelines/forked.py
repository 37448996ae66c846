"""Starts `faultline` commands at once, as true processes: forked off one that has imported everything before.

Each line of standard input is a JSON object; each answer is a line of JSON:
    {"start": {"argv": […], "log": FILE, …}}   the process id; it leads a process group of its own
    {"ended": PID}                             its exit code, or the negative number of the signal that ended it; null
                                               while it works
What it says goes to `log`. `events`: a file for a line per file operation below the folder `watched`, in their order.
`kill_at`: SIGKILL for its whole group just before the operation of this number, from 0. `kill_before`: just before the
first on a path with this in it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any, NoReturn

os.environ["OMP_NUM_THREADS"] = "1"

import great_expectations  # noqa: F401
import matplotlib.figure  # noqa: F401
import mlflow  # noqa: F401

import labelers.model  # noqa: F401
from pipelines.cli import main

_OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
_EXCHANGE = "ctypes.dlsym"  # just before two folders change places


def watch(folder: str, events: str | None, kill_at: int | None, kill_before: str | None) -> None:
    out = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if events else None
    count = 0
    one_at_a_time = threading.RLock()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in (*_OPERATIONS, _EXCHANGE):
            return
        paths = [each for each in arguments[1::-1] if isinstance(each, str)]
        path = next((each for each in paths if each.startswith(folder)), None)
        # What is deleted with its folder is named below that.
        if path is None and not (event == _EXCHANGE or (event in ("os.remove", "os.rmdir") and paths[0][:1] != "/")):
            return
        with one_at_a_time:
            if count == kill_at or (kill_before and kill_before in (path or "")):
                os.killpg(0, signal.SIGKILL)
            count += 1
            if out is not None:
                os.write(out, f"{event} {(path or paths[0]).removeprefix(folder)}\n".encode())

    sys.addaudithook(hook)


def work(
    *,
    argv: list[str],
    log: str,
    watched: str | None = None,
    events: str | None = None,
    kill_at: int | None = None,
    kill_before: str | None = None,
) -> NoReturn:
    os.setsid()
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if watched is not None:
        watch(watched, events, kill_at, kill_before)
    code = 1
    try:
        code = main(argv)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            answer = os.fork()
            if answer == 0:
                work(**command["start"])
        else:
            pid, status = os.waitpid(command["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
