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

from ..constants import DISK_RESERVE, MIB
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

    aria2 ends in between: a file that it has open for writing is not verified.

    Where the other hosts send nothing, the source is used as well. Raises DownloadError,
    StoreError, Stopped.
    """
    staging = session.staging
    if not all(
        session.is_installed(each) or staging.is_received(each) for each in session.job.files
    ):
        _receive_bundle(session)
    _remove_control_file(session)
    install_files(session)
    staging.prepare()
    seed(session)


def _receive_bundle(session: DownloadSession) -> None:
    """Download the bundle to the staging folder. Raises DownloadError, Stopped."""
    job = session.job
    session.staging.folder.write(job.torrent_file.name, job.torrent)
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


def complete_from_source(session: DownloadSession) -> None:
    """Download from the source the pieces that an interrupted download from other hosts lacks.

    Raises DownloadError, Stopped.
    """
    job = session.job
    for file in job.files:
        check_file(job, file)
    session.sources = [extract_host(job.files[0].url)]
    with LoopbackServer(job) as server:
        if not _run_swarm(session, server, use_source=True):
            raise DownloadError(
                f"{job.name} is incomplete: nothing was received for {STALL_TIMEOUT:.0f} s from"
                f" {job.files[0].url}. Check the source, and run site.yml again, which continues"
                " the download"
            )
    _remove_control_file(session)


def seed(session: DownloadSession) -> None:
    """Seed the installed bundle until stopped, or until nobody downloads it any more."""
    job = session.job
    staging = session.staging
    staging.folder.write(job.torrent_file.name, job.torrent)
    session.report("done", job.size)
    for file in job.files:
        if file.local:
            staging.bundle.symlink(file.name, Path(file.local))
        else:
            staging.bundle.link(file.name, job.folder / file.path)
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
    staging.remove()


def _run_swarm(session: DownloadSession, server: LoopbackServer, use_source: bool = False) -> bool:
    """Download all; returns False where no more data is received. Raises DownloadError, Stopped.

    `use_source`: the source is a web seed.
    """
    # Existing data is checked: aria2's own record of it may be older than the data.
    process = _start_aria2(
        session,
        f"--bt-tracker={server.url}/announce",
        "--check-integrity=true",
        *([f"{server.url}/source/"] if use_source else []),
    )
    output = Aria2Output(process)
    active_at, progress = time.monotonic(), -1
    try:
        while not session.stopped:
            if process.poll() is not None:
                session.sleep(0.2)
                session.raise_if_stopped()
                if free_space(session.job) + DISK_RESERVE < MIB:
                    raise DownloadError(describe_full_disk(session.job))
                raise DownloadError(_describe_aria2_failure(process, output))
            if output.seeding:
                return True
            if output.progress != progress:
                progress, active_at = output.progress, time.monotonic()
            elif time.monotonic() - active_at > STALL_TIMEOUT:
                return False
            session.report("receiving", output.bytes_done, peers=output.peers)
            session.sleep(0.5)
        raise Stopped
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
    job, staging = session.job, session.staging
    for file in job.files:
        recorded = session.store.recorded_hash(file.weights) == file.sha256
        if recorded and not staging.bundle.exists(file.name):
            copy = os.fdopen(staging.bundle.create(file.name), "wb")
            with (job.folder / file.path).open("rb") as source, copy as target:
                shutil.copyfileobj(source, target)
                staging.give_to_downloader(target.fileno())


def _remove_control_file(session: DownloadSession) -> None:
    """Remove the file in which aria2 keeps the state of a download."""
    session.staging.folder.remove(f"{session.job.name}.aria2")
