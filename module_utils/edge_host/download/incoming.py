"""A file that arrives: what is there, and the bytes that a downloader writes to its output.

Downloaders (curl, `peer_client`) are programs without privileges that write to a pipe. Only this
program writes to the disk, never more than the file's size, and in a folder that belongs to it.
"""

from __future__ import annotations

import collections
import errno
import hashlib
import os
import select
import stat
import subprocess
import threading
import time
from typing import Callable, Deque, List

from ..commands import COMMAND_TIMEOUT, end_process
from .http_source import describe_full_disk
from .job import BundleFile, DownloadError
from .session import DownloadSession

_BLOCK = 256 * 1024
_REPORT_PAUSE = 0.5
_MAX_LINES, _MAX_LINE = 20, 4096


class TooLargeError(Exception):
    """A source has sent more bytes than the file has."""


class IncomingFile:
    """The unfinished file of a bundle.

    `received`: bytes that are there; `origins`: the names of those that sent them, `earlier runs`
    for what was there at the start. Raises DownloadError, OSError.
    """

    def __init__(self, session: DownloadSession, file: BundleFile) -> None:
        self.file = file
        self.path = session.job.bundle_folder / file.name
        self.received = 0
        self.origins: List[str] = []
        self._session = session
        self._descriptor = -1
        self._digest = hashlib.sha256()
        self._whole = True  # whether the digest is that of all bytes

    def __enter__(self) -> IncomingFile:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = os.open(self.path, flags | os.O_CLOEXEC, 0o644)
        status = os.fstat(self._descriptor)
        own = status.st_uid == os.geteuid() and status.st_nlink == 1
        if not own or not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise DownloadError(
                f"{self.path} is invalid: it is no regular file of this user with one name. Remove"
                " it, and run site.yml again"
            )
        # The program that serves it is another user's.
        os.fchmod(self._descriptor, 0o644)
        self.received = status.st_size
        if self.received > self.file.size:
            self.restart()
        elif self.received:
            self._whole = False
            self.origins.append("earlier runs")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._session.origins[self.file.name] = self.origins
        if self.complete and self._whole:
            self._session.digests[self.file.name] = self._digest.hexdigest()

    @property
    def complete(self) -> bool:
        return self.received == self.file.size

    def restart(self) -> None:
        """Drop what is there."""
        os.ftruncate(self._descriptor, 0)
        self.received = 0
        self.origins = []
        self._digest, self._whole = hashlib.sha256(), True
        self._session.digests.pop(self.file.name, None)

    def write(self, block: bytes) -> None:
        """Append bytes. Raises TooLargeError, DownloadError where the disk is full."""
        fitting = memoryview(block)[: self.file.size - self.received]
        try:
            while fitting:
                written = os.write(self._descriptor, fitting)
                self._digest.update(fitting[:written])
                self.received += written
                block, fitting = block[written:], fitting[written:]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DownloadError(describe_full_disk(self._session.job)) from None
            raise
        if block:
            raise TooLargeError

    def add_origin(self, name: str) -> None:
        """Note from whom the next bytes come."""
        if name not in self.origins:
            self.origins.append(name)
        if name not in self._session.sources:
            self._session.sources.append(name)

    def receive(
        self, process: subprocess.Popen[bytes], state: str, on_line: Callable[[str], None]
    ) -> int:
        """Append what a downloader writes to its output, until its end; returns its exit status.

        `state` is that of the reports meanwhile; `on_line` gets the lines of its standard error.
        Raises TooLargeError, DownloadError, Stopped; the downloader has then ended.
        """
        assert process.stdout is not None  # noqa: S101 - both are pipes
        assert process.stderr is not None  # noqa: S101
        lines: Deque[str] = collections.deque(maxlen=_MAX_LINES)
        reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
        reader.start()
        try:
            self._receive(process.stdout.fileno(), state, lines, on_line)
            status = process.wait(timeout=COMMAND_TIMEOUT)
            reader.join(5)
            _take(lines, on_line)
        except subprocess.TimeoutExpired:
            end_process(process)
            raise DownloadError(
                f"the program that downloads {self.file.name} did not end with its output. Run"
                " site.yml again"
            ) from None
        except BaseException:
            end_process(process)
            raise
        finally:
            process.stdout.close()
        self._session.raise_if_stopped()
        return status

    def _receive(
        self, descriptor: int, state: str, lines: Deque[str], on_line: Callable[[str], None]
    ) -> None:
        session = self._session
        others = [each for each in session.job.files if each != self.file]
        complete = sum(each.size for each in others if session.is_downloaded(each))
        reported_at = 0.0
        while True:
            readable, _, _ = select.select([descriptor], [], [], _REPORT_PAUSE)
            _take(lines, on_line)
            if time.monotonic() - reported_at >= _REPORT_PAUSE:
                session.raise_if_stopped()
                session.report(state, complete + self.received, file=self.file.name)
                reported_at = time.monotonic()
            if readable:
                block = os.read(descriptor, _BLOCK)
                if not block:
                    return
                self.write(block)


def _read_lines(process: subprocess.Popen[bytes], lines: Deque[str]) -> None:
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    with process.stderr as stream:
        for line in iter(lambda: stream.readline(_MAX_LINE), b""):
            lines.append(line.decode(errors="replace").rstrip("\n"))


def _take(lines: Deque[str], on_line: Callable[[str], None]) -> None:
    while lines:
        on_line(lines.popleft())
