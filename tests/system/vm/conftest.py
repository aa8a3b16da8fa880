"""A virtual board that site.yml has provisioned, and disks of it from which it can start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sandbox import vm
from sandbox.instance import STATE
from tests.playing import ROOT, images
from tests.waiting import until

HERE = Path(__file__).parent
FOLDER = STATE / "vm"
OTHER = {"llm_context_size": 2048, "llm_model_aliases": ["gpt-4o"]}
"""The other release: both its engine and its chat API are others."""
ONBOARD = "/run/onboard.py"
PROMPT = "Are you there?"


@dataclass
class Board:
    """A virtual board, with what its clients know."""

    machine: vm.Machine
    inventory: str = "tests/system/vm/hosts.yml"

    @property
    def name(self) -> str:
        return self.machine.made.kind.name

    @property
    def key(self) -> str:
        return (self.machine.folder / f"keys/{self.name}.key").read_text().strip()

    def play(
        self,
        variables: Mapping[str, object] | None = None,
        hear: Callable[[str], None] = lambda _: None,
    ) -> tuple[int, str]:
        """Run site.yml over it to its end: its status, and what it said; `hear` gets every line."""
        lines = []
        with subprocess.Popen(
            [
                *("timeout", "1800", "ansible-playbook", "-i", self.inventory),
                *("--limit", self.name, "-e", json.dumps(variables or {}), "site.yml"),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"ANSIBLE_FORCE_COLOR": "false"},
        ) as run:  # fmt: skip
            for line in run.stdout or ():
                lines.append(line)
                hear(line)
        return run.returncode, "".join(lines)

    def state(self) -> dict[str, Any]:
        """What clients would find: /health and /ready. Raises SandboxError where QEMU ended."""
        self.machine.running()
        url = f"http://127.0.0.1:{self.machine.api_port}"
        headers = {"Authorization": f"Bearer {self.key}"}
        health = httpx.get(f"{url}/health", timeout=20)
        ready = httpx.get(f"{url}/ready", headers=headers, timeout=20)
        return {"health": health.status_code, "ready": ready.status_code, "report": ready.json()}

    def asked(self) -> str:
        """Return the answer to the prompt of its smoke test."""
        answer = httpx.post(
            f"http://127.0.0.1:{self.machine.api_port}/v1/chat/completions",
            headers={"Authorization": f"Bearer {self.key}"},
            json={"messages": [{"role": "user", "content": PROMPT}], "temperature": 0},
            timeout=120,
        )
        if answer.status_code != 200:
            return f"status {answer.status_code}: {answer.text}"
        text: str = answer.json()["choices"][0]["message"]["content"].strip()
        return text

    def bring(self) -> None:
        """Bring the script that runs there; its folder is in memory."""
        with (HERE / "onboard.py").open("rb") as script:
            self.machine.run(f"cat > {ONBOARD}", stdin=script)

    def look(self) -> dict[str, Any]:
        """What it has and runs, once its start has ended."""
        self.bring()
        said = self.machine.run(f"python3 {ONBOARD} look", timeout=600).stdout
        found: dict[str, Any] = json.loads(said)
        return found

    def start(self, disk: Path) -> float:
        """Switch it on, and wait until clients would find it well; the seconds that took."""
        begun = time.monotonic()
        self.machine.switch_on(disk)
        until(
            self.state,
            "the chat API's /health and /ready",
            lambda seen: (seen["health"], seen["ready"]) == (200, 200) and seen["report"]["ready"],
            seconds=600,
            every=1,
            ignored=(httpx.HTTPError, ValueError),
        )
        return time.monotonic() - begun

    def copy(self, disk: Path, name: str) -> Path:
        """What a cut of the power would leave of its disk at this very moment."""
        target = FOLDER / f"{name}.qcow2"
        with self.machine.still():
            subprocess.run(["cp", "--sparse=always", str(disk), str(target)], check=True)
        return target


@dataclass
class Provisioned:
    """What runs of site.yml said, cuts of the first one by their moment, and the disk in order."""

    runs: list[tuple[int, str]]
    cuts: dict[str, Path]
    disk: Path


def known_answer() -> str:
    models = yaml.safe_load((ROOT / "models.yml").read_text())["models"]
    answer: str = models["smoke"]["proof"]["answer"]
    return answer


@pytest.fixture(scope="session")
def board() -> Iterator[Board]:
    made = vm.disk()
    assert made.folder.exists(), f"{made.folder} is not there: run `python -m sandbox vm`."
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    machine = vm.Machine(made, FOLDER, vm.accelerator(made))
    machine.write_down()
    print(f"QEMU runs it with {' '.join(machine.accelerator)}", flush=True)
    yield Board(machine)
    machine.cut()


@pytest.fixture(scope="session")
def provisioned(board: Board) -> Provisioned:
    """The board with two releases, switched off."""
    disk = vm.overlay(board.machine.made.image, FOLDER / "provisioned.qcow2")
    board.machine.switch_on(disk)
    board.machine.wait_for_ssh()
    image = images()["llamacpp"]
    cuts: dict[str, Path] = {}

    def hear(line: str) -> None:
        # A task is told of once it has ended.
        if "TASK [stack : Copy the build context to the host" in line:
            cuts["files"] = board.copy(disk, "first-files")
        if "TASK [stack : Switch to the release]" in line:
            until(
                lambda: board.machine.run(f"docker image inspect {image}", check=False).returncode,
                f"the image {image}",
                lambda status: status == 0,
                seconds=600,
                every=1,
            )
            cuts["images"] = board.copy(disk, "first-images")

    runs = [board.play(hear=hear)]
    cuts["end"] = board.copy(disk, "first-end")
    runs += [board.play(), board.play(OTHER)]
    board.machine.switch_off()
    return Provisioned(runs, cuts, disk)
