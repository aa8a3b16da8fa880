"""What all parts of one download share: job, store, staging, status file, stop request, child."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, List, Optional, Tuple

from ..commands import environment
from ..files import write_atomically
from ..weights.store import Store
from .job import STATUS, BundleFile, DownloadJob
from .staging import Staging

RATE_SECONDS = 10.0
"""The time over which the rate is averaged."""


class Stopped(Exception):
    """The download was stopped on request."""


class DownloadSession:
    """One run of a download job.

    `sources` are the names of those that provide the files, for the status.
    """

    def __init__(self, job: DownloadJob, runtime: Path) -> None:
        self.job = job
        self.store = Store(job.folder)
        self.staging = Staging(job)
        self.sources: List[str] = []
        self._runtime = runtime
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._stop_requested = threading.Event()
        self._started_at = time.monotonic()
        self._samples: List[Tuple[float, int]] = []

    def report(self, state: str, done: int = 0, **more: Any) -> None:
        """Write the status file: the state, `done` bytes, and what follows from them."""
        now = time.monotonic()
        recent = [sample for sample in self._samples if now - sample[0] < RATE_SECONDS]
        self._samples = [*recent, (now, done)]
        (first_time, first_done), *_ = self._samples
        rate = 0.0
        if now > first_time and done > first_done:
            rate = (done - first_done) / (now - first_time)
        # These names stay: a module of another version may read them.
        status = {
            "state": state,
            "name": self.job.name,
            "how": self.job.mode,
            "by": self.job.operator,
            "done": done,
            "size": self.job.size,
            "rate": round(rate),
            "left": round((self.job.size - done) / rate) if rate else None,
            "seconds": round(now - self._started_at, 1),
            "from": self.sources,
            "pid": os.getpid(),
            **more,
        }
        write_atomically(
            self._runtime / STATUS, json.dumps(status).encode(), self._runtime, sync=False
        )

    def stop(self, *_: Any) -> None:
        """Request the end. Received data stays, and the next run continues with it."""
        self._stop_requested.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    @property
    def stopped(self) -> bool:
        """Whether the end was requested."""
        return self._stop_requested.is_set()

    def raise_if_stopped(self) -> None:
        """Raise Stopped where the end was requested."""
        if self.stopped:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds, or until the end is requested."""
        self._stop_requested.wait(seconds)

    def start_downloader(self, *command: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start curl or aria2; as the job's user, without privileges, where it names one."""
        user = self.job.user
        prefix: Tuple[str, ...] = ()
        if user is not None:
            identity = (f"--reuid={user}", f"--regid={user}", "--clear-groups")
            prefix = ("setpriv", *identity, "--no-new-privs", "--")
        self._process = subprocess.Popen(
            [*prefix, *command], env=environment(str(self.job.staging_folder)), **streams
        )
        if self.stopped:
            self.stop()
        return self._process

    def is_installed(self, file: BundleFile) -> bool:
        """Whether a file is complete in its final place; its hash may still be unknown."""
        path = Path(file.local) if file.local else self.job.folder / file.path
        try:
            return path.stat().st_size == file.size
        except OSError:
            return False


def extract_host(url: str) -> str:
    """Return the host and port of a URL, without credentials."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
