"""Brings a host to its current release, from whatever state.

It runs at the host's start, and after a change that was killed.
"""

from __future__ import annotations

from typing import Optional

from ..constants import DOOR, JOURNAL, RELEASES
from ..files import sync_folder
from ..host_info.deployment import read_journal
from ..json_data import Facts
from .docker_api import DOCKER_SECONDS
from .errors import Busy, Failure
from .probe import Proof
from .services import clean, hand_over, hand_over_seconds, open_door, wait_for_api
from .store import COMPOSE_SECONDS, PARTS, Host, Release
from .unit import LOOK_SECONDS, extend, ready

# What bringing the current release back does, in this order; it can be cut short as well.
RESTORE_STEPS = ("restore", "restore point", "restore hand over", "restore clean", "restore end")


def restore(host: Host, release: Release, prove: bool = False) -> None:
    """Bring the host to a release that was current, from whatever state. Raises Failure."""
    docker = host.docker
    engine, api = release.container("engine"), release.container("api")
    host.watch("restore")
    missing = [
        release.service(part) for part in PARTS if not docker.container(release.container(part))
    ]
    if missing:
        host.compose(release.folder, "create", *missing)
    open_door(host, release)
    if not docker.running(engine):
        host.point(release.engine_file, release.hold)
        # Their memory is needed.
        for name, service in docker.ours().items():
            if service.startswith("engine") and name != engine:
                docker.remove(name)
        docker.start(engine)
    if prove:
        proof = Proof(host, release)
        try:
            proof.result()
        finally:
            proof.end()
    host.watch("restore point")
    host.point(release.engine_file)
    if not docker.running(api):
        docker.start(api)
    wait_for_api(host, release)
    for name, service in docker.ours().items():
        if service.startswith("api") and name != api and docker.running(name):
            host.watch("restore hand over")
            other = Release(
                release.folder, {**release.record, "slots": {"engine": "a", "api": service[-1]}}
            )
            hand_over(host, other, release)
    host.watch("restore clean")
    clean(host, release)


def restore_seconds(release: Optional[Release]) -> float:
    """The most that `recover` takes with a release, by its own waits: systemd's limit for it."""
    # Docker is asked often and answers at once; where it does not, the first time ends it all.
    docker = 2 * DOCKER_SECONDS
    if release is None:
        return docker
    compose = 2 * COMPOSE_SECONDS  # create, and the door's up
    return compose + float(release.record["start_timeout"]) + hand_over_seconds(release) + docker


def restore_or_tell(host: Host, release: Release, prove: bool = False) -> None:
    """Restore; where that fails nothing is left to try, and requests are not held any more.

    They go to the engine of that release where it is ready, and are refused otherwise. Raises
    Failure.
    """
    try:
        restore(host, release, prove)
    except Failure:
        host.point(release.engine_file)
        raise


def recover(host: Host) -> Optional[Facts]:
    """Undo what a change left that was killed, or cut from its power; start what is stopped.

    Returns what was done, or None where there was nothing to do. Raises Failure.
    """
    journal = read_journal(host.root)
    release = host.current()
    if release is None:
        if journal is None:
            return None
        clean(host, None)
    elif journal is None and all(
        map(host.docker.running, [DOOR, *(release.container(part) for part in PARTS)])
    ):
        return None
    else:
        # Requests that the change held go on waiting, now for this process.
        host.hold_lock.take()
        try:
            restore_or_tell(host, release)
        finally:
            host.hold_lock.release()
    if journal is None:
        return None
    if release and release.number == journal.get("from") and journal.get("previous"):
        # The cut may have come between the two links of the commit.
        host.link("previous", f"{RELEASES}/{journal['previous']:04d}")
    went_on = release is not None and release.number == journal.get("to")
    told = {
        "action": "recover",
        "from": journal.get("to"),
        "to": release.number if release else None,
        "outcome": "removed" if release is None else "committed" if went_on else "restored",
        "reason": f"the change to release {journal.get('to')} was cut short at:"
        f" {journal.get('step')}",
    }
    host.watch("restore end")
    host.note(**told)
    (host.root / JOURNAL).unlink()
    sync_folder(host.root)
    return told


def recover_for_systemd(host: Host) -> None:
    """Recover as the unit that systemd bounds in time. Raises Failure."""
    while True:
        # Whoever changes the host now is not waited for in vain, however long that takes.
        extend(LOOK_SECONDS)
        try:
            with host.locked("the host itself", seconds=LOOK_SECONDS / 2):
                extend(restore_seconds(host.current()))
                told = recover(host)
            break
        except Busy:
            continue
    if told:
        print(told["reason"])
    ready()
