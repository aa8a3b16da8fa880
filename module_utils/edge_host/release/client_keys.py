"""The files with the keys of the chat API's clients, as far as a change needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict

from ..constants import API_UID, CLIENT_KEYS, MIB, OWN_KEY_LINE, PLAIN_KEYS, SECRETS
from ..foreign import read_bytes
from ..host_info.deployment import needs_plain_keys


def own_key_headers(root: Path) -> Dict[str, str]:
    """Return the headers by which the host may ask its own chat API, of this version or an earlier.

    The file with hashes has the host's own key in a line that chat APIs skip: written with the
    hashes in one step, it is never another one than theirs. Chat APIs of earlier versions know only
    keys in plain text. Raises UnsafeFileError.
    """
    headers = {}
    for line in _read_keys(root, CLIENT_KEYS).splitlines():
        if line.startswith(OWN_KEY_LINE):
            headers["x-api-key"] = line[len(OWN_KEY_LINE) :]
    for line in _read_keys(root, PLAIN_KEYS).splitlines():
        if line and not line.startswith("#"):
            headers.setdefault("Authorization", f"Bearer {line}")
    return headers


def remove_plain_keys(root: Path) -> None:
    """Remove the file with keys in plain text once no release on the host needs it."""
    path = root / SECRETS / PLAIN_KEYS
    if os.path.lexists(path) and not needs_plain_keys(root):
        path.unlink()


def _read_keys(root: Path, name: str) -> str:
    """Return the content of a file of keys; empty where it is missing. Raises UnsafeFileError."""
    try:
        # Until the host has root's folders, API_UID can write the folder.
        content = read_bytes(root / SECRETS / name, {API_UID}, MIB)
    except FileNotFoundError:
        return ""
    return content.decode(errors="replace")
