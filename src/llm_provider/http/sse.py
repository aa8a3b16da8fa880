"""Server-sent events as they arrive, cut anywhere (HTML standard, section 9.2).

`blocks` reads events of which all bytes are there.
"""

from __future__ import annotations

DONE = "[DONE]"
"""The data of the last event of OpenAI's chat streams."""


class EventParser:
    """Turn raw bytes, cut anywhere (inside a character too), into the events' data."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of each event that `chunk` completes; keep what is incomplete.

        Raises UnicodeDecodeError where a whole line is not UTF-8.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for raw in lines:
            line = raw.removesuffix(b"\r").decode()
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events
