"""Downloads a file from its source with curl, continuing where an earlier attempt ended."""

from __future__ import annotations

import re
import subprocess
from typing import List

from ..sizes import format_size
from .http_source import (
    NO_RANGES,
    STATUS_WORD,
    TOO_LARGE,
    CurlResult,
    build_curl_config,
    check_file,
    find_permanent_problem,
)
from .incoming import IncomingFile, TooLargeError
from .job import DownloadError
from .session import DownloadSession, extract_host
from .source_timing import MAX_ATTEMPTS, pause_seconds


def download_from_source(session: DownloadSession, incoming: IncomingFile) -> None:
    """Download the rest of a file, complete by its size.

    Raises DownloadError, Stopped. A file with fewer bytes than models.yml says stays as it is.
    """
    job, file = session.job, incoming.file
    check_file(job, file)
    incoming.add_origin(extract_host(file.url))
    largest, attempts = incoming.received, 0
    while not incoming.complete:
        session.raise_if_stopped()
        result = _run_curl(session, incoming)
        if result.exit_status == 0:
            return
        if result.exit_status == NO_RANGES:
            # This source sends a file only from its beginning.
            incoming.restart()
            incoming.add_origin(extract_host(file.url))
        else:
            problem = find_permanent_problem(job, file, result)
            if problem:
                raise DownloadError(problem)
        attempts = 0 if incoming.received > largest else attempts + 1
        largest = max(largest, incoming.received)
        if attempts == MAX_ATTEMPTS:
            raise DownloadError(
                f"{file.url} is incomplete: the connection ended at {format_size(largest)} of"
                f" {format_size(file.size)}, and {MAX_ATTEMPTS} attempts received nothing more"
                f" ({result.message or f'status {result.http_status}'}). Run site.yml again, which"
                " continues the download"
            )
        session.sleep(pause_seconds(attempts))


def _run_curl(session: DownloadSession, incoming: IncomingFile) -> CurlResult:
    """Run curl to its end, and report the progress meanwhile."""
    process = session.start_downloader(
        *("curl", "-q", "--config", "-"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    config = build_curl_config(session.job, incoming.file, incoming.received)
    process.stdin.write(config.encode())
    process.stdin.close()
    process.stdin = None
    lines: List[str] = []
    try:
        exit_status = incoming.receive(process, "fetching", lines.append)
    except TooLargeError:
        # A source that does not say the size beforehand; curl only knows that from version 8.4 on.
        incoming.restart()
        return CurlResult(TOO_LARGE, 200, "")
    return parse_curl_output(exit_status, lines)


def parse_curl_output(exit_status: int, lines: List[str]) -> CurlResult:
    """Return how curl ended, from the lines of its standard error."""
    http_status, message = 0, ""
    for line in lines:
        word, _, number = line.partition(STATUS_WORD)
        if not word and number.isdigit():
            http_status = int(number)
        elif line.strip():
            message = re.sub(r"^curl: \(\d+\) ", "", line)
    return CurlResult(exit_status, http_status, message)
