"""Downloads a file from its source with curl, continuing where an earlier attempt ended."""

from __future__ import annotations

import re
import subprocess

from ..sizes import format_size
from .http_source import (
    NO_RANGES,
    CurlResult,
    build_curl_config,
    check_file,
    find_permanent_problem,
)
from .installation import reject_file
from .job import BundleFile, DownloadError
from .session import DownloadSession, extract_host

MAX_ATTEMPTS = 5
"""Attempts in a row that may end without a further byte."""
_MAX_PAUSE = 15.0


def download_file(session: DownloadSession, file: BundleFile) -> None:
    """Download a file to the staging folder, complete by its size.

    Raises DownloadError, Stopped.
    """
    if session.is_installed(file) or session.staging.is_received(file):
        return
    bundle = session.staging.bundle
    if not file.url:
        raise DownloadError(
            f"{file.local or file.name} is missing. Copy the file into the folder of"
            " llm_models_mirror"
        )
    session.sources = [extract_host(file.url)]
    check_file(session.job, file)
    if bundle.size(file.name) > file.size:
        bundle.remove(file.name)
    _download_with_retries(session, file)
    size = bundle.size(file.name)
    if size != file.size:
        if bundle.exists(file.name):
            reject_file(session.job, file, session.staging.receive(file))
        raise DownloadError(
            f"{file.url} does not fit models.yml: the source sent {size} bytes, and models.yml says"
            f" {file.size}. Correct the entry in models.yml, or set llm_models_mirror to a source"
            " that has the file"
        )


def _download_with_retries(session: DownloadSession, file: BundleFile) -> None:
    """Run curl until the file has its size, or curl reports the end of the file."""
    bundle = session.staging.bundle
    largest, attempts = bundle.size(file.name), 0
    while bundle.size(file.name) < file.size:
        session.raise_if_stopped()
        result = _run_curl(session, file)
        session.raise_if_stopped()
        if result.exit_status == 0:
            return
        if result.exit_status == NO_RANGES:
            # This source sends a file only from its beginning.
            bundle.remove(file.name)
        else:
            problem = find_permanent_problem(session.job, file, result)
            if problem:
                raise DownloadError(problem)
        attempts = 0 if bundle.size(file.name) > largest else attempts + 1
        largest = max(largest, bundle.size(file.name))
        if attempts == MAX_ATTEMPTS:
            raise DownloadError(
                f"{file.url} is incomplete: the connection ended at {format_size(largest)} of"
                f" {format_size(file.size)}, and {MAX_ATTEMPTS} attempts received nothing more"
                f" ({result.message or f'status {result.http_status}'}). Run site.yml again, which"
                " continues the download"
            )
        session.sleep(min(2**attempts, _MAX_PAUSE))


def _run_curl(session: DownloadSession, file: BundleFile) -> CurlResult:
    """Run curl to its end, and report the progress meanwhile."""
    process = session.start_downloader(
        *("curl", "-q", "--config", "-"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    # As a user that may write nowhere else: for curl, a link there leads to nothing of anybody's.
    target = session.job.bundle_folder / file.name
    process.stdin.write(build_curl_config(session.job, file, target).encode())
    process.stdin.close()
    process.stdin = None
    bundle = session.staging.bundle
    complete = sum(each.size for each in session.job.files if session.is_installed(each))
    while process.poll() is None:
        session.report("fetching", complete + bundle.size(file.name), file=file.name)
        session.sleep(0.5)
    out, err = process.communicate()
    lines = err.decode(errors="replace").strip().splitlines()
    http_status = out.decode(errors="replace")[-3:]
    return CurlResult(
        process.returncode,
        int(http_status) if http_status.isdigit() else 0,
        re.sub(r"^curl: \(\d+\) ", "", lines[-1]) if lines else "",
    )
