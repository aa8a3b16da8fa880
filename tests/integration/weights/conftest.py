"""Boards that download weights, and the hub, which counts the bytes that it sends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.playing import ROOT, command, play, started
from tests.waiting import until

HUB = "http://198.18.41.3"
INVENTORY = ("-i", "tests/integration/weights/hosts.yml")
BOARDS = ("field-01", "field-02", "field-03")
# The board of tests that run beside those of the fleet.
FAULTY, FAULTY_ADDRESS = "pi-01", "198.18.41.12"
# Boards of other suites, which download what they need at the same time.
OTHERS = {FAULTY_ADDRESS, "198.18.41.11"}
MIB = 1024**2
BUFFER = 16 * 1024
"""Bytes that curl may have received and not written yet."""


@dataclass(frozen=True)
class File:
    """A model's file in the catalogue."""

    model: str
    file: str
    size: int
    sha256: str

    @property
    def bundle(self) -> str:
        """As the plan names the model's files together."""
        content = f"{self.sha256} {self.file}".encode()
        return f"{self.model}.gguf-{hashlib.sha256(content).hexdigest()[:12]}"


def catalogued(model: str) -> File:
    """The one GGUF file of a model."""
    entry = yaml.safe_load((ROOT / "models.yml").read_text())["models"][model]["gguf"]
    (file,) = entry["files"]
    return File(model, file["file"], file["size"], file["sha256"])


SMOLLM = catalogued("smollm2-135m")
SMOKE = catalogued("smoke")


def on(board: str, *words: str, check: bool = True) -> str:
    """What a command on a board writes."""
    done = subprocess.run(
        ["docker", "exec", f"test-{board}", *words], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell(board: str, script: str, check: bool = True) -> str:
    return on(board, "sh", "-c", script, check=check)


def counted(what: str, file: File = SMOLLM) -> dict[str, int]:
    """Client's address -> what the hub has counted for a file so far."""
    counters = httpx.get(f"{HUB}/counters", timeout=10).json()
    return {client: int(each[what]) for client, each in counters.get(file.sha256, {}).items()}


def given(file: File = SMOLLM) -> int:
    """Bytes of a file that the hub has given to the fleet and the control machine so far."""
    return sum(n for client, n in counted("bytes", file).items() if client not in OTHERS)


def whole(board: str, root: str, file: File = SMOLLM) -> bool:
    """Whether a board has a file, whole and recorded, and nothing half is left."""
    path = f"{root}/models/{file.file}"
    said = shell(board, f"sha256sum {path}; cat {root}/models/.verified.json", check=False)
    left = shell(board, f"ls {root}/models/.fetch", check=False)
    return said.count(file.sha256) == 2 and not left.strip()


def unfinished(board: str, root: str) -> int:
    """Bytes of what has come and is not whole."""
    sizes = shell(board, f"stat -c %s {root}/models/.fetch/*/*", check=False)
    return sum(map(int, sizes.split()))


def at(size: int, board: str, root: str) -> None:
    """Wait until a source that holds back the rest has given so many bytes."""
    until(
        lambda: unfinished(board, root),
        f"byte {size}",
        lambda received: received > size - BUFFER,
        every=0.1,
    )


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """A deployment folder of the test's own, on every board."""
    name = f"/srv/{request.node.name.split('[')[0].removeprefix('test_')[:40]}"
    for board in BOARDS:
        shell(board, f"systemctl stop 'edge-llm-fetch*'; rm -rf {name}", check=False)
    yield name
    for board in BOARDS:
        shell(board, f"systemctl stop 'edge-llm-fetch*'; rm -rf {name}", check=False)


def download_weights(host: str, **given: Any) -> subprocess.CompletedProcess[str]:
    """Bring weights to boards, and nothing else."""
    return play("site.yml", host, "--tags", "weights", *INVENTORY, **given)


def start_download(host: str, **given: Any) -> subprocess.Popen[str]:
    """Begin to."""
    return started(command("site.yml", host, "--tags", "weights", *INVENTORY, **given))


def ended(run: subprocess.Popen[str]) -> str:
    """What a run that has been begun says, at its end."""
    try:
        said, _ = run.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        said, _ = run.communicate()
        pytest.fail(f"The run did not end within 600 s:\n{said[-4000:]}")
    return said


def local_folder(folder: Path, file: File = SMOLLM) -> Path:
    """A folder of the control machine that has a file, as a disk that was plugged in would."""
    (source,) = (ROOT / ".sandbox/cache/hub").glob(f"*/*/*/{file.file}")
    folder.mkdir(exist_ok=True)
    (folder / file.file).hardlink_to(source)
    return folder


def report(said: str) -> dict[str, Any]:
    """The JSON of a run whose callback prints that."""
    found: dict[str, Any] = json.loads(said[said.index("{\n") :])
    return found
