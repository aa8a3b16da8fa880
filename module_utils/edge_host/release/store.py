"""The releases on a host, and the history of its changes.

A release is a folder `releases/NNNN` with everything that runs: docker-compose.yml, .env,
engine.env (the address of the engine for the chat API), release.json, and in `source` the first
three as they were rendered, with a token for each slot. The link `current` names the release that
the host runs; changing that link is the commit.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..constants import DEPLOYED_FILES, HISTORY, PROJECT, RELEASE, RELEASES
from ..files import read_json, read_text, sync_folder, write_atomically
from ..json_data import Facts

KEEP = 5
"""Releases that stay, beside the current and the previous one."""
PARTS = ("engine", "api")
COMPOSE_FILE, ENV_FILE, LIVE_ENGINE_FILE = DEPLOYED_FILES
"""The chat API follows LIVE_ENGINE_FILE, which is a release's ENGINE_FILE, or holds requests."""
ENGINE_FILE = "engine.env"


def utc_now() -> str:
    """Return the time in UTC, as RFC 3339."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_variable(text: str, name: str) -> str:
    """Return the value of a variable in the text of an env file. Raises KeyError."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)[name]


def replace_file(
    path: Path, text: str, mode: int = 0o644, owner: Optional[Tuple[int, int]] = None
) -> None:
    """Replace a file in one step: after a power cut it is the old one or the new one.

    `owner` (uid, gid) gets it; by default it is the caller's.
    """
    write_atomically(path, text.encode(), path.parent, mode, owner=owner)


class Release(NamedTuple):
    """A release on the host: its folder, and the content of its release.json."""

    folder: Path
    record: Facts

    @property
    def number(self) -> int:
        return int(self.record["number"])

    @property
    def plan(self) -> Facts:
        plan: Facts = self.record["plan"]
        return plan

    @property
    def operator(self) -> str:
        """Who made it, as user@machine."""
        return str(self.record["by"])

    @property
    def rolled_back_to(self) -> Optional[int]:
        """The number of the release that this one repeats, where it is a rollback."""
        number: Optional[int] = self.record.get("as")
        return number

    @property
    def swap(self) -> str:
        """How its engine replaces another one: auto, beside or one-by-one."""
        return str(self.record["swap"])

    @property
    def start_timeout(self) -> float:
        """Seconds until its engine must be ready, and its chat API answer."""
        seconds: float = self.record["start_timeout"]
        return seconds

    @property
    def drain_timeout(self) -> float:
        """Seconds that running requests get to end in."""
        seconds: float = self.record["drain_timeout"]
        return seconds

    @property
    def hold_seconds(self) -> float:
        """Seconds for which a change to it may hold requests."""
        return float(self.drain_timeout) + float(self.start_timeout)

    @property
    def slots(self) -> Dict[str, str]:
        """The slot (a or b) of each part."""
        slots: Dict[str, str] = self.record["slots"]
        return slots

    @property
    def signatures(self) -> Dict[str, str]:
        """The hash of each part: parts of two releases are the same where their hashes are."""
        signatures: Dict[str, str] = self.record["signatures"]
        return signatures

    @property
    def own_namespace(self) -> bool:
        """Whether its parts share a network namespace that has the loopback interface only.

        Those of earlier versions have addresses in a network of Docker: a part of either kind does
        not reach one of the other.
        """
        return "network" in self.plan

    @property
    def engine_file(self) -> str:
        """The text of its engine.env."""
        return (self.folder / ENGINE_FILE).read_text(encoding="utf-8")

    def service(self, part: str) -> str:
        """Return the Compose service of a part, such as engine-b."""
        return f"{part}-{self.slots[part]}"

    def container(self, part: str) -> str:
        """Return the name of a part's container."""
        return f"{PROJECT}-{self.service(part)}"

    def __str__(self) -> str:
        return f"release {self.number} ({self.plan['provider']} with {self.plan['model']['name']})"


class ReleaseStore:
    """The releases in a deployment folder, the links to two of them, and the history."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = root / RELEASES

    def get(self, number: int) -> Optional[Release]:
        """Return a release; None where it is missing or incomplete."""
        folder = self.folder / f"{number:04d}"
        record = read_json(folder / RELEASE)
        return Release(folder, record) if record else None

    def current(self) -> Optional[Release]:
        """Return the release that the host runs."""
        return self._follow_link("current")

    def previous(self) -> Optional[Release]:
        """Return the release that the host ran before the current one."""
        return self._follow_link("previous")

    def _follow_link(self, name: str) -> Optional[Release]:
        try:
            # Path.readlink is of Python 3.9.
            return self.get(int(Path(os.readlink(self._root / name)).name))  # noqa: PTH115
        except (OSError, ValueError):
            return None

    def list_numbers(self) -> List[int]:
        """Return the numbers of all releases, complete or not, in ascending order."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        names = [path.name.strip(".") for path in paths]
        return sorted(int(name) for name in names if name.isdigit())

    def set_link(self, name: str, target: str) -> None:
        """Make the link `name` in the root point to `target`, in one step."""
        new = self._root / f".{name}.new"
        if new.is_symlink():
            new.unlink()
        new.symlink_to(target)
        new.replace(self._root / name)
        sync_folder(self._root)

    def commit(self, release: Release) -> None:
        """Make a release the current one: from now on, the host starts with it."""
        before = self.current()
        if before and before.number != release.number:
            self.set_link("previous", f"{RELEASES}/{before.folder.name}")
        self.set_link("current", f"{RELEASES}/{release.folder.name}")
        for name in (COMPOSE_FILE, ENV_FILE):
            if not (self._root / name).is_symlink():
                self.set_link(name, f"current/{name}")

    def prune(self) -> None:
        """Remove all releases but the newest, the current and the previous, and staged ones."""
        kept = {each.number for each in (self.current(), self.previous()) if each}
        for number in self.list_numbers()[:-KEEP]:
            if number not in kept:
                shutil.rmtree(self.folder / f"{number:04d}", ignore_errors=True)
        for folder in self.folder.glob(".[0-9]*"):
            shutil.rmtree(folder)

    def append_history(self, entry: Dict[str, Any]) -> None:
        """Append a line to the host's history, with the time, and have it on the disk."""
        path = self._root / HISTORY
        text = json.dumps({"at": utc_now(), **entry}) + "\n"
        # A power cut may have left half a line.
        if not (read_text(path) or "\n").endswith("\n"):
            text = "\n" + text
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
