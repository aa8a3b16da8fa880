"""Runs of playbooks over the tests' boards, and what they said."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def play(
    playbook: str, host: str, *words: str, **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run a playbook over some of the tests' boards to its end, whatever that is."""
    return subprocess.run(
        [
            "ansible-playbook", "-i", "inventories/sandbox", "--limit", host,
            "-e", json.dumps(variables), *words, playbook,
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"SANDBOX": "test", "ANSIBLE_FORCE_COLOR": "false"},
    )  # fmt: skip


def message(done: subprocess.CompletedProcess[str]) -> str:
    """What the run printed, as one line of words."""
    return " ".join(done.stdout.split())


def images() -> dict[str, str]:
    """The engines' images by provider, as the tests' boards have them."""
    found: dict[str, str] = json.loads((ROOT / ".sandbox/test/images.json").read_text())
    return found
