"""Verifies a release's engine, by the chat API's own code, before any client meets it."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from typing import Optional

from ..commands import environment
from ..engine_log import gpu_reason
from ..gpu_offload import explain, gpu_problem
from ..host_info.engine import read_engine_log
from ..json_data import Facts
from .docker_api import LOG_LINES
from .errors import Failure
from .store import COMPOSE_SECONDS, Host, Release, write_text

PROOF = "edge-llm-proof"
NEXT = "engine/next.env"


def started_again(state: Facts) -> str:
    """When a container that ended was started again, and has written since; "" where it waits.

    Of one that waits to be started again Docker says that it runs, and when it did before.
    """
    started: str = state["StartedAt"]
    return started if state["Running"] and not state["Restarting"] else ""


class Proof:
    """The proof of a release's engine, by the chat API's own code, before any client meets it."""

    def __init__(self, host: Host, release: Release) -> None:
        self._host = host
        self._release = release
        self._name = release.container("engine")
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with this object
        self._restarts = self._engine()["RestartCount"]
        write_text(host.root / NEXT, release.engine_file)
        host.docker.remove(PROOF)
        plan = release.plan
        asked = {
            "provider": plan["provider"],
            "model": plan["model"]["name"],
            "context-size": plan["environment"]["CTX_SIZE"],
            "parallel": plan["environment"]["PARALLEL"],
            "timeout": release.record["start_timeout"],
            "prompt": plan["model"]["proof"]["prompt"],
            "answer": plan["model"]["proof"]["answer"],
        }
        self._process = subprocess.Popen(
            [
                "docker", *host.compose_words(release.folder),
                "run", "--rm", "--no-deps", "-T", "--name", PROOF, "--entrypoint", "python",
                release.service("api"), "-m", "llm_provider", "check", "--json",
                "--engine", "/run/engine/next.env",
                *(f"--{name}={value}" for name, value in asked.items() if value),
            ],
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._complaint,
        )  # fmt: skip
        self._out = b""
        self._said = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        # Its one line is enough: its container takes a while to go, in which clients would wait.
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._out = self._process.stdout.readline()
        self._said.set()

    def result(self) -> None:
        """Wait for what it says. Raises Failure with what it saw, or what became of the engine."""
        end = time.monotonic() + self._release.record["start_timeout"] + COMPOSE_SECONDS
        while not self._said.wait(0.5):
            self._still_there()
            if time.monotonic() > end:
                raise Failure("the proof did not end in time", self._log())
        try:
            report = json.loads(self._out)
            checks = report["checks"]
        except (ValueError, KeyError, TypeError):
            self._still_there()
            self.end()
            self._complaint.seek(0)
            words = (self._complaint.read() or self._out).decode(errors="replace").strip()
            raise Failure(f"the proof could not be run: {words}", self._log()) from None
        failed = [each for each in checks if not each["ok"]]
        if failed or not checks:
            self._still_there()
            told = "; ".join(
                f"{each['name']}: wanted {each['wanted']}, saw {each['seen']}" for each in failed
            )
            raise Failure(f"the proof failed: {told or 'nothing was checked'}", self._log())
        self._prove_gpu(report.get("gpu_share"))

    def end(self) -> None:
        """Be sure that nothing of it runs on."""
        self._host.docker.remove(PROOF)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _engine(self) -> Facts:
        found = self._host.docker.container(self._name)
        if found is None:
            raise Failure(f"the container {self._name} is gone")
        return found

    def _still_there(self) -> None:
        found = self._engine()
        state = found["State"]
        restarted = found["RestartCount"] > self._restarts
        if state["Running"] and not state["Restarting"] and not restarted:
            return
        # Docker may have started it again by now, and then tells of that.
        why = [f"exit status {state['ExitCode']}"] if state["ExitCode"] else []
        why += ["out of memory"] if state.get("OOMKilled") else []
        told = f" ({', '.join(why)})" if why else ""
        lines = self._host.docker.lines(self._name, started_again(state) if restarted else "")
        # An engine that cannot use its GPU may end by that, before anything of it can be verified.
        reason = gpu_reason(lines) if self._release.plan["gpu"]["required"] else None
        told += f". {explain(reason)}" if reason else ""
        raise Failure(f"the engine ended while it started{told}", "\n".join(lines[-LOG_LINES:]))

    def _log(self) -> str:
        return self._host.docker.log(self._name)

    def _prove_gpu(self, share: Optional[float]) -> None:
        """Raise Failure unless its layers are on the GPU; `share` is what Ollama tells of that."""
        plan = self._release.plan
        gpu = plan["gpu"]
        if not gpu["required"]:
            return
        found = self._engine()
        seen = {"id": found["Id"], "started_at": found["State"]["StartedAt"]}
        log = read_engine_log("docker", seen)
        problem = gpu_problem(gpu, plan["provider"], log, share)
        if problem:
            raise Failure(f"the proof failed: {problem}", self._log())
