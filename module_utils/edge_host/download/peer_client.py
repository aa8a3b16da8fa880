"""The program that reads a file from the hosts before this one, and writes it to standard output.

It runs as the downloader's user, without privileges, and touches no file. It asks its predecessors
in their order, always for the next bytes; one that fails is left out for a while. Where none of
them makes progress, the program ends, and says why of each.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
from typing import Any, Callable, List, Mapping, NamedTuple, Optional

from ..constants import KIB
from .peer_server import MAX_RANGE, end_connection, request_path
from .peer_tls import client_context, parse_credentials
from .source_timing import max_silence_seconds

TAKE_OVER_SECONDS = 60.0
"""In this time the next host asks the source, once the first one has given up: before those after
that one give up, too."""


class Timing(NamedTuple):
    """Limits, in seconds and bytes.

    first_contact: until a predecessor must have answered at all, as hosts start one after the
    other; lost_contact: the same, once one has answered; stall: until `progress` further bytes must
    have come, which is longer than the first host goes on with a source that sends nothing: all
    others would ask that source, too; wait: for bytes that are not there yet, at the nearest
    predecessor; connect, read: of one connection; slow: the time in which a predecessor sends
    `rate` bytes a second of what it says it has; retry, behind, leave_out: how long a predecessor
    is left out that failed, that has less than this host, that is too slow.
    """

    first_contact: float = 40.0
    lost_contact: float = 20.0
    stall: float = max_silence_seconds() + TAKE_OVER_SECONDS
    progress: int = 256 * KIB
    wait: int = 5
    connect: float = 5.0
    read: float = 20.0
    slow: float = 20.0
    rate: int = 16 * KIB
    retry: float = 1.0
    behind: float = 15.0
    leave_out: float = 60.0


class Peer(NamedTuple):
    """A predecessor: its name in the inventory, where it serves, the name in its certificate."""

    name: str
    address: str
    port: int
    identity: str


class _Failed(Exception):
    """A predecessor failed; the text says how, as the end of a sentence."""


class _TooSlow(_Failed):
    pass


class _Connection(http.client.HTTPConnection):
    """A connection whose server must have the certificate of a planned host."""

    def __init__(self, peer: Peer, context: ssl.SSLContext, timing: Timing) -> None:
        super().__init__(peer.address, peer.port, timing.read)
        self._peer, self._tls, self._timing = peer, context, timing

    def connect(self) -> None:
        plain = socket.create_connection(
            (self._peer.address, self._peer.port), self._timing.connect
        )
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self._peer.identity)
        except BaseException:
            plain.close()
            raise
        self.sock.settimeout(self._timing.read + self._timing.wait)


class _Predecessor:
    """What is known of one predecessor."""

    def __init__(self, peer: Peer, context: ssl.SSLContext, timing: Timing) -> None:
        self.peer = peer
        self.reason = "was not asked"
        self.out_until = 0.0
        self._timing = timing
        self._connection = _Connection(peer, context, timing)

    def read(
        self, path: str, start: int, size: int, wait: int, write: Callable[[bytes], None]
    ) -> int:
        """Pass the next bytes on to `write`; return their number, 0 where it has none yet.

        Raises _Failed.
        """
        try:
            return self._read(path, start, size, wait, write)
        except _Failed as error:
            self._fail(error)
            raise
        except ssl.SSLCertVerificationError as error:
            failed = _Failed(f"has not the planned certificate ({error.verify_message})")
            self._fail(failed)
            raise failed from None
        except (OSError, http.client.HTTPException) as error:
            # No word of the other side's: it would be printed.
            reason = error.strerror if isinstance(error, OSError) else None
            failed = _Failed(f"did not answer ({reason or type(error).__name__})")
            self._fail(failed)
            raise failed from None

    def _fail(self, failed: _Failed) -> None:
        self._connection.close()
        self.reason = str(failed)
        slow = isinstance(failed, _TooSlow)
        self.out_until = time.monotonic() + (self._timing.leave_out if slow else self._timing.retry)

    def _read(
        self, path: str, start: int, size: int, wait: int, write: Callable[[bytes], None]
    ) -> int:
        headers = {"Range": f"bytes={start}-", "Prefer": f"wait={wait}"}
        self._connection.request("GET", path, headers=headers)
        # The socket's timeout is that of one read, and a header can come byte by byte.
        limit = threading.Timer(wait + self._timing.read, end_connection, (self._connection.sock,))
        limit.daemon = True
        limit.start()
        try:
            answer = self._connection.getresponse()
        finally:
            limit.cancel()
        length = answer.length or 0
        if answer.status == 503 and not length:
            answer.read()
            self.reason = "has no more of the file"
            return 0
        span = re.fullmatch(
            r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", answer.msg["Content-Range"] or ""
        )
        if answer.status != 206 or span is None or (int(span[1]), int(span[2])) != (start, size):
            raise _Failed(f"answered with status {answer.status}, which does not fit")
        if not 0 < length <= min(MAX_RANGE, size - start):
            raise _Failed("answered with a length that does not fit")
        self.reason = "sent all that it has"
        begun, received = time.monotonic(), 0
        while received < length:
            block = answer.read1(length - received)
            if not block:
                raise _Failed("ended the connection")
            write(block)
            received += len(block)
            seconds = time.monotonic() - begun
            if seconds > self._timing.slow and received < seconds * self._timing.rate:
                raise _TooSlow(f"sent {received} bytes in {seconds:.0f} s, which is too slow")
        answer.read()
        return received


class PeerClient:
    """Reads one file, from byte `start` on.

    `write` gets the bytes; `source` the name of each predecessor from which the next ones come.
    """

    def __init__(
        self,
        peers: List[Peer],
        context: ssl.SSLContext,
        write: Callable[[bytes], None],
        source: Callable[[str], None],
        timing: Optional[Timing] = None,
    ) -> None:
        self._timing = timing or Timing()
        self._all = [_Predecessor(peer, context, self._timing) for peer in peers]
        self._write, self._source = write, source
        self._named = ""

    def read(self, sha256: str, start: int, size: int) -> List[str]:
        """Read to the end of the file; return why of each predecessor where that fails."""
        self._done = self._marked = start
        self._path, self._size = request_path(sha256), size
        begun = self._progress_at = time.monotonic()
        answered_at: Optional[float] = None
        while self._done < size:
            before = self._done
            if self._ask() or self._done > before:
                answered_at = time.monotonic()
            now = time.monotonic()
            if self._done - self._marked >= min(self._timing.progress, size - self._marked):
                self._marked, self._progress_at = self._done, now
            silent = now - (answered_at or begun)
            limit = self._timing.first_contact if answered_at is None else self._timing.lost_contact
            if silent > limit or now - self._progress_at > self._timing.stall:
                return [f"{each.peer.name} {each.reason}" for each in self._all]
        return []

    def _ask(self) -> bool:
        """Ask the predecessors until one has bytes; returns whether any has answered."""
        behind: List[_Predecessor] = []
        wait = self._timing.wait
        for each in self._all:
            if each.out_until > time.monotonic():
                continue
            take = functools.partial(self._take, each.peer.name)
            try:
                received = each.read(self._path, self._done, self._size, wait, take)
            except _Failed:
                continue
            if received:
                for other in behind:
                    other.out_until = time.monotonic() + self._timing.behind
                return True
            # The nearest one is waited for, the others are asked what they have now.
            behind.append(each)
            wait = 0
        # Also for those that say at once, again and again, that they have nothing.
        time.sleep(min(0.2, self._timing.retry))
        return bool(behind)

    def _take(self, name: str, block: bytes) -> None:
        if self._named != name:
            self._named = name
            self._source(name)
        self._write(block)
        self._done += len(block)


def parse_peer(data: Mapping[str, Any]) -> Peer:
    """Parse a predecessor from JSON."""
    return Peer(str(data["name"]), str(data["address"]), int(data["port"]), str(data["identity"]))


def main() -> int:
    """Read the file that standard input says, in one line of JSON, and write it to standard output.

    peers; sha256, start, size; credentials. Standard error gets a JSON object a line: `from`, the
    name of the predecessor from which the next bytes come, and `failed`, why of each.
    """
    data = json.loads(sys.stdin.buffer.readline())

    def write(block: bytes) -> None:
        view = memoryview(block)
        try:
            while view:
                view = view[os.write(1, view) :]
        except BrokenPipeError:  # whoever started this program has ended, or has enough
            os._exit(1)

    def say(word: str, value: object) -> None:
        print(json.dumps({word: value}), file=sys.stderr, flush=True)

    client = PeerClient(
        [parse_peer(each) for each in data["peers"]],
        client_context(parse_credentials(data["credentials"])),
        write,
        lambda name: say("from", name),
        Timing(**data.get("timing", {})),
    )
    failed = client.read(str(data["sha256"]), int(data["start"]), int(data["size"]))
    if failed:
        say("failed", failed)
    return 1 if failed else 0
