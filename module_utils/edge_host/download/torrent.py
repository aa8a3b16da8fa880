"""The torrent of a bundle: its encoding, its pieces, and the peers that a tracker returns."""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from typing import Any, Dict, Iterable, List

from ..constants import MIB
from .job import DownloadJob

_TARGET_PIECES = 1000
_MIN_PIECE, _MAX_PIECE = 256 * 1024, 4 * MIB


def bencode(value: Any) -> bytes:
    """Return BitTorrent's encoding (BEP 3) of a number, text, bytes, list or dictionary."""
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
    """Return the bytes of a piece: a power of two that makes about a thousand pieces."""
    length = _MIN_PIECE
    while length < _MAX_PIECE and size / length > _TARGET_PIECES:
        length *= 2
    return length


class PieceHasher:
    """Hashes a bundle's pieces while its files are read one after the other."""

    def __init__(self, job: DownloadJob) -> None:
        self._job = job
        self._length = piece_length(job.size)
        self._remaining = self._length
        self._digest = hashlib.sha1()  # noqa: S324 - BitTorrent's; the file is verified by SHA-256
        self._hashes: List[bytes] = []

    def update(self, block: bytes) -> None:
        """Add the next block of the files' content."""
        view = memoryview(block)
        while view:
            part, view = view[: self._remaining], view[self._remaining :]
            self._digest.update(part)
            self._remaining -= len(part)
            if not self._remaining:
                self._end_piece()

    def _end_piece(self) -> None:
        self._hashes.append(self._digest.digest())
        self._digest = hashlib.sha1()  # noqa: S324
        self._remaining = self._length

    def build_torrent(self) -> bytes:
        """Return the torrent, once all files were read."""
        if self._remaining != self._length:
            self._end_piece()
        files = [{"length": file.size, "path": [file.name]} for file in self._job.files]
        info = {
            "name": self._job.name,
            "files": files,
            "piece length": self._length,
            "pieces": b"".join(self._hashes),
        }
        return bencode({"info": info})


def encode_peers(peers: Iterable[str]) -> Dict[str, bytes]:
    """Return a tracker's lists of peers (BEP 23 and BEP 7) from `address:port` each."""
    lists = {"peers": b"", "peers6": b""}
    for peer in peers:
        address, _, port = peer.rpartition(":")
        parsed = ipaddress.ip_address(address.strip("[]").partition("%")[0])
        key = "peers" if parsed.version == 4 else "peers6"
        lists[key] += parsed.packed + struct.pack(">H", int(port))
    return lists
