"""The units of this project on a host: the recovery, and each change."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

from ..commands import find_python
from ..confinement import confine_service
from ..constants import JOURNAL
from ..host_info.system import command_lines
from ..systemd import UNITS, run_systemctl
from ..unit_files.installed import find_other_programs, is_written
from ..unit_files.recovery import SERVICE, build_unit
from .activation import max_activation_seconds
from .errors import ReleaseError
from .host import Host
from .services import wait_until
from .store import replace_file
from .unit import build_recovery_command

CHANGE_UNIT = "edge-llm-change"


def install_recovery(host: Host, program: Path) -> None:
    """Install the unit that recovers the host at its start. What runs goes on."""
    path = UNITS / SERVICE
    text = build_unit(host.root, find_python(), program)
    if not is_written(path, text):
        replace_file(path, text)
        run_systemctl("daemon-reload")
    run_systemctl("enable", SERVICE)


def remove_other_programs(program: Path) -> None:
    """Remove the programs of other versions, except those that run.

    The caller holds the host's lock, so no change is among these; a download may be.
    """
    running = command_lines(Path("/"))
    for path in find_other_programs(program):
        if not any(bytes(path) in command for command in running):
            path.unlink()
    # Before there was one archive, the program was a package in this folder.
    shutil.rmtree(program.parent / "edge_llm", ignore_errors=True)


def wait_for_recovery(host: Host) -> None:
    """Start the recovery's unit, and wait until it has ended; an error is left to `recover`.

    The unit is active from then on: only then systemd restarts it together with Docker.
    """
    limit = 2 * max_activation_seconds(host.releases.current())
    # Where it is starting, or about to be restarted, this waits for that.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            ["systemctl", "--quiet", "start", SERVICE],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False,
        )  # fmt: skip
    # systemd restarts one that was killed after a moment: that is waited for once, not for ever.
    wait_until(
        lambda: (
            run_systemctl("is-active", SERVICE, accepted=(0, 3))
            not in ("activating", "deactivating")
        ),
        limit,
    )


def run_change(host: Host, program: Path, number: int, action: str, operator: str) -> None:
    """Run a change in a unit of its own, and wait for its end and for a recovery, if any.

    Raises ReleaseError where systemd refuses. The change's own result is in the history.
    """
    recovery = build_recovery_command(host.root / JOURNAL)
    done = subprocess.run(
        [
            "systemd-run", "--quiet", "--wait", "--collect", f"--unit={CHANGE_UNIT}-{number}",
            f"--setenv=EDGE_LLM_ROOT={host.root}",
            f"--property=ExecStopPost={recovery}",
            *(f"--property={each}" for each in confine_service(host.root)),
            sys.executable, "-I", str(program), "change", str(number), action, operator,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0 and done.stderr.strip():
        raise ReleaseError(
            f"the change could not be started: systemd-run said: {done.stderr.strip()}. Check"
            " systemd on the host, and run this again"
        )
    if (host.root / JOURNAL).exists():
        wait_for_recovery(host)
