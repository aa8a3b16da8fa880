"""The gateways of this process's network, behind which there may be many clients.

That is so on hosts whose ports a container of an earlier version holds (`edge-llm-door`), until
their next boot: elsewhere systemd holds the ports, every connection has its client's address, and
the chat API's network has no route, so that no gateway is found.

Docker hands connections to a container with the client's address, with these exceptions, which come
from the gateway of the container's network: those through its userland proxy (from the host's
loopback address; over IPv6, where the container has none), and all of them where Docker is rootless
or has no NAT (`iptables: false`). See moby/moby, issues 15086, 44408 and 45629.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

from llm_provider.server.connection_guard import Address

_ROUTES, _ROUTES_6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")


def gateways(routes: Path = _ROUTES, routes_6: Path = _ROUTES_6) -> frozenset[Address]:
    """Return the addresses that default routes lead to; none where the system does not tell."""
    found: set[Address] = set()
    for words in _lines(routes)[1:]:
        if len(words) > 7 and (words[1], words[7]) == ("0" * 8, "0" * 8):
            # As the processor writes numbers.
            number = int.from_bytes(bytes.fromhex(words[2]), sys.byteorder)
            found.add(ipaddress.IPv4Address(number))
    for words in _lines(routes_6):
        if len(words) > 4 and (words[0], words[1]) == ("0" * 32, "00"):
            found.add(ipaddress.IPv6Address(bytes.fromhex(words[4])))
    return frozenset(address for address in found if not address.is_unspecified)


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()]
    except OSError:  # no such protocol, or no /proc
        return []
