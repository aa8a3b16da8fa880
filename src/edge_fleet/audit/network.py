"""Checks of the network: what listens, what Docker publishes, what the engine can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from edge_fleet.audit.finding import RUN_AGAIN, Check, Facts, Finding, failed, listed, note, passed
from edge_fleet.text import parse_version
from edge_host.constants import API_PORT, ENGINE_PORT, REGISTRY_PORT

PUBLISHED = Check("Docker publishes no port of the project", "5.14")
ENGINE_NETWORK = Check("The engine reaches no other machine")
ENGINE_LISTENS = Check("The engine's port is open to the host itself only")
ENCRYPTED = Check("The chat API is encrypted beyond the host")
OTHERS = Check("Other programs are open to the host itself only")
_OPEN_PORTS = {API_PORT, REGISTRY_PORT}
"""Ports that are for other machines."""
_FIRST_SAFE = (28,)
"""Docker drops packets from other machines to ports that are published on 127.0.0.1 from here on.
"""
_PORTS = {API_PORT, ENGINE_PORT, REGISTRY_PORT}


def check_network(facts: Facts) -> list[Finding]:
    """Checks of ports and networks."""
    return [
        _published(facts),
        _engine(facts),
        _engine_port(facts),
        _encrypted(facts),
        _others(facts),
    ]


def is_loopback(address: str) -> bool:
    """Whether only the host itself reaches an address."""
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def who_reaches(address: str) -> str:
    """Who reaches a socket on an address of the host, as a message has it."""
    parsed = ipaddress.ip_address(address)
    if is_loopback(address):
        return "the host itself"
    return "every network of the host" if parsed.is_unspecified else f"the network of {address}"


def _published(facts: Facts) -> Finding:
    running = [each for each in facts["containers"] if each["running"]]
    ports = [(each["name"], port) for each in running for port in each["published"]]
    if not ports:
        return passed(PUBLISHED)
    shown = [f"{name} publishes {_socket(port)}" for name, port in ports]
    inner = [_socket(port) for _, port in ports if port["port"] not in _OPEN_PORTS]
    advice = (
        f"{RUN_AGAIN} Until then, restrict who reaches the ports by rules in the chain"
        " DOCKER-USER: Docker bypasses ufw and firewalld."
    )
    version = facts["docker"]["version"]
    if inner and (not version or parse_version(version) < _FIRST_SAFE):
        reason = (
            f" With Docker {version or 'before 28'}, a neighbour that adds a route to the"
            f" containers' network reaches {', '.join(inner)}, too."
        )
        return failed(PUBLISHED, listed(shown) + reason, advice)
    return note(PUBLISHED, listed(shown), advice)


def _socket(port: Mapping[str, Any]) -> str:
    address = str(port["address"])
    return f"[{address}]:{port['port']}" if ":" in address else f"{address}:{port['port']}"


def _engine(facts: Facts) -> Finding:
    """Whether the engine's network leads anywhere."""
    by_id = {each[key]: each for each in facts["containers"] for key in ("id", "name")}
    found = []
    for each in facts["containers"]:
        if not each["running"] or not str(each["service"]).startswith("engine"):
            continue
        owner = each
        if str(each["network_mode"]).startswith("container:"):
            # Of the container whose network it has; one that is not the project's has any.
            owner = by_id.get(each["network_mode"].partition(":")[2], {"network_mode": "host"})
        if owner["network_mode"] == "none":
            continue
        names = owner.get("networks", [])
        routed = [name for name in names if not facts["networks"].get(name, {}).get("internal")]
        if routed or not names:
            shown = ", ".join(routed) or str(owner["network_mode"])
            found.append(f"{each['name']} is on the network {shown}, which leads to others")
    if not found:
        return passed(ENGINE_NETWORK)
    return failed(
        ENGINE_NETWORK,
        f"{listed(found)} An engine that was taken over reaches the LAN and the internet.",
        f"{RUN_AGAIN} Until then, drop new connections from that network in DOCKER-USER.",
    )


def _addresses(facts: Facts, port: int) -> dict[str, str]:
    """The host's addresses on which a port is open, with the program or container behind it.

    Docker may publish a port by rules of the packet filter alone, with nobody listening.
    """
    published = {
        str(each["address"]): str(container["name"])
        for container in facts["containers"]
        if container["running"]
        for each in container["published"]
        if each["port"] == port
    }
    listening = {
        str(each["address"]): str(each["process"] or "unknown")
        for each in facts["listeners"]
        if each["port"] == port
    }
    return listening | published


def _engine_port(facts: Facts) -> Finding:
    found = [
        f"{address}:{ENGINE_PORT} ({owner}) is open to {who_reaches(address)}"
        for address, owner in sorted(_addresses(facts, ENGINE_PORT).items())
        if not is_loopback(address)
    ]
    if not found:
        return passed(ENGINE_LISTENS)
    return failed(
        ENGINE_LISTENS, listed(found), "Stop the program (ss -ltnp names it), and run site.yml."
    )


def _encrypted(facts: Facts) -> Finding:
    addresses = _addresses(facts, API_PORT)
    outside = sorted({who_reaches(each) for each in addresses if not is_loopback(each)})
    if facts["tls"] or not outside:
        return passed(ENCRYPTED)
    return note(
        ENCRYPTED,
        f"Port {API_PORT} is open to {' and '.join(outside)}, without TLS: who is on the way reads"
        " keys and chats.",
        "Set llm_tls: true (docs/operating.md), or use a network that you trust.",
    )


def _others(facts: Facts) -> Finding:
    found = sorted(
        {
            f"{each['process'] or 'an unknown program'} on port {each['port']}"
            for each in facts["listeners"]
            if each["port"] not in _PORTS and not is_loopback(each["address"])
        }
    )
    if not found:
        return passed(OTHERS)
    advice = "Stop what is not needed; restrict the rest by a firewall."
    return note(OTHERS, f"Open to other machines: {listed(found, 10)}", advice)
