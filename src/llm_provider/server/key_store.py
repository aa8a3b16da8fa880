"""The chat API's keys: a file that holds their hashes, read again when it changes.

One key in each line, as a JSON object:

    {"name": "alice", "sha256": "9f86d0...", "expires": "2027-01-01T00:00:00Z",
     "requests_per_minute": 60, "burst": 10, "share": 2, "metrics_only": false}

`name` and `sha256` (of the key, in hex) are required. A line that is no object is a key itself, in
plain text, as files before this format have them; its name is key-N, N being its number among the
file's keys. Empty lines and lines that start with # do not count.

SHA-256 is right here, and a slow password hash is not: it slows down guessing, and a key of 256
random bits cannot be guessed at any speed. Each request would pay for it, and a client without a
key could keep a board busy.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

from llm_provider.server.rate_limit import Rate

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = ("name", "sha256", "expires", "requests_per_minute", "burst", "share", "metrics_only")
_BASIC = "basic"
_LONGEST_KEY = 1024
_LARGEST_FILE = 4 * 1024 * 1024
_SHARES = (0.01, 100.0)

_log = logging.getLogger("llm_provider.keys")


class KeyFileError(ValueError):
    """A key file cannot be read, or a line of it is invalid. No text of it holds a key."""


class Refusal(Enum):
    """Why a request is not let in; the value is for the client."""

    MISSING = (
        "The request has no API key. Send one as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
    )
    UNKNOWN = "The API key is not valid."
    EXPIRED = "The API key has expired."


@dataclass(frozen=True)
class Key:
    """A key of the file, without the key itself.

    `expires` is a time of the clock (time.time()); `share` is the key's weight in the queue;
    `metrics_only` is whether it opens the metrics alone.
    """

    name: str
    digest: bytes
    expires: float | None = None
    rate: Rate | None = None
    share: float = 1.0
    metrics_only: bool = False


class KeyStore:
    """The keys in `path`. Raises KeyFileError where the file is missing or invalid at the start.

    Later, a file that cannot be read or has an invalid line is logged, and the keys before it stay
    valid: an editor may be half-way through. An empty file, and one that was deleted, has no keys,
    and every request is refused: a person who removes keys must not leave them valid.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._signature = self._sign()
        self._keys = parse_keys(self._read())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys, for metrics."""
        return tuple(key.name for key in self._keys)

    def find(self, authorization: str | None, x_api_key: str | None) -> Key | Refusal:
        """Return the key that a request presents in one of the headers, or why it is refused."""
        self._refresh()
        presented = presented_keys(authorization, x_api_key)
        found: Key | None = None
        for text in presented:
            digest = sha256(text.encode()).digest()
            # Every key is compared, each in constant time, so that the time says nothing.
            for key in self._keys:
                if hmac.compare_digest(digest, key.digest):
                    found = found or key
        if found is None:
            return Refusal.UNKNOWN if presented else Refusal.MISSING
        if found.expires is not None and found.expires <= self._clock():
            return Refusal.EXPIRED
        return found

    def _refresh(self) -> None:
        signature = self._sign()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._keys = () if signature is None else parse_keys(self._read())
        except KeyFileError as error:
            _log.error("the former keys stay valid: %s", error)
            return
        self.report()

    def report(self) -> None:
        """Log whether there are keys, at the start as after each change of the file."""
        if self._keys:
            _log.info("keys read", extra={"keys": len(self._keys)})
        else:
            _log.error("the key file %s has no keys: every request is refused", self._path)

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
            text = data.decode()
        except OSError as error:
            raise KeyFileError(f"The key file {self._path} cannot be read: {error}.") from error
        except UnicodeDecodeError:
            # The error's own text, and its chain, would hold a part of the file.
            raise KeyFileError(f"The key file {self._path} is not UTF-8.") from None
        if len(data) > _LARGEST_FILE:
            raise KeyFileError(f"The key file {self._path} has more than {_LARGEST_FILE} bytes.")
        return text

    def _sign(self) -> tuple[int, ...] | None:
        """Return what changes when the file does; None where there is none."""
        try:
            status = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # reading it will say why
            return ()
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def presented_keys(authorization: str | None, x_api_key: str | None) -> tuple[str, ...]:
    """Return the keys that a request's headers present: Bearer, Basic (the password), x-api-key.

    Both headers count: a proxy may have set one of them for itself.
    """
    found = []
    scheme, rest = _credentials(authorization)
    if scheme == "bearer":
        found.append(rest)
    elif scheme == _BASIC:
        found.append(_password(rest))
    found.append((x_api_key or "").strip())
    return tuple(key for key in found if key and len(key) <= _LONGEST_KEY)


def is_basic(authorization: str | None) -> bool:
    """Whether a header `Authorization` is HTTP Basic authentication."""
    return _credentials(authorization)[0] == _BASIC


def _credentials(authorization: str | None) -> tuple[str, str]:
    """Return the scheme in lower case, and what follows it."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    return scheme.lower(), rest.strip()


