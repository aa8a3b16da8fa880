"""Images cross the outside line once: a host of the fleet has them for the others."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.integration.weights.conftest import on, shell
from tests.playing import alone_on, message, play
from tests.waiting import until

CACHE, OTHER = "jetson-01", "pi-01"
ADDRESS = "198.18.41.11"
GIVEN = {"llm_images_cache": CACHE}
ALL = f"{CACHE},{OTHER}"
DOWN = "docker compose --project-name edge-llm-registry down; rm -rf /opt/edge-llm-registry"
PULLED = "docker image ls --digests --format '{{.Repository}}@{{.Digest}}'"


def remove_registry() -> None:
    """Remove the host's registry, its own image, and the images that hosts have pulled from it."""
    shell(CACHE, DOWN)
    shell(CACHE, f"{PULLED} | grep /edge-llm/registry@ | xargs -r docker image rm")
    for board in (CACHE, OTHER):
        shell(board, f"{PULLED} | grep ^{ADDRESS} | xargs -r docker image rm")


def outside(since: str) -> Counter[tuple[str, str]]:
    """(who, what) of the parts of images that the registry outside has given since a time."""
    words = ["docker", "logs", "--since", since, "edge-llm-test-registry"]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.findall(r'(?m)^(\S+) .*"GET /v2/(\S+/blobs/\S+) ', said.stdout + said.stderr)
    return Counter(found)


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """The tests of faults are over, or have not begun."""
    with alone_on(OTHER):
        yield


@pytest.fixture(scope="module")
def since() -> Iterator[str]:
    """The fleet has changed over to a host's registry, from this time on; and back at the end."""
    assert play("site.yml", ALL).returncode == 0
    remove_registry()
    begun = datetime.datetime.now(datetime.UTC).isoformat()
    done = play("site.yml", ALL, **GIVEN)
    assert done.returncode == 0, done.stdout
    yield begun
    done = play("site.yml", ALL)
    assert done.returncode == 0, done.stdout
    remove_registry()


def test_each_layer_is_downloaded_once_by_one_host(since: str) -> None:
    given = outside(since)
    assert given
    assert {who for who, _ in given} == {ADDRESS}
    assert set(given.values()) == {1}


def test_hosts_run_images_by_digest(since: str) -> None:
    for board in (CACHE, OTHER):
        image = shell(board, "grep ^ENGINE_IMAGE= /opt/edge-llm/.env").strip().partition("=")[2]
        assert re.fullmatch(
            rf"{ADDRESS}:5000/198.18.41.2-5000/edge-llm/\w+@sha256:[0-9a-f]{{64}}", image
        )
        engine = shell(board, "docker ps --filter name=edge-llm-engine --format '{{.ID}}'").strip()
        assert image in on(board, "docker", "inspect", engine)


def test_a_second_run_asks_no_registry(since: str) -> None:
    before = outside(since)
    done = play("site.yml", ALL, **GIVEN)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == 2
    assert "Copy what is not there" not in done.stdout
    assert outside(since) == before


def test_the_registry_has_no_network(since: str) -> None:
    for name, writable in {"reads": ["/run/edge-llm-registry"], "writes": None}.items():
        (found,) = json.loads(on(CACHE, "docker", "inspect", f"edge-llm-registry-{name}"))
        assert found["Config"]["User"] == "10013:10013"
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["HostConfig"]["NetworkMode"] == "none"
        assert found["HostConfig"]["PortBindings"] in (None, {})
        # Nobody distributes images now.
        assert found["State"]["Running"] is False
        if writable:
            assert [each["Destination"] for each in found["Mounts"] if each["RW"]] == writable


def answers(url: str = f"http://{ADDRESS}:5000/v2/") -> bool:
    """Whether this machine, which is none of the fleet's hosts, gets an answer."""
    try:
        return httpx.get(url, timeout=10).status_code > 0
    except httpx.TransportError:
        return False


def ask(board: str) -> str:
    """The status by which a board is answered at the registry's port; 000 without an answer."""
    command = "curl --silent --max-time 10 --output /dev/null --write-out '%{http_code}'"
    return shell(board, f"{command} http://{ADDRESS}:5000/v2/mine/manifests/x || true").strip()


def test_the_port_is_closed_after_the_run(since: str) -> None:
    for port in (5000, 5001):
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{ADDRESS}:{port}/v2/", timeout=10)
    units = "systemctl list-units --all --plain --no-legend 'edge-llm-registry*'"
    assert "failed" not in shell(CACHE, units)


@contextmanager
def opened(seconds: int = 600) -> Iterator[None]:
    """The port is open as in the run before, with another time limit."""
    limits = "/run/systemd/system/edge-llm-registry.service.d"
    names = "edge-llm-registry.socket edge-llm-registry.service"
    shell(
        CACHE,
        f"mkdir -p {limits}; printf '[Service]\\nRuntimeMaxSec={seconds}\\n' > {limits}/t.conf",
    )
    containers = "edge-llm-registry-reads edge-llm-registry-writes"
    shell(CACHE, f"docker start {containers}")
    socket = "/opt/edge-llm-registry/reads/registry.sock"
    try:
        until(
            lambda: shell(CACHE, f"curl -s --unix-socket {socket} http://r/v2/ || true").strip(),
            "the registry",
        )
        shell(CACHE, f"systemctl daemon-reload; systemctl start {names}")
        yield
    finally:
        shell(CACHE, f"rm -r {limits}; systemctl stop {names}; systemctl daemon-reload")
        shell(CACHE, f"systemctl reset-failed {names} || true; docker stop {containers}")


