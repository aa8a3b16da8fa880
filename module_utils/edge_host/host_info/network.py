"""The host's own network addresses."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import List

from ..files import read_text


def parse_fib_trie(text: str) -> List[str]:
    """The host's IPv4 addresses, as /proc/net/fib_trie has them."""
    found = re.findall(r"\|-- ([0-9.]+)\n\s*/32 host LOCAL", text)
    return sorted(set(found))


def parse_if_inet6(text: str) -> List[str]:
    """The host's IPv6 addresses, as /proc/net/if_inet6 has them."""
    numbers = re.findall(r"(?m)^([0-9a-f]{32}) ", text)
    return sorted({socket.inet_ntop(socket.AF_INET6, bytes.fromhex(each)) for each in numbers})


def read_addresses(system: Path) -> List[str]:
    """The host's addresses, of all interfaces."""
    network = system / "proc/net"
    return parse_fib_trie(read_text(network / "fib_trie") or "") + parse_if_inet6(
        read_text(network / "if_inet6") or ""
    )
