"""The unit that recovers a host, `edge-llm.service`: its text.

Every option of the unit itself is known to systemd 237 (JetPack 4), which ignores the newer ones of
`confinement`. That is why this is Type=notify and not Type=oneshot: oneshot services may be
restarted from systemd 244 on only.
"""

from __future__ import annotations

from pathlib import Path

from ..confinement import confine_service
from ..constants import SOCKETS_UNIT

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
