"""What a neighbour reaches of a board, whatever Docker's version and rules are.

The neighbour has routes to Docker's networks, and to 127.0.0.1 and ::1, by way of the board.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.network import lan
from tests.integration.network.firewalls import RULES, Firewall, all_firewalls
from tests.integration.network.lan import Lan, Namespace, Target
from tests.waiting import until

FIREWALLS = pytest.mark.parametrize("firewall", all_firewalls(), ids=str)
FAMILIES = (4, 6)

# In the layout of earlier versions: the engine itself (8080), its port 11434 at the socket holder's
# address, and that port, published at 127.0.0.1 alone, by a route to 127.0.0.1.
DIRECT = {family: (lan.ENGINE[family], 8080) for family in FAMILIES}
HELD = {family: (lan.HOLDER[family], 11434) for family in FAMILIES}
LOOPBACK = {family: (lan.LOOPBACK[family], 11434) for family in FAMILIES}
BOARD = {(lan.BOARD[family], 22): "board" for family in FAMILIES}
EARLIER_TARGETS = [
    *(places[family] for places in (DIRECT, HELD, LOOPBACK) for family in FAMILIES),
    *BOARD,
]
PUBLISHED = {HELD[4]: "holder", LOOPBACK[4]: "holder"}
OPEN = PUBLISHED | {DIRECT[4]: "engine", DIRECT[6]: "engine", HELD[6]: "holder"}
REACHED_EARLIER = {
    ("docker-20.10", "ACCEPT"): OPEN,
    ("docker-20.10", "DROP"): PUBLISHED,
    ("docker-26.1", "ACCEPT"): OPEN,
    ("docker-26.1", "DROP"): PUBLISHED,
    ("docker-26.1-ip6tables", "ACCEPT"): OPEN,
    ("docker-26.1-ip6tables", "DROP"): PUBLISHED,
    ("docker-28.5", "ACCEPT"): {},
    ("docker-28.5", "DROP"): {},
    ("docker-28.5-no-raw", "ACCEPT"): PUBLISHED,
    ("docker-28.5-no-raw", "DROP"): PUBLISHED,
    ("docker-29", "ACCEPT"): {},
    ("docker-29", "DROP"): {},
    ("docker-29-nftables", "ACCEPT"): {},
    ("docker-29-nftables", "DROP"): {},
}
"""Positive control: by rule set and policy, what the neighbour reaches with the earlier layout."""

# In this version's layout.
ADDRESSES = [
    *(lan.DOCKER0, *lan.BOARD.values(), *lan.OURS.values(), *lan.OTHERS.values()),
    *lan.LOOPBACK.values(),
    # Where the containers of earlier versions were.
    *(*lan.ENGINE.values(), *lan.HOLDER.values()),
]
OTHER: list[Target] = [(lan.OTHER[family], 8080) for family in FAMILIES]
TARGETS = [(host, port) for host in ADDRESSES for port in (8000, 8080, 11434, 11435)] + OTHER
API = {
    (host, 8000): "api"
    for host in (lan.DOCKER0, *lan.BOARD.values(), *lan.OURS.values(), *lan.OTHERS.values())
}


@pytest.fixture(scope="module")
def earlier() -> Iterator[Lan]:
    with lan.earlier() as made:
        yield made


@pytest.fixture(scope="module")
def current() -> Iterator[Lan]:
    with lan.current() as made:
        yield made


def reached(
    namespace: Namespace, targets: list[Target], expected: dict[Target, str]
) -> dict[Target, str]:
    """Whom the namespace reaches, once it reaches all that are expected: a busy machine is slow."""
    return until(
        lambda: namespace.probe(targets),
        f"answers of {expected}",
        lambda found: expected.items() <= found.items(),
        seconds=lan.SECONDS,
    )


def test_every_rule_set_is_real_and_has_its_expectation() -> None:
    folders = {path.name for path in RULES.iterdir()}
    assert {folder for folder, _ in REACHED_EARLIER} == folders
    for path in RULES.glob("*/*"):
        version = path.parent.name.split("-")[1]
        assert path.read_text().startswith(f"# Docker {version}."), path


@FIREWALLS
def test_what_the_neighbour_reached_in_the_earlier_layout(earlier: Lan, firewall: Firewall) -> None:
    """The positive control: neighbour and probe are able to reach an engine."""
    firewall.load(earlier.board, "earlier")
    expected = BOARD | REACHED_EARLIER[firewall.folder, firewall.policy]
    assert reached(earlier.neighbour, EARLIER_TARGETS, expected) == expected


@FIREWALLS
def test_the_neighbour_reaches_port_8000_and_nothing_else(current: Lan, firewall: Firewall) -> None:
    firewall.load(current.board, "current")
    # The rules are the ones that are meant: an unpublished port of somebody else's container is
    # as open as the engine's own was.
    was_open = REACHED_EARLIER[firewall.folder, firewall.policy]
    others = {OTHER[0]: "other"} if DIRECT[4] in was_open else {}
    others |= {OTHER[1]: "other"} if DIRECT[6] in was_open else {}
    expected = API | others
    assert reached(current.neighbour, TARGETS, expected) == expected


def test_engines_reach_themselves_and_nothing_else(current: Lan) -> None:
    pod = current.containers["pod"]
    neighbour = ("neighbour", lan.ANY[4], 8000), ("neighbour", lan.ANY[6], 8000)
    current.neighbour.serve(*neighbour)
    targets = [*TARGETS, *((host, 8000) for host in lan.NEIGHBOUR.values())]
    # Rules are in the way of none of them: the board reaches them all.
    expected = API | dict.fromkeys(OTHER, "other") | {(lan.LOOPBACK[4], 11434): "engine port"}
    expected |= {(host, 8000): "neighbour" for host in lan.NEIGHBOUR.values()}
    found = reached(current.board, targets, expected)
    assert expected.items() <= found.items()
    own = {(lan.LOOPBACK[4], port): f"engine {port}" for port in (11434, 11435)}
    assert reached(pod, targets, own) == own


def test_with_localnet_routed_the_engines_port_sees_who_connects(current: Lan) -> None:
    """Where route_localnet is on for all interfaces, a neighbour can connect to 127.0.0.1.

    Docker sets it for its bridges alone, kube-proxy for all. The chat API then sees the neighbour's
    address, and serves nobody from beyond the host there (`engine_port.port_limits`).
    """
    Firewall("docker-26.1", "nft", "ACCEPT").load(current.board, "current")
    current.board.serve(("peer", lan.LOOPBACK[4], 11435))
    target = (lan.LOOPBACK[4], 11435)
    targets = [*API, target]
    assert reached(current.neighbour, targets, API) == API
    current.board.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    try:
        opened = {target: lan.NEIGHBOUR[4]}
        assert reached(current.neighbour, [target], opened) == opened
    finally:
        current.board.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=0")
