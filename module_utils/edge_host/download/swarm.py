"""Downloads and seeds a bundle among the hosts of a fleet, by BitTorrent with aria2.

Every host that takes part is known beforehand, so the tracker is a fixed answer on each host's own
loopback (`tracker`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Callable

from ..constants import DISK_RESERVE, MIB
from ..files import write_atomically
from .aria2 import Aria2Output, build_command
from .http_source import check_file, describe_full_disk
from .installation import install_files
from .job import DownloadError, free_space
from .session import DownloadSession, Stopped, extract_host
from .tracker import LoopbackServer

STALL_TIMEOUT = 20.0
"""Seconds without data from other hosts, after which the source is used, too."""
IDLE_TIMEOUT = 900.0
"""Seconds without an upload, after which a host stops seeding, even if nobody stops it."""


def download_from_peers(session: DownloadSession) -> None:
    """Download the bundle from other hosts, install it, and seed it until stopped.

    Where the other hosts send nothing, the source is used as well. Raises DownloadError,
    StoreError, Stopped.
    """
    job = session.job
    write_atomically(job.torrent_file, job.torrent, job.staging_folder)
    _copy_installed_files(session)
    with LoopbackServer(job) as server:
        session.sources = ["the fleet"]
        if not _run_swarm(session, server):
            source = job.files[0].url
            if source:
                session.sources = ["the fleet", extract_host(source)]
            if not source or not _run_swarm(session, server, use_source=True):
                raise DownloadError(
                    f"{job.name} is incomplete: nothing was received for {STALL_TIMEOUT:.0f} s from"
                    f" {', '.join(job.peers) or 'any host'}"
                    + (f", nor from {source}" if source else "")
                    + ". Open llm_models_port between the hosts, or the way to the source, and run"
                    " site.yml again, which continues the download"
                )
    shutil.rmtree(job.bundle_folder)
    _remove_control_file(session)


def complete_from_source(session: DownloadSession) -> None:
    """Download from the source the pieces that an interrupted download from other hosts lacks.

    Raises DownloadError, Stopped.
    """
    job = session.job
    for file in job.files:
        check_file(job, file)
    session.sources = [extract_host(job.files[0].url)]
    with LoopbackServer(job) as server:
        if not _run_swarm(session, server, use_source=True, download_only=True):
            raise DownloadError(
                f"{job.name} is incomplete: nothing was received for {STALL_TIMEOUT:.0f} s from"
                f" {job.files[0].url}. Check the source, and run site.yml again, which continues"
                " the download"
            )
    _remove_control_file(session)


def seed(session: DownloadSession) -> None:
    """Seed the installed bundle until stopped, or until nobody downloads it any more."""
    job = session.job
    write_atomically(job.torrent_file, job.torrent, job.staging_folder)
    session.report("done", job.size)
    for file in job.files:
        link = job.bundle_folder / file.name
        if file.local:
            _replace_link(link, Path(file.local), os.symlink)
        else:
            _replace_link(link, job.folder / file.path, os.link)
    with LoopbackServer(job) as server:
        process = _start_aria2(
            session, f"--bt-tracker={server.url}/announce", "--bt-seed-unverified=true"
        )
        output = Aria2Output(process)
        active_at = time.monotonic()
        try:
            session.sleep(0.5)
            while not session.stopped:
                if process.poll() is not None:
                    raise DownloadError(_describe_aria2_failure(process, output))
                if output.uploading:
                    active_at = time.monotonic()
                if time.monotonic() - active_at > IDLE_TIMEOUT:
                    break
                session.sleep(0.5)
        finally:
            _stop_aria2(process)
    shutil.rmtree(job.bundle_folder)


def _run_swarm(
    session: DownloadSession,
    server: LoopbackServer,
    use_source: bool = False,
    download_only: bool = False,
) -> bool:
    """Download, install, and seed until stopped; returns False where no more data is received.

    `use_source`: the source is a web seed; `download_only`: return once all is downloaded.
    """
    # Existing data is checked: aria2's own record of it may be older than the data.
    process = _start_aria2(
        session,
        f"--bt-tracker={server.url}/announce",
        "--check-integrity=true",
        *([f"{server.url}/source/"] if use_source else []),
    )
    output = Aria2Output(process)
    active_at, installed = time.monotonic(), False
    progress = -1
    try:
        while not session.stopped:
            if process.poll() is not None:
                session.sleep(0.2)
                session.raise_if_stopped()
                if free_space(session.job) + DISK_RESERVE < MIB:
                    raise DownloadError(describe_full_disk(session.job))
                raise DownloadError(_describe_aria2_failure(process, output))
            if output.seeding and download_only:
                return True
            if output.seeding and not installed:
                install_files(session)
                installed = True
                active_at = time.monotonic()
                session.report("done", session.job.size)
            elif not installed:
                if output.progress != progress:
                    progress, active_at = output.progress, time.monotonic()
                elif time.monotonic() - active_at > STALL_TIMEOUT:
                    return False
                session.report("receiving", output.bytes_done, peers=output.peers)
            else:
                if output.uploading:
                    active_at = time.monotonic()
                if time.monotonic() - active_at > IDLE_TIMEOUT:
                    return True
            session.sleep(0.5)
        if not installed:
            raise Stopped
        return True
    finally:
        _stop_aria2(process)


def _start_aria2(session: DownloadSession, *options: str) -> subprocess.Popen[bytes]:
    return session.start_downloader(
        *build_command(session.job, *options),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _stop_aria2(process: subprocess.Popen[bytes]) -> None:
    """Stop aria2, with some seconds to save its state."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _describe_aria2_failure(process: subprocess.Popen[bytes], output: Aria2Output) -> str:
    return (
        f"aria2c ended with exit status {process.returncode}: {output.message or 'no message'}. Run"
        " site.yml again, which continues the download"
    )


def _copy_installed_files(session: DownloadSession) -> None:
    """Copy installed files to the staging folder: a torrent needs all files of a bundle."""
    job = session.job
    for file in job.files:
        target = job.bundle_folder / file.name
        if session.store.recorded_hash(file.weights) == file.sha256 and not target.exists():
            shutil.copyfile(job.folder / file.path, target)
            if job.user is not None:
                os.chown(target, job.user, job.user)


def _remove_control_file(session: DownloadSession) -> None:
    """Remove the file in which aria2 keeps the state of a download."""
    Path(f"{session.job.bundle_folder}.aria2").unlink(missing_ok=True)


def _replace_link(link: Path, target: Path, make: Callable[[Path, Path], None]) -> None:
    if link.exists() or link.is_symlink():
        link.unlink()
    make(target, link)
