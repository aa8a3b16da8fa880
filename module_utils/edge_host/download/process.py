"""Starts, watches and stops the process that downloads.

The process is independent of the connection that started it (a unit of systemd on a board, a
process of its own on the control machine), so a lost connection does not interrupt the download.
It writes its state to a file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Sequence

from ..files import read_json, write_atomically
from ..json_data import Facts
from ..weights.request import StoreError
from .job import JOB, LOCK, STATUS, DownloadError, parse_job
from .runner import run_job
from .session import DownloadSession, Stopped

UNIT = "edge-llm-fetch"
START_TIMEOUT = 30.0


def lock_folder(folder: Path) -> int:
    """Lock a runtime folder; returns the descriptor that holds the lock.

    Raises BlockingIOError where another process holds it.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def runtime_folder(folder: Path, bundle: str) -> Path:
    """Return the folder with the state of a bundle's download, and for a moment its job.

    It is in memory, since the job may hold a token. `folder` is the models folder.
    """
    base = Path("/run")
    if os.geteuid():
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/dev/shm/{os.getuid()}")  # noqa: S108
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return base / UNIT / f"{bundle}-{digest}"


def start(job: Facts, runtime: Path, program: Path, unit: bool) -> bool:
    """Start the download; returns False where one with the same mode runs already.

    `unit`: as a unit of systemd. Raises DownloadError where the bundle is being downloaded in
    another mode.
    """
    runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = lock_folder(runtime)
    except BlockingIOError:
        status = read_json(runtime / STATUS) or {}
        if status.get("how") == job["mode"]:
            return False
        raise DownloadError(
            f"{job['name']} is in use: {status.get('by', 'somebody')} runs another download of it"
            f" (mode {status.get('how', 'unknown')}). Run this again when that has ended"
        ) from None
    try:
        first = {
            "state": "begun",
            "name": job["name"],
            "how": job["mode"],
            "by": job["operator"],
        }
        for name, content in ((STATUS, first), (JOB, job)):
            write_atomically(
                runtime / name, json.dumps(content).encode(), runtime, 0o600, sync=False
            )
        command = [sys.executable, "-I", str(program), "download", str(runtime)]
        if unit:
            _start_unit(f"{UNIT}-{runtime.name}", command)
        else:
            subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
    finally:
        os.close(descriptor)
    return True


def _start_unit(unit: str, command: Sequence[str]) -> None:
    """Start a command as a unit of systemd. Raises DownloadError."""
    end = time.monotonic() + START_TIMEOUT
    while True:
        done = subprocess.run(
            [
                *("systemd-run", "--quiet", "--collect", f"--unit={unit}"),
                *("--property=Nice=10", "--property=IOSchedulingClass=best-effort"),
                "--property=IOSchedulingPriority=7", *command,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not done.returncode:
            return
        # The unit of a process that has just ended, as its lock shows, remains for a moment.
        if "already" not in done.stderr or time.monotonic() > end:
            raise DownloadError(
                f"the unit {unit} could not be started: systemd-run said: {done.stderr.strip()}."
                " Check systemd on the host, and run site.yml again"
            )
        time.sleep(0.1)


def is_running(runtime: Path) -> bool:
    """Whether the process runs."""
    try:
        os.close(lock_folder(runtime))
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


FINAL_STATES = ("done", "failed", "stopped")


def wait(runtime: Path, seconds: float) -> Facts:
    """Return the status of the download once it has ended, or after `seconds`.

    The state is `gone` where the process was killed: it ended without a final state.
    """
    end = time.monotonic() + seconds
    while True:
        status = read_json(runtime / STATUS) or {"state": "gone"}
        alive = is_running(runtime) or _is_starting(runtime)
        if status["state"] in FINAL_STATES:
            return status
        if not alive:
            status = read_json(runtime / STATUS) or status
            return status if status["state"] in FINAL_STATES else {**status, "state": "gone"}
        if time.monotonic() > end:
            return status
        time.sleep(0.2)


def _is_starting(runtime: Path) -> bool:
    """Whether the process was just started and has no lock yet: its job file is still there."""
    try:
        return time.time() - (runtime / JOB).stat().st_mtime < START_TIMEOUT
    except FileNotFoundError:
        return False


def stop(runtime: Path, seconds: float = 30) -> bool:
    """Stop the process and wait for its end; returns whether it ran."""
    if not is_running(runtime):
        return False
    pid = (read_json(runtime / STATUS) or {}).get("pid")
    if isinstance(pid, int):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while is_running(runtime) and time.monotonic() < end:
        time.sleep(0.1)
    return True


def run(runtime: Path) -> int:
    """Run the job of a runtime folder, as the process itself; returns its exit status.

    The result is in the status file there.
    """
    end = time.monotonic() + START_TIMEOUT
    while True:
        try:
            lock_folder(runtime)
            break
        except BlockingIOError:  # the starting process holds it for a moment
            if time.monotonic() > end:
                return 1
            time.sleep(0.05)
    job = parse_job(json.loads((runtime / JOB).read_text(encoding="utf-8")))
    (runtime / JOB).unlink()
    session = DownloadSession(job, runtime)
    signal.signal(signal.SIGTERM, session.stop)
    try:
        run_job(session)
    except Stopped:
        session.report(
            "stopped", reason="the download was stopped. Run site.yml again, which continues it"
        )
    except (DownloadError, StoreError, OSError) as error:
        session.report("failed", reason=str(error))
        print(f"edge-llm: {error}", file=sys.stderr)
        return 1
    return 0
