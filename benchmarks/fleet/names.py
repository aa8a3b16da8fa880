"""The hosts of the benchmark: inventory names, the boards that they stand for, their addresses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUP, SILENT = "fleet", "fleet-down"
"""The group of all hosts, and the one that does not answer."""
MOST_HOSTS = 140
_FIRST_OCTET, _SILENT_OCTET = 100, 250
MIB_OF_A_BOARD, DISK_OF_A_BOARD = 500, 2500
"""MiB that a board takes with systemd, Docker, its engine and chat API, and on the disk."""
_SHARE_OF_BOARDS = 0.6
"""Of what is free: the rest is for the control machine's part, which is measured."""
CONTEXTS = (2048, 4096)


@dataclass(frozen=True)
class Host:
    """An inventory name, the board that it stands for, and an address of its own."""

    name: str
    board: str
    address: str


def boards_that_fit(wanted: int, running: int, memory: float, disk: float) -> int:
    """How many boards there can be, of `wanted`, in MiB of free memory and disk: 1 at least.

    `running` boards have what they need already.
    """
    room = _SHARE_OF_BOARDS * min(memory / MIB_OF_A_BOARD, disk / DISK_OF_A_BOARD)
    return max(1, min(wanted, running + int(room)))


def deal(count: int, boards: Sequence[str]) -> list[str]:
    """The board of each host: a board for each, as long as there are any.

    The first board has one name alone, so that it can change while no other host does. The first
    hosts of a large fleet are those of a small one.
    """
    shared = boards[1:] or boards
    return [
        boards[number] if number < len(boards) else shared[(number - len(boards)) % len(shared)]
        for number in range(count)
    ]


def fleet(count: int, boards: Sequence[str], subnet: str) -> list[Host]:
    """All hosts of a fleet in a network such as `198.18.41`. Raises ValueError for too many."""
    if not 1 <= count <= MOST_HOSTS:
        raise ValueError(f"The number of hosts is invalid: {count}. Give 1 to {MOST_HOSTS}.")
    return [
        Host(f"{GROUP}-{number + 1:02}", board, f"{subnet}.{_FIRST_OCTET + number}")
        for number, board in enumerate(deal(count, boards))
    ]


def silent(subnet: str) -> Host:
    """The host whose address does not answer."""
    return Host(SILENT, "none", f"{subnet}.{_SILENT_OCTET}")


def first_of_each_board(hosts: Sequence[Host]) -> list[Host]:
    """One host for each board: what changes a board must meet it once."""
    seen: dict[str, Host] = {}
    for host in hosts:
        seen.setdefault(host.board, host)
    return list(seen.values())


def variables(folder: Path, board: str) -> dict[str, Any]:
    """Variables of a host that stands for a board, beside those of inventories/sandbox.

    Names of one board share its key, and with it the hash of the file of keys.
    """
    return {
        "fleet_board": board,
        "board_api_key_file": str(folder / "keys" / f"{board}.key"),
        "preflight_key_files": (
            "{{ [] | edge_llm_key_files(preflight_api_key, fleet_board, preflight_time) }}"
        ),
    }


def inventory(hosts: Sequence[Host], folder: Path) -> dict[str, Any]:
    """The inventory that goes beside inventories/sandbox."""
    shared = {
        "llm_provider": "llamacpp",
        "llm_model": "smoke",
        "llm_context_size": (
            f"{{{{ fleet_contexts[inventory_hostname] | default({CONTEXTS[0]}) }}}}"
        ),
        "fleet_contexts": {},
        "board_secrets_dir": str(folder / "keys"),
        "board_facts_file": f"{folder}/facts/{{{{ inventory_hostname }}}}.json",
        "ansible_ssh_common_args": (
            f"-o UserKnownHostsFile={folder}/known_hosts -o StrictHostKeyChecking=yes"
        ),
    }
    named = {
        host.name: {"ansible_host": host.address, **variables(folder, host.board)} for host in hosts
    }
    return {"all": {"children": {GROUP: {"vars": shared, "hosts": named}}}}


def known_hosts(hosts: Sequence[Host], keys: Mapping[str, str]) -> str:
    """The file by which SSH knows the boards: `keys` has the public key of each board."""
    return "".join(f"{host.address} {keys[host.board]}\n" for host in hosts if host.board in keys)


def pyinfra_inventory(hosts: Sequence[Host], folder: Path, key: Path) -> str:
    """The same hosts as an inventory of pyinfra, which is a Python file."""
    entries: list[tuple[str, dict[str, Any]]] = [
        (
            host.name,
            {
                "ssh_hostname": host.address,
                "ssh_user": "root",
                "ssh_key": str(key),
                "ssh_allow_agent": False,
                "ssh_look_for_keys": False,
                "ssh_known_hosts_file": str(folder / "known_hosts"),
                "ssh_strict_host_key_checking": "yes",
            },
        )
        for host in hosts
    ]
    lines = "".join(f"    {entry!r},\n" for entry in entries)
    return f"{GROUP} = [\n{lines}]\n"


def contexts(host: Host, size: int) -> str:
    """The extra variables by which one host changes: its context, as JSON."""
    return json.dumps({"fleet_contexts": {host.name: size}})
