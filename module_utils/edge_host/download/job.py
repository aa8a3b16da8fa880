"""The job of one download: the files of a model, their source, and the mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional, Tuple

from ..constants import WORKSHOP
from ..json_data import Facts, objects
from ..weights.request import WeightsFile
from .peer_client import Peer, parse_peer
from .peer_tls import Credentials, parse_credentials

LOCK, START_LOCK, JOB, STATUS = "lock", "start.lock", "job.json", "status.json"
"""Files of a download, in its runtime folder."""


class DownloadError(Exception):
    """The weights cannot be downloaded.

    The text says what is wrong, what was found and what to do, without the last full stop.
    """


class BundleFile(NamedTuple):
    """A file of a bundle, which is all the files of one model.

    `path` is its place below the models folder. `url` is its address at the source, `local` its
    path where this machine has it already (llm_models_mirror is a folder). `header` has the values
    of models.yml for its GGUF header.
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


class DownloadJob(NamedTuple):
    """What the download program does; `parse_job` describes the fields."""

    name: str
    folder: Path
    files: Tuple[BundleFile, ...]
    mode: str
    predecessors: Tuple[Peer, ...]
    successors: Tuple[str, ...]
    port: int
    credentials: Optional[Credentials]
    distribution: float
    started_between: int
    user: Optional[int]
    operator: str
    token: str
    proxy: str
    ca_certificates: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def staging_folder(self) -> Path:
        """The folder with the unfinished downloads of all bundles."""
        return self.folder / WORKSHOP

    @property
    def bundle_folder(self) -> Path:
        """The folder, below the staging folder, with the unfinished files of this bundle."""
        return self.staging_folder / self.name


def parse_job(data: Mapping[str, Any]) -> DownloadJob:
    """Parse a job from JSON.

    name: of the bundle (letters, digits, `.`, `_` and `-`); folder: the models folder; files: see
    `BundleFile`, without `url` where this machine may not use the source; mode: `source`, `peers`
    (from other hosts) or `share` (this machine has the files); predecessors: hosts to download
    from, the nearest first; successors: the names in the certificates of the hosts that may
    download from this one; port: to listen at; credentials: for this distribution, None where
    nobody takes part but this machine; distribution: the time at which it was planned, 0 for none;
    started_between: hosts that are started after this one and before the first of its predecessors;
    user: the uid of the downloader, None for this program's own; operator: who started the
    download; token, proxy, ca_certificates: for the source. `ca_certificates` is a file with
    certificates, or (to check the source only) its text.
    """
    return DownloadJob(
        name=str(data["name"]),
        folder=Path(data["folder"]),
        files=tuple(
            BundleFile(
                name=str(each["name"]),
                path=str(each["path"]),
                size=int(each["size"]),
                sha256=str(each["sha256"]),
                url=str(each.get("url") or ""),
                local=str(each.get("local") or ""),
                header=dict(each.get("header") or {}),
                bundle=str(data["name"]),
            )
            for each in data["files"]
        ),
        mode=str(data["mode"]),
        predecessors=tuple(map(parse_peer, objects(data.get("predecessors")))),
        successors=tuple(map(str, data.get("successors") or ())),
        port=int(data.get("port") or 0),
        credentials=parse_credentials(data["credentials"]) if data.get("credentials") else None,
        distribution=float((data.get("credentials") or {}).get("planned_at") or 0),
        started_between=int(data.get("started_between") or 0),
        user=data.get("user"),
        operator=str(data.get("operator") or "somebody"),
        token=str(data.get("token") or ""),
        proxy=str(data.get("proxy") or ""),
        ca_certificates=str(data.get("ca_certificates") or ""),
    )


def add_local_path(file: Facts) -> Facts:
    """Return the file with its path on this machine, if its source is a folder here.

    `folder` is that folder, `place` the file's address at the hub: OWNER/NAME/.../FILE. The folder
    may have the file as FILE, OWNER/NAME/FILE, NAME/FILE, or as the hub has it.
    """
    folder, place = file.get("folder"), file["place"]
    if not folder:
        return file
    owner, name, *_, last = place.split("/")
    candidates = [
        Path(folder, each) for each in (last, f"{owner}/{name}/{last}", f"{name}/{last}", place)
    ]
    found = next((path for path in candidates if path.is_file()), candidates[0])
    return {**file, "local": str(found)}
