"""Runs a download job: prepares the folders, downloads or seeds, and installs the files.

From the source, curl downloads and continues at the byte where it was interrupted
(`http_download`). Among the hosts of a fleet, aria2 does by BitTorrent (`swarm`). A downloaded file
is hashed once, compared with the catalogue, and only then gets its final name (`installation`).
"""

from __future__ import annotations

import base64

from ..constants import DISK_RESERVE, MIB
from ..files import allocated
from ..sizes import format_size
from .http_download import download_file
from .installation import install_files
from .job import DownloadError, free_space
from .session import DownloadSession
from .swarm import complete_from_source, download_from_peers, seed


def run_job(session: DownloadSession) -> None:
    """Run the job to its end. Raises DownloadError, StoreError, OSError, Stopped."""
    job = session.job
    session.staging.prepare()
    _check_space(session)
    if job.mode == "source":
        _download_from_source(session)
    elif job.mode == "peers":
        download_from_peers(session)
    else:
        seed(session)


def _download_from_source(session: DownloadSession) -> None:
    """Download all files from the source and install them; the status gets the torrent."""
    job = session.job
    if session.staging.folder.exists(job.torrent_file.name) and allocated(job.bundle_folder):
        complete_from_source(session)
    for file in job.files:
        download_file(session, file)
    torrent = install_files(session)
    session.report("done", job.size, torrent=base64.b64encode(torrent).decode())


def _check_space(session: DownloadSession) -> None:
    """Raise DownloadError where the disk has no space for the rest of the files."""
    job = session.job
    missing = sum(file.size for file in job.files if not session.is_installed(file))
    needed = missing - session.staging.size()
    free = max(0, free_space(job))
    if needed > free:
        others = allocated(job.staging_folder) - allocated(job.bundle_folder)
        raise DownloadError(
            f"the disk of {job.folder} is too small: {format_size(needed)} are still to be"
            f" downloaded, and {format_size(free)} are free beside the reserve of"
            f" {format_size(DISK_RESERVE)}"
            + (
                f"; unfinished downloads of other models in {job.staging_folder} take"
                f" {format_size(others)}"
                if others > MIB
                else ""
            )
            + ". Free some space, and run site.yml again"
        )
