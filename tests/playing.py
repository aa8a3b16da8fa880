"""Runs of playbooks over the tests' boards, and what they said."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests import report

ROOT = Path(__file__).parents[1]

ENVIRONMENT = os.environ | {"SANDBOX": "test", "ANSIBLE_FORCE_COLOR": "false"}
# A test that starts tests says itself whether they failed.
ENVIRONMENT.pop(report.VARIABLE, None)


def command(playbook: str, host: str, *words: str, **variables: object) -> list[str]:
    """What is typed to run a playbook over some of the tests' boards."""
    given = json.dumps(variables)
    inventory = ["-i", "inventories/sandbox", "--limit", host]
    return ["ansible-playbook", *inventory, "-e", given, *words, playbook]


def finished(
    words: list[str], *, limit: float = 600, environment: Mapping[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is; after `limit` seconds it counts as hanging."""
    return subprocess.run(
        words,
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit, env=environment,
    )  # fmt: skip


def play(
    playbook: str, host: str, *words: str, **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run a playbook over some of the tests' boards to its end, whatever that is."""
    return finished(command(playbook, host, *words, **variables))


def told(playbook: str, host: str, *words: str, **variables: object) -> tuple[int, dict[str, Any]]:
    """Run a playbook as `play` does: its exit status, and what it said as Ansible's JSON has it."""
    done = finished(
        command(playbook, host, *words, **variables),
        environment=ENVIRONMENT | {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
    )
    assert done.stdout, done.stderr
    output: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return done.returncode, output


def message(done: subprocess.CompletedProcess[str]) -> str:
    """What the run printed, as one line of words, a quoted quote as what it stands for."""
    return " ".join(done.stdout.split()).replace("''", "'")


def client_file(board: str) -> Path:
    """The control machine's file of a board's address and key, for clients."""
    return ROOT / ".sandbox" / ENVIRONMENT["SANDBOX"] / "keys" / f"{board}.env"


def images() -> dict[str, str]:
    """The engines' images by provider, as the tests' boards have them."""
    found: dict[str, str] = json.loads((ROOT / ".sandbox/test/images.json").read_text())
    return found


def catalogues(folder: Path, name: str, path: str, value: object) -> Path:
    """The project's catalogues in a folder of their own, with one value of one file replaced."""
    for each in ("models.yml", "engines.yml", "boards.yml"):
        shutil.copy(ROOT / each, folder / each)
    found = yaml.safe_load((folder / name).read_text())
    *parents, last = path.split("/")
    place = found
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    place[last] = value
    (folder / name).write_text(yaml.safe_dump(found))
    return folder


def started(
    words: list[str], environment: Mapping[str, str] = ENVIRONMENT
) -> subprocess.Popen[str]:
    """A command of a playbook that has been started, and says what it has to say at its end."""
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def restart(verb: str, board: str) -> None:
    """Restart a board (`reboot` or `power-cut`), and wait until it can be reached."""
    words = [sys.executable, "-m", "sandbox", verb, board]
    subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, check=True, timeout=600)


@contextmanager
def alone_on(board: str) -> Iterator[None]:
    """Have a board for oneself: tests that run side by side wait for each other."""
    with (Path(tempfile.gettempdir()) / f"edge-llm-test-{board}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
