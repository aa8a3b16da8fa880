"""Runs of playbooks over the tests' boards, and what they said."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


ENVIRONMENT = os.environ | {"SANDBOX": "test", "ANSIBLE_FORCE_COLOR": "false"}


def command(playbook: str, host: str, *words: str, **variables: object) -> list[str]:
    """What is typed to run a playbook over some of the tests' boards."""
    given = json.dumps(variables)
    inventory = ["-i", "inventories/sandbox", "--limit", host]
    return ["ansible-playbook", *inventory, "-e", given, *words, playbook]


def play(
    playbook: str, host: str, *words: str, **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run a playbook over some of the tests' boards to its end, whatever that is."""
    return subprocess.run(
        command(playbook, host, *words, **variables),
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300, env=ENVIRONMENT,
    )  # fmt: skip


def message(done: subprocess.CompletedProcess[str]) -> str:
    """What the run printed, as one line of words."""
    return " ".join(done.stdout.split())


def images() -> dict[str, str]:
    """The engines' images by provider, as the tests' boards have them."""
    found: dict[str, str] = json.loads((ROOT / ".sandbox/test/images.json").read_text())
    return found
