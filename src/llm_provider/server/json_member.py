"""One member of a JSON object that arrives in pieces, without the rest of it in memory."""

from __future__ import annotations

import re

_STRUCTURE = re.compile(rb'["{}\[\]:,]')
_IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


class JSONMember:
    """Finds the object at `path` of a JSON object whose bytes are fed in pieces, cut anywhere.

    Only that object is kept, up to `limit` bytes.
    """

    def __init__(self, *path: str, limit: int = 4096) -> None:
        self.raw: bytes | None = None
        """The object's bytes; None while it is not whole, and where it is larger than `limit`."""
        self._path = [name.encode() for name in path]
        self._limit = limit
        self._most = max(map(len, self._path)) + 1
        self._depth = 0
        self._entered = 0  # how many members of the path are open
        self._awaited = False  # the value of the path's next member follows
        self._string = b""  # the first bytes of the last string: of a key, if a colon follows
        self._in_string = False
        self._escaped = False
        self._kept: bytearray | None = None
        self._done = False

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        at = start = 0
        while at < len(data) and not self._done:
            if self._in_string:
                at = self._pass_string(data, at)
                continue
            found = _STRUCTURE.search(data, at)
            if found is None:
                break
            at = found.end()
            if self._take(found[0]):
                start = found.start()
            if self._done:
                self._keep(data[start:at])
                self.raw = None if self._kept is None else bytes(self._kept)
                return
        self._keep(data[start:])

    def _pass_string(self, data: bytes, at: int) -> int:
        """Go to the end of a string, or of `data`; returns where that is."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        if rest := _IN_STRING.match(data, at):
            at = rest.end()
        self._string = (self._string + data[start:at][: self._most])[: self._most]
        self._escaped = data[at : at + 1] == b"\\"  # the last byte that there is
        self._in_string = self._escaped or at >= len(data)
        return at + 1

    def _take(self, token: bytes) -> bool:
        """Take in a token of the structure; returns whether the object begins with it."""
        awaited, self._awaited = self._awaited, False
        match token:
            case b'"':
                self._in_string, self._string = True, b""
            case b":":
                self._awaited = (
                    self._depth == self._entered + 1 and self._string == self._path[self._entered]
                )
            case b"{" | b"[":
                self._depth += 1
                if awaited and token == b"{":
                    if self._entered + 1 == len(self._path):
                        self._kept = bytearray()
                        return True
                    self._entered += 1
            case b"}" | b"]":
                self._done = self._kept is not None and self._depth == self._entered + 2
                if self._depth == self._entered + 1 and self._entered:
                    self._entered -= 1
                self._depth -= 1
        return False

    def _keep(self, data: bytes) -> None:
        if self._kept is None:
            return
        self._kept += data[: self._limit + 1]
        if len(self._kept) > self._limit:
            self._kept, self._done = None, True
