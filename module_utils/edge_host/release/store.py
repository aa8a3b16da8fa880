"""The releases on a host, its lock, its history and its engine file.

A release is a folder `releases/NNNN` with everything that runs: docker-compose.yml, .env,
engine.env (where the chat API finds its engine), release.json, and in `source` the first three as
they were rendered, with a token for each slot. The link `current` names the release that the host
runs; changing that link is the commit.
"""

from __future__ import annotations

import datetime
import fcntl
import http.client
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Optional

from ..constants import DEPLOYED_FILES, HISTORY, LOCK, PROJECT, RELEASE, RELEASES, ROOT
from ..files import read_json, read_text, sync_folder, write_atomically
from ..host_info.deployment import read_lock
from ..json_data import Facts
from .docker_api import Docker, ask
from .errors import Busy, Failure
from .hold import HoldLock

KEEP = 5
"""Releases that stay, beside the current one and the one before."""
PARTS = ("engine", "api")
COMPOSE, ENV, LIVE = DEPLOYED_FILES
"""LIVE is what the chat API follows; `NEXT` is what the proof is told."""
ENGINE = "engine.env"
COMPOSE_SECONDS = 300.0


def now() -> str:
    """The time in UTC, as RFC 3339."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file whole: a cut of the power leaves the old one or the new one."""
    write_atomically(path, text.encode(), path.parent, mode)


class Release(NamedTuple):
    """A release on the host: its folder, and what its release.json says."""

    folder: Path
    record: Facts

    @property
    def number(self) -> int:
        return int(self.record["number"])

    @property
    def plan(self) -> Facts:
        plan: Facts = self.record["plan"]
        return plan

    def service(self, part: str) -> str:
        """The compose service of a part, such as engine-b."""
        return f"{part}-{self.record['slots'][part]}"

    def container(self, part: str) -> str:
        return f"{PROJECT}-{self.service(part)}"

    @property
    def hold(self) -> float:
        """Seconds that a change to it may keep requests waiting."""
        return float(self.record["drain_timeout"]) + float(self.record["start_timeout"])

    @property
    def engine_file(self) -> str:
        return (self.folder / ENGINE).read_text(encoding="utf-8")

    def __str__(self) -> str:
        return f"release {self.number} ({self.plan['provider']} with {self.plan['model']['name']})"


class Host:
    """A host's folder, with its releases, its lock and its engine file.

    `watch` hears of every step as it begins: the journal says it to people, tests cut there.
    """

    def __init__(
        self,
        root: str = ROOT,
        docker: Optional[Docker] = None,
        watch: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.root = Path(root)
        self.docker = docker or Docker()
        self.watch = watch
        self.hold_lock = HoldLock(self.root / LIVE, self.root / "run")

    # The lock.

    @contextmanager
    def locked(self, by: str, seconds: float = 2.0) -> Iterator[None]:
        """Hold the host's lock. Raises Busy, with who has had it since when, after `seconds`.

        The kernel lets go of it when its holder ends, so a dead one never needs breaking.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK).open("a+", encoding="utf-8") as file:
            end = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        held = read_lock(self.root) or {}
                        raise Busy(
                            f"{held.get('by', 'somebody')} has been changing the host since"
                            f" {held.get('since', 'just now')}; run this again when that has ended."
                        ) from None
                    time.sleep(0.1)
            file.seek(0)
            file.truncate()
            json.dump({"by": by, "since": now(), "pid": os.getpid()}, file)
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    # Releases.

    def release(self, number: int) -> Optional[Release]:
        """The release of that number, where it is there and whole."""
        folder = self.root / RELEASES / f"{number:04d}"
        record = read_json(folder / RELEASE)
        return Release(folder, record) if record else None

    def current(self) -> Optional[Release]:
        """The release that this host runs."""
        return self._linked("current")

    def previous(self) -> Optional[Release]:
        """The release before."""
        return self._linked("previous")

    def _linked(self, name: str) -> Optional[Release]:
        try:
            # Path.readlink is of Python 3.9.
            return self.release(int(Path(os.readlink(self.root / name)).name))  # noqa: PTH115
        except (OSError, ValueError):
            return None

    def numbers(self) -> List[int]:
        """The numbers of all that are there, whole or not."""
        folder = self.root / RELEASES
        names = [path.name.strip(".") for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())

    def link(self, name: str, target: str) -> None:
        """Have the link `name` in the root point at `target`, in one step."""
        fresh = self.root / f".{name}.new"
        if fresh.is_symlink():
            fresh.unlink()
        fresh.symlink_to(target)
        fresh.replace(self.root / name)
        sync_folder(self.root)

    def commit(self, release: Release) -> None:
        """Make a release the current one: from here on, this is what the host starts with."""
        before = self.current()
        if before and before.number != release.number:
            self.link("previous", f"{RELEASES}/{before.folder.name}")
        self.link("current", f"{RELEASES}/{release.folder.name}")
        for name in (COMPOSE, ENV):
            if not (self.root / name).is_symlink():
                self.link(name, f"current/{name}")

    def prune(self) -> None:
        """Remove releases that nobody goes back to."""
        kept = {each.number for each in (self.current(), self.previous()) if each}
        for number in self.numbers()[:-KEEP]:
            if number not in kept:
                shutil.rmtree(self.root / RELEASES / f"{number:04d}", ignore_errors=True)
        for folder in (self.root / RELEASES).glob(".[0-9]*"):
            shutil.rmtree(folder)

    def note(self, **told: Any) -> None:
        """Add a line to the host's history."""
        path = self.root / HISTORY
        # A cut of the power can have left half a line.
        torn = not (read_text(path) or "\n").endswith("\n")
        with path.open("a", encoding="utf-8") as out:
            out.write("\n" * torn + json.dumps({"at": now(), **told}) + "\n")
            out.flush()
            os.fsync(out.fileno())

    # The chat API.

    def point(self, text: str, hold: float = 0) -> None:
        """Tell the chat API of its engine, and for how many seconds requests are to be held.

        They are held no longer than this process lives.
        """
        if hold:
            self.hold_lock.take()
            write_text(self.root / LIVE, f"{text}LLM_HOLD={hold:g}\n")
        else:
            write_text(self.root / LIVE, text)
            self.hold_lock.remove()

    def api(self, release: Release) -> str:
        """The socket of a release's chat API: of that process, whoever shares its ports."""
        return str(self.root / "run" / f"{release.service('api')}.sock")

    def ready(self, release: Release) -> Optional[Facts]:
        """What the chat API says at /ready; None where it does not answer."""
        keys = (self.root / "secrets/api_keys").read_text(encoding="utf-8").split()
        headers = {"Authorization": f"Bearer {keys[0]}"}
        try:
            _, report = ask(self.api(release), "GET", "/ready", headers, timeout=10)
        except (OSError, http.client.HTTPException):
            return None
        return report if isinstance(report, dict) and "in_flight" in report else None

    # Commands.

    def compose(
        self, folder: Path, *words: str, timeout: float = COMPOSE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` with a release's files; raises Failure where it fails."""
        try:
            done = self.docker.command(*self.compose_words(folder), *words, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"docker compose {words[0]} did not end within {timeout:g} s") from None
        if done.returncode != 0:
            raise Failure(
                f"docker compose {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    def compose_words(self, folder: Path) -> List[str]:
        return [
            *("compose", "--ansi", "never", "--project-directory", str(self.root)),
            *("--file", str(folder / COMPOSE), "--env-file", str(folder / ENV)),
        ]
