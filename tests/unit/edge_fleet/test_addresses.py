"""The control machine's address for hosts that download from it."""

from __future__ import annotations

import socket

import pytest

from edge_fleet.addresses import own_address, with_control_peer


def test_the_control_machine_is_a_peer_of_those_who_download_from_it() -> None:
    job = {"name": "m", "peers": ["192.0.2.1:6881"], "control_port": 6882}
    assert with_control_peer(job, "127.0.0.1") == {
        "name": "m",
        "peers": ["192.0.2.1:6881", "127.0.0.1:6882"],
    }
    assert job["peers"] == ["192.0.2.1:6881"]


@pytest.mark.parametrize("host", ["no-such-host.invalid", ""])
def test_a_host_without_a_way_has_the_other_peers(host: str) -> None:
    job = {"peers": ["192.0.2.1:6881"], "control_port": 6882}
    assert with_control_peer(job, host) == {"peers": ["192.0.2.1:6881"]}


def test_a_job_without_the_control_machine() -> None:
    assert with_control_peer({"name": "m"}, "127.0.0.1") == {"name": "m"}


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
