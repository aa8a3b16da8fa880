"""What changes and recoveries do with chat APIs: wait, retire, hand over sockets."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Callable

from .errors import ReleaseError
from .host import Host
from .store import Release

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


def wait_for_status(host: Host, release: Release) -> bool:
    """Wait until a release's chat API answers, or ends, or is late; returns whether it answers."""
    return wait_until(
        lambda: host.chat_api.read_status(release) is not None,
        release.start_timeout,
        lambda: host.docker.is_running(release.container("api")),
    )


def wait_ready(host: Host, release: Release) -> None:
    """Wait until a release's chat API answers. Raises ReleaseError where it ends or is late."""
    name = release.container("api")
    if not wait_for_status(host, release):
        raise ReleaseError(
            f"the chat API {name} does not answer: it ended, or was not ready within"
            f" {release.start_timeout:g} s. Check its log",
            host.docker.read_log(name),
        )


def wait_healthy(host: Host, release: Release) -> bool:
    """Wait until a release's engine is healthy, by Docker's check; returns whether it is."""
    name = release.container("engine")

    def healthy() -> bool:
        found = host.docker.inspect(name)
        return bool(found and found["State"]["Health"]["Status"] == "healthy")

    return wait_until(healthy, release.start_timeout, lambda: host.docker.is_running(name))


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
    slots for. One that does not reach the other's engine ends what it has accepted with its own
    engine. Raises ReleaseError where the new one has ended.
    """
    live = host.chat_api.engine_file.read_text(encoding="utf-8")
    before = after = re.sub(r"(?m)^LLM_HOLD=.*\n", "", live)
    if old.own_namespace != new.own_namespace:
        before, after = old.engine_file, new.engine_file
    if host.docker.is_running(old.container("api")):
        _wait_for_signals(host, old)
        host.chat_api.switch_upstream(before, new.hold_seconds)
        wait_for_hold(host, new)
        name = new.container("api")
        if not host.docker.is_running(name):
            raise ReleaseError(
                f"the chat API {name} ended before it got the sockets. Check its log",
                host.docker.read_log(name),
            )
    _end_chat_api(host, old, new.drain_timeout)
    host.chat_api.switch_upstream(after)


def retire_chat_api(host: Host, release: Release, seconds: float) -> None:
    """Have a chat API answer all that it has accepted, within so many seconds, and stop it.

    Connections wait where the sockets are held, until another chat API takes them.
    """
    _wait_for_signals(host, release)
    _end_chat_api(host, release, seconds)


def max_retirement_seconds(seconds: float) -> float:
    """Return the longest time that `retire_chat_api` waits."""
    return SIGNAL_SECONDS + float(seconds) + STOP_SECONDS


def _wait_for_signals(host: Host, release: Release) -> None:
    """Wait until a chat API receives signals, or has ended.

    A process that Docker has just started, as after a power cut, does not receive them until it
    answers: it is the first of its container, for which the kernel drops them.
    """
    socket_file = host.chat_api.socket_path(release)
    wait_until(
        lambda: not socket_file.exists() or host.chat_api.read_status(release) is not None,
        SIGNAL_SECONDS,
        lambda: host.docker.is_running(release.container("api")),
    )


def _end_chat_api(host: Host, release: Release, seconds: float) -> None:
    """Retire a chat API, and stop it; one that does not run leaves nothing."""
    name, socket_file = release.container("api"), host.chat_api.socket_path(release)
    if host.docker.is_running(name):
        host.docker.send_signal(name, "USR1")
        wait_for_retirement(host, release, seconds)
    # Requests that still run get the time of a stop.
    host.docker.stop(name, STOP_SECONDS)
    # The container may have ended without removing its socket.
    if socket_file.exists():
        socket_file.unlink()


def max_handover_seconds(new: Release) -> float:
    """Return the longest time that `hand_over_sockets` waits."""
    return SIGNAL_SECONDS + max_retirement_seconds(new.drain_timeout)


def free_memory() -> None:
    """Make the kernel release caches and compact memory: a GPU needs it in one piece."""
    os.sync()
    for name in ("drop_caches", "compact_memory"):
        try:
            Path("/proc/sys/vm", name).write_text("1" if name == "compact_memory" else "3")
        except OSError:  # not every kernel has both
            continue
