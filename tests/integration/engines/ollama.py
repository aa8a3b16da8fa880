"""Ollama, as the sandbox has it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from sandbox import docker
from tests.integration.engines.running import MODELS, Container


class Ollama(Container):
    """It tells nothing of its work; the llama-server that it runs inside its container does."""

    provider: ClassVar[str] = "ollama"
    # It takes a thread for each CPU that it may use, whatever its settings.
    options: ClassVar[tuple[str, ...]] = (f"--cpuset-cpus={max(os.sched_getaffinity(0))}",)
    models: ClassVar[frozenset[str]] = frozenset(MODELS)
    unsupported: ClassVar[Mapping[str, Any]] = {
        "n": 2,
        "logit_bias": {"42": 5},
        "top_k": 1,
        "min_p": 0.1,
        "functions": [{"name": "get_weather", "parameters": {}}],
        "repeat_penalty": 1.1,
    }
    overflow: ClassVar[str] = r"request \(\d+ tokens\) exceeds the available context size"
    malformed: ClassVar[str] = "invalid message content type: float64"
    schema: ClassVar[str] = "unrecognized type nonsense"
    embeddings: ClassVar[str] = "does not support embeddings"

    def busy(self) -> int:
        port = self._runner()[1]
        # Bash is in every image of it, curl is not.
        script = (
            f"exec 3<>/dev/tcp/127.0.0.1/{port}; "
            r"printf 'GET /slots HTTP/1.0\r\n\r\n' >&3; cat <&3"
        )
        answer = docker.docker("exec", self.name, "bash", "-c", script)
        slots = json.loads(answer.partition("\r\n\r\n")[2] or answer.partition("\n\n")[2])
        return sum(slot["is_processing"] for slot in slots)

    def kill_runner(self) -> None:
        """End what computes inside Ollama, as for want of memory; Ollama itself goes on."""
        docker.docker("exec", self.name, "bash", "-c", f"kill -9 {self._runner()[0]}")

    def _runner(self) -> tuple[int, int]:
        """Process id inside the container, and port, of the llama-server that it runs."""
        listed = (
            "for each in /proc/[0-9]*; do "
            "echo ${each#/proc/} $(tr '\\0' ' ' 2>/dev/null <$each/cmdline); done"
        )
        for line in docker.lines("exec", self.name, "bash", "-c", listed):
            found = re.match(r"(\d+) \S*llama-server .*--port (\d+)", line)
            if found:
                return int(found[1]), int(found[2])
        raise AssertionError(f"{self.name} runs no llama-server.")


ENGINE = Ollama
