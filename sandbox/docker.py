"""The Docker engine, through the `docker` command."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from sandbox.errors import SandboxError
from sandbox.instance import LABEL


def docker(*words: str) -> str:
    """Run a short `docker` command; returns what it printed, stripped. Raises SandboxError."""
    result = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = result.stderr.strip() or f"exit status {result.returncode}"
        raise SandboxError(f"`docker {' '.join(words[:2])}` failed: {reason}")
    return result.stdout.strip()


def lines(*words: str) -> list[str]:
    """What a `docker` command printed, line by line."""
    return docker(*words).splitlines()


def answers() -> bool:
    """Whether an engine answers."""
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except (SandboxError, FileNotFoundError):
        return False
    return True


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """`docker KIND inspect NAME` (kind: container, image, network, volume), or None."""
    result = subprocess.run(
        ["docker", kind, "inspect", name], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        if "no such" in result.stderr.lower() or "not found" in result.stderr.lower():
            return None
        raise SandboxError(f"`docker {kind} inspect {name}` failed: {result.stderr.strip()}")
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found[0]


def labels(kind: str, found: dict[str, Any]) -> dict[str, str]:
    """Labels of an inspected object."""
    where = found["Config"] if kind in ("container", "image") else found
    return where.get("Labels") or {}


def ours(kind: str, name: str, owner: str) -> dict[str, Any] | None:
    """An object of the sandbox by name, None where there is none.

    Raises SandboxError where one of that name belongs to somebody else: it is left alone.
    """
    found = inspect(kind, name)
    if found is None:
        return None
    label = labels(kind, found).get(LABEL)
    if label != owner:
        whose = f"it carries {LABEL}={label}" if label else f"it has no label {LABEL}"
        raise SandboxError(
            f"The sandbox needs the {kind} name {name!r}, but a {kind} of that name exists and "
            f"{whose}; rename or remove it, then try again."
        )
    return found


def labelled(kind: str, owner: str) -> list[str]:
    """Ids (names for volumes) of the sandbox's objects of a kind."""
    list_all = ["-a"] if kind in ("container", "image") else []
    found = lines(kind, "ls", *list_all, "-q", "--filter", f"label={LABEL}={owner}")
    return list(dict.fromkeys(found))
