"""Weights among the hosts of a fleet: the torrent, the fixed tracker, and aria2's progress."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import ipaddress
import re
import struct
import subprocess
import threading
import urllib.parse
from typing import Any, Dict, Iterable, List

from ..constants import MIB
from .http_source import head
from .job import Failure, File, Job

_PIECES = 1000
_SMALLEST_PIECE, _LARGEST_PIECE = 256 * 1024, 4 * MIB
_PROGRESS = re.compile(rb"\[#\w+ (\d+)B/(\d+)B\S* .*?CN:(\d+)(?: .*?DL:(\d+)B)?")
_SEEDING = re.compile(rb"\[#\w+ SEED\(.*?CN:(\d+)")
_CHECKED = re.compile(rb"\[Checksum:#\w+ (\d+)B/")
_UPLOADED = re.compile(rb"UL:(\d+)B\((\d+)B\)")


def bencode(value: Any) -> bytes:
    """BitTorrent's encoding (BEP 3) of numbers, texts, bytes, lists and dictionaries."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        return bencode(value.encode())
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, dict):
        pairs = (bencode(key) + bencode(value[key]) for key in sorted(value))
        return b"d" + b"".join(pairs) + b"e"
    return b"l" + b"".join(map(bencode, value)) + b"e"


def piece_length(size: int) -> int:
    """Bytes of a piece: a power of two that makes about a thousand of them."""
    length = _SMALLEST_PIECE
    while length < _LARGEST_PIECE and size / length > _PIECES:
        length *= 2
    return length


class Pieces:
    """The hashes of a bundle's pieces, made while its files are read one after the other."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._length = piece_length(job.size)
        self._left = self._length
        self._digest = hashlib.sha1()  # noqa: S324 - the protocol's; sha256 vouches for the file
        self._hashes: List[bytes] = []

    def feed(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            part, view = view[: self._left], view[self._left :]
            self._digest.update(part)
            self._left -= len(part)
            if not self._left:
                self._end()

    def _end(self) -> None:
        self._hashes.append(self._digest.digest())
        self._digest = hashlib.sha1()  # noqa: S324
        self._left = self._length

    def torrent(self) -> bytes:
        """The torrent, once all has been read."""
        if self._left != self._length:
            self._end()
        files = [{"length": file.size, "path": [file.name]} for file in self._job.files]
        info = {
            "name": self._job.name,
            "files": files,
            "piece length": self._length,
            "pieces": b"".join(self._hashes),
        }
        return bencode({"info": info})


def compact_peers(peers: Iterable[str]) -> Dict[str, bytes]:
    """A tracker's lists of machines (BEP 23 and BEP 7) from `address:port` each."""
    lists = {"peers": b"", "peers6": b""}
    for peer in peers:
        address, _, port = peer.rpartition(":")
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
        key = "peers" if found.version == 4 else "peers6"
        lists[key] += found.packed + struct.pack(">H", int(port))
    return lists


class Loopback:
    """An HTTP server on this machine's loopback, for the downloader alone.

    As a tracker it answers with the machines that take part; below /source/ it leads to where the
    source has a file.
    """

    def __init__(self, job: Job) -> None:
        answer = bencode({"interval": 30, "min interval": 10, **compact_peers(job.peers)})
        urls = {f"/source/{job.name}/{urllib.parse.quote(file.name)}": file for file in job.files}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                file = urls.get(self.path)
                if file is not None:
                    self.send_response(302)
                    self.send_header("Location", self.target(file))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(answer)

            do_HEAD = do_GET

            def target(self, file: File) -> str:
                return redirected(job, file) if job.token else file.url

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Loopback:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def redirected(job: Job, file: File) -> str:
    """Where the source leads one who has the token: so that the downloader does not need it."""
    try:
        _, headers = head(job, file)
    except (Failure, OSError, http.client.HTTPException):
        return file.url
    return urllib.parse.urljoin(file.url, headers.get("location") or file.url)


class Output:
    """What aria2 says of itself, as it says it.

    `moves` grows whenever something has come, or more of what was there has been looked at.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.done = 0
        self.peers = 0
        self.seeding = False
        self.moves = 0
        self.words = ""
        self._uploaded = b""
        self._checked = -1
        self.active = False
        self._process = process
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            progress, seeding = _PROGRESS.search(line), _SEEDING.search(line)
            uploaded = _UPLOADED.search(line)
            checked = _CHECKED.search(line)
            if checked and int(checked[1]) != self._checked:
                self._checked, self.moves = int(checked[1]), self.moves + 1
            if progress:
                self.moves += int(progress[1]) > self.done
                self.done, self.peers = int(progress[1]), int(progress[3])
            elif seeding:
                self.seeding, self.peers = True, int(seeding[1])
            elif (
                line.strip()
                and not checked
                and not line.startswith((b"***", b"===", b"---", b"FILE", b" ***"))
            ):
                self.words = line.decode(errors="replace").strip()
            if progress or seeding:
                total = uploaded[2] if uploaded else b""
                self.active = total != self._uploaded
                self._uploaded = total
