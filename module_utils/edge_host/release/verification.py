"""Verifies a release's engine with the chat API's own code, before it serves any client."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from typing import Optional

from ..commands import end_process, environment
from ..engine_log import gpu_reason
from ..gpu_offload import explain, gpu_problem
from ..host_info.engine import read_engine_log
from ..json_data import Facts
from .compose import COMPOSE_SECONDS
from .docker_api import LOG_LINES
from .errors import ReleaseError
from .host import Host
from .store import Release, replace_file

CONTAINER = "edge-llm-proof"
"""The container that verifies; it exists only meanwhile."""
ENGINE_FILE = "engine/next.env"
"""The engine file of the release that is verified."""


def find_restart_time(state: Facts) -> str:
    """Return when a container that ended was restarted; "" where it was not, or not yet.

    Docker reports a container that waits to be restarted as running, with its earlier start.
    """
    started: str = state["StartedAt"]
    return started if state["Running"] and not state["Restarting"] else ""


def check_options(plan: Facts, timeout: float) -> Facts:
    """Return the options of `llm-provider check` for a release's engine; None is left out.

    A release of a version without tasks has none, and its chat API has no option for them.
    """
    model = plan["model"]
    task = model.get("task")
    return {
        "provider": plan["provider"],
        "model": model["name"],
        "task": None if task == "chat" else task,
        "dimensions": model.get("dimensions"),
        "context-size": plan["environment"]["CTX_SIZE"],
        "parallel": plan["environment"]["PARALLEL"],
        "timeout": timeout,
        "prompt": model["proof"]["prompt"],
        "answer": model["proof"]["answer"],
    }


class Verification:
    """The verification of a release's engine: `llm-provider check` in a container of its own.

    It starts with this object, so that its program is loaded while the engine starts.
    """

    def __init__(self, host: Host, release: Release) -> None:
        self._host = host
        self._release = release
        self._engine = release.container("engine")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        self._restarts = self._inspect_engine()["RestartCount"]
        replace_file(host.root / ENGINE_FILE, release.engine_file)
        host.docker.remove(CONTAINER)
        options = check_options(release.plan, release.start_timeout)
        self._process = subprocess.Popen(
            [
                "docker", *host.compose.options(release.folder),
                "run", "--rm", "--no-deps", "-T", "--name", CONTAINER, "--entrypoint", "python",
                release.service("api"), "-m", "llm_provider", "check", "--json",
                "--engine", "/run/engine/next.env",
                *(f"--{name}={value}" for name, value in options.items() if value),
            ],
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._errors,
        )  # fmt: skip
        self._report = b""
        self._reported = threading.Event()
        threading.Thread(target=self._read_report, daemon=True).start()

    def _read_report(self) -> None:
        # The report is one line. The end of the container would take longer, while clients wait.
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._report = self._process.stdout.readline()
        self._reported.set()

    def wait(self) -> None:
        """Wait for the result. Raises ReleaseError where a check fails, or the engine ends."""
        limit = self._release.start_timeout + COMPOSE_SECONDS
        end = time.monotonic() + limit
        while not self._reported.wait(0.5):
            self._check_engine_runs()
            if time.monotonic() > end:
                raise ReleaseError(
                    f"the verification did not end within {limit:g} s. Check the log of the engine",
                    self._read_log(),
                )
        try:
            report = json.loads(self._report)
            checks = report["checks"]
        except (ValueError, KeyError, TypeError):
            self._check_engine_runs()
            self.close()
            self._errors.seek(0)
            output = (self._errors.read() or self._report).decode(errors="replace").strip()
            raise ReleaseError(
                f"the verification could not be run: {output}. Remove the cause, and run this"
                " again",
                self._read_log(),
            ) from None
        failed = [each for each in checks if not each["ok"]]
        if failed or not checks:
            self._check_engine_runs()
            found = "; ".join(
                f"{each['name']}: expected {each['wanted']}, got {each['seen']}" for each in failed
            )
            raise ReleaseError(
                f"the verification failed: {found or 'no check was run'}. Choose another llm_model"
                " or llm_image, or correct the model's entry in models.yml",
                self._read_log(),
            )
        self._verify_gpu(report.get("gpu_share"))

    def close(self) -> None:
        """Remove the container, and wait for the end of the process."""
        self._host.docker.remove(CONTAINER)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            end_process(self._process)

    def _inspect_engine(self) -> Facts:
        found = self._host.docker.inspect(self._engine)
        if found is None:
            raise ReleaseError(
                f"the container {self._engine} is missing: it was removed meanwhile. Run this again"
            )
        return found

    def _check_engine_runs(self) -> None:
        """Raise ReleaseError where the engine has ended, even if Docker has restarted it since."""
        found = self._inspect_engine()
        state = found["State"]
        restarted = found["RestartCount"] > self._restarts
        if state["Running"] and not state["Restarting"] and not restarted:
            return
        # Once Docker has restarted it, these are of the new start.
        details = [f"exit status {state['ExitCode']}"] if state["ExitCode"] else []
        details += ["out of memory"] if state.get("OOMKilled") else []
        message = "the engine ended while it started"
        if details:
            message += f" ({', '.join(details)})"
        until = find_restart_time(state) if restarted else ""
        lines = self._host.docker.read_log_lines(self._engine, until)
        # An engine that cannot use its GPU may end before any check of it can run.
        reason = gpu_reason(lines) if self._release.plan["gpu"]["required"] else None
        message += f". {explain(reason)}" if reason else ". The reason is in its log"
        raise ReleaseError(message, "\n".join(lines[-LOG_LINES:]))

    def _read_log(self) -> str:
        return self._host.docker.read_log(self._engine)

    def _verify_gpu(self, share: Optional[float]) -> None:
        """Raise ReleaseError where the plan requires layers on the GPU, and they are not there.

        `share` is the part of the model on the GPU, as Ollama reports it.
        """
        plan = self._release.plan
        gpu = plan["gpu"]
        if not gpu["required"]:
            return
        found = self._inspect_engine()
        engine = {"id": found["Id"], "started_at": found["State"]["StartedAt"]}
        log = read_engine_log("docker", engine)
        problem = gpu_problem(gpu, plan["provider"], log, share)
        if problem:
            raise ReleaseError(f"the verification failed: {problem}", self._read_log())
