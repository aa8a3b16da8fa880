"""How the chat API's image is built on a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TASKS = Path(__file__).parents[3] / "roles/stack/tasks/build_image.yml"


def test_no_step_gets_a_network() -> None:
    """Docker gives a container no address on a kernel for whose rules it lacks a table."""
    block = next(each["block"] for each in yaml.safe_load(TASKS.read_text()) if "block" in each)
    (build,) = (each for each in block if "environment" in each)
    words: list[Any] = build["ansible.builtin.shell"]["cmd"].split()
    assert words[:2] == ["docker", "build"]
    assert words[words.index("--network") + 1] == "none"
