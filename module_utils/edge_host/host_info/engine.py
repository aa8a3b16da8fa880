"""The log of the engine's container."""

from __future__ import annotations

import datetime
import subprocess
import threading
from typing import Optional

from ..commands import COMMAND_TIMEOUT
from ..engine_log import parse_engine_log, parse_time
from ..json_data import Facts

LOG_LINES = 4000  # an engine logs its model at its start; the rest is requests
LOG_SECONDS = 900  # the slowest start worth waiting for: large weights from an SD card


def read_engine_log(docker: str, engine: Optional[Facts]) -> Facts:
    """Parse the engine container's log, no further than its start."""
    started = parse_time(str(engine["started_at"])) if engine else None
    # Year 1: created and never started.
    if engine is None or started is None or not 0 <= started < 1e11:
        return parse_engine_log([], None)
    until = datetime.datetime.fromtimestamp(started + LOG_SECONDS, datetime.timezone.utc)
    command = [docker, "logs", "--timestamps", "--since", engine["started_at"]]
    command += ["--until", until.strftime("%Y-%m-%dT%H:%M:%SZ"), engine["id"]]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        timer = threading.Timer(COMMAND_TIMEOUT, process.kill)
        timer.start()
        lines = []
        try:
            for line in process.stdout or ():
                lines.append(line)
                if len(lines) == LOG_LINES:
                    break
        finally:
            timer.cancel()
            process.kill()
    return parse_engine_log(lines, started)
