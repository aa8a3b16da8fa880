"""Recovers a host after an interruption: at its start, and after a change that was killed."""

from __future__ import annotations

from typing import Optional

from ..constants import JOURNAL, RELEASES
from ..files import sync_folder
from ..host_info.deployment import read_journal
from ..json_data import Facts
from ..unit_files.recovery import LOCK_SECONDS
from .activation import activate_or_end_hold, max_activation_seconds
from .errors import HostLockedError
from .host import Host
from .lock import lock_host
from .provision import are_sockets_held, remove_former_parts, remove_other_containers, runs
from .steps import ActivationStep
from .store import PARTS, Release
from .unit import extend_time_limit, notify_ready


def recover(host: Host) -> Optional[Facts]:
    """Undo or complete a change that was interrupted, and start stopped containers.

    Returns the history's entry, or None where no change was interrupted. The caller holds the
    host's lock. Raises ReleaseError.
    """
    journal = read_journal(host.root)
    release = host.releases.current()
    if release is None:
        if journal is None:
            return None
        remove_other_containers(host, None)
    elif journal is None and _is_serving(host, release):
        remove_former_parts(host, release)
        return None
    else:
        # Requests that the change held remain held, now by this process.
        host.chat_api.hold_lock.acquire()
        try:
            activate_or_end_hold(host, release)
        finally:
            host.chat_api.hold_lock.release()
    if journal is None:
        return None
    if release and release.number == journal.get("from") and journal.get("previous"):
        # The interruption may have been between the two links of the commit.
        host.releases.set_link("previous", f"{RELEASES}/{journal['previous']:04d}")
    committed = release is not None and release.number == journal.get("to")
    entry = {
        "action": "recover",
        "from": journal.get("to"),
        "to": release.number if release else None,
        "outcome": "removed" if release is None else "committed" if committed else "restored",
        "reason": f"the change to release {journal.get('to')} was interrupted at:"
        f" {journal.get('step')}",
    }
    host.on_step(ActivationStep.END_RECOVERY.value)
    host.releases.append_history(entry)
    (host.root / JOURNAL).unlink()
    sync_folder(host.root)
    return entry


def _is_serving(host: Host, release: Release) -> bool:
    """Whether all that a release needs runs."""
    return are_sockets_held(host) and all(runs(host, release, part) for part in PARTS)


def recover_under_systemd(host: Host) -> None:
    """Recover the host, as the unit to which systemd gives a time limit. Raises ReleaseError."""
    while True:
        # A change may hold the lock for a long time: the limit is extended until it ends.
        extend_time_limit(LOCK_SECONDS)
        try:
            with lock_host(host.root, "the host itself", timeout=LOCK_SECONDS / 2):
                extend_time_limit(max_activation_seconds(host.releases.current()))
                entry = recover(host)
            break
        except HostLockedError:
            continue
    if entry:
        print(entry["reason"])
    notify_ready()
