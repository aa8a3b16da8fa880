"""One run of site.yml over hosts that must be refused and one that must not."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.playing import catalogues, told

BOARDS = ("bare-01", "bare-02", "bare-03", "bare-04", "bare-05")
# What looking at a host leaves behind: Python's and systemd's own housekeeping, and session logs.
HOUSEKEEPING = ("/root/.ansible", "/tmp", "/run", "/var/log", "/var/lib/systemd", "/var/tmp")


@dataclass
class Run:
    """What ansible-playbook said."""

    status: int
    messages: dict[str, list[str]]
    stats: dict[str, dict[str, int]]
    before: dict[str, set[str]]
    after: dict[str, set[str]]


def changes(board: str) -> set[str]:
    """Paths that differ on a board from the image it started as."""
    listed = subprocess.run(
        ["docker", "diff", f"test-{board}"], check=True, capture_output=True, text=True
    )
    paths = {line[2:] for line in listed.stdout.splitlines()}
    return {
        path for path in paths if not path.startswith(HOUSEKEEPING) and "__pycache__" not in path
    }


def wrong_catalogue(folder: Path) -> Path:
    """The project's catalogues, with another sha256 for the sandbox's model."""
    return catalogues(folder, "models.yml", "models/smollm2-135m/gguf/files/0/sha256", "0" * 64)


def failures(output: dict[str, Any]) -> dict[str, list[str]]:
    """Host -> the messages of its failed tasks, in order."""
    found: dict[str, list[str]] = {}
    for play in output["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                if result.get("failed") or result.get("unreachable"):
                    found.setdefault(host, []).append(str(result.get("msg", "")))
    return found


def provision(limit: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Run site.yml; returns its exit status and what it printed."""
    return told("site.yml", limit, "-i", "tests/integration/refusals/hosts.yml", *words)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    catalogue = wrong_catalogue(tmp_path_factory.mktemp("catalogue"))
    before = {board: changes(board) for board in BOARDS}
    status, output = provision("refused,pi-01,!unprepared", "-e", f"refusals_catalogue={catalogue}")
    after = {board: changes(board) for board in BOARDS}
    return Run(status, failures(output), output["stats"], before, after)
