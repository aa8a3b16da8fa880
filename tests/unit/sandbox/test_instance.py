"""Names and addresses of the two instances, and who is asked for by name."""

from __future__ import annotations

import pytest

from sandbox.errors import SandboxError
from sandbox.instance import DEFAULT_HOSTS, HOSTS, Instance, hosts_named


def test_main_is_the_default() -> None:
    instance = Instance.from_environment({})
    assert instance.name == "main"
    assert instance.container("jetson-01") == "jetson-01"
    assert instance.registry == "198.18.40.2:5000"
    assert instance.hub_address == "198.18.40.3"
    assert instance.address(HOSTS["pi-01"].octet) == "198.18.40.12"


def test_the_tests_share_no_name_with_main() -> None:
    main, test = Instance("main"), Instance.from_environment({"SANDBOX": "test"})
    for name in HOSTS:
        assert main.container(name) != test.container(name)
        assert main.volume(name) != test.volume(name)
    assert main.service("hub") != test.service("hub")
    assert main.network != test.network
    assert main.subnet != test.subnet
    assert main.state != test.state


def test_another_instance_is_refused() -> None:
    with pytest.raises(SandboxError, match="SANDBOX is 'prod'; it would have to be main or test"):
        Instance.from_environment({"SANDBOX": "prod"})


def test_hosts_are_named_once_each_in_order() -> None:
    assert hosts_named(None) == list(DEFAULT_HOSTS)
    assert hosts_named("pi-01, jetson-01,pi-01") == ["pi-01", "jetson-01"]


@pytest.mark.parametrize(("asked", "seen"), [("pi-1", "pi-1"), ("", "no host"), (",", "no host")])
def test_an_unknown_host_is_refused_with_those_there_are(asked: str, seen: str) -> None:
    with pytest.raises(SandboxError, match=f"asked for {seen}.*jetson-01, pi-01, bare-01"):
        hosts_named(asked)


def test_no_two_hosts_share_an_address() -> None:
    octets = [host.octet for host in HOSTS.values()]
    assert len(set(octets)) == len(octets)
    assert not {2, 3} & set(octets)
