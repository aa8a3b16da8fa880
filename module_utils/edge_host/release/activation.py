"""Brings a host to a release that was current before, from any state.

A change does so that rolls back after a failed verification, and a recovery after an interruption.
"""

from __future__ import annotations

from typing import Optional

from .compose import COMPOSE_SECONDS
from .docker_api import DOCKER_SECONDS
from .errors import ReleaseError
from .host import Host
from .services import (
    hand_over_sockets,
    max_handover_seconds,
    remove_other_containers,
    start_socket_holder,
    wait_ready,
)
from .steps import ActivationStep
from .store import PARTS, Release
from .verification import Verification


def activate(host: Host, release: Release, verify: bool = False) -> None:
    """Start a release's containers, direct clients to them, and remove all others.

    It can be interrupted at any step and run again. Raises ReleaseError.
    """
    docker = host.docker
    engine, api = release.container("engine"), release.container("api")
    host.on_step(ActivationStep.BEGIN.value)
    missing = [
        release.service(part) for part in PARTS if not docker.inspect(release.container(part))
    ]
    if missing:
        host.compose.run(release.folder, "create", *missing)
    start_socket_holder(host, release)
    if not docker.is_running(engine):
        host.chat_api.switch_upstream(release.engine_file, release.hold_seconds)
        # The engine needs the memory of the others.
        for name, service in docker.list_containers().items():
            if service.startswith("engine") and name != engine:
                docker.remove(name)
        docker.start(engine)
    if verify:
        verification = Verification(host, release)
        try:
            verification.wait()
        finally:
            verification.close()
    host.on_step(ActivationStep.SWITCH_UPSTREAM.value)
    host.chat_api.switch_upstream(release.engine_file)
    if not docker.is_running(api):
        docker.start(api)
    wait_ready(host, release)
    for name, service in docker.list_containers().items():
        if service.startswith("api") and name != api and docker.is_running(name):
            host.on_step(ActivationStep.HAND_OVER_SOCKETS.value)
            slots = {"engine": "a", "api": service[-1]}
            other = Release(release.folder, {**release.record, "slots": slots})
            hand_over_sockets(host, other, release)
    host.on_step(ActivationStep.CLEAN.value)
    remove_other_containers(host, release)


def activate_or_end_hold(host: Host, release: Release, verify: bool = False) -> None:
    """Activate a release; where that fails, nothing is left to try, and the hold is ended.

    Requests then go to the release's engine where it is ready, and are refused otherwise. Raises
    ReleaseError.
    """
    try:
        activate(host, release, verify)
    except ReleaseError:
        host.chat_api.switch_upstream(release.engine_file)
        raise


def max_activation_seconds(release: Optional[Release]) -> float:
    """Return the longest time that a recovery takes with a release, by its own waits.

    It is systemd's time limit for the recovery.
    """
    # Docker is asked often and answers at once; where it does not, the first time ends it all.
    docker = 2 * DOCKER_SECONDS
    if release is None:
        return docker
    compose = 2 * COMPOSE_SECONDS  # create, and up for the socket holder
    return compose + float(release.start_timeout) + max_handover_seconds(release) + docker
