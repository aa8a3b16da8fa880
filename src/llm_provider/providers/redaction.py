"""Credentials, removed from what a server says: some repeat a request's headers in an error."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping

from llm_provider.http.url import BaseURL

HIDDEN = b"***"
# Replacing a shorter one would change words that are none.
_SHORTEST = 6
_HEADERS = ("authorization", "proxy-authorization", "x-api-key", "api-key", "cookie")
_BASIC = "Basic "


class Redaction:
    """Hides the credentials of an address and of headers (names in lower case)."""

    def __init__(self, url: BaseURL, headers: Mapping[str, str]) -> None:
        found = {one for one in _credentials(url, headers) if len(one) >= _SHORTEST}
        longest_first = sorted(found, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)).encode())

    def hide(self, text: bytes) -> bytes:
        """Return `text` with each credential replaced."""
        return self._pattern.sub(HIDDEN, text) if self._pattern.pattern else text


def _credentials(url: BaseURL, headers: Mapping[str, str]) -> Iterator[str]:
    values = [headers[name] for name in _HEADERS if name in headers]
    for value in [*values, url.authorization or ""]:
        yield value.rpartition(" ")[2]
        if value.startswith(_BASIC):
            pair = _decoded(value.removeprefix(_BASIC))
            yield pair
            yield pair.partition(":")[2]


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode()
    except ValueError:
        return ""
