"""What follows from a release's record: above all, whether it is the requested one, untouched.

Pure functions: the control machine imports this module, too.
"""

from __future__ import annotations

import hashlib
from typing import Any, Mapping, Optional


def hash_text(text: str) -> str:
    """Return a text's SHA-256, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_requested(
    record: Mapping[str, Any],
    files: Mapping[str, str],
    digest: str,
    found: Mapping[str, Optional[str]],
) -> bool:
    """Whether a release has the requested files and weights, and nobody has edited its files.

    `record` is its release.json. Requested are `files` (their texts as rendered, by name) and
    `digest`, the model's; `found` has the hash of each file on the host, None where it is missing.
    """
    return bool(
        record["rendered"] == {name: hash_text(text) for name, text in files.items()}
        # Records of earlier versions have no digest.
        and record["plan"]["model"].get("digest") == digest
        and record["written"] == found
    )


def listen_address(record: Mapping[str, Any]) -> str:
    """Return where the chat API of a release listens; empty for all addresses.

    `record` is its release.json, or what becomes that. Those of earlier versions do not say.
    """
    return str(record.get("plan", {}).get("api", {}).get("listen_address", ""))
