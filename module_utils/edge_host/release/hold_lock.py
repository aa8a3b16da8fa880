"""The lock that shows that the process which holds requests is alive.

The chat API reads it (`llm_provider.server.hold_lock`): a hold in its engine file counts only while
this lock is held, or for a few seconds more. The kernel releases it when the process ends, however
it ends.
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

    Each time it is a new file, locked before it gets its name: no other process can have locked it.
    """

    def __init__(self, engine_file: Path, readers: Path) -> None:
        """`readers` is a folder whose group may see whether the lock is held."""
        self._path = engine_file.with_name(NAME)
        self._readers = readers
        self._descriptor: Optional[int] = None

    def acquire(self) -> None:
        """Acquire the lock for as long as this process lives; repeated calls are harmless."""
        if self._descriptor is not None:
            return
        new = self._path.with_name(f".new-{NAME}")
        if new.exists():
            new.unlink()
        # Children do not inherit the descriptor, so they cannot keep the lock alive.
        descriptor = os.open(str(new), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchown(descriptor, -1, self._readers.stat().st_gid)
        os.fchmod(descriptor, 0o640)
        os.fsync(descriptor)
        new.replace(self._path)
        # After a power cut, there must be no engine file with a hold and without this lock.
        sync_folder(self._path.parent)
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock. Its file stays: a hold in the engine file does not count any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Release the lock and remove its file, once the engine file has no hold any more."""
        if self._path.exists():
            self._path.unlink()
            sync_folder(self._path.parent)
        self.release()
