"""How systemd confines the programs of the registry.

A host that keeps images has skopeo, which no system with a systemd older than 247 offers. The
programs start as root and become the registry's user at once: systemd refuses User= with a number
that no user of the host has, and no such user needs to exist.
"""

from __future__ import annotations

SANDBOX = (
    "CapabilityBoundingSet=CAP_SETGID CAP_SETUID",
    "DevicePolicy=closed",
    "KeyringMode=private",
    "LimitCORE=0",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHome=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProtectSystem=strict",
    "RemoveIPC=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=@system-service",
    "UMask=0077",
)
"""Properties of a service that writes nowhere but where ReadWritePaths= says."""
