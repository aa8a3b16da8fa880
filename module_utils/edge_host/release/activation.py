"""Brings a host to a release that was current before, from any state.

A change does so that rolls back after a failed verification, and a recovery after an interruption.
"""

from __future__ import annotations

from typing import List, Optional

from ..constants import NETWORK
from ..host_info.deployment import read_journal
from ..unit_files.sockets import START_SECONDS
from .compose import COMPOSE_SECONDS
from .docker_api import DOCKER_SECONDS, STOP_BEFORE_START_SECONDS
from .errors import ReleaseError
from .host import Host
from .provision import (
    create_containers,
    provide_namespace,
    provide_sockets,
    remove_other_containers,
    runs,
)
from .services import (
    hand_over_sockets,
    max_handover_seconds,
    max_retirement_seconds,
    retire_chat_api,
    wait_healthy,
    wait_ready,
)
from .steps import ActivationStep, Step
from .store import PARTS, Release
from .verification import Verification


def activate(host: Host, release: Release, verify: bool = False) -> None:
    """Start a release's containers, direct clients to them, and remove all others.

    It can be interrupted at any step and run again. Raises ReleaseError.
    """
    docker = host.docker
    engine, api = release.container("engine"), release.container("api")
    host.on_step(ActivationStep.BEGIN.value)
    retired = _retire_in_former_namespace(host, release)
    provide_namespace(host, release)
    missing = [part for part in PARTS if not docker.inspect(release.container(part))]
    create_containers(host, release, missing)
    provide_sockets(host, release)
    handing_over = (read_journal(host.root) or {}).get("step") == Step.HAND_OVER_SOCKETS.value
    if handing_over and not retired:
        # It may be retiring: then it accepts nothing any more, and has to be started again.
        retire_chat_api(host, release, release.drain_timeout)
    if not runs(host, release, "engine"):
        for other in _find_other_chat_apis(host, release):
            if other.own_namespace != release.own_namespace:
                # It does not reach this engine, and its own one is removed.
                host.chat_api.switch_upstream(other.engine_file)
                retire_chat_api(host, other, release.drain_timeout)
        host.chat_api.switch_upstream(release.engine_file, release.hold_seconds)
        # The engine needs the memory of the others.
        for name, service in docker.list_containers().items():
            if service.startswith("engine") and name != engine:
                docker.remove(name)
        docker.start(engine)
        if retired:
            # Connections wait at the held sockets, for longer than a chat API would hold requests.
            wait_healthy(host, release)
    if verify:
        verification = Verification(host, release)
        try:
            verification.wait()
        finally:
            verification.close()
    host.on_step(ActivationStep.SWITCH_UPSTREAM.value)
    host.chat_api.switch_upstream(release.engine_file)
    if not runs(host, release, "api"):
        docker.start(api)
    wait_ready(host, release)
    for other in _find_other_chat_apis(host, release):
        host.on_step(ActivationStep.HAND_OVER_SOCKETS.value)
        hand_over_sockets(host, other, release)
    host.on_step(ActivationStep.CLEAN.value)
    remove_other_containers(host, release)


def _retire_in_former_namespace(host: Host, release: Release) -> bool:
    """Retire a chat API that serves with its engine in a former network namespace; whether it did.

    Docker restarts the container of the namespace alone, and the two go on in the one that they
    have. Once the engine is started in the new one, this chat API could answer nothing any more.
    """
    engine, api = release.container("engine"), release.container("api")
    if (
        not release.own_namespace
        or not host.docker.shares_namespace(api, engine)
        or host.docker.shares_namespace(api, NETWORK)
    ):
        return False
    retire_chat_api(host, release, release.drain_timeout)
    return True


def _find_other_chat_apis(host: Host, release: Release) -> List[Release]:
    """Return the releases whose chat APIs run besides that of `release`."""
    journal = read_journal(host.root) or {}
    changed = [host.releases.get(journal[end]) for end in ("to", "from") if journal.get(end)]
    found = []
    for name, service in host.docker.list_containers().items():
        if not service.startswith("api") or not host.docker.is_running(name):
            continue
        if name == release.container("api"):
            continue
        slots = {"engine": "a", "api": service[-1]}
        # Without a change that was interrupted, of this release as far as anybody knows.
        other = Release(release.folder, {**release.record, "slots": slots})
        found.append(
            next((each for each in changed if each and each.container("api") == name), other)
        )
    return found


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
    compose = 2 * COMPOSE_SECONDS  # for the network namespace, and for the parts
    # The release's own chat API may be retiring, and another one has to.
    chat_apis = max_retirement_seconds(release.drain_timeout) + max_handover_seconds(release)
    # For the engine, and for the chat API. The container of the namespace is stopped in less time
    # than Compose takes to create it.
    starts = 2 * (STOP_BEFORE_START_SECONDS + float(release.start_timeout))
    return compose + START_SECONDS + starts + chat_apis + docker
