"""Hosts of the benchmark: which board each stands for, at an address of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet import names, replay
from sandbox.instance import HOSTS

FOLDER = Path("/bench")


def test_each_host_has_a_board_as_long_as_there_are_any() -> None:
    assert names.deal(2, ["a", "b", "c"]) == ["a", "b"]
    assert names.deal(3, ["a", "b", "c"]) == ["a", "b", "c"]


def test_the_first_board_has_one_name_alone() -> None:
    """It can change while no other host does."""
    assert names.deal(6, ["a", "b", "c"]) == ["a", "b", "c", "b", "c", "b"]
    assert names.deal(4, ["a"]) == ["a", "a", "a", "a"]


def test_a_small_fleet_is_the_beginning_of_a_large_one() -> None:
    large = names.fleet(40, ["a", "b", "c"], "198.18.41")
    for size in (2, 5, 10, 20):
        assert names.fleet(size, ["a", "b", "c"], "198.18.41") == large[:size]


def test_no_two_hosts_share_an_address_and_none_has_that_of_a_board() -> None:
    hosts = names.fleet(names.MOST_HOSTS, ["a", "b"], "198.18.41")
    addresses = [each.address for each in (*hosts, names.silent("198.18.41"))]
    boards = {f"198.18.41.{host.octet}" for host in HOSTS.values()}
    assert len(set(addresses)) == names.MOST_HOSTS + 1
    assert not boards & set(addresses)
    many = [host.address for host in replay.hosts(600, "a")]
    assert len(set(many)) == 600
    assert all(max(map(int, each.split("."))) <= 254 for each in [*addresses, *many])


@pytest.mark.parametrize("count", [0, names.MOST_HOSTS + 1])
def test_a_number_of_hosts_without_addresses_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"The number of hosts is invalid: {count}. Give 1 to 140"):
        names.fleet(count, ["a"], "198.18.41")


def test_what_changes_a_board_meets_it_once() -> None:
    hosts = names.fleet(5, ["a", "b"], "198.18.41")
    first = names.first_of_each_board(hosts)
    assert [(host.name, host.board) for host in first] == [("fleet-01", "a"), ("fleet-02", "b")]


@pytest.mark.parametrize(
    ("running", "memory", "disk", "boards"),
    [
        (0, 20_000, 1_000_000, 20),
        (0, 5_000, 1_000_000, 6),
        (0, 20_000, 12_500, 3),
        (0, 100, 100, 1),
        # Boards of the run before are not given up because they take memory.
        (6, 2_000, 1_000_000, 8),
        (20, 100, 100, 20),
    ],
)
def test_boards_fit_memory_and_disk(running: int, memory: float, disk: float, boards: int) -> None:
    assert names.boards_that_fit(20, running, memory, disk) == boards


def test_names_of_one_board_have_its_key() -> None:
    made = names.inventory(names.fleet(3, ["a", "b"], "198.18.41"), FOLDER)
    hosts: dict[str, dict[str, Any]] = made["all"]["children"]["fleet"]["hosts"]
    assert [host["ansible_host"][-3:] for host in hosts.values()] == ["100", "101", "102"]
    assert hosts["fleet-02"]["board_api_key_file"] == "/bench/keys/b.key"
    assert hosts["fleet-02"]["board_api_key_file"] == hosts["fleet-03"]["board_api_key_file"]
    assert hosts["fleet-01"]["board_api_key_file"] != hosts["fleet-02"]["board_api_key_file"]


def test_the_inventory_overrides_a_default_of_the_role() -> None:
    """Else each name of a board would have keys of its own, and change the board."""
    defaults = (Path(__file__).parents[4] / "roles/preflight/defaults/main.yml").read_text()
    assert "\npreflight_key_files:" in defaults
    assert "edge_llm_key_files(preflight_api_key, inventory_hostname, preflight_time)" in defaults


def test_ssh_knows_each_address_by_its_board_s_key() -> None:
    hosts = [*names.fleet(3, ["a", "b"], "198.18.41"), names.silent("198.18.41")]
    assert names.known_hosts(hosts, {"a": "ssh-ed25519 A", "b": "ssh-ed25519 B"}) == (
        "198.18.41.100 ssh-ed25519 A\n198.18.41.101 ssh-ed25519 B\n198.18.41.102 ssh-ed25519 B\n"
    )


def test_pyinfra_gets_the_same_hosts() -> None:
    hosts = names.fleet(3, ["a", "b"], "198.18.41")
    found: dict[str, Any] = {}
    exec(names.pyinfra_inventory(hosts, FOLDER, Path("/key")), found)  # noqa: S102
    assert [(name, data["ssh_hostname"]) for name, data in found["fleet"]] == [
        (host.name, host.address) for host in hosts
    ]
