"""Server-sent events as blocks of bytes between blank lines: for what is passed on unchanged.

Only a block that is asked for is decoded, so that passing a stream on stays cheap. `sse` reads
events as they arrive.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise

# Lines end with LF, or with CRLF where a server or a proxy writes them so.
_ENDS = (b"\n\n", b"\n\r\n")
_END = re.compile(rb"\r?\n\r?\n")


def split_blocks(data: bytes) -> list[bytes]:
    """Return the blocks of `data`, without their ends; the last one may be incomplete or empty."""
    return _END.split(data)


def ends_block(data: bytes) -> bool:
    """Return whether `data` ends where a block ends."""
    return data.endswith(_ENDS)


def cut_blocks(data: bytes) -> list[bytes]:
    """Return the blocks of `data` with their ends; the last one may be incomplete or empty."""
    edges = [0, *(end.end() for end in _END.finditer(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def read_block(block: bytes) -> object:
    """Return the JSON of a block's first data line; None where it has none."""
    for line in block.splitlines():
        if line.startswith(b"data:"):
            try:
                return json.loads(line[5:])
            except (ValueError, RecursionError):
                return None
    return None
