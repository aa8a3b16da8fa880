"""Checks of the network: what listens, what Docker publishes, what the engine reaches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.edge_fleet.audit.hosts import ENGINE, NEWEST, Criticised, container, only

DOOR = container(
    "door",
    10010,
    published=[{"address": "0.0.0.0", "port": 8000}, {"address": "127.0.0.1", "port": 11434}],
)
FIREWALL = (
    f"{NEWEST} Until then, restrict who reaches the ports by rules in the chain DOCKER-USER:"
    " Docker bypasses ufw and firewalld."
)
SHOWN = "edge-llm-door publishes 0.0.0.0:8000; edge-llm-door publishes 127.0.0.1:11434."


@pytest.mark.parametrize(
    ("version", "status", "more"),
    [
        (
            "26.1.5",
            "failed",
            " With Docker 26.1.5, a neighbour that adds a route to the containers' network reaches"
            " 127.0.0.1:11434, too.",
        ),
        (
            None,
            "failed",
            " With Docker before 28, a neighbour that adds a route to the containers' network"
            " reaches 127.0.0.1:11434, too.",
        ),
        ("28.5.2", "note", ""),
    ],
)
def test_published_ports(
    facts: dict[str, Any], criticised: Criticised, version: str | None, status: str, more: str
) -> None:
    facts["containers"].append(DOOR)
    facts["docker"]["version"] = version
    expected = (status, "Docker publishes no port of the project", SHOWN + more, FIREWALL)
    assert only(criticised(facts)) == expected


def test_published_ports_of_clients_alone(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"].append({**DOOR, "published": [{"address": "::", "port": 8000}]})
    status, _, found, _ = only(criticised(facts))
    assert (status, found) == ("note", "edge-llm-door publishes [::]:8000.")


@pytest.mark.parametrize(
    ("engine", "networks", "shown"),
    [
        (
            {"network_mode": "edge-llm_default", "networks": ["edge-llm_default"]},
            {"edge-llm_default": {"driver": "bridge", "internal": False}},
            "edge-llm_default",
        ),
        ({"network_mode": "unknown", "networks": ["unknown"]}, {}, "unknown"),
        ({"network_mode": "container:of-others", "networks": []}, {}, "host"),
    ],
)
def test_the_network_of_an_engine(
    facts: dict[str, Any],
    criticised: Criticised,
    engine: dict[str, Any],
    networks: dict[str, Any],
    shown: str,
) -> None:
    facts["containers"][1] |= engine
    facts["networks"] = networks
    assert only(criticised(facts)) == (
        "failed",
        "The engine reaches no other machine",
        f"{ENGINE} is on the network {shown}, which leads to others. An engine that was taken over"
        " reaches the LAN and the internet.",
        f"{NEWEST} Until then, drop new connections from that network in DOCKER-USER.",
    )


def test_an_internal_network_leads_nowhere(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["containers"][1] |= {"network_mode": "inner", "networks": ["inner"]}
    facts["networks"] = {"inner": {"driver": "bridge", "internal": True}}
    assert criticised(facts) == []


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("0.0.0.0", "every network of the host"),
        ("::", "every network of the host"),
        ("192.0.2.11", "the network of 192.0.2.11"),
    ],
)
def test_who_reaches_a_port(
    facts: dict[str, Any], criticised: Criticised, address: str, reached: str
) -> None:
    facts["listeners"].append({"port": 11434, "address": address, "process": None})
    assert only(criticised(facts)) == (
        "failed",
        "The engine's port is open to the host itself only",
        f"{address}:11434 (unknown) is open to {reached}.",
        "Stop the program (ss -ltnp names it), and run site.yml.",
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_port_of_the_host_itself(
    facts: dict[str, Any], criticised: Criticised, address: str
) -> None:
    facts["listeners"].append({"port": 11434, "address": address, "process": None})
    assert criticised(facts) == []


def test_a_chat_api_without_tls(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["tls"] = False
    assert only(criticised(facts)) == (
        "note",
        "The chat API is encrypted beyond the host",
        "Port 8000 is open to every network of the host, without TLS: who is on the way reads keys"
        " and chats.",
        "Set llm_tls: true (docs/operating.md), or use a network that you trust.",
    )
    facts["listeners"][0]["address"] = "127.0.0.1"
    assert criticised(facts) == []


def test_ports_that_docker_publishes_without_a_listener(
    facts: dict[str, Any], criticised: Criticised
) -> None:
    """As with "userland-proxy": false."""
    facts["tls"], facts["listeners"] = False, []
    ports = [{"address": "0.0.0.0", "port": port} for port in (8000, 11434)]
    facts["containers"].append({**DOOR, "published": ports})
    found = {check: text for _, check, text, _ in criticised(facts)}
    assert found["The engine's port is open to the host itself only"] == (
        "0.0.0.0:11434 (edge-llm-door) is open to every network of the host."
    )
    assert found["The chat API is encrypted beyond the host"].startswith("Port 8000 is open to")


def test_other_programs(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["listeners"] += [
        {"port": 22, "address": "0.0.0.0", "process": "sshd"},
        {"port": 22, "address": "::", "process": "sshd"},
        {"port": 631, "address": "::", "process": None},
    ]
    assert only(criticised(facts)) == (
        "note",
        "Other programs are open to the host itself only",
        "Open to other machines: an unknown program on port 631; sshd on port 22.",
        "Stop what is not needed; restrict the rest by a firewall.",
    )
