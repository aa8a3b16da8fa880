"""The count of connections, and the clock of their limits."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
from dataclasses import dataclass, field

import pytest

from llm_provider.server import connection_guard
from llm_provider.server.connection_guard import Admission, ConnectionGuard, Rest, address_group
from llm_provider.server.limits import Limits


@dataclass(eq=False)
class Fake:
    """A connection."""

    deadline: float = math.inf
    rest: Rest | None = None
    ended: list[str] = field(default_factory=list)

    def expire(self) -> None:
        self.ended.append("expired")
        self.deadline = math.inf

    def evict(self) -> None:
        self.ended.append("evicted")


def guard_of(**limits: object) -> ConnectionGuard:
    return ConnectionGuard(Limits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
    ],
)
def test_addresses_that_count_as_one(address: str, group: str) -> None:
    assert address_group(address) == group


async def test_connections_of_one_address_are_limited() -> None:
    guard = guard_of(max_connections_per_address=2)
    first = Fake()
    assert guard.admit(first, "192.0.2.1") is Admission.ADMITTED
    assert guard.admit(Fake(), "::ffff:192.0.2.1") is Admission.ADMITTED
    assert guard.admit(Fake(), "192.0.2.1") is Admission.TOO_MANY_OF_ADDRESS
    assert guard.admit(Fake(), "192.0.2.2") is Admission.ADMITTED
    assert (len(guard), guard.refused) == (3, 1)
    guard.leave(first)
    guard.leave(first)
    assert guard.admit(Fake(), "192.0.2.1") is Admission.ADMITTED
    assert guard.admit(Fake(), "192.0.2.1") is Admission.TOO_MANY_OF_ADDRESS


async def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    guard = guard_of(max_connections_per_address=2)
    admissions = [guard.admit(Fake(), f"2001:db8::{number}") for number in range(3)]
    assert admissions[2] is Admission.TOO_MANY_OF_ADDRESS
    assert guard.admit(Fake(), "2001:db8:0:1::1") is Admission.ADMITTED


async def test_connections_are_limited_in_total() -> None:
    guard = guard_of(max_connections=3, max_connections_per_address=2)
    connections = [Fake() for _ in range(3)]
    for number, connection in enumerate(connections):
        assert guard.admit(connection, f"192.0.2.{number}") is Admission.ADMITTED
    assert guard.admit(Fake(), "192.0.2.9") is Admission.TOO_MANY
    guard.leave(connections[0])
    assert guard.admit(Fake(), "192.0.2.9") is Admission.ADMITTED


async def test_trusted_proxies_have_no_limit_of_their_own() -> None:
    trusted = tuple(map(ipaddress.ip_network, ("192.0.2.0/28", "2001:db8::5")))
    guard = guard_of(max_connections=8, max_connections_per_address=1, trusted_proxies=trusted)
    for address in ("192.0.2.3", "::ffff:192.0.2.3", "192.0.2.3", "2001:db8::5", "2001:db8::5"):
        assert guard.admit(Fake(), address) is Admission.ADMITTED
    assert guard.admit(Fake(), "2001:db8::6") is Admission.TOO_MANY_OF_ADDRESS
    assert guard.admit(Fake(), "192.0.2.16") is Admission.ADMITTED
    assert guard.admit(Fake(), "192.0.2.16") is Admission.TOO_MANY_OF_ADDRESS
    guard.admit(Fake(), "192.0.2.3")
    guard.admit(Fake(), "192.0.2.3")
    assert guard.admit(Fake(), "192.0.2.3") is Admission.TOO_MANY


async def test_a_gateway_has_half_of_all_connections() -> None:
    """It may stand for many clients; whoever they are, the others have the other half."""
    gateway = ipaddress.ip_address("172.18.0.1")
    limits = Limits(max_connections=10, max_connections_per_address=2)
    guard = ConnectionGuard(limits, {gateway})
    for _ in range(5):
        assert guard.admit(Fake(), "172.18.0.1") is Admission.ADMITTED
    assert guard.admit(Fake(), "172.18.0.1") is Admission.TOO_MANY_OF_ADDRESS
    for number in range(5):
        assert guard.admit(Fake(), f"192.0.2.{number}") is Admission.ADMITTED
    assert guard.admit(Fake(), "192.0.2.9") is Admission.TOO_MANY


async def test_a_gateway_has_no_less_than_any_address() -> None:
    limits = Limits(max_connections=3, max_connections_per_address=3)
    guard = ConnectionGuard(limits, {ipaddress.ip_address("172.18.0.1")})
    for _ in range(3):
        assert guard.admit(Fake(), "172.18.0.1") is Admission.ADMITTED


async def test_connections_over_the_network() -> None:
    guard = guard_of()
    remote = Fake()
    guard.admit(Fake(), None)
    guard.admit(remote, "192.0.2.1")
    assert guard.over_network() == [remote]


async def test_a_dropped_connection_is_watched_no_more(caplog: pytest.LogCaptureFixture) -> None:
    guard = guard_of(max_connections_per_address=1)
    first = Fake()
    guard.admit(first, "192.0.2.1")
    guard.drop(first, "TLS handshake: too slow", "192.0.2.1")
    assert (len(guard), guard._lingering, guard.refused) == (0, set(), 1)
    assert caplog.records[0].__dict__["reason"] == "TLS handshake: too slow"
    assert guard.admit(Fake(), "192.0.2.1") is Admission.ADMITTED


async def test_a_unix_socket_has_no_limit_and_takes_no_place() -> None:
    guard = guard_of(max_connections=1, max_connections_per_address=1)
    for _ in range(3):
        assert guard.admit(Fake(), None) is Admission.ADMITTED
    assert guard.admit(Fake(), "192.0.2.1") is Admission.ADMITTED
    assert guard.admit(Fake(), None) is Admission.ADMITTED
    assert len(guard) == 5


async def test_an_idle_connection_makes_room() -> None:
    """First one that never sent anything, and of those the one that is nearest to its end."""
    guard = guard_of(max_connections=5, max_connections_per_address=5)
    silent, older = Fake(20, Rest.SILENT), Fake(10, Rest.SILENT)
    busy, late, kept = Fake(), Fake(1, Rest.INCOMPLETE), Fake(5, Rest.IDLE)
    for number, connection in enumerate((busy, late, kept, silent, older)):
        guard.admit(connection, f"192.0.2.{number}")
    for expected in (older, silent, kept, late):
        assert guard.admit(Fake(), "192.0.2.9") is Admission.ADMITTED
        assert expected.ended == ["evicted"]
    assert (busy.ended, len(guard), guard.evicted) == ([], 5, 4)
    assert guard.admit(Fake(), "192.0.2.10") is Admission.TOO_MANY


async def test_an_address_makes_room_for_itself_only() -> None:
    guard = guard_of(max_connections=9, max_connections_per_address=2)
    other, own = Fake(1, Rest.SILENT), Fake(99, Rest.IDLE)
    guard.admit(other, "192.0.2.1")
    guard.admit(own, "192.0.2.2")
    guard.admit(Fake(), "192.0.2.2")
    assert guard.admit(Fake(), "192.0.2.2") is Admission.ADMITTED
    assert (own.ended, other.ended) == (["evicted"], [])


async def test_refused_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_guard, "MOST_REFUSED", 2)
    guard = guard_of(max_connections=1, max_connections_per_address=1)
    guard.admit(Fake(), "192.0.2.1")
    refused = [Fake(), Fake()]
    for each in refused:
        assert guard.admit(each, "192.0.2.2") is Admission.TOO_MANY
    assert guard.admit(Fake(), "192.0.2.2") is Admission.DROPPED
    guard.leave(refused[0])
    assert guard.admit(Fake(), "192.0.2.2") is Admission.TOO_MANY
    assert guard.refused == 4


async def test_a_refusal_frees_the_place() -> None:
    guard = guard_of(max_connections=1, max_connections_per_address=1)
    first = Fake()
    guard.admit(first, "192.0.2.1")
    assert guard.refuse(first, "header_too_large", "192.0.2.1")
    assert guard.admit(Fake(), "192.0.2.1") is Admission.ADMITTED


async def test_an_attack_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    guard = guard_of(max_connections=1, max_connections_per_address=1)
    for _ in range(50):
        guard.admit(Fake(), "192.0.2.1")
    lines = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert [each.message for each in lines] == ["connections are refused"]
    assert lines[0].__dict__["client"] == "192.0.2.1"
    assert lines[0].__dict__["reason"] == "too many connections from one address"


async def test_connections_whose_time_is_over_are_ended() -> None:
    guard = guard_of(header_seconds=0.2)
    now = asyncio.get_running_loop().time()
    late, later, served, refused = Fake(now + 0.1), Fake(now + 0.35), Fake(), Fake(now + 0.1)
    for connection in (late, later, served, refused):
        guard.admit(connection, "192.0.2.1")
    guard.refuse(refused, "pipelined", None)
    await asyncio.sleep(0.22)
    assert [each.ended for each in (late, later, served, refused)] == [
        ["expired"], [], [], ["expired"],
    ]  # fmt: skip
    await asyncio.sleep(0.25)
    assert later.ended == ["expired"]
    for connection in (late, later, served, refused):
        guard.leave(connection)
    await asyncio.sleep(0.1)
    assert guard._timer is None, "without connections nothing runs"
    again = Fake(0.0)
    guard.admit(again, "192.0.2.1")
    await asyncio.sleep(0.1)
    assert again.ended == ["expired"]


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("192.0.3.7", False),
        ("::ffff:192.0.3.7", False),
        ("2001:db8:1::9", True),
        ("2001:db9::9", False),
        # The host itself, always.
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("no address", False),
        # A Unix socket.
        (None, True),
    ],
)
async def test_connections_from_elsewhere(address: str | None, admitted: bool) -> None:
    networks = tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "2001:db8::/32")))
    guard = guard_of(allowed_networks=networks)
    expected = Admission.ADMITTED if admitted else Admission.NOT_ALLOWED
    assert guard.admit(Fake(), address) is expected
    assert (len(guard), guard.not_allowed, guard.refused) == (admitted, not admitted, 0)
    # Without networks, everybody is served.
    assert guard_of().admit(Fake(), address) is Admission.ADMITTED


async def test_few_connections_from_elsewhere_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = guard_of(allowed_networks=(ipaddress.ip_network("192.0.2.0/24"),))
    for number in range(20):
        guard.admit(Fake(), f"198.51.100.{number}")
    (record,) = caplog.records
    assert record.message == "connections are refused"
    assert record.__dict__["reason"] == "address outside the allowed networks"
    assert record.__dict__["client"] == "198.51.100.0"
    assert record.__dict__["not_allowed"] == 1
    assert guard.not_allowed == 20
