"""The certificate for HTTPS and its key: read again when the files change, for new connections."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from llm_provider.errors import ConfigurationError
from llm_provider.server.watched_file import WatchedFile

LOOK_SECONDS = 1.0
WARN_SECONDS = 14 * 86400.0
"""A certificate that ends sooner should have been renewed."""
_WARN_AGAIN_SECONDS = 86400.0
_PATIENCE = 5
"""Looks at files that do not fit together until the log has it: they are written one by one."""
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which `ssl` has no name."""
_NO_PAIR = "KEY_VALUES_MISMATCH"

_log = logging.getLogger("llm_provider.tls")


class Certificate:
    """A certificate (PEM, with those that it is signed by behind it) and its private key (PEM).

    `context` is for the next connection; those that are open keep theirs. `expires` is Unix time.
    Raises ConfigurationError where the files cannot be used. Later, such files are logged, and the
    pair before stays in force: one of them may be written already, and the other not.
    """

    context: ssl.SSLContext
    expires: float

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self._files = WatchedFile(certificate), WatchedFile(key)
        self._failed_looks = 0
        self._warned_at = -math.inf
        self._read()

    async def follow(self) -> None:
        """Look at the files, and at the time that is left, for ever."""
        while True:
            self.look()
            self.warn()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Read the files again if one has changed, or if they could not be used just now."""
        changed = [each.changed() for each in self._files]
        if any(changed):
            self._failed_looks = 0
        elif not 0 < self._failed_looks < _PATIENCE:
            return
        try:
            self._read()
        except ConfigurationError as error:
            self._failed_looks += 1
            if self._failed_looks == _PATIENCE:
                _log.error("the certificate before stays in force: %s", error)
        else:
            self._failed_looks = 0
            self._warned_at = -math.inf
            _log.info("certificate read again", extra={"expires": _date(self.expires)})

    def warn(self) -> None:
        """Log, once a day, that the certificate ends soon."""
        if self.expires - time.time() > WARN_SECONDS:
            return
        if time.monotonic() - self._warned_at < _WARN_AGAIN_SECONDS:
            return
        self._warned_at = time.monotonic()
        _log.warning(
            "the certificate %s %s on %s; write a new one and its key, or run site.yml",
            self._certificate,
            "expires" if self.expires > time.time() else "expired",
            _date(self.expires),
        )

    def _read(self) -> None:
        for what, path in (("certificate", self._certificate), ("key", self._key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise ConfigurationError(f"The {what} {path} cannot be read: {error}.") from error
        try:
            context = _server_context(self._certificate, self._key)
            self.expires = _expiry(context, self._certificate)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise ConfigurationError(self._problem(error)) from error
        self.context = context

    def _problem(self, error: Exception) -> str:
        reason = getattr(error, "reason", None)
        if reason == _NO_PAIR:
            return (
                f"The key {self._key} does not belong to the certificate {self._certificate}. "
                "Write both files of the same pair."
            )
        found = getattr(error, "verify_message", None) or reason or error
        return (
            f"The certificate {self._certificate} with the key {self._key} cannot be used: "
            f"{found}. Both must be PEM, the key without a passphrase."
        )


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    def no_passphrase() -> NoReturn:  # without this, OpenSSL would ask at the terminal
        raise OSError("the key has a passphrase")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key, no_passphrase)
    return context


def _expiry(context: ssl.SSLContext, certificate: Path) -> float:
    """Return when the certificate of `context` ends, in Unix time. Raises SSLError.

    `ssl` tells it to the other side of a connection alone, so there is one, in memory: which also
    proves that certificate and key work.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # Whoever signed it, and whether it has ended, is for clients to judge.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = context.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server)
    open_sides = [asking, serving]
    while open_sides:  # each side's turn brings the other on, or fails
        for side in [*open_sides]:
            try:
                side.do_handshake()
                open_sides.remove(side)
            except ssl.SSLWantReadError:
                pass
    ends = (asking.getpeercert() or {})["notAfter"]
    return float(ssl.cert_time_to_seconds(str(ends)))


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