def _password(encoded: str) -> str:
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text.partition(":")[2]


def parse_keys(text: str) -> tuple[Key, ...]:
    """Return the keys of a key file's text. Raises KeyFileError, which names the line."""
    keys: list[Key] = []
    names: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        try:
            plain = not content.startswith("{")
            key = _plain(content, len(keys) + 1) if plain else _described(content)
        except ValueError as error:
            raise KeyFileError(f"Line {number} of the key file is invalid: {error}") from None
        if key.name in names:
            raise KeyFileError(
                f"Line {number} of the key file is invalid: the name {key.name!r} is that of line "
                f"{names[key.name]} too. Give each key a name of its own."
            )
        names[key.name] = number
        keys.append(key)
    return tuple(keys)


def _plain(content: str, number: int) -> Key:
    if not content.isascii() or " " in content or len(content) > _LONGEST_KEY:
        raise ValueError("a key is one ASCII word, or a JSON object with its name and hash.")
    return Key(f"key-{number}", sha256(content.encode()).digest())


def _described(content: str) -> Key:
    try:
        entry = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it starts with { and is no JSON object.") from None
    if not all(name in _FIELDS for name in entry):
        # Not named here: it may be a key, put where its name belongs.
        raise ValueError(f"it has an unknown field; known fields are {', '.join(_FIELDS)}.")
    name, digest = entry.get("name"), entry.get("sha256")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            "'name' must be a letter or digit, then up to 63 letters, digits or any of . _ @ -"
        )
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest.lower()):
        raise ValueError("'sha256' must be 64 hexadecimal digits.")
    return Key(
        name,
        bytes.fromhex(digest),
        _expiry(entry.get("expires")),
        _rate(entry),
        _number(entry, "share", *_SHARES) or 1.0,
        _flag(entry, "metrics_only"),
    )


def _expiry(value: Any) -> float | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("'expires' must be a time with its zone, such as 2027-01-01T00:00:00Z.")
    return moment.timestamp()


def _rate(entry: dict[str, Any]) -> Rate | None:
    per_minute = _number(entry, "requests_per_minute", 0.01, 1_000_000)
    burst = _number(entry, "burst", 1, 1_000_000)
    if per_minute is None:
        if burst is not None:
            raise ValueError("'burst' needs 'requests_per_minute' beside it.")
        return None
    # Without a burst: what 10 seconds allow, so that a client may start with a few at once.
    return Rate(per_minute, math.floor(burst) if burst else max(1, math.ceil(per_minute / 6)))


def _flag(entry: dict[str, Any], name: str) -> bool:
    value = entry.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"'{name}' must be true or false.")
    return bool(value)


def _number(entry: dict[str, Any], name: str, least: float, most: float) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not least <= value <= most:
        raise ValueError(f"'{name}' must be a number from {least:g} to {most:g}.")
    return float(value)
