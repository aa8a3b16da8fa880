"""What a release's parts need before they start, and what is removed after them.

systemd holds the ports; on a host that an earlier version has set up, a container does so until the
next boot. Engines and chat APIs share the network namespace of a container that does nothing else.
"""

from __future__ import annotations

from typing import Optional, Sequence

from ..constants import DEFAULT_NETWORK, DOOR, NETWORK
from ..sockets import units
from . import verification
from .host import Host
from .services import retire_chat_api, wait_for_status
from .store import PARTS, Release


def provide_sockets(host: Host, serving: Optional[Release]) -> None:
    """Have somebody hold the ports, and the chat API of `serving` listen. Raises ReleaseError.

    That is systemd, but on a host that an earlier version has set up: until its next boot the
    container that publishes the ports goes on, since its end would cut connections off.
    """
    if host.docker.is_running(DOOR):
        return
    # Docker would try to start it at every boot.
    host.docker.remove(DOOR)
    if units.holding():
        return
    served = serving is not None and host.docker.is_running(serving.container("api"))
    units.start()
    if serving is not None and served:
        give_new_sockets(host, serving)


def give_new_sockets(host: Host, serving: Release) -> None:
    """Have the chat API of a release, which has the sockets of before, take those of systemd.

    It would end by itself when it finds the new ones, which is at any time, and would then be taken
    for one that has failed. Raises ReleaseError.
    """
    retire_chat_api(host, serving, serving.drain_timeout)
    host.docker.start(serving.container("api"))
    wait_for_status(host, serving)


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


def create_containers(host: Host, release: Release, parts: Sequence[str]) -> None:
    """Create the containers of a release's parts, in place of any of their names.

    Raises ReleaseError.
    """
    for part in parts:
        host.docker.remove(release.container(part))
    if parts:
        # The container of the namespace, on which they depend, is never replaced. Without that
        # dependency Compose, typed by hand, would take them for others and replace them.
        services = map(release.service, parts)
        host.compose.run(release.folder, "create", "--no-recreate", *services)


def runs(host: Host, release: Release, part: str) -> bool:
    """Whether the container of a release's part runs, where the other parts reach it."""
    name = release.container(part)
    return host.docker.is_running(name) and (
        not release.own_namespace or host.docker.shares_namespace(name, NETWORK)
    )


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
