"""Images cross the outside line once: a host of the fleet has them for the others."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.weights.conftest import on, shell
from tests.playing import alone_on, message, play

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


def test_the_registry_is_read_only_on_the_network(since: str) -> None:
    assert httpx.get(f"http://{ADDRESS}:5000/v2/", timeout=10).status_code == 200
    pushed = httpx.post(f"http://{ADDRESS}:5000/v2/mine/blobs/uploads/", timeout=10)
    assert pushed.status_code == 405
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{ADDRESS}:5001/v2/", timeout=10)
    for name in ("gives", "takes"):
        (found,) = json.loads(on(CACHE, "docker", "inspect", f"edge-llm-registry-{name}"))
        assert found["Config"]["User"] == "10013:10013"
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert found["HostConfig"]["CapDrop"] == ["ALL"]


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
