"""Changes a host over to a release, and back where its verification fails.

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
from .errors import Failure
from .probe import Proof
from .recovery import restore, restore_or_tell
from .services import clean, free_memory, hand_over, open_door, until, wait_for_api, wait_for_hold
from .stage import _value, fits_beside
from .store import PARTS, Host, Release, now, write_text

# What a change does, in this order; those that it does not need are left out.
STEPS = (
    "begin",
    "create",
    "load",
    "prove",
    "hold",
    "drain",
    "stop",
    "start",
    "answer",
    "point",
    "hand over",
    "check",
    "commit",
    "leave",
    "clean",
)
UNIT = "edge-llm-change"


class Change:
    """One change from the current release to another, and back where it fails."""

    def __init__(self, host: Host, to: Release) -> None:
        self.host, self.docker, self.to = host, host.docker, to
        self.before = host.current()
        self.beside = False
        self.pause = 0.0
        self._held_at: Optional[float] = None
        self._steps: List[Tuple[str, float]] = []
        self._begun = time.monotonic()

    def changes(self, part: str) -> bool:
        """Whether a part is another than the one that runs, or does not run."""
        if self.before is None or self.before.container(part) != self.to.container(part):
            return True
        return not self.docker.running(self.to.container(part))

    def run(self, action: str) -> Facts:
        """Change over. Returns what became of it: outcome is committed, restored or failed."""
        told: Facts = {
            "action": action,
            "from": self.before.number if self.before else None,
            "to": self.to.number,
            "by": self.to.record["by"],
            "provider": self.to.plan["provider"],
            "model": self.to.plan["model"]["name"],
            "parts": [part for part in PARTS if self.changes(part)],
        }
        if "as" in self.to.record:
            told["as"] = self.to.record["as"]
        try:
            self._run()
            told["outcome"] = "committed"
        except Failure as failure:
            told.update(outcome="restored", reason=str(failure), log=failure.log)
            try:
                self._go_back()
            except Failure as second:
                told.update(outcome="failed", restore_reason=str(second), restore_log=second.log)
        told["beside"] = self.beside
        told["pause"] = round(self.pause, 3)
        ends = [*(moment for _, moment in self._steps[1:]), time.monotonic()]
        told["steps"] = {
            name: round(end - moment, 3)
            for (name, moment), end in zip(self._steps, ends)  # noqa: B905
        }
        told["seconds"] = round(ends[-1] - self._begun, 3)
        self.host.note(**told)
        if told["outcome"] != "failed":
            (self.host.root / JOURNAL).unlink()
            sync_folder(self.host.root)
        self.host.prune()
        return told

    def _step(self, name: str) -> None:
        self._steps.append((STEPS[STEPS.index(name)], time.monotonic()))
        journal = self.host.root / JOURNAL
        if journal.exists():
            # For people, so it need not reach the disk; added, so that what stands there stays.
            with journal.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        self.host.watch(name)

    def _run(self) -> None:
        host, to = self.host, self.to
        engine, api = self.changes("engine"), self.changes("api")
        self._step("begin")
        before = self.before.number if self.before else None
        journal = {"from": before, "to": to.number, "by": to.record["by"], "since": now()}
        previous = host.previous()
        if previous:
            journal["previous"] = previous.number
        write_text(host.root / JOURNAL, json.dumps(journal) + "\n")
        if self.before is None:
            # What is there is no release's: an earlier try's.
            clean(host, None)
            host.point(to.engine_file, to.hold)
        self._step("create")
        fresh = [to.service(part) for part, new in (("engine", engine), ("api", api)) if new]
        if fresh:
            host.compose(to.folder, "create", *fresh)
        open_door(host, to)
        if engine:
            self._change_engine()
        if api:
            self._change_api()
        self._step("check")
        self._check()
        self._step("commit")
        host.commit(to)
        self._step("leave")
        if engine and self.before:
            # Beside the new engine, the old one finishes what it had begun.
            until(lambda: not (host.ready(to) or {}).get("leaving"), to.record["drain_timeout"])
        self._step("clean")
        clean(host, to)

    def _change_engine(self) -> None:
        host, docker, to, before = self.host, self.docker, self.to, self.before
        container = to.container("engine")
        self.beside = before is None or fits_beside(to)
        if self.beside:
            self._step("load")
            docker.start(container)
        proof = Proof(host, to)
        try:
            if self.beside:
                self._step("prove")
                proof.result()
            elif before:
                self._step("hold")
                self._hold(before)
                self._step("drain")
                self._drain(before)
                self._step("stop")
                docker.stop(before.container("engine"), 10)
                self._step("start")
                docker.start(container)
                self._step("prove")
                proof.result()
            self._step("point")
            begun = self._held_at or time.monotonic()
            host.point(to.engine_file)
            if before and docker.running(before.container("api")):
                self._pointed(before, to)
                self.pause = time.monotonic() - begun
                self._held_at = None
        finally:
            proof.end()

    def _pointed(self, api: Release, to: Release) -> None:
        """Wait until the chat API of `api` has its requests go to the engine of `to`."""
        url = _value(to.engine_file, "LLM_BASE_URL")

        def there() -> bool:
            report = self.host.ready(api) or {}
            return bool(report.get("ready") and report.get("engine") == url)

        if not until(there, 30, lambda: self.docker.running(api.container("api"))):
            raise Failure(
                f"the chat API did not go over to {url} within 30 s: {self.host.ready(api)}"
            )

    def _hold(self, release: Release) -> None:
        self._held_at = time.monotonic()
        # Also for the way back, should the new engine not come.
        self.host.point(release.engine_file, self.to.hold + release.hold)
        wait_for_hold(self.host, release)

    def _drain(self, release: Release) -> None:
        """Wait until nothing runs; what still does after the time allowed is cut off."""
        until(
            lambda: not (self.host.ready(release) or {}).get("in_flight"),
            self.to.record["drain_timeout"],
        )

    def _change_api(self) -> None:
        host, docker, to, before = self.host, self.docker, self.to, self.before
        self._step("answer")
        docker.start(to.container("api"))
        wait_for_api(host, to)
        if before is None or before.container("api") == to.container("api"):
            return
        self._step("hand over")
        begun = time.monotonic()
        hand_over(host, before, to)
        self.pause = max(self.pause, time.monotonic() - begun)

    def _check(self) -> None:
        """The chat API that clients reach serves this release, and Docker finds both parts well."""
        self._pointed(self.to, self.to)

        def well() -> bool:
            found = [self.docker.container(self.to.container(part)) for part in PARTS]
            return all(each and each["State"]["Health"]["Status"] == "healthy" for each in found)

        def there() -> bool:
            return all(self.docker.running(self.to.container(part)) for part in PARTS)

        if not until(well, 60, there):
            raise Failure(
                f"Docker does not find {' and '.join(map(self.to.container, PARTS))} healthy"
            )

    def _go_back(self) -> None:
        """Bring the release before back, and prove it; twice, for the first try may lack memory."""
        if self.before is None:
            clean(self.host, None)
            return
        try:
            restore(self.host, self.before, prove=True)
        except Failure:
            free_memory()
            restore_or_tell(self.host, self.before, prove=True)


def change(host: Host, number: int, action: str) -> Facts:
    """Change over to a release that is there; see `Change.run`."""
    to = host.release(number)
    if to is None:
        raise Failure(f"release {number} is not on the host")
    return Change(host, to).run(action)
