"""Switches a host to a release, and rolls back where the verification fails.

Two containers can exist for each part, `engine-a` and `engine-b`, `api-a` and `api-b`: a part that
changes starts in the slot that is free. The chat API reads its engine's address from
`engine/engine.env`, and takes its sockets from the socket holder, so neither change refuses a
connection.
"""

from __future__ import annotations

import json
import time
from typing import List, Optional, Tuple

from ..constants import JOURNAL
from ..files import sync_folder
from ..json_data import Facts
from .activation import activate, activate_or_end_hold
from .client_keys import remove_plain_keys
from .errors import ReleaseError
from .host import Host
from .memory_check import fits_beside
from .provision import (
    create_containers,
    provide_namespace,
    provide_sockets,
    remove_other_containers,
    runs,
)
from .services import (
    free_memory,
    hand_over_sockets,
    retire_chat_api,
    wait_for_hold,
    wait_ready,
    wait_until,
)
from .steps import Step
from .store import PARTS, Release, read_variable, replace_file, utc_now
from .verification import Verification

UPSTREAM_SECONDS = 30
"""The time in which the chat API uses another engine, once its engine file says so."""
HEALTH_SECONDS = 60
"""The time in which Docker's health checks of both parts succeed."""


def switch_release(host: Host, number: int, action: str) -> Facts:
    """Switch to a release that is on the host; returns the history's entry.

    Its outcome is committed, restored (the release before serves again) or failed. The caller holds
    the host's lock. Raises ReleaseError where the release is missing.
    """
    release = host.releases.get(number)
    if release is None:
        raise ReleaseError(f"release {number} is missing on the host. Run site.yml")
    return Change(host, release).run(action)


