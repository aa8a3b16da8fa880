"""Whether the process that asked for requests to be held is still there.

It keeps an exclusive `flock` on the file `hold.lock` beside the engine file. The kernel releases a
lock when its process ends, however it ends, so that no clock and no process id has to be trusted,
and a container sees the locks of its host.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

LOCK = "hold.lock"
GRACE_SECONDS = 20.0
"""How long a hold goes on without its process: what recovers the change takes the lock by then."""

_log = logging.getLogger("llm_provider.engine")


class HoldLock:
    """The process that holds requests, as the lock beside the engine file shows it.

    Without that file a hold is somebody's who writes the engine file by hand, and counts.
    """

    def __init__(self, engine_file: Path | None) -> None:
        self._path = engine_file and engine_file.with_name(LOCK)
        self._gone_at: float | None = None

    def forget(self) -> None:
        """Begin anew, for requests are not held any more."""
        self._gone_at = None

    def counts(self) -> bool:
        """Whether a hold counts: its process is there, or has not been gone for long."""
        if self.locked():
            self._gone_at = None
            return True
        now = time.monotonic()
        if self._gone_at is None:
            self._gone_at = now
            _log.warning("the process that holds requests is gone")
        return now - self._gone_at < GRACE_SECONDS

    def locked(self) -> bool:
        """Whether somebody has the lock now, or there is none to be had."""
        if self._path is None:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return True
        except OSError as error:
            _log.error("%s cannot be opened: %s", self._path, error)
            return False
        try:
            # Shared: another chat API may be looking at the same moment.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            _log.error("%s cannot be locked: %s", self._path, error)
            return False
        finally:
            os.close(descriptor)
        return False
