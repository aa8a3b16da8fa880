"""The unit that sets a Jetson's clocks to their highest, `edge-llm-clocks.service`.

jetson_clocks writes to /sys, and nvidia-smi, which it runs on newer releases, takes the GPU's
devices as an administrator: both stay allowed, as is /run, where locks are. The options are known
to systemd 245.
"""

from __future__ import annotations

from typing import Dict

from ..constants import IN_PLACE
from ..files import write_atomically
from ..systemd import UNITS, run_systemctl
from .installed import inspect_unit

CLOCKS_UNIT = "edge-llm-clocks.service"
CLOCKS_TEXT = """\
[Unit]
Description=The highest clocks of the power mode, for edge-llm
After=nvpmodel.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/jetson_clocks
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/run
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_SYS_ADMIN
MemoryMax=512M
TasksMax=256
LimitCORE=0

[Install]
WantedBy=multi-user.target
"""


def find_clocks_difference() -> Dict[str, str]:
    """Return the unit's name and what is not as it is installed; empty where all is."""
    found = inspect_unit(UNITS / CLOCKS_UNIT, CLOCKS_TEXT)
    return {} if found == IN_PLACE else {CLOCKS_UNIT: found}


def install_clocks() -> None:
    """Install the unit, and set the clocks. Raises ReleaseError."""
    write_atomically(UNITS / CLOCKS_UNIT, CLOCKS_TEXT.encode(), UNITS)
    run_systemctl("daemon-reload")
    run_systemctl("--quiet", "enable", CLOCKS_UNIT)
    # One of an earlier version may have set less, or have failed.
    run_systemctl("restart", CLOCKS_UNIT)
