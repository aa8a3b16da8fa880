"""The gateway that Docker's proxies connect from."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

import pytest

from llm_provider.server import process
from llm_provider.server.connection_guard import Admission
from llm_provider.server.gateway import gateways
from llm_provider.server.settings import ServerSettings

from .test_connection_guard import Fake

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def number(address: str) -> str:
    return f"{int.from_bytes(ipaddress.IPv4Address(address).packed, sys.byteorder):08X}"


def route(to: str, by: str, mask: str) -> str:
    return f"eth0\t{number(to)}\t{number(by)}\t0003\t0\t0\t0\t{number(mask)}\t0\t0\t0\n"


def test_default_routes(tmp_path: Path) -> None:
    routes, routes_6 = tmp_path / "route", tmp_path / "ipv6_route"
    routes.write_text(
        HEAD
        + route("0.0.0.0", "172.18.0.1", "0.0.0.0")
        + route("0.0.0.0", "10.9.9.9", "128.0.0.0")
        + route("172.18.0.0", "0.0.0.0", "255.255.0.0")
        + route("0.0.0.0", "0.0.0.0", "0.0.0.0")
        + "\n"
    )
    nobody = "0" * 32
    gateway = ipaddress.IPv6Address("fd00::1").packed.hex()
    end = "00000400 00000003 00000000 00450003 eth0\n"
    routes_6.write_text(
        f"{nobody} 00 {nobody} 00 {gateway} {end}"
        f"fd000000000000000000000000000000 40 {nobody} 00 {nobody} {end}"
        f"{nobody} 00 {nobody} 00 {nobody} 00200200 lo\n"
    )
    found = {ipaddress.ip_address("172.18.0.1"), ipaddress.ip_address("fd00::1")}
    assert gateways(routes, routes_6) == found


async def test_the_gateway_counts_where_the_socket_holder_has_the_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "gateways", lambda: {ipaddress.ip_address("172.18.0.1")})
    environ = {
        "CHAT_API_KEYS_FILE": "/keys",
        "CHAT_API_MAX_CONNECTIONS": "4",
        "CHAT_API_MAX_CONNECTIONS_PER_ADDRESS": "1",
    }
    for more, most in (({}, 1), ({"CHAT_API_DOOR": "/door.sock"}, 2)):
        guard = process.connection_guard(ServerSettings.from_environ({**environ, **more}))
        admitted = [guard.admit(Fake(), "172.18.0.1") for _ in range(3)]
        assert admitted.count(Admission.ADMITTED) == most


def test_without_routes(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert gateways(absent, absent) == frozenset()
    routes = tmp_path / "route"
    routes.write_text(HEAD)
    assert gateways(routes, absent) == frozenset()
