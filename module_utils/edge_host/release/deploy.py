"""Deploys a release or rolls back to one: from the `release` module's options to its result."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from ..folders import ensure_folders
from ..host_info.deployment import describe_change, read_history
from ..json_data import Facts
from ..release_record import listen_address
from ..sockets.units import install as install_sockets
from ..sockets.units import move as move_sockets
from ..unit_files.recovery import LOCK_SECONDS
from .engine_key import ensure_engine_key, hash_engine_key
from .errors import HostLockedError, ReleaseError
from .host import Host
from .lock import lock_host
from .provision import give_new_sockets
from .recovery import recover
from .request import ReleaseRequest, diff_files, is_in_place, request_rollback
from .result import describe_failure, find_result
from .stage import stage_release
from .store import COMPOSE_FILE, ENGINE_FILE, ENV_FILE, Release
from .systemd import install_recovery, remove_other_programs, run_change, wait_for_recovery


def deploy(options: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Return the result of the `release` module, whose options are given.

    With `check_mode` nothing is changed. Raises ReleaseError with a message that names the host.
    """
    name = options["host"]
    try:
        result, failure = _deploy(Host(options["root"]), options, check_mode)
    except ReleaseError as error:
        log = f"\nThe last lines of its log:\n{error.log}" if error.log else ""
        raise ReleaseError(f"{name}: {error}.{log}") from error
    except OSError as error:
        raise ReleaseError(f"{name}: {error}") from error
    if failure:
        raise ReleaseError(f"{name}: {failure}")
    return result


def _deploy(host: Host, options: Mapping[str, Any], check_mode: bool) -> Tuple[Dict[str, Any], str]:
    """Return the result, and why the change failed; empty where it did not."""
    releases, operator = host.releases, options["operator"]
    if options["action"] == "rollback":
        request = request_rollback(releases, operator, options["to"])
    else:
        files = {
            COMPOSE_FILE: options["compose"],
            ENV_FILE: options["env"],
            ENGINE_FILE: options["engine"],
        }
        request = ReleaseRequest(files, {**options["metadata"], "by": operator})
    diff = diff_files(releases.current(), request)
    if check_mode:
        return {"changed": True, "diff": diff}, ""
    program = Path(options["program"])
    change, before, to = _change(host, request, options, program)
    failure = "" if change["outcome"] == "committed" else describe_failure(change, before, to)
    return {"changed": True, "result": describe_change(change), "diff": diff}, failure


def _change(
    host: Host, request: ReleaseRequest, options: Mapping[str, Any], program: Path
) -> Tuple[Facts, Optional[Release], Release]:
    """Return the result of the change, the release before and the one that was requested."""
    releases, operator = host.releases, options["operator"]
    serving = releases.current()
    # Before the recovery, which has them hold the ports, and before the programs of other versions
    # go: one of them may be the unit's. The lock cannot be had yet, as a recovery may need it.
    install_sockets(
        host.root, program, listen_address(serving.record if serving else request.metadata)
    )
    install_recovery(host, program)
    wait_for_recovery(host)
    with lock_host(host.root, operator):
        remove_other_programs(program)
        recover(host)
        before = releases.current()
        _check_expected_release(options["expected_release"], before.number if before else 0)
        ensure_folders(host.root)
        ensure_engine_key(host.root)
        # The requested release may be in place, with a container that does not run.
        key_hash = hash_engine_key(host.root)
        if before and options["action"] != "rollback" and is_in_place(before, request, key_hash):
            to = before
        else:
            to = stage_release(host, request)
        try:
            _listen(host, listen_address(request.metadata), before)
        except ReleaseError:
            _listen_as_released(host)
            raise
    entries_before = len(read_history(host.root, None))
    try:
        run_change(host, program, to.number, options["action"], operator)
    finally:
        # Whoever holds the lock for longer is changing the host, and sets the address.
        with suppress(HostLockedError), lock_host(host.root, operator, timeout=LOCK_SECONDS):
            _listen_as_released(host)
    return find_result(read_history(host.root, None)[entries_before:], to.number), before, to


def _listen_as_released(host: Host) -> None:
    """Have systemd listen at the address of the release that serves, as after a failed change."""
    serving = host.releases.current()
    if serving:
        _listen(host, listen_address(serving.record), serving)


def _listen(host: Host, address: str, serving: Optional[Release]) -> None:
    """Have systemd listen at an address, and the chat API that runs, if any, take its sockets."""
    served = serving is not None and host.docker.is_running(serving.container("api"))
    if move_sockets(address) and serving is not None and served:
        give_new_sockets(host, serving)


def _check_expected_release(expected: Any, current: int) -> None:
    """Raise ReleaseError where the host does not run the expected release (0: none) any more."""
    if expected in (None, current):
        return
    names = [f"release {number}" if number else "no release" for number in (current, expected)]
    raise ReleaseError(
        f"the host was changed meanwhile: it runs {names[0]}, and ran {names[1]} when the plan was"
        " made. Run this again"
    )
