"""How systemd confines the programs of the registry.

A host that keeps images has skopeo, which no system with a systemd older than 247 offers. The
programs start as root and become the registry's user at once: systemd refuses User= with a number
that no user of the host has, and no such user needs to exist.
"""

from __future__ import annotations

from ..confinement import CONFINED

SANDBOX = (
    *CONFINED,
    "CapabilityBoundingSet=CAP_SETGID CAP_SETUID",
    "DevicePolicy=closed",
    "KeyringMode=private",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "RemoveIPC=yes",
    "UMask=0077",
)
"""Properties of a service that writes nowhere but where ReadWritePaths= says."""
