"""The API key that a request carries, in any of the ways that clients send one."""

from __future__ import annotations

import base64
from collections.abc import Iterable

CHALLENGES = 'Bearer, Basic realm="edge-llm"'
"""What a 401 asks for, as its WWW-Authenticate."""


def offered_keys(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return the keys in an ASGI request's headers, which may all be wrong.

    `Authorization: Bearer KEY`; `x-api-key: KEY`; HTTP Basic authentication, whose password is the
    key and whose user may be anybody. Both headers may be there, of which a proxy may have its own.
    """
    authorization = own = b""
    for name, value in headers:
        if name == b"authorization":
            authorization = value
        elif name == b"x-api-key":
            own = value
    keys = (_authorization_key(authorization.decode("latin-1")), own.decode("latin-1").strip())
    return [key for key in keys if key]


def _authorization_key(value: str) -> str:
    scheme, _, credentials = value.partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip()
        case "basic":
            try:
                pair = base64.b64decode(credentials.strip(), validate=True).decode()
            except ValueError:
                return ""
            return pair.partition(":")[2]
    return ""
