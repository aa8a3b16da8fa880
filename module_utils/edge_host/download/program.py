"""Starts, watches and stops the download program.

It runs apart from the connection that started it (a unit of systemd's on a board, a process of its
own on the control machine), so a lost connection costs nothing; its state is a file.
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
from .job import JOB, LOCK, STATUS, Failure, parse_job
from .runner import Fetch, Stopped

UNIT = "edge-llm-fetch"
START_SECONDS = 30.0


def lock(folder: Path) -> int:
    """Take the lock of a models folder: a descriptor. Raises BlockingIOError where it is taken."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def runtime_folder(folder: Path, bundle: str) -> Path:
    """Where a run keeps its state, and for a moment its job, which may hold a token: in memory."""
    base = Path("/run")
    if os.geteuid():
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/dev/shm/{os.getuid()}")  # noqa: S108
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return base / UNIT / f"{bundle}-{place}"


def start(job: Facts, runtime: Path, program: Path, unit: bool) -> bool:
    """Start the program, as a unit of systemd's where asked; whether it did not run already.

    One that brings the same bundle in the same way is joined, whoever has started it. Raises
    Failure where it runs in another way.
    """
    runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = lock(runtime)
    except BlockingIOError:
        found = read_json(runtime / STATUS) or {}
        if found.get("how") == job["how"]:
            return False
        raise Failure(
            f"{found.get('by', 'somebody')} is having {job['name']} brought there in another way;"
            " run this again when that has ended"
        ) from None
    try:
        first = {"state": "begun", "name": job["name"], "how": job["how"], "by": job["by"]}
        for name, content in ((STATUS, first), (JOB, job)):
            write_atomically(
                runtime / name, json.dumps(content).encode(), runtime, 0o600, sync=False
            )
        words = [sys.executable, "-I", str(program), "download", str(runtime)]
        if unit:
            _start_unit(f"{UNIT}-{runtime.name}", words)
        else:
            subprocess.Popen(
                words, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
    finally:
        os.close(descriptor)
    return True


def _start_unit(unit: str, words: Sequence[str]) -> None:
    """Start a program as a unit of systemd's. Raises Failure."""
    end = time.monotonic() + START_SECONDS
    while True:
        done = subprocess.run(
            [
                *("systemd-run", "--quiet", "--collect", f"--unit={unit}"),
                *("--property=Nice=10", "--property=IOSchedulingClass=best-effort"),
                "--property=IOSchedulingPriority=7", *words,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not done.returncode:
            return
        # A program that has just ended, as its lock says, is a unit for a moment longer.
        if "already" not in done.stderr or time.monotonic() > end:
            raise Failure(f"systemd-run failed: {done.stderr.strip()}")
        time.sleep(0.1)


def running(runtime: Path) -> bool:
    """Whether the program runs."""
    try:
        os.close(lock(runtime))
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


ENDED = ("done", "failed", "stopped")


def wait(runtime: Path, seconds: float) -> Facts:
    """What the program tells once it has ended its work, or after `seconds`.

    A program that is gone without a word has been killed: state is `gone` then.
    """
    end = time.monotonic() + seconds
    while True:
        told = read_json(runtime / STATUS) or {"state": "gone"}
        alive = running(runtime) or _starts(runtime)
        if told["state"] in ENDED:
            return told
        if not alive:
            told = read_json(runtime / STATUS) or told
            return told if told["state"] in ENDED else {**told, "state": "gone"}
        if time.monotonic() > end:
            return told
        time.sleep(0.2)


def _starts(runtime: Path) -> bool:
    """Whether it has just been started, and has no lock yet: what it was told is still there."""
    try:
        return time.time() - (runtime / JOB).stat().st_mtime < START_SECONDS
    except FileNotFoundError:
        return False


def stop(runtime: Path, seconds: float = 30) -> bool:
    """Have the program end; whether it ran."""
    if not running(runtime):
        return False
    pid = (read_json(runtime / STATUS) or {}).get("pid")
    if isinstance(pid, int):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while running(runtime) and time.monotonic() < end:
        time.sleep(0.1)
    return True


def run(runtime: Path) -> int:
    """Do the job in the runtime folder; what becomes of it is in the status there.

    Returns the exit status of the program.
    """
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            lock(runtime)
            break
        except BlockingIOError:  # whoever has started this holds it for a moment
            if time.monotonic() > end:
                return 1
            time.sleep(0.05)
    job = parse_job(json.loads((runtime / JOB).read_text(encoding="utf-8")))
    (runtime / JOB).unlink()
    fetch = Fetch(job, runtime)
    signal.signal(signal.SIGTERM, fetch.stop)
    try:
        fetch.run()
    except Stopped:
        fetch.tell("stopped", reason="it was stopped")
    except (Failure, StoreError, OSError) as error:
        fetch.tell("failed", reason=str(error))
        print(f"edge-llm: {error}", file=sys.stderr)
        return 1
    return 0
