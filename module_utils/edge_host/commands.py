"""Runs commands on the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Mapping, NamedTuple, Optional, Sequence

# The PATH of a bare ssh command may lack the sbin folders.
SEARCH_PATH = os.pathsep.join(
    [
        os.environ.get("PATH", ""),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
)
# Seconds that one command, or one batch started together, may take: a small board that is busy
# needs more than ten to ask its Docker, which is no reason to take that for one that does not run.
COMMAND_TIMEOUT = 60.0
END_SECONDS = 10.0
"""Seconds until a process that was killed is gone."""


class Result(NamedTuple):
    """How a command ended: its exit status and its output.

    The status is None where the command ran out of time or could not be started; `err` has the
    reason.
    """

    code: Optional[int]
    out: str
    err: str


def which(name: str) -> Optional[str]:
    """Return the path of a command, or None where the host does not have it."""
    return shutil.which(name, path=SEARCH_PATH)


def environment(home: Optional[str] = None) -> Dict[str, str]:
    """Return the environment of commands that must not see the caller's variables."""
    return {
        "PATH": SEARCH_PATH,
        "LC_ALL": "C",
        "HOME": home or os.environ.get("HOME", "/root"),
    }


def run_together(
    commands: Mapping[str, Sequence[str]], timeout: float = COMMAND_TIMEOUT
) -> Dict[str, Result]:
    """Start the commands at once and collect their output.

    Together, because each is mostly waiting: for the docker command to start, then for the engine.
    All share one limit of `timeout` seconds; those still running then are killed.
    """
    variables = dict(os.environ, PATH=SEARCH_PATH, LC_ALL="C")
    deadline = time.monotonic() + timeout
    started, results = {}, {}
    for name, command in commands.items():
        try:
            started[name] = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=variables,
                start_new_session=True,
            )
        except OSError as error:  # it is there, and not for this machine
            results[name] = Result(None, "", str(error))
    for name, process in started.items():
        try:
            out, err = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
            results[name] = Result(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            end_session(process)
            results[name] = Result(None, "", f"no answer within {timeout:g} seconds")
    return results


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and wait for its end, which one that waits for a device does not reach."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=END_SECONDS)


def end_session(process: subprocess.Popen[str]) -> None:
    """Kill a process and those that it started: one of them could hold its output open."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
    try:
        process.communicate(timeout=1)
    except subprocess.TimeoutExpired:  # it waits for a device, and ends when that answers
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def find_python(stable: str = "/usr/bin/python3") -> str:
    """The Python that runs this, by the name that it keeps when the system upgrades it.

    However it was started: units that name it stay as they are.
    """
    try:
        return stable if Path(stable).samefile(sys.executable) else sys.executable
    except OSError:  # there is no such name
        return sys.executable
