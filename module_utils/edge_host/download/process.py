"""Starts, watches and stops the process that downloads.

The process is independent of the connection that started it (a unit of systemd on a board, a
process of its own on the control machine), so a lost connection does not interrupt the download.
It writes its state to a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Optional, Sequence

from ..commands import COMMAND_TIMEOUT
from ..confinement import confine_download
from ..files import read_json, write_atomically
from ..json_data import Facts
from ..weights.request import StoreError
from .job import JOB, LOCK, START_LOCK, STATUS, DownloadError, parse_job
from .runner import run_job
from .session import DownloadSession, Stopped

UNIT = "edge-llm-fetch"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - see create_runtime_folder
STOP_TIMEOUT = 30.0
START_TIMEOUT = 60.0
"""Seconds for an earlier unit to go away, and for the process to begin: a busy board is slow."""


def _lock(path: Path, operation: int) -> int:
    """Lock a file; returns the descriptor that holds the lock. Raises BlockingIOError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, operation)
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
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or f"{SHARED_MEMORY}/{os.getuid()}")
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return base / UNIT / f"{bundle}-{digest}"


def create_runtime_folder(runtime: Path) -> None:
    """Create the folder, readable by this user only. Raises DownloadError.

    Where the user has no folder in memory, it is below one in which everybody may create: another
    user could have made the folder first, or a link, and would get the job with its secrets.
    """
    base, parent = runtime.parent.parent, runtime.parent
    for folder, private in ((base, base.parent == Path(SHARED_MEMORY)), (parent, False)):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700 if private else 0o755)
        status = folder.lstat()
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.geteuid()
            or (private and status.st_mode & 0o077)
        ):
            raise DownloadError(
                f"{folder} is invalid: it is no folder of this user alone. Remove it, or set"
                " XDG_RUNTIME_DIR to a folder in memory that belongs to this user"
            )
    runtime.mkdir(exist_ok=True, mode=0o700)


def start(job: Facts, runtime: Path, program: Path, unit: bool) -> bool:
    """Start the download; returns False where one with the same mode runs already.

    `unit`: as a unit of systemd. Returns once the process has its job. Raises DownloadError where
    the bundle is being downloaded in another mode, or the process does not begin.
    """
    create_runtime_folder(runtime)
    # From the look at what runs until the new process has its own lock: of several that start at
    # once, the others find the process of the first.
    descriptor = _lock(runtime / START_LOCK, fcntl.LOCK_EX)
    try:
        if is_running(runtime):
            status = read_json(runtime / STATUS) or {}
            if _planned_at(job.get("credentials")) <= _number(status.get("distribution")):
                _check_mode(job, status)
                return False
            # The other hosts have, or are about to have, the certificates of the newer plan. What
            # has been downloaded stays.
            _stop(runtime, STOP_TIMEOUT, is_running)
        first = {
            "state": "begun",
            "name": job["name"],
            "how": job["mode"],
            "by": job["operator"],
            "distribution": _planned_at(job.get("credentials")),
        }
        for name, content in ((STATUS, first), (JOB, job)):
            write_atomically(
                runtime / name, json.dumps(content).encode(), runtime, 0o600, sync=False
            )
        command = [sys.executable, "-I", str(program), "download", str(runtime)]
        if unit:
            _start_unit(f"{UNIT}-{runtime.name}", command, runtime, Path(job["folder"]))
        else:
            subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        _wait_for_begin(runtime)
    finally:
        os.close(descriptor)
    return True


