"""A neighbour of a simulated board: a machine on its network, with routes to its containers."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sandbox.docker import docker
from sandbox.instance import LABEL, Instance
from tests.playing import ENVIRONMENT
from tests.waiting import until

Target = tuple[str, int]

CONTROL = "neighbour-control"
"""A container and its network on the board, which are nobody's but these tests'."""
_CONTROL_PORT = 8080
_PORTS = (8000, _CONTROL_PORT, 11434, 11435)
_SECONDS = 60
# Without a loopback address of its own, the neighbour sends what is for 127.0.0.1 to the board.
_PROBE = """
import json, socket, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
board, (networks, targets) = sys.argv[1], json.loads(sys.argv[2])
subprocess.run(["ip", "address", "flush", "dev", "lo"], check=True)
for network in networks:
    subprocess.run(["ip", "route", "add", network, "via", board], check=True)
def reaches(target):
    try:
        socket.create_connection(target, timeout=3).close()
    except OSError:
        return False
    return True
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps([*pool.map(reaches, map(tuple, targets))]))
"""


def check_neighbour(host: Any, name: str, containers: Iterable[str]) -> None:
    """Assert that a neighbour reaches port 8000 of the board `name`, and no container of ours.

    The control is a container of somebody else on a Docker network, which publishes nothing: the
    boards have Docker 26.1, which leaves that open to whoever has a route.
    """
    for container in containers:
        addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        assert host.check_output(f"docker inspect --format '{addresses}' {container}") == ""
    with _forwarding(host), _control(host, containers) as control:
        own = _addresses(host)
        targets = [(address, port) for address in own for port in _PORTS] + [control]
        found = _reached(name, [*_networks(host), "127.0.0.1/32"], targets)
    assert control in found, f"{CONTROL} is not reached, so this would see no open engine either"
    open_ports = {(each, 8000) for each in own if not ipaddress.ip_address(each).is_loopback}
    assert found == open_ports | {control}


def _addresses(host: Any) -> list[str]:
    """All IPv4 addresses of the board, those on Docker's bridges and 127.0.0.1 among them."""
    links = json.loads(host.check_output("ip -json -4 address show"))
    return [each["local"] for link in links for each in link["addr_info"]]


def _networks(host: Any) -> list[str]:
    subnets = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    command = f"docker network inspect --format '{subnets}' $(docker network ls --quiet)"
    return [each for each in host.check_output(command).split() if ":" not in each]


def run_as_neighbour(name: str, script: str, *arguments: str, options: Iterable[str] = ()) -> str:
    """What a script in Python prints on a new machine on the board's network.

    Its first argument is the board's address; `options` are of `docker run`.
    """
    instance = Instance(ENVIRONMENT["SANDBOX"])
    found = docker("container", "inspect", instance.container(name))
    (board,) = json.loads(found)
    address = board["NetworkSettings"]["Networks"][instance.network]["IPAddress"]
    return docker(
        *("run", "--rm", "--network", instance.network, "--label", f"{LABEL}={instance.name}"),
        *(*options, "--entrypoint", "python3", board["Config"]["Image"]),
        *("-c", script, address, *arguments),
    )


def _reached(name: str, networks: list[str], targets: list[Target]) -> set[Target]:
    """The targets that a new machine on the board's network reaches by way of the board."""
    told = run_as_neighbour(
        *(name, _PROBE, json.dumps([networks, targets])),
        options=("--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.conf.all.route_localnet=1"),
    )
    return {target for target, open_ in zip(targets, json.loads(told), strict=True) if open_}


@contextmanager
def _forwarding(host: Any) -> Iterator[None]:
    """Have the policy that protects least, ACCEPT, for forwarded packets."""
    before = host.check_output("iptables --wait -S FORWARD").split()[2]
    host.check_output("iptables --wait -P FORWARD ACCEPT")
    try:
        yield
    finally:
        host.check_output(f"iptables --wait -P FORWARD {before}")


@contextmanager
def _control(host: Any, containers: Iterable[str]) -> Iterator[Target]:
    """A container with an open port on a network of its own; it is removed."""
    api = next(each for each in containers if each.startswith("edge-llm-api-"))
    image = host.check_output(f"docker inspect --format '{{{{.Config.Image}}}}' {api}")
    _remove(host)
    try:
        host.check_output(f"docker network create {CONTROL}")
        host.check_output(
            f"docker run --detach --name {CONTROL} --network {CONTROL} --user 65534:65534"
            f" --entrypoint python {image} -m http.server {_CONTROL_PORT} --directory /tmp"
        )
        address = host.check_output(
            "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'"
            f" {CONTROL}"
        )
        until(
            lambda: host.run(f"curl -s -o /dev/null http://{address}:{_CONTROL_PORT}/").rc,
            f"{CONTROL} answers the board",
            lambda code: code == 0,
            seconds=_SECONDS,
        )
        yield address, _CONTROL_PORT
    finally:
        _remove(host)


def _remove(host: Any) -> None:
    # They are not there, or those of an interrupted run.
    host.run(f"docker rm --force {CONTROL}")
    host.run(f"docker network rm {CONTROL}")
