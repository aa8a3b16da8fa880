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


def run(folder: Path, *words: str, install: bool) -> subprocess.CompletedProcess[str]:
    """Run site.yml over a host with that Python; `install` is board_python_install."""
    commands = folder / "bin"
    commands.mkdir()
    refusal = f"ansible-core requires a newer Python. Current version: {VERSION}"
    for name, text in {
        "python3": f'[ "$1" = --version ] && echo "Python {VERSION}" && exit\n'
        f'echo "{refusal}" >&2\nexit 1\n',
        "head": f"echo '{TEGRA}'\n",
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}")
        (commands / name).chmod(0o755)
    inventory = folder / "hosts.yml"
    inventory.write_text(f"""
all:
  hosts:
    kitchen:
      ansible_connection: local
      ansible_python_interpreter: {commands}/python3
      board_root: {folder}/root
      board_python_install: {str(install).lower()}
""")
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, *words, "site.yml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "PATH": f"{commands}:{os.environ['PATH']}",
        },
    )  # fmt: skip


def test_the_host_is_stopped_by_name(tmp_path: Path) -> None:
    done = run(tmp_path, install=NEEDS_39)
    said = " ".join(done.stdout.split()).replace("''", "'")
    assert done.returncode == 2, done.stdout + done.stderr
    assert SENTENCE in said
    assert "changed=0" in said
    assert not (tmp_path / "root").exists()
    assert not (tmp_path / ".facts").exists()


def test_a_check_run_says_what_would_be_installed(tmp_path: Path) -> None:
    """Where the Python that can be installed is one that this ansible-core takes."""
    done = run(tmp_path, "--check", install=True)
    assert done.returncode == 2, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    would = "kitchen: would install python3.8 beside python3 3.6.9"
    assert (would in said) is not NEEDS_39
    assert "changed=0" in said
