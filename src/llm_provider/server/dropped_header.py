"""The header of an answer that names the parameters of its request that the engine ignores."""

from __future__ import annotations

import re
from collections.abc import Iterable

DROPPED_HEADER = "x-edge-llm-dropped"
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,100}")


def dropped_header(names: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """Return the header as ASGI has headers; empty where nothing was dropped.

    Each name is in it once. A name that is none of a parameter is left out: it could hold what
    ends a header.
    """
    listed = [name for name in dict.fromkeys(names) if _NAME.fullmatch(name)]
    return [(DROPPED_HEADER.encode(), ", ".join(listed).encode())] if listed else []
