"""What both a change and a recovery need: containers started and stopped, sockets handed over."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Callable, Optional

from ..constants import DOOR
from .errors import Failure
from .probe import PROOF
from .store import LIVE, PARTS, Host, Release

STOP_SECONDS = 40
"""What a chat API gets to end its requests, once it is stopped."""
SIGNAL_SECONDS = 10.0
"""Until a chat API has seen a signal, or a change of its engine file."""
_POLL_SECONDS = 0.05


def until(
    condition: Callable[[], Any], seconds: float, alive: Callable[[], Any] = lambda: True
) -> bool:
    """Wait until a condition holds; whether it did within `seconds`.

    Given up as soon as `alive` says that what is waited for cannot do it any more.
    """
    end = time.monotonic() + seconds
    while not condition():
        # It may have done so at the very last.
        if time.monotonic() > end or not (alive() or condition()):
            return False
        time.sleep(_POLL_SECONDS)
    return True


def open_door(host: Host, release: Release) -> None:
    """See to it that the door is there; one that runs is never touched, whatever has changed."""
    if not host.docker.running(DOOR):
        host.compose(release.folder, "up", "--detach", "--no-deps", "door")


def wait_for_api(host: Host, release: Release) -> None:
    """Wait until a release's chat API process answers. Raises Failure where it ends, or is late."""
    name = release.container("api")
    if not until(
        lambda: host.ready(release) is not None,
        release.record["start_timeout"],
        lambda: host.docker.running(name),
    ):
        raise Failure(f"the chat API {name} does not answer", host.docker.log(name))


def wait_for_hold(host: Host, release: Release) -> None:
    """Wait until a release's chat API holds requests, as the engine file says, where it runs."""
    until(
        lambda: (host.ready(release) or {}).get("holding"),
        SIGNAL_SECONDS,
        lambda: host.docker.running(release.container("api")),
    )


def wait_for_retirement(host: Host, release: Release, seconds: float) -> None:
    """Wait until a chat API that was told to retire has answered all that came to it.

    It removes its socket then. One that has ended may have left it behind.
    """
    socket_file = Path(host.api(release))
    until(
        lambda: not socket_file.exists(),
        seconds,
        lambda: host.docker.running(release.container("api")),
    )


def hand_over(host: Host, old: Release, new: Release) -> None:
    """Have the chat API of `old` finish what it has and leave the sockets to that of `new`.

    While it does, the new one holds: two would ask more of the engine than it has slots for.
    """
    live = re.sub(r"(?m)^LLM_HOLD=.*\n", "", (host.root / LIVE).read_text(encoding="utf-8"))
    container, socket_file = old.container("api"), Path(host.api(old))

    def runs() -> bool:
        return host.docker.running(container)

    if runs():
        # One that Docker has just started, as after a power cut, is deaf to a signal until it
        # answers: as its container's first process it would lose it, and be waited for in vain.
        until(lambda: not socket_file.exists() or host.ready(old) is not None, SIGNAL_SECONDS, runs)
        host.point(live, new.hold)
        wait_for_hold(host, new)
        if not host.docker.running(new.container("api")):
            name = new.container("api")
            raise Failure(f"the chat API {name} ended before its turn", host.docker.log(name))
        host.docker.kill(container, "USR1")
        wait_for_retirement(host, old, new.record["drain_timeout"])
    # What is not finished by now is told, and gets the time of a stop.
    host.docker.stop(container, STOP_SECONDS)
    # It is its container's, which may have ended without removing it.
    if socket_file.exists():
        socket_file.unlink()
    host.point(live)


def hand_over_seconds(new: Release) -> float:
    """The most that `hand_over` waits."""
    return 2 * SIGNAL_SECONDS + float(new.record["drain_timeout"]) + STOP_SECONDS


def clean(host: Host, release: Optional[Release]) -> None:
    """Remove the containers of all other releases; of all, where there is none."""
    kept = {DOOR, *(release.container(part) for part in PARTS)} if release else set()
    for name in host.docker.ours():
        if name not in kept:
            host.docker.remove(name)
    host.docker.remove(PROOF)


def free_memory() -> None:
    """Have the kernel give back what it can: a GPU's memory must be in one piece."""
    os.sync()
    for name in ("drop_caches", "compact_memory"):
        try:
            Path("/proc/sys/vm", name).write_text("1" if name == "compact_memory" else "3")
        except OSError:  # not every kernel has both
            continue
