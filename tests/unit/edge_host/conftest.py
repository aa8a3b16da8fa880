"""A host in a folder: its /etc, /proc and /sys, and a docker command that answers as told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_host import commands
from edge_host.release.errors import ReleaseError
from edge_host.sockets import units


class FakeHost:
    """`system` is the host's file system, `root` its deployment folder, `log` docker's calls."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.system = base / "system"
        self.root = base / "opt/edge-llm"
        self.bin = base / "bin"
        self.log = base / "calls"
        for folder in ("etc/docker", "proc/1", "proc/net", "sys/firmware/devicetree/base"):
            (self.system / folder).mkdir(parents=True)
        self.bin.mkdir()
        self.write("proc/1/comm", "systemd\n")
        self.write("etc/os-release", 'ID=debian\nVERSION_ID="13"\n')
        self.write("proc/meminfo", "MemTotal: 8245856 kB\nMemAvailable: 6985556 kB\n")

    def write(self, path: str, text: str) -> None:
        """A file of the host's system."""
        target = self.system / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def docker(self, **answers: str) -> None:
        """Put a docker command on the host; each answer is shell text, by subcommand."""
        cases = "\n".join(f"{name}) {text};;" for name, text in answers.items())
        script = self.bin / "docker"
        script.write_text(f'#!/bin/sh\necho "$*" >> {self.log}\ncase "$1" in\n{cases}\nesac\n')
        script.chmod(0o755)

    def answer(self, name: str, *values: object) -> str:
        """Shell text that prints the values as JSON lines."""
        path = self.base / f"answer-{name}"
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
        return f"/bin/cat {path}"


class FakeSockets:
    """The units that hold the ports; `problem` is why systemd cannot start them."""

    def __init__(self) -> None:
        self.held, self.problem = True, ""

    def start(self) -> None:
        if self.problem:
            raise ReleaseError(self.problem)
        self.held = True


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> FakeSockets:
    made = FakeSockets()
    monkeypatch.setattr(units, "holding", lambda: made.held)
    monkeypatch.setattr(units, "start", made.start)
    return made


@pytest.fixture
def fake_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    made = FakeHost(tmp_path)
    monkeypatch.setattr(commands, "SEARCH_PATH", str(made.bin))
    return made
