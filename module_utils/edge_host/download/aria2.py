"""aria2: its command line, and the progress that it prints."""

from __future__ import annotations

import re
import subprocess
import threading
from typing import List

from .job import DownloadJob

_PROGRESS = re.compile(rb"\[#\w+ (\d+)B/(\d+)B\S* .*?CN:(\d+)(?: .*?DL:(\d+)B)?")
_SEEDING = re.compile(rb"\[#\w+ SEED\(.*?CN:(\d+)")
_CHECKED = re.compile(rb"\[Checksum:#\w+ (\d+)B/")
_UPLOADED = re.compile(rb"UL:(\d+)B\((\d+)B\)")


def build_command(job: DownloadJob, *options: str) -> List[str]:
    """Return the command that downloads and seeds the job's torrent.

    Addresses among the options, which come last, are web seeds: sources of the same files.
    """
    return [
        *("aria2c", "--no-conf", "--enable-dht=false", "--enable-dht6=false"),
        *("--bt-enable-lpd=false", "--file-allocation=none", "--disk-cache=16M"),
        *(f"--listen-port={job.port}", f"--dir={job.staging_folder}", "--seed-ratio=0"),
        *("--seed-time=100000", "--summary-interval=1", "--human-readable=false"),
        "--enable-color=false",
        *("--console-log-level=error", "--download-result=hide", "--bt-save-metadata=false"),
        *("--follow-torrent=mem", "--allow-overwrite=true", "--auto-save-interval=10"),
        # Only with this option, addresses after it are web seeds.
        f"--torrent-file={job.torrent_file}",
        *options,
    ]


class Aria2Output:
    """The progress of an aria2 process, read from its output in a thread.

    `bytes_done`: bytes that are there; `peers`: connected machines; `seeding`: whether all is
    there; `uploading`: whether others have received data since the line before; `progress`: a
    number that grows whenever data was received, or more existing data was checked; `message`:
    the last line that is no progress.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.bytes_done = 0
        self.peers = 0
        self.seeding = False
        self.uploading = False
        self.progress = 0
        self.message = ""
        self._uploaded = b""
        self._checked = -1
        self._process = process
        threading.Thread(target=self._read_lines, daemon=True).start()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        progress, seeding = _PROGRESS.search(line), _SEEDING.search(line)
        uploaded = _UPLOADED.search(line)
        checked = _CHECKED.search(line)
        if checked and int(checked[1]) != self._checked:
            self._checked, self.progress = int(checked[1]), self.progress + 1
        if progress:
            self.progress += int(progress[1]) > self.bytes_done
            self.bytes_done, self.peers = int(progress[1]), int(progress[3])
        elif seeding:
            self.seeding, self.peers = True, int(seeding[1])
        elif (
            line.strip()
            and not checked
            and not line.startswith((b"***", b"===", b"---", b"FILE", b" ***"))
        ):
            self.message = line.decode(errors="replace").strip()
        if progress or seeding:
            total = uploaded[2] if uploaded else b""
            self.uploading = total != self._uploaded
            self._uploaded = total
