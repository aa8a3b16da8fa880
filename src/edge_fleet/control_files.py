"""Small files on the control machine: facts, keys and clients' settings."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Write = Callable[[Path, bytes, Path, int], None]
"""Puts content at a path in one step: path, content, a folder for the new file, mode."""


def write_files(files: Sequence[Mapping[str, Any]], check: bool, write: Write) -> dict[str, Any]:
    """Write the files whose content or mode differs; with `check` gathered facts alone.

    files: path, content, secret (for their owner alone), gathered (facts that were read of a host,
    which are no change) and once (a file that exists stays as it is). Returns {"changed",
    "written": [path, ...], "changes": [what differed, without values, ...]}. Raises OSError.
    """
    written: list[str] = []
    changes: list[str] = []
    for file in files:
        path, content = Path(file["path"]), str(file["content"])
        mode = 0o600 if file["secret"] else 0o644
        found = [] if file["once"] and path.exists() else differences(path, content, mode)
        if found and (file["gathered"] or not check):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if file["secret"] else 0o755)
            if file["once"]:
                _write_first(path, content.encode(), mode, write)
            else:
                write(path, content.encode(), path.parent, mode)
        if found and not file["gathered"]:
            written.append(str(path))
            changes += [f"{path}: {each}" for each in found]
    return {"changed": bool(written), "written": written, "changes": changes}


def _write_first(path: Path, content: bytes, mode: int, write: Write) -> None:
    """Write a file that does not exist; of several runs at once, the first one's stays."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as scratch:
        new = Path(scratch, path.name)
        write(new, content, new.parent, mode)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)


def client_environment(url: str, key: str, bundle: str = "", ca: str = "") -> str:
    """The clients' file of a host: a shell's commands that set its address and key.

    bundle, ca: the files by which clients trust a host with TLS, empty for those that they trust
    anyway. httpx, on which the SDKs of Python are built, and curl read SSL_CERT_FILE in place of
    other authorities; Node.js adds NODE_EXTRA_CA_CERTS to its own.
    """
    variables = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key}
    if ca:
        variables |= {"SSL_CERT_FILE": shlex.quote(bundle or ca)}
        variables |= {"NODE_EXTRA_CA_CERTS": shlex.quote(ca)}
    lines = [f"{name}={value}" for name, value in variables.items()]
    return "\n".join([*lines, f"export {' '.join(variables)}", ""])


def line_names(before: str, after: str) -> list[str] | None:
    """Names of the NAME=VALUE lines that differ; None where other lines differ."""
    old, new = before.splitlines(), after.splitlines()
    differing = [line for line in old if line not in new] + [
        line for line in new if line not in old
    ]
    names = {line.partition("=")[0] for line in differing}
    if not names or not all("=" in line for line in differing):
        return None
    return sorted(names)


def differences(path: Path, content: str, mode: int) -> list[str]:
    """The differences of a file from its new content and mode, without values."""
    try:
        before, found = path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777
    except FileNotFoundError:
        return ["a new file"]
    except (OSError, ValueError):
        return ["its content cannot be read"]
    lines = []
    if before != content:
        names = line_names(before, content)
        lines.append(f"{', '.join(names)} differs" if names else "its content differs")
    if found != mode:
        lines.append(f"mode {found:04o} becomes {mode:04o}")
    return lines
