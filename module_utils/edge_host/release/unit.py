"""The unit that recovers a host: at its start, and after a change that was killed.

It is the one unit `edge-llm.service`. A change runs in a unit of its own, whose ExecStopPost=
starts this one where the change was interrupted. The recovery does not run in ExecStopPost= itself:
systemd kills it there after TimeoutStopSec=, and does not restart it.

Every option of the unit itself is known to systemd 237 (JetPack 4), which ignores the newer ones of
`confinement`. That is why this is Type=notify and not Type=oneshot: oneshot services may be
restarted from systemd 244 on only.
"""

from __future__ import annotations

from pathlib import Path

from ..confinement import confine_service
from ..constants import SOCKETS_UNIT
from ..systemd import notify

SERVICE = "edge-llm.service"
LOCK_SECONDS = 60.0
"""The time limit of a recovery that waits for the host's lock; it is extended again and again."""
# on-abnormal: restarted after a signal or the time limit, but not after an error that it reported,
# which would occur again until a person has removed its cause.
_TEXT = """\
[Unit]
Description=Recovery of the current release of edge-llm, at boot and after an interrupted change
After=docker.service {sockets}
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
{confinement}

[Install]
WantedBy=docker.service
"""


def build_unit(root: Path, python: str, program: Path) -> str:
    """Return the text of the unit that runs the program (`edge_host.cli`)."""
    # After the sockets, and not with them: an earlier version's container may have the ports.
    return _TEXT.format(
        root=root,
        python=python,
        program=program,
        seconds=LOCK_SECONDS,
        sockets=SOCKETS_UNIT,
        confinement="\n".join(confine_service(root)),
    )


def build_recovery_command(journal: Path) -> str:
    """Return the command for ExecStopPost= of a change that starts a recovery, if one is needed.

    The command does not wait: the recovery has a time limit of its own.
    """
    return f'/bin/sh -c "test ! -e {journal} || exec systemctl --no-block restart {SERVICE}"'


def extend_time_limit(seconds: float) -> None:
    """Tell systemd that the recovery ends within so many seconds from now."""
    notify(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000:.0f}")


def notify_ready() -> None:
    """Tell systemd that the host is recovered."""
    notify("READY=1")
