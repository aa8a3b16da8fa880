"""What changes and recoveries do with containers: start, wait, hand over sockets, clean up."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Callable, Optional

from ..constants import DOOR as SOCKET_HOLDER
from . import verification
from .errors import ReleaseError
from .host import Host
from .store import PARTS, Release

STOP_SECONDS = 40
"""The time that a chat API gets to end its requests, once it is stopped."""
SIGNAL_SECONDS = 10.0
"""The time in which a chat API reacts to a signal, or to a change of its engine file."""
_POLL_SECONDS = 0.05


def wait_until(
    condition: Callable[[], Any], seconds: float, alive: Callable[[], Any] = lambda: True
) -> bool:
    """Wait until a condition holds; returns whether it did within `seconds`.

    The wait ends as soon as `alive` says that the condition cannot become true any more.
    """
    end = time.monotonic() + seconds
    while not condition():
        # The condition may have become true just before `alive` became false.
        if time.monotonic() > end or not (alive() or condition()):
            return False
        time.sleep(_POLL_SECONDS)
    return True


def start_socket_holder(host: Host, release: Release) -> None:
    """Start the socket holder; one that runs is never touched, whatever has changed."""
    if not host.docker.is_running(SOCKET_HOLDER):
        host.compose.run(release.folder, "up", "--detach", "--no-deps", "door")


def wait_ready(host: Host, release: Release) -> None:
    """Wait until a release's chat API answers. Raises ReleaseError where it ends or is late."""
    name = release.container("api")
    if not wait_until(
        lambda: host.chat_api.read_status(release) is not None,
        release.start_timeout,
        lambda: host.docker.is_running(name),
    ):
        raise ReleaseError(
            f"the chat API {name} does not answer: it ended, or was not ready within"
            f" {release.start_timeout:g} s. Check its log",
            host.docker.read_log(name),
        )


def wait_for_hold(host: Host, release: Release) -> None:
    """Wait until a release's chat API holds requests, if it runs."""
    wait_until(
        lambda: (host.chat_api.read_status(release) or {}).get("holding"),
        SIGNAL_SECONDS,
        lambda: host.docker.is_running(release.container("api")),
    )


def wait_for_retirement(host: Host, release: Release, seconds: float) -> None:
    """Wait until a retiring chat API has answered all requests that it accepted.

    It removes its socket then. One that has ended may have left it.
    """
    socket_file = host.chat_api.socket_path(release)
    wait_until(
        lambda: not os.path.lexists(socket_file),
        seconds,
        lambda: host.docker.is_running(release.container("api")),
    )


def hand_over_sockets(host: Host, old: Release, new: Release) -> None:
    """Retire the chat API of `old`, so that that of `new` gets all connections.

    Meanwhile the new one holds requests: both together could ask more of the engine than it has
    slots for. Raises ReleaseError where the new one has ended.
    """
    engine_file = host.chat_api.engine_file.read_text(encoding="utf-8")
    engine_file = re.sub(r"(?m)^LLM_HOLD=.*\n", "", engine_file)
    container, socket_file = old.container("api"), host.chat_api.socket_path(old)

    def runs() -> bool:
        return host.docker.is_running(container)

    if runs():
        # A process that Docker has just started, as after a power cut, does not receive signals
        # until it answers: it is the first of its container, for which the kernel drops them.
        wait_until(
            lambda: not socket_file.exists() or host.chat_api.read_status(old) is not None,
            SIGNAL_SECONDS,
            runs,
        )
        host.chat_api.switch_upstream(engine_file, new.hold_seconds)
        wait_for_hold(host, new)
        name = new.container("api")
        if not host.docker.is_running(name):
            raise ReleaseError(
                f"the chat API {name} ended before it got the sockets. Check its log",
                host.docker.read_log(name),
            )
        host.docker.send_signal(container, "USR1")
        wait_for_retirement(host, old, new.drain_timeout)
    # Requests that still run get the time of a stop.
    host.docker.stop(container, STOP_SECONDS)
    # The container may have ended without removing its socket.
    if socket_file.exists():
        socket_file.unlink()
    host.chat_api.switch_upstream(engine_file)


def max_handover_seconds(new: Release) -> float:
    """Return the longest time that `hand_over_sockets` waits."""
    return 2 * SIGNAL_SECONDS + float(new.drain_timeout) + STOP_SECONDS


def remove_other_containers(host: Host, release: Optional[Release]) -> None:
    """Remove the containers of all releases but one; of all, where `release` is None."""
    kept = {SOCKET_HOLDER, *map(release.container, PARTS)} if release else set()
    for name in host.docker.list_containers():
        if name not in kept:
            host.docker.remove(name)
    host.docker.remove(verification.CONTAINER)


def free_memory() -> None:
    """Make the kernel release caches and compact memory: a GPU needs it in one piece."""
    os.sync()
    for name in ("drop_caches", "compact_memory"):
        try:
            Path("/proc/sys/vm", name).write_text("1" if name == "compact_memory" else "3")
        except OSError:  # not every kernel has both
            continue
