"""What is to be downloaded: the files of one model, from where, and how."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional, Tuple

from ..constants import DISK_RESERVE, WORKSHOP
from ..json_data import Facts
from ..weights.request import WeightsFile

LOCK, JOB, STATUS = "lock", "job.json", "status.json"
"""Files of a run, in its runtime folder."""


class Failure(Exception):
    """Why the weights cannot be had; a sentence without its full stop."""


class File(NamedTuple):
    """A file of a bundle: its own name, where it goes below the models folder, and what it is.

    `url` is where the source has it, `local` where this machine has it already (a folder or a disk
    that somebody brought). `header` is what its GGUF header must say.
    """

    name: str
    path: str
    size: int
    sha256: str
    url: str
    local: str
    header: Facts
    bundle: str

    @property
    def weights(self) -> WeightsFile:
        return WeightsFile(self.path, self.size, self.sha256, self.bundle)


class Job(NamedTuple):
    """What the program is to do; see `parse_job`."""

    name: str
    folder: Path
    files: Tuple[File, ...]
    how: str
    share: bool
    torrent: bytes
    peers: Tuple[str, ...]
    port: int
    user: Optional[int]
    by: str
    token: str
    proxy: str
    authorities: str

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def workshop(self) -> Path:
        return self.folder / WORKSHOP

    @property
    def unfinished(self) -> Path:
        """The folder of what has come of it."""
        return self.workshop / self.name

    @property
    def torrent_file(self) -> Path:
        return self.workshop / f"{self.name}.torrent"


def parse_job(asked: Mapping[str, Any]) -> Job:
    """A job from JSON.

    name: of the bundle (letters, digits, `.`, `_` and `-`); folder: the models folder; files: see
    `File`; how: `source`, `peers` or `share` (it is here, others take it); share: whether others
    wait for it; torrent: base64; peers: `address:port` each; port: to listen at; user: the id by
    which the downloader runs, None for this program's own; by: who asks; token, proxy, authorities
    (a file or, to ask alone, its text): for the source.
    """
    return Job(
        name=str(asked["name"]),
        folder=Path(asked["folder"]),
        files=tuple(
            File(
                name=str(each["name"]),
                path=str(each["path"]),
                size=int(each["size"]),
                sha256=str(each["sha256"]),
                url=str(each.get("url") or ""),
                local=str(each.get("local") or ""),
                header=dict(each.get("header") or {}),
                bundle=str(asked["name"]),
            )
            for each in asked["files"]
        ),
        how=str(asked["how"]),
        share=bool(asked.get("share")),
        torrent=base64.b64decode(asked.get("torrent") or ""),
        peers=tuple(asked.get("peers") or ()),
        port=int(asked.get("port") or 0),
        user=asked.get("user"),
        by=str(asked.get("by") or "somebody"),
        token=str(asked.get("token") or ""),
        proxy=str(asked.get("proxy") or ""),
        authorities=str(asked.get("authorities") or ""),
    )


def room(job: Job) -> int:
    """Bytes that may still be written to the models folder's disk."""
    found = os.statvfs(job.folder)
    return found.f_bavail * found.f_frsize - DISK_RESERVE


def located(file: Facts) -> Facts:
    """A file with where this machine has it, should its source be a folder here."""
    folder, place = file.get("folder"), file["place"]
    if not folder:
        return file
    owner, name, *_, last = place.split("/")
    choices = [
        Path(folder, each) for each in (last, f"{owner}/{name}/{last}", f"{name}/{last}", place)
    ]
    found = next((path for path in choices if path.is_file()), choices[0])
    return {**file, "local": str(found)}
