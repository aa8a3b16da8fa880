"""playbooks/audit.yml on this machine: what it shows, and that it fails for what it finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Audit this machine, with a deployment's folder that is empty; nothing is changed."""
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", "localhost,", "-c", "local"),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
            *("-e", f"board_root={folder}", "-e", f"registry_root={folder}/registry"),
            *options,
            "playbooks/audit.yml",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["audit", "check run"])
def test_a_host_without_a_release_fails_and_another_user_is_refused(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = run(tmp_path, *options)
    assert done.returncode != 0
    if os.geteuid():
        assert "The audit needs root on the host" in done.stdout
        return
    table, _, failure = done.stdout.partition("TASK [Report a host that failed checks]")
    assert "result  CIS" in table
    assert "localhost: The host has no release." in table
    assert "localhost: the host does not fit: " in failure
    assert "A release of edge-llm serves on the host" in failure
    assert list(tmp_path.iterdir()) == []
