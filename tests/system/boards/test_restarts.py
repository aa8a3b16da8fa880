"""A board comes back by itself, from a reboot and from a power cut, serving what it served."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.playing import restart
from tests.system.hosts.test_host import check

BOOT_SECONDS = 180


def wait_for_health(url: str) -> None:
    """Return once the chat API answers; fail where it does not within a boot's time."""
    end = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError as error:
            if time.monotonic() > end:
                pytest.fail(f"{url} does not answer {BOOT_SECONDS} s after the start: {error}")
        time.sleep(0.5)


@pytest.mark.parametrize("verb", ["reboot", "power-cut"])
def test_the_host_serves_again(
    host: Any, plan: dict[str, Any], key: str, containers: dict[str, str], verb: str
) -> None:
    started = f"docker inspect -f '{{{{.State.StartedAt}}}}' {containers['engine']}"
    before = host.check_output(started)
    restart(verb, plan["host"])
    wait_for_health(plan["url"])
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
