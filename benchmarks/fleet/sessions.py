"""Remote calls, as the boards' SSH servers log them.

The boards count, so nothing is put between a tool and its connections, and Ansible and pyinfra,
whose SSH is its own, are counted alike. Each command and each file transfer is a session.
"""

from __future__ import annotations

import re
from collections import Counter

CONFIGURATION = """\
# Of a benchmark: one line for each session; many hosts that come from one address at once.
LogLevel VERBOSE
MaxStartups 1000
PerSourcePenalties no
"""
_CONNECTION = re.compile(r"Connection from (\S+) port (\d+) on (\S+) port \d+")
_SESSION = re.compile(r"Starting session: .* from (\S+) port (\d+) id \d+")
_LOST = re.compile(r"Suppressed \d+ messages")


def count(log: str) -> dict[str, int]:
    """The sessions by the address that was connected to, in order of the log.

    Raises ValueError where the log is incomplete.
    """
    connected: dict[tuple[str, str], str] = {}
    found: Counter[str] = Counter()
    for line in log.splitlines():
        if _LOST.search(line):
            raise ValueError(f"The log of the board is incomplete: {line.strip()}.")
        if match := _CONNECTION.search(line):
            connected[match[1], match[2]] = match[3]
        elif match := _SESSION.search(line):
            address = connected.get((match[1], match[2]))
            if address is None:
                raise ValueError(f"The log of the board is incomplete: {line.strip()}.")
            found[address] += 1
    return dict(found)
