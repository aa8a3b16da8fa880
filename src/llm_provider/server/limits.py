"""Limits of the chat API, read from the environment once."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from llm_provider.errors import ConfigurationError

KIB = 1024
MIB = 1024 * KIB
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PREFIX = "CHAT_API_"
_MOST_DIGITS = 15


@dataclass(frozen=True)
class Limits:
    """What one client, and all of them together, may take of the chat API.

    Each field is read from the environment variable of the same name in capitals, with CHAT_API_
    before it: `max_header_bytes` is CHAT_API_MAX_HEADER_BYTES. Sizes are bytes, times are seconds.
    """

    max_request_line_bytes: int = 8 * KIB
    max_header_bytes: int = 32 * KIB
    """Request line and header of a request together; trailers of a chunked body likewise."""
    max_headers: int = 100
    header_seconds: float = 15.0
    """From the first byte of a request to the end of its header."""
    first_byte_seconds: float = 30.0
    """How long a connection that never sends a byte stays open."""
    keep_alive_seconds: float = 75.0
    """How long a connection stays open between requests. Longer than clients keep idle
    connections, so that the client closes them and no request meets a closing connection."""
    max_connections: int = 512
    max_connections_per_address: int = 128
    """Of one IPv4 address, or one IPv6 network of 64 bits: a host can use all addresses in that.
    More than the requests that may wait, so that a client with many requests meets the queue's
    limit first, which tells it so."""
    allowed_networks: tuple[Network, ...] = ()
    """Addresses and networks whose connections are served, separated by commas; none: all are. The
    host's own, of its loopback interface, always are."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses and networks without a limit per address, separated by commas."""
    max_body_bytes: int = 4 * MIB
    body_seconds: float = 120.0
    """From the first read to the last byte of a body."""
    max_queued_body_bytes: int = 48 * MIB
    """All bodies that are held in memory at the same time."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Limits:
        """Read the limits.

        Raises ConfigurationError, which names variable, value and valid values.
        """
        values: dict[str, object] = {}
        for field in fields(cls):
            name = _PREFIX + field.name.upper()
            text = environ.get(name, "").strip()
            if not text:
                continue
            if isinstance(field.default, tuple):
                values[field.name] = _networks(name, text)
            elif isinstance(field.default, float):
                values[field.name] = _seconds(name, text)
            else:
                values[field.name] = _count(name, text)
        limits = cls(**values)  # type: ignore[arg-type]
        limits._check()
        return limits

    def _check(self) -> None:
        """Raises ConfigurationError for limits that contradict each other."""
        for smaller, larger in (
            ("max_request_line_bytes", "max_header_bytes"),
            ("max_connections_per_address", "max_connections"),
            ("max_body_bytes", "max_queued_body_bytes"),
        ):
            low, high = getattr(self, smaller), getattr(self, larger)
            if low > high:
                raise ConfigurationError(
                    f"{_PREFIX}{smaller.upper()} is {low}, more than {_PREFIX}{larger.upper()}, "
                    f"which is {high}. Lower the first or raise the second."
                )


def _count(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) > 0:
        return int(text)
    raise ConfigurationError(f"{name} is invalid: {text!r}. Set a whole number above 0.")


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0 < value < math.inf:
        return value
    raise ConfigurationError(f"{name} is invalid: {text!r}. Set a number of seconds above 0.")


def _networks(name: str, text: str) -> tuple[Network, ...]:
    networks = []
    for part in text.split(","):
        try:
            networks.append(ipaddress.ip_network(part.strip(), strict=False))
        except ValueError as error:
            raise ConfigurationError(
                f"{name} is invalid: {part.strip()!r}. Set IP addresses or networks, separated by "
                "commas, such as 192.0.2.10,2001:db8::/32."
            ) from error
    return tuple(networks)
