"""The unit that recovers a host: at its start, and after a change that was killed.

It is the one unit `edge-llm.service`. A change runs in a unit of its own, which starts this one
when it leaves something undone. It does not recover by itself in ExecStopPost=: systemd kills what
runs there after TimeoutStopSec=, and nobody starts it again.

Every option is known to systemd 237 (JetPack 4). That is why this is Type=notify and not
Type=oneshot: oneshot services may be restarted from systemd 244 on only.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

SERVICE = "edge-llm.service"
LOOK_SECONDS = 60.0
"""What a recovery gets that has not said yet how long it takes, and for each look at the lock."""
# on-abnormal: started again after a signal or the time limit. One that failed for a reason has said
# so, and fails again until a person has removed the reason.
_TEXT = """\
[Unit]
Description=The current release of edge-llm: started whole, after whatever cut the last change short
After=docker.service
PartOf=docker.service
StartLimitIntervalSec=0

[Service]
Type=notify
RemainAfterExit=yes
Environment=EDGE_LLM_ROOT={root}
ExecStart={python} -I {program} recover
TimeoutStartSec={seconds:.0f}s
Restart=on-abnormal
RestartSec=1s

[Install]
WantedBy=docker.service
"""


def unit(root: Path, python: str, program: Path) -> str:
    """Return the text of the unit that runs the program (`edge_host.cli`)."""
    return _TEXT.format(root=root, python=python, program=program, seconds=LOOK_SECONDS)


def starter(journal: Path) -> str:
    """Return a command for ExecStopPost= of a change, which has what it left undone recovered.

    It does not wait: the recovery has a time limit of its own.
    """
    return f'/bin/sh -c "test ! -e {journal} || exec systemctl --no-block restart {SERVICE}"'


def extend(seconds: float) -> None:
    """Tell systemd that the recovery ends within so many seconds from now."""
    _notify(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000:.0f}")


def ready() -> None:
    """Tell systemd that the host is recovered."""
    _notify("READY=1")


def _notify(message: str) -> None:
    """Send a message to the systemd that started this process, if one did."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
