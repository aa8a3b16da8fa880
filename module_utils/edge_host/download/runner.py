"""Downloads one model's files: from their source over HTTP, or from other hosts that have them.

From the source curl downloads, which goes on at the byte where it was interrupted. Among the fleet
aria2 does, by BitTorrent: every host that takes part is known beforehand, so the tracker is a fixed
answer on each host's own loopback. What has arrived is hashed once, compared with the catalogue,
and only then gets its name.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

from ..commands import environment
from ..constants import DISK_RESERVE, MIB
from ..files import allocated, sync_folder, write_atomically
from ..weights.gguf import InvalidGGUF, compare_shapes, read_header, read_shape
from ..weights.store import Store
from .http_source import NO_RANGES, Ended, ask, curl_config, verdict
from .job import STATUS, Failure, File, Job, room
from .torrent import Loopback, Output, Pieces

HTTP_ATTEMPTS = 5
"""Times in a row that a source may break off without having given a byte."""
STALL_SECONDS = 20.0
"""How long nothing may come from other machines until the source is asked as well."""
IDLE_SECONDS = 900.0
"""How long a machine goes on sharing while nobody takes anything, should nobody stop it."""


class Stopped(Exception):
    """The program was told to end."""


def mib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / MIB:,.0f} MiB" if size >= 10 * MIB else f"{size / MIB:.1f} MiB"


class Fetch:
    """One run of the program."""

    def __init__(self, job: Job, runtime: Path) -> None:
        self.job = job
        self.store = Store(job.folder)
        self._runtime = runtime
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._stopped = threading.Event()
        self._begun = time.monotonic()
        self._marks: List[Tuple[float, int]] = []
        self._sources: List[str] = []

    # What it tells.

    def tell(self, state: str, done: int = 0, **more: Any) -> None:
        """Write how far it is: for whoever waits, and for people."""
        now = time.monotonic()
        self._marks = [mark for mark in self._marks if now - mark[0] < 10] + [(now, done)]
        (began, before), *_ = self._marks
        rate = (done - before) / (now - began) if now > began and done > before else 0.0
        told = {
            "state": state,
            "name": self.job.name,
            "how": self.job.how,
            "by": self.job.by,
            "done": done,
            "size": self.job.size,
            "rate": round(rate),
            "left": round((self.job.size - done) / rate) if rate else None,
            "seconds": round(now - self._begun, 1),
            "from": self._sources,
            "pid": os.getpid(),
            **more,
        }
        write_atomically(
            self._runtime / STATUS, json.dumps(told).encode(), self._runtime, sync=False
        )

    def stop(self, *_: Any) -> None:
        """End soon: what has come stays, and the next run goes on from there."""
        self._stopped.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    # What it does.

    def run(self) -> None:
        """Do the job. Raises Failure, StoreError, OSError, Stopped."""
        job = self.job
        self._prepare()
        if job.how == "source":
            if job.torrent_file.exists() and allocated(job.unfinished):
                self._rest_from_source()
            for file in job.files:
                self._from_source(file)
            torrent = self._finish()
            self.tell("done", job.size, torrent=base64.b64encode(torrent).decode())
        elif job.how == "peers":
            self._from_peers()
        else:
            self._share()

    def _prepare(self) -> None:
        """Make the folders, and be sure of the room. Raises Failure."""
        job = self.job
        try:
            for folder in (job.workshop, job.unfinished):
                folder.mkdir(parents=True, exist_ok=True)
                if job.user is not None:
                    os.chown(folder, job.user, job.user)
        except OSError as error:
            raise Failure(
                f"{error.filename} cannot be made: {error.strerror}; the weights need a folder that"
                " can be written to"
            ) from None
        missing = sum(file.size for file in job.files if not self._there(file))
        need = missing - allocated(job.unfinished)
        if need > max(0, room(job)):
            others = allocated(job.workshop) - allocated(job.unfinished)
            raise Failure(
                f"{mib(need)} are still to come, and {job.folder} has room for"
                f" {mib(max(0, room(job)))} ({mib(DISK_RESERVE)} stay in reserve)"
                + (f"; {job.workshop} has {mib(others)} of other models" if others > MIB else "")
            )

    def _there(self, file: File) -> bool:
        """Whether a file has its final name; then it is whole, and only its hash may be unknown."""
        path = Path(file.local) if file.local else self.job.folder / file.path
        try:
            return path.stat().st_size == file.size
        except OSError:
            return False

    def _command(self, *words: str) -> List[str]:
        """A downloader's command: it runs with nobody's rights where this program has root's."""
        user = self.job.user
        if user is None:
            return list(words)
        rights = (f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs")
        return ["setpriv", *rights, "--", *words]

    def _start(self, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._command(*words),
            env=environment(str(self.job.workshop)),
            **streams,
        )
        if self._stopped.is_set():
            self.stop()
        return self._process

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    # From the source.

    def _from_source(self, file: File) -> None:
        """Have a file in the workshop, whole by its size."""
        if self._there(file):
            return
        job, target = self.job, self.job.unfinished / file.name
        if not file.url:
            raise Failure(f"{file.local or file.name} is not there")
        self._sources = [_host(file.url)]
        ask(job, file)
        if size_of(target) > file.size:
            target.unlink()
        best, attempts = size_of(target), 0
        while size_of(target) < file.size:
            self._check()
            ended = self._curl(file, target)
            self._check()
            if ended.code == 0:
                break
            if ended.code == NO_RANGES:
                # It gives the file from its beginning only.
                target.unlink()
            else:
                reason = verdict(job, file, ended)
                if reason:
                    raise Failure(reason)
            attempts = 0 if size_of(target) > best else attempts + 1
            best = max(best, size_of(target))
            if attempts == HTTP_ATTEMPTS:
                raise Failure(
                    f"{file.url} broke off at {mib(best)} of {mib(file.size)} and gave nothing in"
                    f" {HTTP_ATTEMPTS} attempts ({ended.words or f'status {ended.status}'}); what"
                    " has come is kept, and the next run goes on from there"
                )
            self._stopped.wait(min(2**attempts, 15))
        if size_of(target) != file.size:
            came = size_of(target)
            self._aside(file, target)
            raise Failure(
                f"{file.url} gave {came} bytes, and models.yml says {file.size}; repair the entry"
                " in models.yml, or set llm_models_mirror to a source that has the file"
            )

    def _curl(self, file: File, target: Path) -> Ended:
        process = self._start(
            *("curl", "-q", "--config", "-"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.write(curl_config(self.job, file, target).encode())
        process.stdin.close()
        process.stdin = None
        whole = sum(each.size for each in self.job.files if self._there(each))
        while process.poll() is None:
            self.tell("fetching", whole + size_of(target), file=file.name)
            self._stopped.wait(0.5)
        out, err = process.communicate()
        words = err.decode(errors="replace").strip().splitlines()
        status = out.decode(errors="replace")[-3:]
        return Ended(
            process.returncode,
            int(status) if status.isdigit() else 0,
            re.sub(r"^curl: \(\d+\) ", "", words[-1]) if words else "",
        )

    # Among the machines of the fleet.

    def _aria2(self, *words: str) -> subprocess.Popen[bytes]:
        job = self.job
        return self._start(
            *("aria2c", "--no-conf", "--enable-dht=false", "--enable-dht6=false"),
            *("--bt-enable-lpd=false", "--file-allocation=none", "--disk-cache=16M"),
            *(f"--listen-port={job.port}", f"--dir={job.workshop}", "--seed-ratio=0"),
            *("--seed-time=100000", "--summary-interval=1", "--human-readable=false"),
            "--enable-color=false",
            *("--console-log-level=error", "--download-result=hide", "--bt-save-metadata=false"),
            *("--follow-torrent=mem", "--allow-overwrite=true", "--auto-save-interval=10"),
            # With the option, and only so, addresses after it are further places of the same files.
            f"--torrent-file={job.torrent_file}", *words,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _from_peers(self) -> None:
        """Have the bundle in the workshop, place it, and go on sharing until told to stop.

        Where nothing comes from others, the source is asked for what is missing.
        """
        job = self.job
        write_atomically(job.torrent_file, job.torrent, job.workshop)
        self._copy_what_is_there()
        with Loopback(job) as loopback:
            self._sources = ["the fleet"]
            if not self._swarm(loopback):
                source = job.files[0].url
                if source:
                    self._sources = ["the fleet", _host(source)]
                if not source or not self._swarm(loopback, source=True):
                    peers = ", ".join(job.peers) or "nobody"
                    raise Failure(
                        f"nothing came for {STALL_SECONDS:.0f} s from {peers}"
                        + (f", nor from {source}" if source else "")
                        + "; what has come is kept, and the next run goes on from there"
                    )
        shutil.rmtree(job.unfinished)
        Path(f"{job.unfinished}.aria2").unlink(missing_ok=True)

    def _copy_what_is_there(self) -> None:
        """Have files in the workshop that are placed already: a torrent is one for all of them."""
        for file in self.job.files:
            target = self.job.unfinished / file.name
            if self.store.recorded_hash(file.weights) == file.sha256 and not target.exists():
                shutil.copyfile(self.job.folder / file.path, target)
                if self.job.user is not None:
                    os.chown(target, self.job.user, self.job.user)

    def _rest_from_source(self) -> None:
        """Go on with what had come in pieces from other machines, who are not there now."""
        job = self.job
        for file in job.files:
            ask(job, file)
        self._sources = [_host(job.files[0].url)]
        with Loopback(job) as loopback:
            if not self._swarm(loopback, source=True, alone=True):
                raise Failure(
                    f"nothing came for {STALL_SECONDS:.0f} s from {job.files[0].url}; what has come"
                    " is kept, and the next run goes on from there"
                )
        Path(f"{job.unfinished}.aria2").unlink(missing_ok=True)

    def _swarm(self, loopback: Loopback, source: bool = False, alone: bool = False) -> bool:
        """Receive, place, and share until told to stop; False where nothing comes any more.

        `source`: from the source, too; `alone`: return once all has come, nothing of it placed.
        """
        # What has come is looked at: the downloader's own record of it may be older.
        process = self._aria2(
            f"--bt-tracker={loopback.url}/announce",
            "--check-integrity=true",
            *([f"{loopback.url}/source/"] if source else []),
        )
        watched = Output(process)
        moved, placed = time.monotonic(), False
        seen = -1
        try:
            while not self._stopped.is_set():
                if process.poll() is not None:
                    self._stopped.wait(0.2)
                    self._check()
                    if room(self.job) + DISK_RESERVE < MIB:
                        raise Failure("the disk is full")
                    raise Failure(
                        f"aria2c ended with status {process.returncode}: {watched.words or '-'}"
                    )
                if watched.seeding and alone:
                    return True
                if watched.seeding and not placed:
                    self._finish()
                    placed = True
                    moved = time.monotonic()
                    self.tell("done", self.job.size)
                elif not placed:
                    if watched.moves != seen:
                        seen, moved = watched.moves, time.monotonic()
                    elif time.monotonic() - moved > STALL_SECONDS:
                        return False
                    self.tell("receiving", watched.done, peers=watched.peers)
                else:
                    if watched.active:
                        moved = time.monotonic()
                    if time.monotonic() - moved > IDLE_SECONDS:
                        return True
                self._stopped.wait(0.5)
            if not placed:
                raise Stopped
            return True
        finally:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Let aria2 write down what it has; not for long."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _share(self) -> None:
        """Give the bundle to others until told to stop, or until nobody has taken it for long."""
        job = self.job
        write_atomically(job.torrent_file, job.torrent, job.workshop)
        self.tell("done", job.size)
        for file in job.files:
            link = job.unfinished / file.name
            if file.local:
                _relink(link, Path(file.local), os.symlink)
            else:
                _relink(link, job.folder / file.path, os.link)
        with Loopback(job) as loopback:
            process = self._aria2(
                f"--bt-tracker={loopback.url}/announce", "--bt-seed-unverified=true"
            )
            watched = Output(process)
            moved = time.monotonic()
            try:
                while not self._stopped.wait(0.5):
                    if process.poll() is not None:
                        raise Failure(
                            f"aria2c ended with status {process.returncode}: {watched.words or '-'}"
                        )
                    if watched.active:
                        moved = time.monotonic()
                    if time.monotonic() - moved > IDLE_SECONDS:
                        break
            finally:
                self._end(process)
        shutil.rmtree(job.unfinished)

    # Its end.

    def _finish(self) -> bytes:
        """Hash what has come, compare it with the catalogue, and give it its name.

        Returns the torrent, where others wait for it. Raises Failure, StoreError.
        """
        job = self.job
        pieces = None
        if job.share and job.how == "source":
            if job.torrent_file.exists() and all(map(self._recorded, job.files)):
                return job.torrent_file.read_bytes()
            pieces = Pieces(job)
        hashed = 0

        def hear(block: bytes) -> None:
            nonlocal hashed
            self._check()
            if pieces:
                pieces.feed(block)
            hashed += len(block)
            if hashed % (16 * MIB) < len(block):
                self.tell("verifying", hashed)

        for file in job.files:
            arrived = job.unfinished / file.name
            if not file.local and not self._there(file):
                self._verify(file, arrived, hear)
                if job.user is not None:
                    os.chown(arrived, 0, 0)
                arrived.chmod(0o644)
                self.store.install(arrived, file.weights, keep=job.how == "peers")
            else:
                self._known(file, hear, pieces is not None)
        if job.how == "source":
            shutil.rmtree(job.unfinished)
        if pieces is None:
            return b""
        write_atomically(job.torrent_file, pieces.torrent(), job.workshop)
        return pieces.torrent()

    def _recorded(self, file: File) -> bool:
        """Whether a file is there as it was when it was hashed, and was right."""
        if file.local:
            return self.store.recorded_hash_outside(Path(file.local)) == file.sha256
        return self.store.recorded_hash(file.weights) == file.sha256

    def _verify(self, file: File, path: Path, hear: Callable[[bytes], None]) -> None:
        """Raise Failure where what has come is not what was asked; it is put aside then."""
        found = hash_of(path, hear)
        if found == file.sha256:
            self._compare(file, path)
            return
        aside = self._aside(file, path)
        raise Failure(
            f"{file.name} came with sha256 {found}, and models.yml says {file.sha256}; it is kept"
            f" as {aside} and not used: repair the entry in models.yml, or set"
            " llm_models_mirror to a source that has the file"
        )

    def _aside(self, file: File, path: Path) -> str:
        """Put what is not what was asked where nothing uses it; the name that it has there.

        Raises Failure where it is a page for people.
        """
        with path.open("rb") as stream:
            start = stream.read(64).lstrip().lower()
        aside = self.job.folder / f"{file.path.replace('/', '--')}.rejected"
        path.replace(aside)
        sync_folder(self.job.folder)
        if start.startswith((b"<!doctype html", b"<html")):
            raise Failure(
                f"an HTML page came where {file.name} should be (kept as {aside.name}); is there a"
                " page to sign in to, or a proxy in between?"
            )
        return aside.name

    def _compare(self, file: File, path: Path) -> None:
        if not file.header:
            return
        try:
            differ = compare_shapes(file.header, read_shape(read_header(path)))
        except InvalidGGUF as error:
            differ = [f"a GGUF file, and {error}"]
        if differ:
            raise Failure(f"models.yml says of {file.name}: {'; '.join(differ)}; repair the entry")

    def _known(self, file: File, hear: Callable[[bytes], None], whole: bool) -> None:
        """See to it that a file which is there is right, and has been heard where it must be."""
        if file.local:
            path = Path(file.local)
            if path.stat().st_size != file.size or hash_of(path, hear) != file.sha256:
                raise Failure(
                    f"{file.local} is not the file that models.yml asks for, with sha256"
                    f" {file.sha256} and {file.size} bytes"
                )
            self._compare(file, path)
            self.store.record_verified_outside(path, file.sha256)
        elif whole:
            if hash_of(self.job.folder / file.path, hear) != file.sha256:
                # The store says why, and puts it aside.
                self.store.rehash = True
                self.store.verify(file.weights)
            self.store.record_verified(file.weights)
        else:
            self.store.verify(file.weights)


def _relink(link: Path, target: Path, make: Callable[[Path, Path], None]) -> None:
    if link.exists() or link.is_symlink():
        link.unlink()
    make(target, link)


def _host(url: str) -> str:
    """The host of a URL, as people are told of it."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def hash_of(path: Path, hear: Callable[[bytes], None]) -> str:
    """A file's SHA-256, read once; `hear` gets all of it. On the disk by then."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(MIB), b""):
            digest.update(block)
            hear(block)
        try:
            os.fsync(stream.fileno())
        except OSError as error:  # a disk that somebody brought may be read-only
            if error.errno not in (errno.EROFS, errno.EINVAL, errno.EBADF):
                raise
    return digest.hexdigest()
