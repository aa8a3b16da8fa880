"""What systemd runs for this project on a host: the recovery, and each change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Sequence

from ..constants import JOURNAL
from ..files import read_text
from .errors import Failure
from .recovery import restore_seconds
from .services import until
from .store import Host, write_text
from .switch import UNIT
from .unit import SERVICE, starter, unit


def install(host: Host, program: Path) -> None:
    """Have the host brought to its current release at its start, and recovered now if need be."""
    path = Path("/etc/systemd/system") / SERVICE
    text = unit(host.root, sys.executable, program)
    if read_text(path) != text:
        write_text(path, text)
        systemctl("daemon-reload")
    systemctl("enable", SERVICE)
    await_recovery(host)


def remove_other_programs(program: Path) -> None:
    """Remove the programs of other versions. The caller holds the host's lock: none is at work."""
    for path in program.parent.iterdir():
        if path.suffix == ".pyz" and path != program:
            path.unlink()
    # Before there was one archive, the program was a package there.
    shutil.rmtree(program.parent / "edge_llm", ignore_errors=True)


def await_recovery(host: Host) -> None:
    """Wait until the host is recovered, or cannot be: `recover` has the words for that.

    The unit is active from then on: it is started again with Docker only if it is.
    """
    # Where it is being started, or about to be, this waits for that.
    subprocess.run(["systemctl", "--quiet", "start", SERVICE], capture_output=True, check=False)
    # One that was killed fails, and is started again by systemd after a moment: once, not for ever.
    until(
        lambda: (
            systemctl("is-active", SERVICE, accepted=(0, 3)) not in ("activating", "deactivating")
        ),
        2 * restore_seconds(host.current()),
    )


def systemctl(*words: str, accepted: Sequence[int] = (0,)) -> str:
    """Return what systemctl printed. Raises Failure where it fails."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if done.returncode not in accepted:
        raise Failure(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def run_change(host: Host, program: Path, number: int, action: str, by: str) -> None:
    """Have systemd run the change, and wait for its end; what it left half done is undone then."""
    done = subprocess.run(
        [
            "systemd-run", "--quiet", "--wait", "--collect", f"--unit={UNIT}-{number}",
            f"--setenv=EDGE_LLM_ROOT={host.root}",
            f"--property=ExecStopPost={starter(host.root / JOURNAL)}",
            sys.executable, "-I", str(program), "change", str(number), action, by,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # What became of it stands in the history; systemd's own refusal does not.
    if done.returncode != 0 and done.stderr.strip():
        raise Failure(f"the change could not be run: {done.stderr.strip()}")
    if (host.root / JOURNAL).exists():
        await_recovery(host)
