"""A check run, and a verification, leave the host and what clients use as they were."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.playing import ENVIRONMENT, ROOT, message, play

OTHER = "a-key-that-no-host-has"


def control_files(name: str) -> dict[str, tuple[str, int]]:
    """The control machine's files of a host's keys, and its bundles: content and time of change."""
    keys = ROOT / ".sandbox" / ENVIRONMENT["SANDBOX"] / "keys"
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in (*keys.glob(f"{name}*"), *(ROOT / ".cache").glob("chat-api-*"))
    }


def host_files(host: Any) -> str:
    """The host's files of this project and of its units: names, sizes and times of change."""
    folders = "/opt/edge-llm /etc/docker /etc/systemd/system"
    shown = "-name __pycache__ -prune -o -type f -printf '%p %m %U %s %C@\\n'"
    return str(host.check_output(f"find {folders} {shown} | sort"))


@pytest.mark.parametrize(
    ("playbook", "options", "status", "sentence"),
    [
        ("site.yml", ("--check", "--diff"), 0, ".env: OPENAI_API_KEY differs."),
        ("playbooks/verify.yml", (), 2, ": the verification failed: ready: expected"),
    ],
)
def test_another_key_changes_nothing(
    host: Any,
    plan: dict[str, Any],
    playbook: str,
    options: tuple[str, ...],
    status: int,
    sentence: str,
) -> None:
    name = plan["host"]
    before = control_files(name), host_files(host)
    done = play(playbook, name, *options, llm_api_key=OTHER)
    assert done.returncode == status, done.stdout
    assert f"{name}{sentence}" in message(done)
    assert OTHER not in done.stdout
    assert (control_files(name), host_files(host)) == before
