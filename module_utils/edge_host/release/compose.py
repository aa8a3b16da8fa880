"""Docker Compose, with the files of a release."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import List

from .docker_api import Docker
from .errors import ReleaseError
from .store import COMPOSE_FILE, ENV_FILE

COMPOSE_SECONDS = 300.0


class Compose:
    """Runs `docker compose` in a deployment folder."""

    def __init__(self, root: Path, docker: Docker) -> None:
        self._root = root
        self._docker = docker

    def run(
        self, folder: Path, *arguments: str, timeout: float = COMPOSE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the files of the release in `folder`. Raises ReleaseError."""
        try:
            done = self._docker.run_command(*self.options(folder), *arguments, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ReleaseError(
                f"docker compose {arguments[0]} did not end within {timeout:g} s. Check `systemctl"
                " status docker` on the host, and run this again"
            ) from None
        if done.returncode != 0:
            raise ReleaseError(
                f"docker compose {arguments[0]} failed:"
                f" {done.stderr.strip() or done.stdout.strip()}. Remove the cause, and run this"
                " again"
            )
        return done

    def options(self, folder: Path) -> List[str]:
        """Return the arguments of docker that select a release's files."""
        return [
            *("compose", "--ansi", "never", "--project-directory", str(self._root)),
            *("--file", str(folder / COMPOSE_FILE), "--env-file", str(folder / ENV_FILE)),
        ]
