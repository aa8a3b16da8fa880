"""site.yml stops a host whose Python is too old for the running ansible-core, before any change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ansible.release import __version__ as CORE

from edge_fleet.host_python import minimum_python

ROOT = Path(__file__).parents[3]
NEEDS_39 = minimum_python(CORE) == (3, 9)
# The newest Python that the running ansible-core refuses, on a board that has it.
VERSION, TEGRA = (
    ("3.8.10", "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref")
    if NEEDS_39
    else ("3.6.9", "# R32 (release), REVISION: 7.4, GCID: 33514132, BOARD: t210ref")
)
SENTENCE = (
    "kitchen: Python on the host is too old: python3 is 3.8.10 (JetPack 5, L4T 35.4.1), and"
    f" ansible-core {CORE} on the control machine needs 3.9 or newer on hosts."
    if NEEDS_39
    else "kitchen: Python on the host is too old: python3 is 3.6.9, and 3.8 or newer is needed."
)


def test_the_host_is_stopped_by_name(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    refusal = f"ansible-core requires a newer Python. Current version: {VERSION}"
    for name, text in {
        "python3": f'[ "$1" = --version ] && echo "Python {VERSION}" && exit\n'
        f'echo "{refusal}" >&2\nexit 1\n',
        "head": f"echo '{TEGRA}'\n",
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}")
        (commands / name).chmod(0o755)
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(f"""
all:
  hosts:
    kitchen:
      ansible_connection: local
      ansible_python_interpreter: {commands}/python3
      board_root: {tmp_path}/root
      board_python_install: {str(NEEDS_39).lower()}
""")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "site.yml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "PATH": f"{commands}:{os.environ['PATH']}",
        },
    )  # fmt: skip
    said = " ".join(done.stdout.split()).replace("''", "'")
    assert done.returncode == 2, done.stdout + done.stderr
    assert SENTENCE in said
    assert "changed=0" in said
    assert not (tmp_path / "root").exists()
    assert not (tmp_path / ".facts").exists()
