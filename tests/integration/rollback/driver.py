"""Runs on the board: a change as the release module runs it, which stops dead at a given step.

`python3 driver.py STEP SWAP` rolls back to the previous release, with another chat API, and sleeps
forever when STEP begins. `python3 driver.py STEP recover` does so with the recovery of a change
that was killed; there, the step `wait` is the wait for a chat API that retires. The step, or the
result, is in /run/edge-llm-test.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

# The program that is installed there.
sys.path[:0] = map(str, Path("/opt/edge-llm/lib").glob("edge_host-*.pyz"))

from edge_host.release import services  # noqa: E402
from edge_host.release.host import Host  # noqa: E402
from edge_host.release.lock import lock_host  # noqa: E402
from edge_host.release.recovery import recover  # noqa: E402
from edge_host.release.request import ReleaseRequest, request_rollback  # noqa: E402
from edge_host.release.stage import stage_release  # noqa: E402
from edge_host.release.switch import switch_release  # noqa: E402

REACHED = Path("/run/edge-llm-test")


def report(what: str) -> None:
    """Write the step that was reached, or the result, in one piece."""
    new = REACHED.with_suffix(".new")
    new.write_text(what)
    new.replace(REACHED)


def stop_at(step: str) -> None:
    """Sleep forever at the given step."""
    if step == sys.argv[1]:
        report(step)
        while True:
            signal.pause()


def wait(*_: Any) -> None:
    """Wait as for a chat API that never ends."""
    stop_at("wait")


def main() -> None:
    """Stage a release, switch to it, and report the result."""
    host = Host(on_step=stop_at)
    if sys.argv[2] == "recover":
        if sys.argv[1] == "wait":
            services.wait_for_retirement = wait  # type: ignore[assignment]
        with lock_host(host.root, "the tests", timeout=60):
            recover(host)
        report("the end")
        return
    with lock_host(host.root, "the tests"):
        previous = request_rollback(host.releases, "the tests")
        # Another setting of the chat API makes it another container.
        alias = f"LLM_MODEL_ALIASES=at-{time.time():.0f}"
        env = re.sub("(?m)^LLM_MODEL_ALIASES=.*$", alias, previous.files[".env"])
        request = ReleaseRequest(
            {**previous.files, ".env": env}, {**previous.metadata, "swap": sys.argv[2]}
        )
        to = stage_release(host, request)
        result = switch_release(host, to.number, "deploy")
    report(json.dumps(result))


if __name__ == "__main__":
    main()
