"""What all parts of one download share: job, store, status file, stop request, children."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Dict, List, Tuple

from ..commands import environment
from ..files import write_atomically
from ..weights.store import Store
from .job import STATUS, BundleFile, DownloadJob

RATE_SECONDS = 10.0
"""The time over which the rate is averaged."""


class Stopped(Exception):
    """The download was stopped on request."""


class DownloadSession:
    """One run of a download job.

    `sources` are the names of those that provide the files, `notice` what the operator should
    know, both for the status; `digests` has the SHA-256 of files that were hashed as they arrived,
    `origins` the names of those that sent each file.
    """

    def __init__(self, job: DownloadJob, runtime: Path) -> None:
        self.job = job
        self.store = Store(job.folder)
        self.sources: List[str] = []
        self.notice = ""
        self.digests: Dict[str, str] = {}
        self.origins: Dict[str, List[str]] = {}
        self._runtime = runtime
        self._processes: List[subprocess.Popen[bytes]] = []
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
            "notice": self.notice,
            "distribution": self.job.distribution,
            "pid": os.getpid(),
            **more,
        }
        write_atomically(
            self._runtime / STATUS, json.dumps(status).encode(), self._runtime, sync=False
        )

    def stop(self, *_: Any) -> None:
        """Request the end. Received data stays, and the next run continues with it."""
        self._stop_requested.set()
        for process in self._processes:
            if process.poll() is None:
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
        """Start a program that talks to other machines; as the job's user, where it names one."""
        user = self.job.user
        prefix: Tuple[str, ...] = ()
        if user is not None:
            identity = (f"--reuid={user}", f"--regid={user}", "--clear-groups")
            prefix = ("setpriv", *identity, "--no-new-privs", "--")
        process = subprocess.Popen(
            [*prefix, *command], env=environment(str(self.job.staging_folder)), **streams
        )
        running = [each for each in self._processes if each.poll() is None]
        self._processes = [*running, process]
        if self.stopped:
            self.stop()
        return process

    def paths(self, file: BundleFile) -> List[str]:
        """Return where a file may be: unfinished, and in its final place."""
        final = Path(file.local) if file.local else self.job.folder / file.path
        return [str(self.job.bundle_folder / file.name), str(final)]

    def is_downloaded(self, file: BundleFile) -> bool:
        """Whether a file is complete by its size, in its final place or not."""
        return any(_size_of(path) == file.size for path in self.paths(file))

    def is_installed(self, file: BundleFile) -> bool:
        """Whether a file is complete in its final place; its hash may still be unknown."""
        return _size_of(self.paths(file)[-1]) == file.size


def _size_of(path: str) -> int:
    """Return the bytes of a file; -1 where it is missing."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def extract_host(url: str) -> str:
    """Return the host and port of a URL, without credentials."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
