"""Ollama, built from its Go module by a pinned Go toolchain that lives in the cache folder."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import urllib.request
import zipfile
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.instance import CACHE
from sandbox.steps import Step

VERSION = "0.34.0"
GO = "1.26.10"
BINARY = CACHE / f"ollama-{VERSION}"
BINARY_ARM64 = CACHE / f"ollama-{VERSION}-arm64"
"""For the emulated boards, built on this machine by a cross compiler."""

_MODULE = "github.com/ollama/ollama"
_PROXY = "https://proxy.golang.org"
# sha256 of the toolchain's archive on the module proxy; both were checked against Go's checksum
# database (`go mod download golang.org/toolchain@...`).
_TOOLCHAINS = {
    "x86_64": ("amd64", "f64ecb0807852be2c98899561c45288a9ad57f4e88f3cd002ffabeccbd03bfe1"),
    "aarch64": ("arm64", "195f18be92553fb272b9c4f9fca6e67b6a04d8831bf6c4b918ac70982fadb444"),
}
_FOLDER = CACHE / "go"


def build(step: Step) -> str | None:
    """See to it that BINARY is there. The build cache makes an interrupted build go on."""
    return _build(step, BINARY, {"GOBIN": str(_FOLDER / "bin")}, _FOLDER / "bin")


def build_arm64(step: Step) -> str | None:
    """See to it that BINARY_ARM64 is there."""
    # Of another architecture it goes where Go likes, and GOBIN must not be set.
    cross = {
        "GOOS": "linux",
        "GOARCH": "arm64",
        "CC": "aarch64-linux-gnu-gcc",
        "CXX": "aarch64-linux-gnu-g++",
    }
    return _build(step, BINARY_ARM64, cross, _FOLDER / "path" / "bin" / "linux_arm64")


def _build(step: Step, binary: Path, env: dict[str, str], output: Path) -> str | None:
    if binary.exists():
        return "already there"
    toolchain = _toolchain()
    step.run(
        toolchain / "bin" / "go",
        "install",
        "-v",
        "-trimpath",
        f"-ldflags=-s -w -X {_MODULE}/version.Version={VERSION}",
        f"{_MODULE}@v{VERSION}",
        env={
            "CGO_ENABLED": "1",
            "GOTOOLCHAIN": "local",
            # Everything that Go writes stays in the cache folder, and can be deleted from there.
            "GOFLAGS": "-modcacherw",
            "GOENV": "off",
            "GOROOT": str(toolchain),
            "GOPATH": str(_FOLDER / "path"),
            "GOMODCACHE": str(_FOLDER / "path" / "pkg" / "mod"),
            "GOCACHE": str(_FOLDER / "build"),
            "XDG_CONFIG_HOME": str(_FOLDER / "config"),
            **env,
        },
    )
    (output / "ollama").rename(binary)
    # A gigabyte that nobody needs any more.
    shutil.rmtree(_FOLDER)
    return None


def _toolchain() -> Path:
    return _FOLDER / f"go{GO}"


def fetch_toolchain(step: Step, binary: Path = BINARY) -> str | None:
    """See to it that the Go toolchain is there, where Ollama has yet to be built."""
    if binary.exists():
        return "not needed"
    if _toolchain().exists():
        return "already there"
    machine = platform.machine()
    if machine not in _TOOLCHAINS:
        raise SandboxError(
            f"This machine is {machine}; Ollama is built on {' or '.join(_TOOLCHAINS)} only."
        )
    architecture, sha256 = _TOOLCHAINS[machine]
    version = f"v0.0.1-go{GO}.linux-{architecture}"
    url = f"{_PROXY}/golang.org/toolchain/@v/{version}.zip"
    archive = _FOLDER / "toolchain.zip"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    _download(step, url, archive, sha256)
    step.say("unpacking the Go toolchain")
    unfinished = _FOLDER / "toolchain.part"
    shutil.rmtree(unfinished, ignore_errors=True)
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(unfinished)
    root = unfinished / f"golang.org/toolchain@{version}"
    # Module archives carry no modes: what is to be run has to be made so.
    for program in [*(root / "bin").iterdir(), *(root / "pkg" / "tool").rglob("*")]:
        if program.is_file():
            program.chmod(0o755)
    root.rename(_toolchain())
    shutil.rmtree(unfinished)
    archive.unlink()
    return None


def _download(step: Step, url: str, path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    done = 0
    step.say(f"downloading {url}")
    with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as out:  # noqa: S310
        total = int(answer.headers.get("Content-Length") or 0)
        while block := answer.read(1 << 20):
            step.check()
            out.write(block)
            digest.update(block)
            done += len(block)
            step.last = f"downloading Go {GO}: {done >> 20} of {total >> 20} MiB"
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != sha256:
        raise SandboxError(
            f"{url} has sha256 {digest.hexdigest()}; {sha256} was expected, so it is not used."
        )
