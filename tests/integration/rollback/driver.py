"""Runs on the board: a change as the release module runs it, which stops dead where it is told to.

`python3 driver.py STEP SWAP` goes back to the release before, with another chat API, and sleeps for
good when STEP begins. `python3 driver.py STEP restore` does so with what undoes a change that was
killed. What it has come to stands in /run/edge-llm-test.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, "/opt/edge-llm/lib")

from edge_llm import edge_llm_release as release  # type: ignore[import-not-found]

CAME_TO = Path("/run/edge-llm-test")


def watch(step: str) -> None:
    """Stop dead at the step that was asked for."""
    if step == sys.argv[1]:
        CAME_TO.write_text(step)
        time.sleep(1000)


def main() -> None:
    """Stage, change, and say what became of it."""
    host = release.Host(watch=watch)
    if sys.argv[2] == "restore":
        with host.locked("the tests", seconds=60):
            release.recover(host)
        CAME_TO.write_text("the end")
        return
    with host.locked("the tests"):
        asked = release.former(host)
        # Another setting of the chat API makes it another container.
        env = re.sub(
            "(?m)^LLM_MODEL_ALIASES=.*$", f"LLM_MODEL_ALIASES=at-{time.time():.0f}", asked["env"]
        )
        about = {**asked["about"], "by": "the tests", "swap": sys.argv[2]}
        to = release.stage(host, asked["compose"], env, asked["engine"], about)
        told = release.change(host, to.number, "deploy")
    CAME_TO.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
