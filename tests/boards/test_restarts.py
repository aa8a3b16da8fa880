"""A board comes back by itself, from a reboot and from a power cut, serving what it served."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.host.test_host import check


@pytest.mark.parametrize("verb", ["reboot", "power-cut"])
def test_the_host_serves_again(host: Any, plan: dict[str, Any], key: str, verb: str) -> None:
    before = host.check_output("docker inspect -f '{{.State.StartedAt}}' edge-llm-engine")
    subprocess.run([sys.executable, "-m", "sandbox", verb, plan["host"]], check=True, timeout=120)
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
    after = host.check_output("docker inspect -f '{{.State.StartedAt}}' edge-llm-engine")
    assert before != after, "the engine was not restarted: the board never went down"
