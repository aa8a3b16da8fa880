"""The lock that says that the process which holds requests is alive.

The chat API reads it (`llm_provider.hold`): a hold in its engine file counts only while this lock
is held, or for a few seconds more. The kernel releases it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Optional

from ..files import sync_folder

NAME = "hold.lock"


class HoldLock:
    """An exclusive `flock` on a file beside the engine file.

    Each time it is a new file, locked before it has its name: nobody else can have locked it.
    """

    def __init__(self, engine_file: Path, readers: Path) -> None:
        """`readers` is a folder whose group may look at the lock."""
        self._path = engine_file.with_name(NAME)
        self._readers = readers
        self._descriptor: Optional[int] = None

    def take(self) -> None:
        """Lock it, for as long as this process lives."""
        if self._descriptor is not None:
            return
        fresh = self._path.with_name(f".new-{NAME}")
        if fresh.exists():
            fresh.unlink()
        # Children do not inherit it, and so cannot keep the lock alive.
        descriptor = os.open(str(fresh), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchown(descriptor, -1, self._readers.stat().st_gid)
        os.fchmod(descriptor, 0o640)
        os.fsync(descriptor)
        fresh.replace(self._path)
        # An engine file that holds must not outlive it in a power cut.
        sync_folder(self._path.parent)
        self._descriptor = descriptor

    def release(self) -> None:
        """Unlock it. Its file stays: the engine file may still hold, and does not count then."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Unlock it and remove its file, once the engine file does not hold any more."""
        if self._path.exists():
            self._path.unlink()
            sync_folder(self._path.parent)
        self.release()