class Change:
    """One change from the current release to another."""

    def __init__(self, host: Host, to: Release) -> None:
        self.host, self.docker, self.to = host, host.docker, to
        self.before = host.releases.current()
        self.beside = False
        self.pause = 0.0
        self._held_at: Optional[float] = None
        self._steps: List[Tuple[Step, float]] = []
        self._started_at = time.monotonic()

    def run(self, action: str) -> Facts:
        """Switch, or roll back where that fails; returns the history's entry."""
        entry: Facts = {
            "action": action,
            "from": self.before.number if self.before else None,
            "to": self.to.number,
            "by": self.to.operator,
            "provider": self.to.plan["provider"],
            "model": self.to.plan["model"]["name"],
            "parts": [part for part in PARTS if self._replaces(part)],
        }
        if self.to.rolled_back_to is not None:
            entry["as"] = self.to.rolled_back_to
        try:
            self._switch()
            entry["outcome"] = "committed"
        except ReleaseError as error:
            entry.update(outcome="restored", reason=str(error), log=error.log)
            try:
                self._roll_back()
            except ReleaseError as second:
                entry.update(outcome="failed", restore_reason=str(second), restore_log=second.log)
        entry["beside"] = self.beside
        entry["pause"] = round(self.pause, 3)
        ends = [*(moment for _, moment in self._steps[1:]), time.monotonic()]
        entry["steps"] = {
            step.value: round(end - moment, 3)
            for (step, moment), end in zip(self._steps, ends)  # noqa: B905
        }
        entry["seconds"] = round(ends[-1] - self._started_at, 3)
        self.host.releases.append_history(entry)
        if entry["outcome"] != "failed":
            (self.host.root / JOURNAL).unlink()
            sync_folder(self.host.root)
        self.host.releases.prune()
        remove_plain_keys(self.host.root)
        return entry

    def _replaces(self, part: str) -> bool:
        """Whether the change starts another container for a part, or a stopped one."""
        if self.before is None or self.before.container(part) != self.to.container(part):
            return True
        return not runs(self.host, self.to, part)

    def _begin_step(self, step: Step) -> None:
        self._steps.append((step, time.monotonic()))
        journal = self.host.root / JOURNAL
        if journal.exists():
            # For people, so it need not reach the disk; appended, so that the first line stays.
            with journal.open("a", encoding="utf-8") as file:
                file.write(f"{step.value}\n")
        self.host.on_step(step.value)

    def _switch(self) -> None:
        """Do all steps up to the commit, and clean up. Raises ReleaseError."""
        host, to = self.host, self.to
        engine, api = self._replaces("engine"), self._replaces("api")
        self._begin_step(Step.BEGIN)
        self._write_journal()
        if self.before is None:
            # Containers without a release are those of an earlier attempt.
            remove_other_containers(host, None)
            host.chat_api.switch_upstream(to.engine_file, to.hold_seconds)
        self._begin_step(Step.CREATE_CONTAINERS)
        provide_namespace(host, to)
        replaced = [part for part, new in (("engine", engine), ("api", api)) if new]
        create_containers(host, to, replaced)
        provide_sockets(host, self.before)
        if self.before and self.before.own_namespace != to.own_namespace:
            self._replace_both(self.before)
        else:
            if engine:
                self._replace_engine()
            if api:
                self._replace_chat_api()
        self._begin_step(Step.CHECK)
        self._check_serving()
        self._begin_step(Step.COMMIT)
        host.releases.commit(to)
        self._begin_step(Step.DRAIN_PREVIOUS)
        if engine and self.before:
            # Beside the new engine, the old one completes the answers that it has begun.
            wait_until(
                lambda: not (host.chat_api.read_status(to) or {}).get("leaving"), to.drain_timeout
            )
        self._begin_step(Step.CLEAN)
        remove_other_containers(host, to)

    def _write_journal(self) -> None:
        """Write what a recovery needs, should the change be interrupted."""
        journal = {
            "from": self.before.number if self.before else None,
            "to": self.to.number,
            "by": self.to.operator,
            "since": utc_now(),
        }
        previous = self.host.releases.previous()
        if previous:
            journal["previous"] = previous.number
        replace_file(self.host.root / JOURNAL, json.dumps(journal) + "\n")

    def _replace_engine(self) -> None:
        """Start and verify the new engine, and switch the chat API to it.

        It loads beside the old one where memory allows; else the old one is stopped first, while
        requests are held.
        """
        host, docker, to, before = self.host, self.docker, self.to, self.before
        container = to.container("engine")
        self.beside = before is None or fits_beside(to)
        if self.beside:
            self._begin_step(Step.LOAD_BESIDE)
            docker.start(container)
        verification = Verification(host, to)
        try:
            if before and not self.beside:
                self._begin_step(Step.HOLD_REQUESTS)
                self._hold_requests(before)
                self._begin_step(Step.DRAIN_REQUESTS)
                self._drain_requests(before)
                self._begin_step(Step.STOP_PREVIOUS)
                docker.stop(before.container("engine"), 10)
                self._begin_step(Step.START_ENGINE)
                docker.start(container)
            self._begin_step(Step.VERIFY)
            verification.wait()
            self._begin_step(Step.SWITCH_UPSTREAM)
            paused_at = self._held_at or time.monotonic()
            host.chat_api.switch_upstream(to.engine_file)
            if before and docker.is_running(before.container("api")):
                self._wait_for_upstream(before)
                self.pause = time.monotonic() - paused_at
                self._held_at = None
        finally:
            verification.close()

    def _replace_both(self, before: Release) -> None:
        """Start and verify both new parts where those before do not reach them, nor are reached.

        The chat API before therefore ends with its own engine all that it has accepted. Where
        memory allows, the new one takes connections meanwhile, and holds their requests; else
        connections wait where the sockets are held, so that they can be served again by either.
        """
        host, docker, to = self.host, self.docker, self.to
        self.beside = fits_beside(to)
        if self.beside:
            self._begin_step(Step.LOAD_BESIDE)
            docker.start(to.container("engine"))
            self._verify()
            self._replace_chat_api()
            return
        verification = Verification(host, to)
        try:
            self._begin_step(Step.HAND_OVER_SOCKETS)
            paused_at = time.monotonic()
            retire_chat_api(host, before, to.drain_timeout)
            self._begin_step(Step.STOP_PREVIOUS)
            docker.stop(before.container("engine"), 10)
            self._begin_step(Step.START_ENGINE)
            docker.start(to.container("engine"))
            self._begin_step(Step.VERIFY)
            verification.wait()
        finally:
            verification.close()
        self._begin_step(Step.SWITCH_UPSTREAM)
        host.chat_api.switch_upstream(to.engine_file)
        self._begin_step(Step.WAIT_READY)
        docker.start(to.container("api"))
        wait_ready(host, to)
        self.pause = time.monotonic() - paused_at

    def _verify(self) -> None:
        verification = Verification(self.host, self.to)
        try:
            self._begin_step(Step.VERIFY)
            verification.wait()
        finally:
            verification.close()

    def _wait_for_upstream(self, api: Release) -> None:
        """Wait until the chat API of the release `api` sends its requests to the new engine."""
        url = read_variable(self.to.engine_file, "LLM_BASE_URL")
        name = api.container("api")

        def switched() -> bool:
            status = self.host.chat_api.read_status(api) or {}
            return bool(status.get("ready") and status.get("engine") == url)

        if not wait_until(switched, UPSTREAM_SECONDS, lambda: self.docker.is_running(name)):
            raise ReleaseError(
                f"the chat API {name} did not switch to {url} within {UPSTREAM_SECONDS} s: its"
                f" status is {self.host.chat_api.read_status(api)}. Check its log"
            )

    def _hold_requests(self, release: Release) -> None:
        self._held_at = time.monotonic()
        # Long enough for the rollback, too, should the new engine not start.
        hold = self.to.hold_seconds + release.hold_seconds
        self.host.chat_api.switch_upstream(release.engine_file, hold)
        wait_for_hold(self.host, release)

    def _drain_requests(self, release: Release) -> None:
        """Wait until no request runs; those that still do after the time limit are cut off."""
        wait_until(
            lambda: not (self.host.chat_api.read_status(release) or {}).get("in_flight"),
            self.to.drain_timeout,
        )

    def _replace_chat_api(self) -> None:
        """Start the new chat API, and hand over the sockets of the old one to it."""
        host, docker, to, before = self.host, self.docker, self.to, self.before
        self._begin_step(Step.WAIT_READY)
        docker.start(to.container("api"))
        wait_ready(host, to)
        if before is None or before.container("api") == to.container("api"):
            return
        self._begin_step(Step.HAND_OVER_SOCKETS)
        paused_at = time.monotonic()
        hand_over_sockets(host, before, to)
        self.pause = max(self.pause, time.monotonic() - paused_at)

    def _check_serving(self) -> None:
        """Raise ReleaseError unless the chat API serves this release and both parts are healthy."""
        self._wait_for_upstream(self.to)
        names = [self.to.container(part) for part in PARTS]

        def healthy() -> bool:
            found = map(self.docker.inspect, names)
            return all(each and each["State"]["Health"]["Status"] == "healthy" for each in found)

        if not wait_until(healthy, HEALTH_SECONDS, lambda: all(map(self.docker.is_running, names))):
            raise ReleaseError(
                f"the containers {' and '.join(names)} are not healthy, by Docker's checks. Check"
                " `docker ps` and their logs on the host"
            )

    def _roll_back(self) -> None:
        """Activate the release before, and verify it; twice, as the first try may lack memory."""
        if self.before is None:
            remove_other_containers(self.host, None)
            return
        try:
            activate(self.host, self.before, verify=True)
        except ReleaseError:
            free_memory()
            activate_or_end_hold(self.host, self.before, verify=True)
