"""Runs on the virtual board, with the release program that is installed there.

    onboard.py change    switches to another release, and stops at every write and every step
    onboard.py look      what the board has and runs, as JSON, once its start has ended

A stop is a line of JSON; the change goes on once it has read a line. So whoever listens can take
the power away, or a copy of the disk, at a moment when nothing else happens. What is a write is not
written down here: it is whatever the release program has the disk keep (os.fsync, os.sync).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # The program that is installed there.
    sys.path[:0] = map(str, Path("/opt/edge-llm/lib").glob("edge_host-*.pyz"))

from edge_host.constants import JOURNAL, NETWORK, RELEASE
from edge_host.release.host import Host
from edge_host.release.lock import lock_host
from edge_host.release.request import request_rollback
from edge_host.release.stage import stage_release
from edge_host.release.store import LIVE_ENGINE_FILE, PARTS
from edge_host.release.switch import switch_release
from edge_host.release_record import hash_text

Facts = dict[str, Any]
START_SECONDS = 300
ME = "the test of power cuts"


class Writes:
    """What a program writes below a folder: `stop` hears of all that the disk has to keep.

    `left` is what it does not have to keep yet: files that were opened to be written and not
    flushed since, and names that were given or removed in a folder that was not flushed since.
    """

    def __init__(self, root: Path, stop: Callable[[str], None]) -> None:
        self._root = root
        self._stop = stop
        self._files: set[Path] = set()
        self._names: dict[Path, list[str]] = {}

    @property
    def left(self) -> list[str]:
        files = [f"write {self._short(path)}" for path in self._files]
        return sorted([*files, *(name for names in self._names.values() for name in names)])

    def watch(self) -> None:
        """From now on, hear of every write of this process."""
        sys.addaudithook(self._audited)
        self._after("rename", self._renamed)
        self._after("replace", self._renamed)
        self._after("unlink", self._removed)
        self._after("fsync", self._flushed)
        self._after("sync", self._all_flushed)

    def _after(self, name: str, hear: Callable[..., None]) -> None:
        call = getattr(os, name)

        def wrapped(*words: Any, **options: Any) -> Any:
            answer = call(*words, **options)
            # Those with a folder's descriptor are shutil.rmtree's: what is not there again is
            # removed again.
            if options.get("dir_fd") is None:
                hear(*words)
            return answer

        setattr(os, name, wrapped)

    def _inside(self, path: Path) -> bool:
        return path == self._root or self._root in path.parents

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def _audited(self, event: str, words: Any) -> None:
        if event == "open" and isinstance(words[0], (str, bytes)) and words[2]:
            path = Path(os.fsdecode(words[0]))
            if words[2] & (os.O_WRONLY | os.O_RDWR) and self._inside(path):
                self._files.add(path)

    def _renamed(self, source: str | Path, target: str | Path) -> None:
        # A folder's files go with it.
        source, target = Path(source), Path(target)
        for path in [path for path in self._files if source in (path, *path.parents)]:
            self._files.remove(path)
            self._files.add(target / path.relative_to(source))
        self._named("rename to", target)

    def _removed(self, path: str | Path) -> None:
        self._files.discard(Path(path))
        self._named("remove", Path(path))

    def _named(self, verb: str, path: Path) -> None:
        if self._inside(path):
            self._names.setdefault(path.parent, []).append(f"{verb} {self._short(path)}")

    def _flushed(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not self._inside(path):
            return
        if path.is_dir():
            names = self._names.pop(path, [])
            self._stop(names[-1] if names else f"folder {self._short(path)}")
            return
        self._files.discard(path)
        # A new file beside the one that it will replace is read by nobody yet.
        if not path.name.startswith(".new-"):
            self._stop(f"write {self._short(path)}")

    def _all_flushed(self) -> None:
        self._files.clear()
        self._names.clear()
        self._stop("sync")


def change() -> None:
    """Switch to the newest release with another engine, one engine at a time."""
    host = Host()

    def stop(kind: str, name: str) -> None:
        print(json.dumps({"kind": kind, "name": name, **kept(host)}), flush=True)
        sys.stdin.readline()

    writes = Writes(host.root, lambda name: stop("write", name))
    with lock_host(host.root, ME):
        current = host.releases.current()
        assert current, "the board runs no release"
        there = [host.releases.get(number) for number in host.releases.list_numbers()]
        *_, other = (
            each.number
            for each in there
            if each and each.signatures["engine"] != current.signatures["engine"]
        )
        request = request_rollback(host.releases, ME, other)
        request.metadata["swap"] = "one-by-one"
        writes.watch()
        to = stage_release(host, request)
        host.on_step = lambda name: stop("step", name)
        result = switch_release(host, to.number, "rollback")
    end = {"kind": "end", "name": result["outcome"], "result": result, "left": writes.left}
    print(json.dumps(end))


def kept(host: Host) -> Facts:
    """What a start must find, whatever happens from now on."""
    releases = host.root / "releases"
    return {
        "current": (host.root / "current").readlink().name,
        "journal": (host.root / JOURNAL).exists(),
        "releases": sorted(path.name for path in releases.iterdir() if path.name.isdigit()),
        "history": len((releases / "history.jsonl").read_text().splitlines()),
    }


def look() -> None:
    """Print what the board has, and runs."""
    host = Host()
    end = time.monotonic() + START_SECONDS
    while _said("systemctl", "is-active", "edge-llm.service") == "activating":
        if time.monotonic() > end:
            break
        time.sleep(1)
    current, previous = host.releases.current(), host.releases.previous()
    lines = (host.root / "releases/history.jsonl").read_text().splitlines()
    found = {
        **kept(host),
        "previous": previous.folder.name if previous else None,
        "service": _said("systemctl", "is-active", "edge-llm.service"),
        "log": _said("journalctl", "-u", "edge-llm.service", "-n", "20", "--no-pager", "-o", "cat"),
        "live": (host.root / LIVE_ENGINE_FILE).read_text(),
        "asked": current.engine_file if current else "",
        "last": json.loads(lines[-1]),
        "damaged": {name: find_damage(host, name) for name in kept(host)["releases"]},
        "running": sorted(_said("docker", "ps", "--format", "{{.Names}}").split()),
        "containers": sorted(_said("docker", "ps", "-a", "--format", "{{.Names}}").split()),
        "wanted": sorted([NETWORK, *map(current.container, PARTS)] if current else []),
    }
    print(json.dumps(found))


def find_damage(host: Host, name: str) -> list[str]:
    """What is wrong with a release's files."""
    folder = host.root / "releases" / name
    try:
        record = json.loads((folder / RELEASE).read_text())
        return [
            file
            for file, written in record["written"].items()
            if hash_text((folder / file).read_text()) != written
        ]
    except (OSError, ValueError, KeyError) as error:
        return [str(error)]


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    {"change": change, "look": look}[sys.argv[1]]()