def test_the_open_port_is_the_fleet_s_and_read_only(since: str) -> None:
    with opened():
        # The positive control: a host of the fleet is answered, and finds no such image.
        assert ask(OTHER) == "404"
        assert ask(CACHE) == "404"
        uploads = f"http://{ADDRESS}:5000/v2/mine/blobs/uploads/"
        status = "curl -s -o /dev/null -w '%{http_code}' -X POST"
        assert shell(OTHER, f"{status} {uploads}").strip() == "405"
        assert not answers()
        journal = shell(CACHE, "journalctl --no-pager --unit edge-llm-registry.service")
        assert "was refused: it is no address of the fleet's hosts" in journal


def test_a_run_that_is_killed_leaves_no_open_port(since: str) -> None:
    with opened(seconds=3):
        until(
            lambda: shell(CACHE, "systemctl is-active edge-llm-registry.socket || true").strip(),
            "the time limit of the port",
            lambda state: state == "inactive",
            seconds=60,
        )
        assert ask(OTHER) == "000"


def test_only_root_can_write(since: str) -> None:
    with opened():
        sockets = {"writes": "private/writes", "reads": "reads"}
        for folder in sockets.values():
            command = (
                "curl -s -o /dev/null -w '%{http_code}' -X POST --unix-socket"
                f" /opt/edge-llm-registry/{folder}/registry.sock http://r/v2/mine/blobs/uploads/"
            )
            # Neither somebody on the host, nor the user of the program that passes the port on.
            for user in ("65534", "10010"):
                prefix = f"setpriv --reuid={user} --regid={user} --clear-groups"
                assert shell(CACHE, f"{prefix} {command} || true").strip() == "000"
            forward = "setpriv --reuid=10013 --regid=10013 --clear-groups"
            found = shell(CACHE, f"{forward} {command} || true").strip()
            assert found == ("405" if folder == "reads" else "000")
        # The positive control.
        assert shell(CACHE, command.replace("/reads/", "/private/writes/")).strip() == "202"


def test_the_units_are_confined(since: str) -> None:
    said = shell(CACHE, "systemd-analyze security --no-pager edge-llm-registry.service || true")
    (found,) = re.findall(r"Overall exposure level for edge-llm-registry.service: ([\d.]+)", said)
    assert float(found) <= 4.0


def test_a_published_registry_of_an_earlier_version_is_removed(since: str) -> None:
    """Also by a run in which no host lacks an image."""
    image = "$(docker ps --filter name=edge-llm-api --format '{{.Image}}' | head -n 1)"
    shell(
        CACHE,
        "docker rm --force edge-llm-registry-gives; docker run --detach"
        " --name edge-llm-registry-gives --publish 5000:5000 --entrypoint python"
        f" --label com.docker.compose.project=edge-llm-registry {image} -m http.server 5000",
    )
    until(lambda: listens(5000), "the former registry listens")
    done = play("site.yml", ALL, **GIVEN)
    assert done.returncode == 0, done.stdout
    assert "gives" not in shell(CACHE, "docker ps --all --format '{{.Names}}'")
    assert not listens(5000)


def listens(port: int) -> bool:
    """Whether a client of another host is answered."""
    try:
        httpx.get(f"http://{ADDRESS}:{port}/", timeout=10)
    except httpx.ConnectError:
        return False
    return True


def test_a_cache_that_is_not_in_the_inventory_is_refused() -> None:
    done = play("site.yml", OTHER, llm_images_cache="nas")
    assert done.returncode == 2
    assert (
        "pi-01: llm_images_cache is invalid: the inventory has no host 'nas'. Use the name of a"
        " host" in message(done)
    )


def test_a_check_run_reports_images_to_download() -> None:
    done = play("site.yml", ALL, "--check", llm_images_cache=OTHER)
    assert done.returncode == 0, done.stdout
    assert "Would copy 198.18.41.2:5000/edge-llm/llamacpp@sha256:" in message(done)
    assert not shell(OTHER, "ls -d /opt/edge-llm-registry", check=False).strip()


@pytest.fixture
def docker_configuration() -> Iterator[None]:
    """Docker's configuration on the cache host is as before: no release names another registry."""
    shell(CACHE, "cp -p /etc/docker/daemon.json /root/daemon.json")
    yield
    shell(CACHE, "mv /root/daemon.json /etc/docker/daemon.json && systemctl reload docker")


@pytest.mark.usefixtures("docker_configuration")
def test_a_cache_that_is_not_in_the_run_is_refused() -> None:
    done = play("site.yml", CACHE, llm_images_cache=OTHER)
    assert done.returncode == 2
    assert (
        f"{CACHE}: the images of the plan are missing on the host: they come from the registry on"
        f" {OTHER}, which is not open, since that host has failed or is not part of this run."
        in message(done)
    )
    # The docker role has run: what is left is the role that pulls them.
    done = play("site.yml", CACHE, "--tags", "stack", llm_images_cache=OTHER)
    assert done.returncode == 2
    assert (
        f"{CACHE}: the images of the plan are missing on the host, and this run leaves the role"
        f" registry out, which pulls them from {OTHER}." in message(done)
    )
