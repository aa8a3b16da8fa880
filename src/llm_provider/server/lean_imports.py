"""Libraries of the chat API's process, without what they load and the chat API never uses.

Each item was measured with Python 3.13 (docs/chat-api.md). Only for a process that is the chat API
and nothing else: other programs may need what is left out here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager

_WHILE_IMPORTING = {
    # aiohttp reads the system's certificate authorities when it is imported, for requests that
    # have no SSL context. The chat API's have one; any other would be refused, not left unchecked.
    "SSL_CERT_FILE": os.devnull,
    "SSL_CERT_DIR": os.devnull,
    # The compiled lists are the only part that loads the library of C++.
    "FROZENLIST_NO_EXTENSIONS": "1",
    # Without a path, pydantic's import of zoneinfo loads all settings that Python was built with.
    "PYTHONTZPATH": "/usr/share/zoneinfo",
}


@contextmanager
def lean_imports() -> Generator[None, None, None]:
    """Import without the unused parts; the environment is as before at the end."""
    # FastAPI looks whether a type is a model of pydantic 1, also when routes are made, and does
    # without if there is none. None is the import system's word for that.
    sys.modules["pydantic.v1"] = None  # type: ignore[assignment]
    with _environment(_WHILE_IMPORTING):
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Generator[None, None, None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
