"""The engine's key: made on the host and known to nobody else, since only the chat API uses it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..constants import SECRETS
from ..files import read_text
from ..release_record import hash_text
from .store import replace_file

ENGINE_KEY = f"{SECRETS}/engine_key"


def ensure_engine_key(root: Path, owner: int) -> None:
    """Make the engine's key where it is missing or empty, readable by the uid `owner` only.

    A power cut can leave an empty file.
    """
    path = root / ENGINE_KEY
    if not (read_text(path) or "").strip():
        replace_file(path, secrets.token_hex(20) + "\n", 0o600)
    path.chmod(0o600)
    os.chown(path, owner, owner)


def hash_engine_key(root: Path) -> str:
    """Return the SHA-256 of the engine's key: an engine must be restarted for another one."""
    return hash_text(read_text(root / ENGINE_KEY) or "")
