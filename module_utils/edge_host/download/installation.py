"""Verifies downloaded files, and installs them in the models folder."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from pathlib import Path
from typing import Callable, Optional

from ..constants import MIB
from ..files import sync_folder
from ..weights.gguf import InvalidGGUF, compare_shapes, read_header, read_shape
from .http_source import HTML_ADVICE
from .job import BundleFile, DownloadError, DownloadJob
from .session import DownloadSession, extract_host

_OnBlock = Callable[[bytes], None]
Refetch = Callable[[DownloadSession, BundleFile], None]


def install_files(session: DownloadSession, refetch: Optional[Refetch] = None) -> None:
    """Hash the downloaded files, compare them with the catalogue, and give them their final names.

    `refetch` downloads a file from the source, once, where another host sent the wrong content.
    Raises DownloadError, StoreError, Stopped.
    """
    hashed = 0

    def on_block(block: bytes) -> None:
        nonlocal hashed
        session.raise_if_stopped()
        hashed += len(block)
        if hashed % (16 * MIB) < len(block):
            session.report("verifying", hashed)

    for file in session.job.files:
        if file.local:
            _verify_local_file(session, file, on_block)
        elif session.is_installed(file):
            session.store.verify(file.weights)
            session.store.record_verified(file.weights)
        else:
            _install_file(session, file, on_block, refetch)


def _install_file(
    session: DownloadSession, file: BundleFile, on_block: _OnBlock, refetch: Optional[Refetch]
) -> None:
    """Verify a downloaded file and give it its final name; reject it where it is wrong."""
    job = session.job
    downloaded = job.bundle_folder / file.name
    found = _downloaded_hash(session, file, downloaded, on_block)
    before = ""
    if found != file.sha256 and refetch and _may_be_another_hosts_fault(session, file):
        before = (
            f"{file.name} from {' and '.join(session.origins[file.name])} does not fit models.yml:"
            f" it has sha256 {found}, and models.yml says {file.sha256}"
        )
        print(f"edge-llm: {before}", file=sys.stderr)
        if not file.url:
            downloaded.unlink()
            raise DownloadError(f"{before}. Run site.yml again, which uses another source")
        session.notice = f"{before}. It is downloaded once more, from the source"
        try:
            refetch(session, file)
        except DownloadError as error:
            raise DownloadError(f"{before}; and {error}") from None
        found = _downloaded_hash(session, file, downloaded, on_block)
    if found != file.sha256:
        rejected = reject_file(job, file, downloaded)
        raise DownloadError(
            (f"{before}; and " if before else "")
            + f"{file.name} does not fit models.yml: the downloaded file has sha256 {found}, and"
            f" models.yml says {file.sha256}. It was kept as {rejected} and is not used. Correct"
            " the entry in models.yml, or set llm_models_mirror to a source that has the file"
        )
    _check_header(file, downloaded)
    session.store.install(downloaded, file.weights)


def _may_be_another_hosts_fault(session: DownloadSession, file: BundleFile) -> bool:
    """Whether a part of the file may be from another host: all that is not from the source now."""
    origins = session.origins.get(file.name, [])
    return bool(origins) and origins != ([extract_host(file.url)] if file.url else [])


def _downloaded_hash(
    session: DownloadSession, file: BundleFile, path: Path, on_block: _OnBlock
) -> str:
    """Return a downloaded file's SHA-256, and have its content on the disk."""
    digest = session.digests.get(file.name)
    if digest is None:
        return _hash_file(path, on_block)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digest


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


def reject_file(job: DownloadJob, file: BundleFile, path: Path) -> str:
    """Rename a file with the wrong content, so that nothing uses it; returns its new name.

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


def _hash_file(path: Path, on_block: _OnBlock) -> str:
    """Return a file's SHA-256, and have its content on the disk; `on_block` gets every block."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(MIB), b""):
            digest.update(block)
            on_block(block)
        try:
            os.fsync(stream.fileno())
        except OSError as error:  # the disk of a local file may be read-only
            if error.errno not in (errno.EROFS, errno.EINVAL, errno.EBADF):
                raise
    return digest.hexdigest()
