"""The host's lock: one process at a time changes the host."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from ..constants import LOCK
from ..host_info.deployment import read_lock
from .errors import HostLockedError
from .store import utc_now


@contextmanager
def lock_host(root: Path, operator: str, timeout: float = 2.0) -> Iterator[None]:
    """Hold the host's lock; the file says by whom, and since when.

    The kernel releases it when its holder ends, so the lock of a dead process never needs to be
    broken. Raises HostLockedError where another process still holds it after `timeout` seconds.
    """
    root.mkdir(parents=True, exist_ok=True)
    # Who may open the file may lock it, so it is root's alone, also where an earlier version made
    # it for all to read.
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    holder = read_lock(root) or {}
                    raise HostLockedError(
                        f"the host is locked: {holder.get('by', 'somebody')} has been changing it"
                        f" since {holder.get('since', 'just now')}. Run this again when that change"
                        " has ended"
                    ) from None
                time.sleep(0.1)
        file.seek(0)
        file.truncate()
        json.dump({"by": operator, "since": utc_now(), "pid": os.getpid()}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
