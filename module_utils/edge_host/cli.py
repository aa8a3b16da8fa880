"""The program that runs on a host by itself, from one archive.

    python3 -I /opt/edge-llm/lib/edge_host-VERSION.pyz COMMAND ...

Commands: `state [ARGUMENTS]` prints the state of the host; `change NUMBER ACTION OPERATOR` switches
to a release, `recover` recovers the host after an interruption, `download FOLDER` runs the download
whose job is in that folder, `registry USER SOCKET ADDRESS ...` passes connections of these
addresses to the fleet's image registry, `readings FOLDER` writes readings of the board there, and
`sockets PATH USER` hands the listening sockets of systemd to chat APIs. Ansible's modules, and the
systemd units that the roles write, start all but the first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Callable, Dict, Sequence

from . import readings
from .constants import ROOT
from .download import process as download
from .errors import ReleaseError
from .host_info import state
from .registry import forward
from .release.host import Host
from .release.lock import lock_host
from .release.recovery import recover_under_systemd
from .release.switch import switch_release
from .sockets import holder


def _change(arguments: Sequence[str]) -> int:
    number, action, operator = arguments
    host = _open_host()
    with lock_host(host.root, operator):
        result = switch_release(host, int(number), action)
    # The caller reads the result from the history.
    return 0 if result["outcome"] == "committed" else 1


def _recover(_: Sequence[str]) -> int:
    recover_under_systemd(_open_host())
    return 0


def _open_host() -> Host:
    return Host(os.environ.get("EDGE_LLM_ROOT", ROOT))


def _download(arguments: Sequence[str]) -> int:
    return download.run(Path(arguments[0]))


def _sockets(arguments: Sequence[str]) -> int:
    path, user = arguments
    return holder.main(Path(path), int(user))


COMMANDS: Dict[str, Callable[[Sequence[str]], int]] = {
    "change": _change,
    "download": _download,
    "readings": readings.main,
    "recover": _recover,
    "registry": forward.main,
    "sockets": _sockets,
    "state": state.main,
}


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status; 2 for an unknown command."""
    name, *rest = arguments or [""]
    if name not in COMMANDS:
        print(f"usage: edge_host {'|'.join(sorted(COMMANDS))} ...", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name](rest)
    except ReleaseError as error:
        print(f"edge-llm: {error}.", file=sys.stderr)
        return 1
