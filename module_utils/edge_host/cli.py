"""The program that runs on a host by itself, from one archive.

    python3 -I /opt/edge-llm/lib/edge_host-VERSION.pyz COMMAND ...

Commands: `state [ARGUMENTS]` prints what is on the host; `change NUMBER ACTION BY` changes over to
a release, `recover` brings the host to its current one, and `download FOLDER` does the job that
waits in that folder. Ansible's modules, and units of systemd's that they write, start the others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Callable, Dict, Sequence

from .constants import ROOT
from .download import process as download
from .host_info import state
from .release.errors import Failure
from .release.recovery import recover_for_systemd
from .release.store import Host
from .release.switch import change


def _change(arguments: Sequence[str]) -> int:
    number, action, by = arguments
    host = _host()
    with host.locked(by):
        told = change(host, int(number), action)
    # What became of it stands in the history.
    return 0 if told["outcome"] == "committed" else 1


def _recover(_: Sequence[str]) -> int:
    recover_for_systemd(_host())
    return 0


def _host() -> Host:
    return Host(os.environ.get("EDGE_LLM_ROOT", ROOT))


def _download(arguments: Sequence[str]) -> int:
    return download.run(Path(arguments[0]))


COMMANDS: Dict[str, Callable[[Sequence[str]], int]] = {
    "change": _change,
    "download": _download,
    "recover": _recover,
    "state": state.main,
}


def main(arguments: Sequence[str]) -> int:
    """Run a command; the exit status is 2 for one that does not exist."""
    name, *words = arguments or [""]
    if name not in COMMANDS:
        print(f"usage: edge_host {'|'.join(sorted(COMMANDS))} ...", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name](words)
    except Failure as failure:
        print(f"edge-llm: {failure}", file=sys.stderr)
        return 1