def _planned_at(credentials: Optional[Facts]) -> float:
    """Return the time at which the distribution was planned; 0 where the host is alone."""
    return _number((credentials or {}).get("planned_at"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _check_mode(job: Facts, status: Facts) -> None:
    """Raise DownloadError where the program that runs does something else than the job says.

    Whether files are from the source or from other hosts makes no difference.
    """
    if (status.get("how") == "share") != (job["mode"] == "share"):
        raise DownloadError(
            f"{job['name']} is in use: {status.get('by', 'somebody')} runs another download of it"
            f" (mode {status.get('how', 'unknown')}). Run this again when that has ended"
        )


def _start_unit(unit: str, command: Sequence[str], runtime: Path, folder: Path) -> None:
    """Start a command as a unit of systemd, which may write to `runtime` and to `folder`, the
    models folder. Raises DownloadError.
    """
    start_command = [
        *("systemd-run", "--quiet", "--collect", f"--unit={unit}"),
        *("--property=Nice=10", "--property=IOSchedulingClass=best-effort"),
        "--property=IOSchedulingPriority=7",
        *(f"--property={each}" for each in confine_download(folder, runtime)),
        *command,
    ]
    end = time.monotonic() + START_TIMEOUT
    while True:
        try:
            done = subprocess.run(
                start_command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=COMMAND_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise DownloadError(
                f"the unit {unit} could not be started: systemd-run did not end within"
                f" {COMMAND_TIMEOUT:g} s. Check systemd on the host (systemctl list-jobs), and run"
                " site.yml again"
            ) from None
        # A start that was interrupted has left a process that takes this job.
        if not done.returncode or is_running(runtime):
            return
        # The unit of a process that has just ended, as its lock shows, remains for a moment.
        if "already" not in done.stderr or time.monotonic() > end:
            raise DownloadError(
                f"the unit {unit} could not be started: systemd-run said: {done.stderr.strip()}."
                " Check systemd on the host, and run site.yml again"
            )
        time.sleep(0.1)


def _wait_for_begin(runtime: Path) -> None:
    """Wait until the process has its lock and has taken its job. Raises DownloadError."""
    end = time.monotonic() + START_TIMEOUT
    while (runtime / JOB).exists():
        if time.monotonic() > end:
            (runtime / JOB).unlink()
            raise DownloadError(
                f"the download's process did not begin within {START_TIMEOUT:.0f} s. Read its"
                f" messages on the host (journalctl -u {UNIT}-{runtime.name}), and run site.yml"
                " again"
            )
        time.sleep(0.05)


def is_running(runtime: Path) -> bool:
    """Whether the process runs."""
    return _is_locked(runtime / LOCK)


def _is_active(runtime: Path) -> bool:
    """Whether the process runs or is being started."""
    # In this order: a start ends when its process runs.
    return _is_locked(runtime / START_LOCK) or is_running(runtime)


def _is_locked(path: Path) -> bool:
    """Whether a process has locked a file for itself alone."""
    try:
        # Shared: those who look do not take each other for the process.
        os.close(_lock(path, fcntl.LOCK_SH | fcntl.LOCK_NB))
    except BlockingIOError:
        return True
    except FileNotFoundError:  # the folder
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
        alive = _is_active(runtime)
        # Who has a newer plan stops the process and starts it again.
        if status["state"] in FINAL_STATES and not (alive and status["state"] == "stopped"):
            return status
        if not alive:
            status = read_json(runtime / STATUS) or status
            return status if status["state"] in FINAL_STATES else {**status, "state": "gone"}
        if time.monotonic() > end:
            return status
        time.sleep(0.2)


def stop(runtime: Path, seconds: float = STOP_TIMEOUT) -> bool:
    """Stop the process and wait for its end; returns whether it ran."""
    return _stop(runtime, seconds, _is_active)


def _stop(runtime: Path, seconds: float, is_active: Callable[[Path], bool]) -> bool:
    if not is_active(runtime):
        return False
    end, signalled = time.monotonic() + seconds, False
    while is_active(runtime) and time.monotonic() < end:
        # A process that has just begun has not written its number yet.
        pid = (read_json(runtime / STATUS) or {}).get("pid")
        # Without a process it is that of an earlier one, and may be another program's by now.
        if isinstance(pid, int) and not signalled and is_running(runtime):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGTERM)
            signalled = True
        time.sleep(0.1)
    return True


def run(runtime: Path) -> int:
    """Run the job of a runtime folder, as the process itself; returns its exit status.

    The result is in the status file there.
    """
    end = time.monotonic() + START_TIMEOUT
    while True:
        try:
            _lock(runtime / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:  # somebody looks whether this process runs
            if time.monotonic() > end:
                return 1
            time.sleep(0.05)
    text = (runtime / JOB).read_text(encoding="utf-8")
    (runtime / JOB).unlink()
    job = parse_job(json.loads(text))
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
