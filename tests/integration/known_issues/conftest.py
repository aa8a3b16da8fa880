"""Boards whose hardware is a stand-in, and runs that fix their known issues."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import testinfra

from tests.playing import ENVIRONMENT, ROOT, command, message, play

HOSTS = ("-i", "tests/integration/known_issues/hosts.yml")


def run(host: str, *words: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run site.yml's fixes and tuning of the boards, and what always comes before them."""
    return play("site.yml", host, *HOSTS, "--tags", "tuning", *words, **variables)


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks of a run that went well changed something."""
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "unreachable=" in line]
    return int(line.partition("changed=")[2].split()[0])


def plan_table(host: str, **variables: object) -> str:
    """What `make plan` prints."""
    done = subprocess.run(
        command("playbooks/plan.yml", host, *HOSTS, **variables),
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=600, env=ENVIRONMENT,
    )  # fmt: skip
    return message(done)


def board(name: str) -> Any:
    return testinfra.get_host(f"docker://test-{name}")


@pytest.fixture(scope="module")
def jetson() -> Any:
    return board("issue-01")


@pytest.fixture(scope="module")
def pi() -> Any:
    return board("issue-02")
