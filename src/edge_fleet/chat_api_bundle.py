"""The chat API's build context: the locked wheels for a board, the provider module, the Dockerfile.

One archive for each architecture, named by the hash of its contents, made on the control machine.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

IMAGE = "edge-llm/chat-api"
"""Repository of the images, which are built on hosts; their tags follow their content."""
# The base image's Python, and the wheels that its C library can load, per architecture.
PYTHON_VERSION = "3.13"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
PIP_SECONDS = 1800.0
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


def sources(project: Path) -> dict[str, Path]:
    """Names in the archive -> files of the project, in a stable order."""
    package = project / "src" / "llm_provider"
    files = {"Dockerfile": project / "src" / "Dockerfile"}
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            files[f"app/llm_provider/{path.relative_to(package)}"] = path
    return files


def version_of(project: Path, base_image: str, architecture: str) -> str:
    """16 hexadecimal digits that change with anything that the image is made of."""
    digest = hashlib.sha256()
    lock = project / "requirements" / "api.txt"
    for name, path in {**sources(project), "api.txt": lock}.items():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    digest.update(f"{base_image}\0{architecture}\0{PYTHON_VERSION}".encode())
    return digest.hexdigest()[:16]


def install_wheels(project: Path, architecture: str, target: Path) -> None:
    """Unpack the locked wheels for `architecture` into `target`; pip checks every hash."""
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-compile", "--no-deps", "--require-hashes", "--only-binary=:all:",
        "--implementation=cp", f"--python-version={PYTHON_VERSION}", f"--target={target}",
    ]  # fmt: skip
    command += [f"--platform={each}_{MACHINES[architecture]}" for each in PLATFORMS]
    command += ["--requirement", str(project / "requirements" / "api.txt")]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PIP_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise OSError(
            f"the chat API's wheels for {architecture} could not be fetched: pip did not end within"
            f" {PIP_SECONDS:g} s. Check the package index and the network of the control machine,"
            " and run this again"
        ) from None
    if done.returncode != 0:
        raise OSError(
            f"the chat API's wheels for {architecture} could not be fetched: {done.stderr.strip()}"
        )


def _entry(name: str, content: bytes) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), 0o644, 0
    return info, io.BytesIO(content)


def build(project: Path, architecture: str, archive: Path) -> None:
    """Write the archive under its final name only once it is whole."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        wheels = Path(scratch) / "wheels"
        install_wheels(project, architecture, wheels)
        part = Path(scratch) / "archive"
        # mtime and no file name: the same contents make the same bytes.
        with (
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, path in sources(project).items():
                tar.addfile(*_entry(name, path.read_bytes()))
            for path in sorted(wheels.rglob("*")):
                inside = path.relative_to(wheels)
                if path.is_file() and inside.parts[0] != "bin":
                    tar.addfile(*_entry(f"app/{inside}", path.read_bytes()))
        part.replace(archive)


def bundle(
    project: Path, cache: Path, base_image: str, architecture: str, check: bool
) -> dict[str, Any]:
    """Make the archive where the cache does not have it; with `check` make none.

    Returns {"version", "image", "archive"}. Raises OSError.
    """
    version = version_of(project, base_image, architecture)
    archive = cache / f"chat-api-{version}-{architecture}.tar.gz"
    if not archive.exists() and not check:
        archive.parent.mkdir(parents=True, exist_ok=True)
        # Hosts of one kind share an archive: the first one makes it, the others wait.
        with (archive.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not archive.exists():
                build(project, architecture, archive)
    return {
        "version": version,
        "image": f"{IMAGE}:{version}",
        "archive": str(archive),
    }
