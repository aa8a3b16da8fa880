"""A board comes back by itself, from a reboot and from a power cut, serving what it served."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.playing import restart
from tests.system.hosts.conftest import trust
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
