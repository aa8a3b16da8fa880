"""Runs on the board: a change as the release module runs it, which stops dead where it is told to.

`python3 driver.py STEP SWAP` goes back to the release before, with another chat API, and sleeps for
good when STEP begins. `python3 driver.py STEP restore` does so with what undoes a change that was
killed; there, the step `wait` is the wait for a chat API that retires. What it has come to stands
in /run/edge-llm-test.
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

from edge_host.release import recovery, result, services, stage, store, switch  # noqa: E402

CAME_TO = Path("/run/edge-llm-test")


def came_to(what: str) -> None:
    """Say what has been come to, in one piece."""
    fresh = CAME_TO.with_suffix(".new")
    fresh.write_text(what)
    fresh.replace(CAME_TO)


def watch(step: str) -> None:
    """Stop dead at the step that was asked for."""
    if step == sys.argv[1]:
        came_to(step)
        while True:
            signal.pause()


def wait(*_: Any) -> None:
    """Wait as for a chat API that does not come to its end."""
    watch("wait")


def main() -> None:
    """Stage, change, and say what became of it."""
    host = store.Host(watch=watch)
    if sys.argv[2] == "restore":
        if sys.argv[1] == "wait":
            services.wait_for_retirement = wait  # type: ignore[assignment]
        with host.locked("the tests", seconds=60):
            recovery.recover(host)
        came_to("the end")
        return
    with host.locked("the tests"):
        asked = result.former(host)
        # Another setting of the chat API makes it another container.
        env = re.sub(
            "(?m)^LLM_MODEL_ALIASES=.*$", f"LLM_MODEL_ALIASES=at-{time.time():.0f}", asked["env"]
        )
        about = {**asked["about"], "by": "the tests", "swap": sys.argv[2]}
        to = stage.stage(host, asked["compose"], env, asked["engine"], about)
        told = switch.change(host, to.number, "deploy")
    came_to(json.dumps(told))


if __name__ == "__main__":
    main()
