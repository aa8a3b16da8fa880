"""What changes and recoveries do with containers: start, wait, hand over sockets, clean up."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from ..constants import DEFAULT_NETWORK, DOOR, NETWORK, SOCKET_UNIT
from ..sockets import units
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


def provide_sockets(host: Host) -> None:
    """Have somebody hold the ports. Raises ReleaseError.

    That is systemd, but on a host that an earlier version has set up: until its next boot the
    container that publishes the ports goes on, since its end would cut connections off.
    """
    if host.docker.is_running(DOOR):
        return
    # Docker would try to start it at every boot.
    host.docker.remove(DOOR)
    if units.holding():
        return
    try:
        units.start()
    except OSError as error:
        raise ReleaseError(
            f"the ports of the chat API are not available: {error}. Check `systemctl status"
            f" {SOCKET_UNIT}` on the host"
        ) from error


def are_sockets_held(host: Host) -> bool:
    """Whether connections reach whoever takes the sockets."""
    return host.docker.is_running(DOOR) or units.holding()


def provide_namespace(host: Host, release: Release) -> None:
    """Have the network namespace that a release's parts share, if they do. Raises ReleaseError.

    Its container is never replaced while it exists, whatever has changed: the parts would have to
    be created anew. Those that were created for one that is gone are removed: they cannot start.
    """
    if not release.own_namespace:
        return
    docker = host.docker
    if docker.inspect(NETWORK) is None:
        host.compose.run(release.folder, "up", "--detach", "--no-deps", "network")
    elif not docker.is_running(NETWORK):
        docker.start(NETWORK)
    for name in map(release.container, PARTS):
        if docker.inspect(name) and not docker.is_joined(name, NETWORK):
            docker.remove(name)


def create_containers(host: Host, release: Release, services: Sequence[str]) -> None:
    """Create containers of a release, and nothing that they depend on. Raises ReleaseError."""
    if services:
        # `create` has no such option, and would replace the container of the namespace.
        host.compose.run(release.folder, "up", "--no-start", "--no-deps", *services)


def runs(host: Host, release: Release, part: str) -> bool:
    """Whether the container of a release's part runs, where the other parts reach it."""
    name = release.container(part)
    return host.docker.is_running(name) and (
        not release.own_namespace or host.docker.shares_namespace(name, NETWORK)
    )


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
        lambda: not socket_file.exists(),
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


def remove_other_containers(host: Host, release: Optional[Release]) -> None:
    """Remove the containers of all releases but one; of all, where `release` is None.

    The container of an earlier version that holds the ports stays while it runs.
    """
    kept = {DOOR, *map(release.container, PARTS)} if release else set()
    if release and release.own_namespace:
        kept.add(NETWORK)
    for name in host.docker.list_containers():
        if name not in kept:
            host.docker.remove(name)
    host.docker.remove(verification.CONTAINER)
    remove_former_parts(host, release)


def remove_former_parts(host: Host, release: Optional[Release]) -> None:
    """Remove what earlier versions have left on the host, once it does not run.

    `release` is the one that the host runs; one of an earlier version needs its network.
    """
    if not host.docker.is_running(DOOR):
        host.docker.remove(DOOR)
    if release is None or release.own_namespace:
        host.docker.remove_network(DEFAULT_NETWORK)


def free_memory() -> None:
    """Make the kernel release caches and compact memory: a GPU needs it in one piece."""
    os.sync()
    for name in ("drop_caches", "compact_memory"):
        try:
            Path("/proc/sys/vm", name).write_text("1" if name == "compact_memory" else "3")
        except OSError:  # not every kernel has both
            continue
