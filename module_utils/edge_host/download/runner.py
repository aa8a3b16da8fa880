"""Runs a download job: prepares the folders, downloads, installs and serves the files.

Only this program writes to the disk, in folders of its own. What talks to other machines are
programs without privileges: curl, for the source (`http_download`), and those of `peers`, for other
hosts. A file is hashed once, compared with the catalogue, and only then gets its final name
(`installation`).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from ..constants import MIB
from ..disk import describe_shortage
from ..files import allocated
from ..sizes import format_size
from .http_download import download_from_source
from .incoming import IncomingFile
from .installation import install_files, reject_file
from .job import BundleFile, DownloadError
from .peers import download_from_peers, serving
from .session import DownloadSession


def run_job(session: DownloadSession) -> None:
    """Run the job to its end. Raises DownloadError, StoreError, OSError, Stopped."""
    job = session.job
    _prepare_folders(session)
    _check_space(session)
    with serving(session) as server:
        if job.mode == "share":
            for file in job.files:
                if not session.is_installed(file):
                    raise DownloadError(
                        f"{session.paths(file)[-1]} is missing: other hosts were to download it"
                        " from here. Run site.yml again"
                    )
        else:
            for file in job.files:
                if not session.is_installed(file):
                    _download(session, file)
            install_files(session, _download_again)
        shutil.rmtree(job.bundle_folder)
        session.report("done", job.size)
        if server is not None:
            _serve(session, server)


def _serve(session: DownloadSession, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server is stopped, or ends since nobody uses it any more."""
    while not session.stopped and server.poll() is None:
        session.sleep(0.5)


def _download(session: DownloadSession, file: BundleFile) -> None:
    """Download a file, complete by its size: from other hosts, the source last.

    Raises DownloadError, Stopped.
    """
    job = session.job
    if file.local:
        raise DownloadError(
            f"{file.local} is missing. Copy the file into the folder of llm_models_mirror"
        )
    with IncomingFile(session, file) as incoming:
        problem = ""
        if job.predecessors and not incoming.complete:
            problem = download_from_peers(session, incoming)
        if incoming.complete:
            return
        if not file.url:
            raise DownloadError(
                f"{file.name} is incomplete: {problem or 'no host has it for this one'}. Open"
                " llm_models_port between the hosts, and run site.yml again, which continues the"
                " download"
            )
        try:
            download_from_source(session, incoming)
        except DownloadError as error:
            if not problem:
                raise
            raise DownloadError(f"{file.name} is incomplete: {problem}; and {error}") from None
    _check_size(session, incoming)


def _check_size(session: DownloadSession, incoming: IncomingFile) -> None:
    """Raise DownloadError where the source ended before the end of the file."""
    if incoming.complete:
        return
    file = incoming.file
    reject_file(session.job, file, incoming.path)
    raise DownloadError(
        f"{file.url} does not fit models.yml: the source sent {incoming.received} bytes, and"
        f" models.yml says {file.size}. Correct the entry in models.yml, or set llm_models_mirror"
        " to a source that has the file"
    )


def _download_again(session: DownloadSession, file: BundleFile) -> None:
    """Download a file once more, all of it from the source. Raises DownloadError, Stopped."""
    with IncomingFile(session, file) as incoming:
        incoming.restart()
        download_from_source(session, incoming)
    _check_size(session, incoming)


def _prepare_folders(session: DownloadSession) -> None:
    """Create the staging folders, which belong to this program's user. Raises DownloadError."""
    job = session.job
    try:
        for folder in (job.staging_folder, job.bundle_folder):
            _own_folder(folder)
        # Of versions that distributed by BitTorrent: such a file has holes.
        for former in (f"{job.bundle_folder}.aria2", f"{job.bundle_folder}.torrent"):
            if Path(former).exists():
                shutil.rmtree(job.bundle_folder)
                _own_folder(job.bundle_folder)
                Path(former).unlink()
    except OSError as error:
        raise DownloadError(
            f"{error.filename} is not writable: {error.strerror}. Make the models folder writable,"
            " and run site.yml again"
        ) from None


def _own_folder(folder: Path) -> None:
    """Create a folder, or take one that nobody but this program's user can write.

    Any other is replaced: its owner could put a link where this program writes as root. Versions
    that had the downloader write left such folders.
    """
    try:
        status = folder.lstat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISDIR(status.st_mode):
            folder.unlink()
        elif status.st_uid != os.geteuid() or status.st_mode & 0o022:
            # It works by descriptors (avoids_symlink_attacks): no link in it is followed.
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Whatever the umask: the program that serves the files is another user's.
    folder.chmod(0o755)


def _check_space(session: DownloadSession) -> None:
    """Raise DownloadError where the disk has no space for the rest of the files."""
    job = session.job
    missing = sum(file.size for file in job.files if not session.is_installed(file))
    needed = missing - allocated(job.bundle_folder)
    if shortage := describe_shortage(job.folder, needed, "downloaded"):
        others = allocated(job.staging_folder) - allocated(job.bundle_folder)
        raise DownloadError(
            shortage
            + (
                f"; unfinished downloads of other models in {job.staging_folder} take"
                f" {format_size(others)}"
                if others > MIB
                else ""
            )
            + ". Free some space, and run site.yml again"
        )
