"""llama-swap, built from its Go module by this machine's Go: what the chat API is compared with.

    python -m benchmarks.llama_swap

It has no semantic versions, so a commit is named; Go checks the module and all that it needs
against its checksum database and the module's own go.sum.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from sandbox.instance import CACHE

MODULE = "github.com/mostlygeek/llama-swap"
VERSION = "v0.0.0-20260822162957-0bdb3720199f"
BINARY = CACHE / f"llama-swap-{VERSION}"


def build() -> Path:
    """Return the binary, built where it is not there. Raises OSError with Go's reason."""
    if BINARY.exists():
        return BINARY
    if shutil.which("go") is None:
        raise OSError("llama-swap cannot be built: the command go is missing.")
    folder = CACHE / "llama-swap-build"
    environ = os.environ | {
        "CGO_ENABLED": "0",
        "GOENV": "off",
        "GOFLAGS": "-modcacherw",
        "GOBIN": str(folder / "bin"),
        "GOPATH": str(folder / "path"),
        "GOCACHE": str(folder / "build"),
    }
    done = subprocess.run(
        ["go", "install", "-trimpath", "-ldflags=-s -w", f"{MODULE}@{VERSION}"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise OSError(f"llama-swap cannot be built: {done.stderr.strip()}")
    (folder / "bin" / "llama-swap").replace(BINARY)
    shutil.rmtree(folder)
    return BINARY


def config(model: str, engine: str) -> str:
    """The configuration file (YAML, which JSON is) before an engine that runs already.

    llama-swap has to start something for a model: a process that waits.
    """
    entry = {"cmd": "sleep infinity", "proxy": engine.removesuffix("/v1"), "ttl": 0}
    return json.dumps(
        {"logLevel": "warn", "models": {model: {**entry, "checkEndpoint": "/health"}}}
    )


def main() -> int:
    """Build; returns 1 where that fails."""
    try:
        print(build())
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
