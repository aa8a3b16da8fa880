"""Who can control Docker, and which keys of clients are in force. No key is returned."""

from __future__ import annotations

from pathlib import Path
from typing import List

from ..constants import CLIENT_KEYS, SECRETS
from ..files import read_text
from ..json_data import Facts, parse_json_lines


def parse_group_members(groups: str, users: str, name: str) -> List[str]:
    """The members of a group in the texts of /etc/group and /etc/passwd, but root."""
    members, number = set(), None
    for fields in (line.split(":") for line in groups.splitlines()):
        if len(fields) >= 4 and fields[0] == name:
            number = fields[2]
            members |= {each.strip() for each in fields[3].split(",") if each.strip()}
    for fields in (line.split(":") for line in users.splitlines()):
        if len(fields) >= 4 and fields[3] == number:  # the group of the account itself
            members.add(fields[0])
    return sorted(members - {"root"})


def read_client_keys(root: Path) -> List[Facts]:
    """{"name", "expires" (RFC 3339, or None)} of every key in the host's file of clients' keys."""
    return [
        {"name": str(each.get("name", "")), "expires": _text(each.get("expires"))}
        for each in parse_json_lines(read_text(root / SECRETS / CLIENT_KEYS) or "")
    ]


def _text(value: object) -> object:
    return None if value is None else str(value)
