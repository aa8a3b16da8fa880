"""Verifies downloaded files, installs them in the models folder, and makes the torrent."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Callable, Optional

from ..constants import MIB
from ..files import sync_folder
from ..foreign import check_not_written
from ..weights.gguf import InvalidGGUF, compare_shapes, read_header, read_shape
from .http_source import HTML_ADVICE
from .job import BundleFile, DownloadError, DownloadJob
from .session import DownloadSession
from .torrent import PieceHasher

_OnBlock = Callable[[bytes], None]
_MAX_TORRENT = 4 * MIB


def install_files(session: DownloadSession) -> bytes:
    """Hash the downloaded files, compare them with the catalogue, and give them their final names.

    Returns the torrent where others wait for it, else nothing. Raises DownloadError, StoreError,
    Stopped.
    """
    job = session.job
    staging = session.staging
    hasher: Optional[PieceHasher] = None
    if job.share and job.mode == "source":
        torrent = job.torrent_file.name
        recorded = all(_is_recorded(session, file) for file in job.files)
        if recorded and staging.folder.exists(torrent):
            return staging.folder.read(torrent, _MAX_TORRENT)
        hasher = PieceHasher(job)
    hashed = 0

    def on_block(block: bytes) -> None:
        nonlocal hashed
        session.raise_if_stopped()
        if hasher:
            hasher.update(block)
        hashed += len(block)
        if hashed % (16 * MIB) < len(block):
            session.report("verifying", hashed)

    for file in job.files:
        if file.local:
            _verify_local_file(session, file, on_block)
        elif session.is_installed(file):
            _verify_installed_file(session, file, on_block, read_all=hasher is not None)
        else:
            _install_file(session, file, on_block)
    staging.remove()
    if hasher is None:
        return b""
    staging.folder.write(job.torrent_file.name, hasher.build_torrent())
    return hasher.build_torrent()


def _is_recorded(session: DownloadSession, file: BundleFile) -> bool:
    """Whether a file is recorded as verified and unchanged since."""
    if file.local:
        return session.store.recorded_hash_outside(Path(file.local)) == file.sha256
    return session.store.recorded_hash(file.weights) == file.sha256


def _install_file(session: DownloadSession, file: BundleFile, on_block: _OnBlock) -> None:
    """Verify a downloaded file and give it its final name; reject it where it is wrong."""
    job = session.job
    downloaded = session.staging.receive(file)
    found = _hash_file(downloaded, on_block, own=job.user is not None)
    if found != file.sha256:
        rejected = reject_file(job, file, downloaded)
        raise DownloadError(
            f"{file.name} does not fit models.yml: the downloaded file has sha256 {found}, and"
            f" models.yml says {file.sha256}. It was kept as {rejected} and is not used. Correct"
            " the entry in models.yml, or set llm_models_mirror to a source that has the file"
        )
    _check_header(file, downloaded)
    downloaded.chmod(0o644)
    session.store.install(downloaded, file.weights)


def _verify_local_file(session: DownloadSession, file: BundleFile, on_block: _OnBlock) -> None:
    """Verify a file of a folder on this machine, which stays where it is."""
    path = Path(file.local)
    if path.stat().st_size != file.size or _hash_file(path, on_block) != file.sha256:
        raise DownloadError(
            f"{file.local} does not fit models.yml, which says sha256 {file.sha256} and size"
            f" {file.size}. Replace the file, or correct the entry in models.yml"
        )
    _check_header(file, path)
    session.store.record_verified_outside(path, file.sha256)


def _verify_installed_file(
    session: DownloadSession, file: BundleFile, on_block: _OnBlock, read_all: bool
) -> None:
    """Verify a file that has its final name; with `read_all` its content, even if recorded."""
    store = session.store
    if not read_all:
        store.verify(file.weights)
        return
    if _hash_file(session.job.folder / file.path, on_block) != file.sha256:
        # The store rejects the file, and raises the error.
        store.rehash = True
        store.verify(file.weights)
    store.record_verified(file.weights)


def reject_file(job: DownloadJob, file: BundleFile, path: Path) -> str:
    """Rename a received file with the wrong content, so that nothing uses it; returns its new name.

    Raises DownloadError where it is an HTML page.
    """
    with path.open("rb") as stream:
        start = stream.read(64).lstrip().lower()
    rejected = job.folder / f"{file.path.replace('/', '--')}.rejected"
    path.replace(rejected)
    sync_folder(job.folder)
    if start.startswith((b"<!doctype html", b"<html")):
        raise DownloadError(
            f"{file.name} is invalid: the source sent an HTML page (kept as {rejected.name})."
            f" {HTML_ADVICE}"
        )
    return rejected.name


def _check_header(file: BundleFile, path: Path) -> None:
    """Raise DownloadError where the GGUF header contradicts the entry in models.yml."""
    if not file.header:
        return
    try:
        found = compare_shapes(file.header, read_shape(read_header(path)))
    except InvalidGGUF as error:
        found = [f"the file is no valid GGUF file, since {error}"]
    if found:
        raise DownloadError(
            f"the entry of {file.name} in models.yml does not fit the file: {'; '.join(found)}."
            " Correct the entry"
        )


def _hash_file(path: Path, on_block: _OnBlock, own: bool = False) -> str:
    """Return a file's SHA-256, and have its content on the disk; `on_block` gets every block.

    `own`: the file was another user's; one that is still being written is refused.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        if own:
            check_not_written(stream.fileno(), path)
        for block in iter(lambda: stream.read(MIB), b""):
            digest.update(block)
            on_block(block)
        try:
            os.fsync(stream.fileno())
        except OSError as error:  # the disk of a local file may be read-only
            if error.errno not in (errno.EROFS, errno.EINVAL, errno.EBADF):
                raise
    return digest.hexdigest()
