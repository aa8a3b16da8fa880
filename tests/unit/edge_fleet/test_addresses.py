"""Addresses as the control machine sees them."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from edge_fleet.addresses import own_address, resolve, with_control_address

BOARD = {"name": "a", "address": "192.0.2.1", "port": 6881}
CONTROL = {"name": "the control machine", "address": "", "port": 6882}


def job(*peers: dict[str, Any]) -> dict[str, Any]:
    return {"name": "m", "predecessors": list(peers)}


def test_those_who_download_from_the_control_machine_get_its_address() -> None:
    asked = job(BOARD, CONTROL)
    assert with_control_address(asked, "127.0.0.1") == job(
        BOARD, {**CONTROL, "address": "127.0.0.1"}
    )
    assert asked == job(BOARD, CONTROL)


@pytest.mark.parametrize("host", ["no-such-host.invalid", ""])
def test_a_host_without_a_way_has_the_other_predecessors(host: str) -> None:
    assert with_control_address(job(BOARD, CONTROL), host) == job(BOARD)


def test_a_job_without_the_control_machine() -> None:
    assert with_control_address(job(BOARD), "no-such-host.invalid") == job(BOARD)
    assert with_control_address({"name": "m"}, "127.0.0.1") == job()


def test_own_address_on_the_loopback() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert own_address("localhost") in ("127.0.0.1", "::1")


def test_own_address_by_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert own_address("::1") == "::1"


@pytest.mark.parametrize("peer", ["no-such-host.invalid", ""])
def test_no_own_address_where_a_name_does_not_resolve(peer: str) -> None:
    assert own_address(peer) is None


def test_names_are_resolved() -> None:
    assert resolve("localhost") in ("127.0.0.1", "::1")
    assert resolve("no-such-host.invalid") is None
    assert resolve("a" * 70 + ".invalid") is None
