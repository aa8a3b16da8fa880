"""Server-sent events as blocks of bytes between blank lines: for what is passed on unchanged.

Only a block that is asked for is decoded, so that passing a stream on stays cheap. `sse` reads
events as they arrive.
"""

from __future__ import annotations

import json

END = b"\n\n"
"""What ends a block, as engines send it."""


def split_blocks(data: bytes) -> list[bytes]:
    """Return the blocks of `data`, without their ends; the last one may be incomplete or empty."""
    return data.split(END)


def read_block(block: bytes) -> object:
    """Return the JSON of a block's first data line; None where it has none."""
    for line in block.splitlines():
        if line.startswith(b"data:"):
            try:
                return json.loads(line[5:])
            except (ValueError, RecursionError):
                return None
    return None
