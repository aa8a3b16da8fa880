"""A board serves on after a reboot, a power cut, and a restart of dockerd, as closed as before."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.integration.load import board_named, loaded, wait_for_requests
from tests.playing import restart
from tests.system.boards.neighbour import check_neighbour
from tests.system.hosts.conftest import ROOT, trust
from tests.system.hosts.test_host import check
from tests.waiting import until

BOOT_SECONDS = 180


@pytest.mark.parametrize("verb", ["reboot", "power-cut"])
def test_the_host_serves_again(
    host: Any, plan: dict[str, Any], key: str, containers: dict[str, str], verb: str
) -> None:
    started = f"docker inspect -f '{{{{.State.StartedAt}}}}' {containers['engine']}"
    before = host.check_output(started)
    restart(verb, plan["host"])
    until(
        lambda: httpx.get(f"{plan['url']}/health", timeout=5, verify=trust(plan)).status_code,
        "the chat API's /health",
        lambda status: status == 200,
        seconds=BOOT_SECONDS,
        ignored=(httpx.TransportError,),
    )
    answer = plan["model"]["proof"]["answer"]
    done = check(
        plan,
        key,
        f"--provider={plan['provider']}",
        f"--model={plan['model']['name']}",
        f"--answer={answer}",
        "--timeout=90",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    after = host.check_output(started)
    assert before != after, "the engine was not restarted: the board never went down"
    check_neighbour(host, plan["host"], containers.values())


def test_a_restart_of_dockerd_leaves_the_containers_running(
    host: Any, plan: dict[str, Any], key: str, containers: dict[str, str]
) -> None:
    """As an upgrade of Docker's packages restarts it; no request of a client fails."""
    started = f"docker inspect -f '{{{{.State.StartedAt}}}}' {' '.join(containers.values())}"
    process = "systemctl show --property=MainPID docker"
    assert host.check_output("docker info --format '{{.LiveRestoreEnabled}}'") == "true"
    before = host.check_output(started), host.check_output(process)
    with loaded(board_named(plan["host"])) as load:
        wait_for_requests(load)
        begun = time.monotonic()
        host.check_output("systemctl restart docker")
        ended = time.monotonic()
        assert host.check_output(process) != before[1], "dockerd was not restarted"
        assert host.check_output(started) == before[0]
        wait_for_requests(load)
    assert load.wrong == []
    # Under load no byte may arrive in so short a time.
    asking = [first for began, first in load.times if began < ended and first > begun]
    assert asking, "nobody asked meanwhile"
    done = check(plan, key, f"--answer={plan['model']['proof']['answer']}", "--timeout=90")
    assert done.returncode == 0, done.stdout + done.stderr
    # It is restarted together with Docker, and finds nothing to do.
    until(
        lambda: host.run("systemctl is-active edge-llm").stdout.strip(),
        "the recovery has ended",
        lambda state: state == "active",
        seconds=BOOT_SECONDS,
    )
    assert host.check_output(started) == before[0]
    check_neighbour(host, plan["host"], containers.values())


def test_compose_typed_by_hand_opens_nothing(
    host: Any, plan: dict[str, Any], containers: dict[str, str]
) -> None:
    host.check_output(f"cd {ROOT} && docker compose up --detach")
    check_neighbour(host, plan["host"], containers.values())
