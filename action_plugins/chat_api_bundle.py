"""Make the chat API's build context for an architecture, on the control machine.

An action, not a module: it runs within ansible-playbook's own process there, and a module would
take a Python of its own for every host, half a second each.
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

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

DOCUMENTATION = r"""
module: chat_api_bundle
short_description: Make the chat API's build context for an architecture, on the control machine
description:
  - Resolves the locked, hashed wheels for another machine's architecture, adds the provider module
    and the Dockerfile, and keeps the result as a tar archive named by the hash of everything in it.
  - Nothing is fetched where that archive is there already, and nothing is written in a check run.
options:
  project:
    type: path
    required: true
    description: The project's root, which holds src/ and requirements/api.txt.
  cache:
    type: path
    required: true
    description: The folder that keeps archives.
  base_image:
    type: str
    required: true
    description: The image that the chat API's is built on; a part of the version.
  architecture:
    type: str
    required: true
    choices: [amd64, arm64]
    description: The boards' architecture, as container images name it.
author: The edge-llm project
"""

RETURN = r"""
version: {type: str, returned: always, description: Hash of the contents, 16 hexadecimal digits.}
image: {type: str, returned: always, description: The image's name and tag on a board.}
archive:
  type: path
  returned: always
  description: The tar archive on the control machine; a check run does not make it.
"""

# The base image's Python, and the wheels that its C library can load, per architecture.
PYTHON_VERSION = "3.13"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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


class ActionModule(ActionBase):  # type: ignore[misc]
    """Makes the archive where it is not there."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(
            {
                "project": {"type": "path", "required": True},
                "cache": {"type": "path", "required": True},
                "base_image": {"type": "str", "required": True},
                "architecture": {"type": "str", "required": True, "choices": sorted(MACHINES)},
            }
        )
        project = Path(asked["project"])
        try:
            version = version_of(project, asked["base_image"], asked["architecture"])
            archive = Path(asked["cache"]) / f"chat-api-{version}-{asked['architecture']}.tar.gz"
            if not archive.exists() and not self._task.check_mode:
                archive.parent.mkdir(parents=True, exist_ok=True)
                # Hosts of one kind share an archive: the first one makes it, the others wait.
                with (archive.parent / "lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    if not archive.exists():
                        build(project, asked["architecture"], archive)
        except OSError as error:
            raise AnsibleActionFail(str(error)) from error
        # The archive is a cache on the control machine: no host has changed.
        return {
            "changed": False,
            "version": version,
            "image": f"edge-llm/chat-api:{version}",
            "archive": str(archive),
        }
