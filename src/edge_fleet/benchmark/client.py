"""Runs `llm-provider bench` on the control machine, against a host's chat API."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any

_MOST_LINES = 20
"""Lines of standard error that a message may repeat."""


class BenchmarkError(Exception):
    """Why there is no result; a message without its full stop."""


def run_bench(
    command: Sequence[str], key: str, source: str, show: Callable[[str], None], seconds: float
) -> dict[str, Any]:
    """Run the command, with --json and --progress, and return its result.

    key: the API key, for its standard input; source: the folder of the packages; show: is called
    with each line of progress; seconds: after which it is ended. Raises BenchmarkError.
    """
    process = subprocess.Popen(
        [*command, "--json", "--progress"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": source},
    )
    said: list[str] = []

    def follow() -> None:
        for line in process.stderr or ():
            said.append(line.strip())
            if " at once: " in line:
                show(line.strip())

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        if process.stdin:
            process.stdin.write(key)
            process.stdin.close()
        out = process.stdout.read() if process.stdout else ""
        status = process.wait()
    except BrokenPipeError:
        out, status = "", process.wait()
    finally:
        timer.cancel()
        process.kill()
    follower.join(timeout=5)
    return parse_bench(out, status, [line for line in said if " at once: " not in line])


def parse_bench(out: str, status: int, said: Sequence[str]) -> dict[str, Any]:
    """The result that the command printed; failed requests are a part of it."""
    try:
        result: dict[str, Any] = json.loads(out)
    except ValueError:
        result = {}
    if not result.get("levels"):
        reason = result.get("error") or " ".join(said[-_MOST_LINES:])
        # A signal: the time limit's.
        reason = reason or ("it took too long" if status < 0 else f"exit status {status}")
        raise BenchmarkError(f"the benchmark has no result: {reason.rstrip('.')}")
    return result
