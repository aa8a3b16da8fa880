"""Downloads a bundle from the hosts before this one, and serves it to the hosts after it.

The hosts of a distribution form a chain: the first one reads the source, every other one reads what
the one before it has, while that still arrives. The programs that talk to other hosts run without
privileges (`peer_server`, `peer_client`).
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, List, Optional

from ..commands import end_process
from ..json_data import Facts, parse_json
from .incoming import IncomingFile, TooLargeError
from .job import DownloadJob
from .peer_client import Timing
from .session import DownloadSession

START_SECONDS = 2.0
"""For the start of one host's download after another's: a slow host takes ten, and Ansible starts
five at a time by default, and 25 with this project's configuration."""
_START_TIMEOUT = 60.0
# The archive or the folder that has this package: the programs need its path, not their caller's.
_PACKAGES = Path(__file__).resolve().parents[2]
_RUN = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from importlib import import_module\n"
    "sys.exit(import_module(sys.argv[2]).main())"
)


def _program(name: str) -> List[str]:
    """Return the command that runs a module of this folder."""
    module = f"{__package__}.{name}"
    return [sys.executable, "-I", "-c", _RUN, str(_PACKAGES), module]


def download_from_peers(
    session: DownloadSession, incoming: IncomingFile, timing: Optional[Timing] = None
) -> str:
    """Download a file from the hosts before this one, from the byte on that is missing.

    Returns why it is not complete, a phrase; empty where it is. Raises DownloadError, Stopped.
    """
    job, file = session.job, incoming.file
    failed: List[str] = []
    names = [each.name for each in job.predecessors]

    def on_line(line: str) -> None:
        said = parse_json(line)
        if not isinstance(said, dict):
            print(line, file=sys.stderr)  # for the journal
        elif said.get("from") in names:
            incoming.add_origin(said["from"])
        elif isinstance(said.get("failed"), list):
            failed.extend(map(str, said["failed"]))

    process = _start(
        session,
        "peer_client",
        {
            **_credentials(job),
            "peers": [each._asdict() for each in job.predecessors],
            "sha256": file.sha256,
            "start": incoming.received,
            "size": file.size,
            "timing": (timing or plan_timing(job))._asdict(),
        },
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        status = incoming.receive(process, "receiving", on_line)
    except TooLargeError:  # the client has no such bytes to write
        return "the hosts before this one sent more than the file has"
    if incoming.complete:
        return ""
    return "; ".join(failed) or f"the program that reads from other hosts ended with {status}"


def plan_timing(job: DownloadJob) -> Timing:
    """Return the limits for the predecessors of a job: those that are started later get longer."""
    timing = Timing()
    later = job.started_between * START_SECONDS
    return timing._replace(first_contact=timing.first_contact + later)


@contextlib.contextmanager
def serving(session: DownloadSession) -> Iterator[Optional[subprocess.Popen[bytes]]]:
    """Serve the files to the planned next hosts; None where there are none.

    A port that is in use is no reason to fail: the next hosts have other ways.
    """
    job = session.job
    if not job.successors or job.credentials is None:
        yield None
        return
    process = _start(
        session,
        "peer_server",
        {
            **_credentials(job),
            "port": job.port,
            "clients": job.successors,
            "files": [
                {"sha256": each.sha256, "size": each.size, "paths": session.paths(each)}
                for each in job.files
            ],
        },
        keep_input=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    try:
        word = b""
        if select.select([process.stdout], [], [], _START_TIMEOUT)[0]:
            word = process.stdout.readline(1024)
        if word.strip() != b"ready":
            session.notice = (
                "other hosts cannot download from this one:"
                f" {word.decode(errors='replace').strip() or 'the server did not start'}"
            )
            print(f"edge-llm: {session.notice}", file=sys.stderr)
        yield process
    finally:
        end_process(process)
        process.stdout.close()
        if process.stdin is not None:
            # One that ended before it read its input has left that in the buffer.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _credentials(job: DownloadJob) -> Facts:
    return {"credentials": job.credentials._asdict()} if job.credentials else {}


def _start(
    session: DownloadSession, name: str, data: Facts, keep_input: bool = False, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a program of this folder with its input, one line of JSON; the key is in no argument.

    `keep_input`: its input stays open, so that it ends with this program.
    """
    process = session.start_downloader(*_program(name), stdin=subprocess.PIPE, **streams)
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    with contextlib.suppress(BrokenPipeError):  # its exit status says more
        process.stdin.write(json.dumps(data).encode() + b"\n")
        process.stdin.flush()
        if not keep_input:
            process.stdin.close()
    if not keep_input:
        process.stdin = None
    return process
