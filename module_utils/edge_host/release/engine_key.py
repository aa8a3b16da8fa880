"""The engine's key: made on the host, and known to the engine and the chat API only."""

from __future__ import annotations

import secrets
from pathlib import Path

from ..constants import API_UID, ENGINE_KEY, ENGINE_UID, KIB, SECRETS
from ..folders import secret_access
from ..foreign import read_bytes
from ..release_record import hash_text
from .store import replace_file


def ensure_engine_key(root: Path) -> None:
    """Make the engine's key where it is missing or empty.

    A power cut can leave an empty file. `folders.ensure_folders` has given the folder to root, and
    a key that is there to its owner.
    """
    if not _read_key(root).strip():
        owner, group, mode = secret_access(ENGINE_KEY)
        path = root / SECRETS / ENGINE_KEY
        replace_file(path, secrets.token_hex(20) + "\n", mode, (owner, group))


def hash_engine_key(root: Path) -> str:
    """Return the SHA-256 of the engine's key: an engine must be restarted for another one."""
    return hash_text(_read_key(root))


def _read_key(root: Path) -> str:
    """Return the content of the file; empty where it is missing. Raises UnsafeFileError."""
    try:
        content = read_bytes(root / SECRETS / ENGINE_KEY, {API_UID, ENGINE_UID}, KIB)
    except FileNotFoundError:
        return ""
    return content.decode(errors="replace")
