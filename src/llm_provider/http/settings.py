"""Timeouts and headers of the HTTP client, and what is valid of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from llm_provider.http.errors import InvalidSetting

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|", re.ASCII)
# The client sets these itself: a second value would change how the request is read.
_RESERVED = frozenset(
    {"connection", "content-length", "expect", "host", "te", "transfer-encoding", "upgrade"}
)


@dataclass(frozen=True)
class Timeouts:
    """Limits in seconds for each phase of a request.

    `connect`: name resolution, connection and TLS handshake. `first_byte`: from then on, until
    status and headers are complete. `idle`: silence between two parts of the body. Whoever is given
    them validates them.
    """

    connect: float = 5.0
    first_byte: float = 600.0
    idle: float = 600.0

    def check(self) -> None:
        """Raise InvalidSetting unless each is a finite number above zero."""
        for one in fields(self):
            check_seconds(f"timeout {one.name!r}", getattr(self, one.name))

    @classmethod
    def of(cls, seconds: float) -> Timeouts:
        """Return the limits for a server that may be silent for `seconds`."""
        check_seconds("timeout", seconds)
        return cls(min(cls.connect, seconds), seconds, seconds)


def check_seconds(name: str, value: float) -> None:
    """Raise InvalidSetting unless `value` is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidSetting(f"The {name} is invalid: {value!r}. It is a number of seconds.")
    if not math.isfinite(value) or value <= 0:
        raise InvalidSetting(f"The {name} is invalid: {value!r}. It is above 0 and finite.")


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with names in lower case. Raises InvalidSetting, which names no value."""
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidSetting("The name of a header is invalid. It is a token of HTTP.")
        if name.lower() in _RESERVED:
            raise InvalidSetting(f"The header {name!r} cannot be set. The client sets it.")
        if name.lower() in checked:
            raise InvalidSetting(f"The header {name!r} is given twice.")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InvalidSetting(
                f"The value of the header {name!r} is invalid. It is printable ASCII."
            )
        checked[name.lower()] = value
    return checked
