"""What a status of the host shows besides the facts that decisions need."""

from __future__ import annotations

from pathlib import Path

from ..constants import SECRETS
from ..files import read_text
from ..json_data import Facts
from .drift import list_drift
from .sensors import Sensors

_CERTIFICATE = f"{SECRETS}/tls/certificate.pem"


def read_status(root: Path, system: Path) -> Facts:
    """{"sensors" (a sample), "drift" (paths, or None without a release), "certificate" (of the chat
    API, PEM with its chain, or None)}.
    """
    return {
        "sensors": Sensors(system).read(),
        "drift": list_drift(root),
        "certificate": read_text(root / _CERTIFICATE),
    }
