"""Counts connections, in total and per client address, and closes those whose time is over.

Knows nothing of HTTP: a connection is whatever has a time limit and can be closed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
from collections import Counter
from collections.abc import Collection
from enum import Enum, IntEnum
from typing import Protocol

from llm_provider.server.limits import Limits

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_IPV6_PREFIX = 64
_LONGEST_TICK = 1.0
_TICKS_PER_LIMIT = 4
_LOG_SECONDS = 10.0
MOST_REFUSED = 64
"""Refused connections that stay open for a moment, so that the client can read why."""

_log = logging.getLogger("llm_provider.connections")


class Admission(Enum):
    """Whether a new connection is served."""

    ADMITTED = "admitted"
    TOO_MANY = "too many connections"
    TOO_MANY_OF_ADDRESS = "too many connections from one address"
    DROPPED = "too many refused connections"
    """It is not even answered."""
    NOT_ALLOWED = "address outside the allowed networks"
    """It is closed before a byte is read."""


class Rest(IntEnum):
    """Why a connection may make room for another one; the lower, the sooner."""

    SILENT = 0
    """It never sent a byte."""
    IDLE = 1
    """All that it asked for is answered."""
    INCOMPLETE = 2
    """A handshake or a header that is not complete: no client needs long for that."""


class Connection(Protocol):
    """What the guard needs to know of a connection."""

    deadline: float
    """When its time is over, by the loop's clock; infinite while a request is served."""

    @property
    def rest(self) -> Rest | None:
        """None while a request is served."""

    def expire(self) -> None:
        """End it: its time is over."""

    def evict(self) -> None:
        """End it: another one needs its place, or the process ends."""


def parse_address(address: str) -> Address | None:
    """Return a client's address, None for what is none. IPv4 within IPv6 counts as IPv4."""
    try:
        # A zone, such as in fe80::1%eth0, is no part of the address.
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def address_group(address: str) -> str:
    """Return what an address counts as: itself, or its network of 64 bits with IPv6."""
    ip = parse_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, _IPV6_PREFIX), strict=False))
    return address if ip is None else str(ip)


class ConnectionGuard:
    """All connections of one process.

    Each of `gateways` may stand for many clients, so it has half of all connections: one of these
    clients keeps neither the others of its gateway out before that, nor ever those of elsewhere.

    At a limit, a connection that serves no request is closed in favour of the new one, so that only
    requests keep others out. One timer looks after all of them: a timer for each phase of
    each connection would cost more than serving it.
    """

    def __init__(self, limits: Limits, gateways: Collection[Address] = ()) -> None:
        self.limits = limits
        self._gateways = gateways
        self.refused = 0
        """How many were refused, since the start."""
        self.evicted = 0
        self.not_allowed = 0
        """How many came from outside the allowed networks, since the start."""
        self._open: dict[Connection, str | None] = {}
        self._lingering: set[Connection] = set()
        self._per_group: Counter[str] = Counter()
        self._counted = 0
        self._logged_at: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tick = min(
            _LONGEST_TICK,
            min(limits.header_seconds, limits.first_byte_seconds, limits.keep_alive_seconds)
            / _TICKS_PER_LIMIT,
        )

    def __len__(self) -> int:
        return len(self._open)

    def over_network(self) -> list[Connection]:
        """Return the connections that did not come over a Unix socket."""
        return [connection for connection, group in self._open.items() if group is not None]

    def admit(self, connection: Connection, address: str | None) -> Admission:
        """Count a new connection; None as its address is a Unix socket, which has no limit.

        One that is not admitted is watched too, until `leave`, unless it is to be dropped, or its
        address is not allowed.
        """
        if address is not None and not self._is_allowed(address):
            self.not_allowed += 1
            self._log("not_allowed", Admission.NOT_ALLOWED.value, address, self.not_allowed)
            return Admission.NOT_ALLOWED
        self._start()
        group = None if address is None else address_group(address)
        if group is not None and address is not None:
            admission = self._admission(address, group)
            if admission is not Admission.ADMITTED:
                lingers = self.refuse(connection, admission.value, address)
                return admission if lingers else Admission.DROPPED
            self._per_group[group] += 1
            self._counted += 1
        self._open[connection] = group
        return Admission.ADMITTED

    def leave(self, connection: Connection) -> None:
        """Forget a connection. A second call does nothing."""
        self._lingering.discard(connection)
        if connection not in self._open:
            return
        group = self._open.pop(connection)
        if group is not None:
            self._counted -= 1
            self._per_group[group] -= 1
            if not self._per_group[group]:
                del self._per_group[group]

    def refuse(self, connection: Connection, reason: str, address: str | None) -> bool:
        """Count a connection as refused, which frees its place; False: it is to be dropped."""
        self.drop(connection, reason, address)
        if len(self._lingering) >= MOST_REFUSED:
            return False
        self._lingering.add(connection)
        return True

    def drop(self, connection: Connection, reason: str, address: str | None) -> None:
        """Count a connection as refused, and watch it no more."""
        self.leave(connection)
        self.refused += 1
        self._log("refused", reason, address, self.refused)

    def _log(self, kind: str, reason: str, address: str | None, count: int) -> None:
        """Log a few of an attack's refusals, with the number of all of a kind."""
        now = asyncio.get_running_loop().time()
        if now - self._logged_at.get(kind, -math.inf) >= _LOG_SECONDS:
            self._logged_at[kind] = now
            extra = {"reason": reason, "client": address, kind: count}
            _log.warning("connections are refused", extra=extra)

    def _is_allowed(self, address: str) -> bool:
        """Whether connections from an address are served at all."""
        networks = self.limits.allowed_networks
        if not networks:
            return True
        ip = parse_address(address)
        return ip is not None and (ip.is_loopback or any(ip in each for each in networks))

    def _admission(self, address: str, group: str) -> Admission:
        limits = self.limits
        count = self._per_group[group]
        if (
            count >= limits.max_connections_per_address
            and count >= self._most_of(address)
            and not self._evict(group)
        ):
            return Admission.TOO_MANY_OF_ADDRESS
        if self._counted >= limits.max_connections and not self._evict(None):
            return Admission.TOO_MANY
        return Admission.ADMITTED

    def _most_of(self, address: str) -> int:
        """How many connections an address may have."""
        limits = self.limits
        ip = parse_address(address)
        if ip is not None and any(ip in network for network in limits.trusted_proxies):
            return limits.max_connections
        if ip in self._gateways:
            return max(limits.max_connections_per_address, limits.max_connections // 2)
        return limits.max_connections_per_address

    def _evict(self, group: str | None) -> bool:
        """Close the one of least use, and of those the nearest to its end; of `group` if given."""
        found: Connection | None = None
        best = (math.inf, math.inf)
        for connection, its_group in self._open.items():
            if its_group is None or (group is not None and its_group != group):
                continue
            rest = connection.rest
            if rest is not None and (rest, connection.deadline) < best:
                best = (rest, connection.deadline)
                found = connection
        if found is None:
            return False
        self.evicted += 1
        self.leave(found)
        found.evict()
        return True

    def _start(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._tick, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [*self._open, *self._lingering]:
            if connection.deadline <= now:
                connection.expire()
        self._timer = None
        if self._open or self._lingering:
            self._start()
