"""What stands before an engine in a comparison: chat APIs and llama-swap, each a container.

Containers are in the host's network, and have all of the machine's cores or a share of one.
"""

from __future__ import annotations

import io
import os
import platform
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks import llama_swap
from edge_fleet.chat_api_bundle import bundle
from sandbox import docker, images, source
from sandbox.instance import CACHE, ROOT
from tests.integration.engines.running import READY_SECONDS, EngineUnderTest, free_port, settings_of

KEY, OTHER_KEY = "bench-key-0123456789", "bench-other-key-0123456789"
BEFORE = "01734b0753a781b51b98368818af3aaded7e71df"
"""The revision that the chat API is compared with: the last one before it got limits and more APIs."""
QUARTER = 0.25
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Candidate:
    """A container that passes requests on; `key` is what it wants of clients."""

    name: str
    base_url: str
    key: str | None
    container: str

    @property
    def pid(self) -> int:
        """Its first process, as this machine counts."""
        return int(docker.docker("inspect", "--format={{.State.Pid}}", self.container))

    def remove(self) -> None:
        docker.docker("rm", "--force", "--volumes", self.container)


def words(
    name: str, image: str, arguments: Sequence[str], *, cpus: float | None = None,
    environ: Mapping[str, str] | None = None, files: Sequence[Path] = (), entry: str | None = None,
) -> list[str]:  # fmt: skip
    """Return the words of `docker run`; `files` are there under the same path, read-only."""
    return [
        *("run", "--detach", f"--name={name}", "--network=host", "--user=0:0"),
        *([f"--cpus={cpus:g}"] if cpus else []),
        *([f"--entrypoint={entry}"] if entry else []),
        *(f"--env={key}={value}" for key, value in (environ or {}).items()),
        *(f"--volume={path}:{path}:ro" for path in files),
        image,
        *arguments,
    ]


def chat_api(
    name: str, image: str, engine: EngineUnderTest, folder: Path, cpus: float | None = None,
    environ: Mapping[str, str] | None = None,
) -> Candidate:  # fmt: skip
    """Start a chat API before an engine; ready when this returns."""
    keys = folder / "api_keys"
    if not keys.exists():
        keys.write_text(f"{KEY}\n{OTHER_KEY}\n", encoding="ascii")
        keys.chmod(0o600)
    port = free_port()
    files = [keys, *([engine.key_file] if engine.key_file else [])]
    settings = {"CHAT_API_KEYS_FILE": str(keys), **settings_of(engine), **(environ or {})}
    container = f"edge-llm-bench-{os.getpid()}-{port}"
    listen = ["--host=127.0.0.1", f"--port={port}"]
    docker.docker(*words(container, image, listen, cpus=cpus, environ=settings, files=files))
    made = Candidate(name, f"http://127.0.0.1:{port}", KEY, container)
    _await(made, "/ready")
    return made


def before_engine_llama_swap(
    binary: Path, engine: EngineUnderTest, folder: Path, cpus: float | None = None
) -> Candidate:
    """Start llama-swap before an engine; listens when this returns."""
    file = folder / f"llama-swap-{engine.model}.yaml"
    file.write_text(llama_swap.config(engine.model, engine.base_url), encoding="utf-8")
    port = free_port()
    container = f"edge-llm-bench-{os.getpid()}-{port}"
    image = images.table(source.decide())["python"].reference
    arguments = ["-config", str(file), "-listen", f"127.0.0.1:{port}"]
    docker.docker(
        *words(container, image, arguments, cpus=cpus, files=[binary, file], entry=str(binary))
    )
    key = engine.key_file.read_text().strip() if engine.key_file else None
    made = Candidate("llama-swap", f"http://127.0.0.1:{port}", key, container)
    _await(made, "/health")
    return made


def _await(made: Candidate, path: str) -> None:
    headers = {"Authorization": f"Bearer {made.key}"} if made.key else {}
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        try:
            if httpx.get(f"{made.base_url}{path}", headers=headers).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    log = docker.docker("logs", "--tail=20", made.container)
    made.remove()
    raise OSError(f"{made.name} is not ready after {READY_SECONDS:g} s: {log}")


def image_of(project: Path) -> str:
    """Build the chat API's image from a project's files as a board does; returns its reference."""
    base = images.table(source.decide())["python"].reference
    made = bundle(project, CACHE, base, _ARCHITECTURES[platform.machine()], check=False)
    if docker.inspect("image", made["image"]) is None:
        with Path(made["archive"]).open("rb") as context:
            build = ["docker", "build", "--tag", made["image"], "--build-arg", f"BASE={base}", "-"]
            subprocess.run(build, stdin=context, check=True, stdout=subprocess.DEVNULL)
    return str(made["image"])


def image_before() -> str:
    """Build the image of the revision BEFORE. Raises OSError where the history lacks it."""
    wanted = ["git", "archive", BEFORE, "src", "requirements"]
    archived = subprocess.run(wanted, cwd=ROOT, capture_output=True, check=False)
    if archived.returncode != 0:
        raise OSError(f"The revision {BEFORE} is missing: {archived.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as tar:
            tar.extractall(folder, filter="data")
        return image_of(Path(folder))
