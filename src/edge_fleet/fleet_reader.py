"""Reads all hosts of a run at once, with one command for each.

The command runs the program that the host has installed already. A host that has none, or one of
another version, gets the program on the command's standard input, and runs it from a temporary
folder. How a host is reached is not known here: the caller gives a function for each.
"""

from __future__ import annotations

import contextvars
import json
import shlex
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from edge_fleet.host_facts import parse_facts
from edge_fleet.progress import MOST_TEXT, clean_text

LINE_SECONDS = 5.0
"""Seconds between two lines of progress."""
_SHOWN = 5
_ABSENT = "edge-llm: the program is absent"
# Where the system's is older, the preflight role has installed Python 3.8 beside it.
_PYTHON = (
    'p=python3; case "$(readlink -f "$(command -v python3)")" in'
    " *python3.[0-7]) p=python3.8;; esac; "
)
_INSTALLED = (
    "if [ -f {program} ]; then exec $p -I {program} state -; else cat >/dev/null; echo {absent}; fi"
)
_SENT = (
    "d=$(mktemp -d) || exit 1; trap 'rm -rf \"$d\"' EXIT; "
    'head -c {size} >"$d/host.pyz" && $p -I "$d/host.pyz" state -'
)

Run = Callable[[str, bytes], tuple[int, str, str]]
"""Runs a command of a POSIX shell on a host, as root, with a standard input: exit status, standard
output, standard error. Raises Unreachable, or any other error where the command cannot be run."""


class Unreachable(Exception):
    """The host does not answer; the text says why."""


@dataclass(frozen=True)
class Host:
    """A host to be read.

    run: runs a command there; root, secrets: as the module host_info takes them; python: the
    interpreter that the inventory names, empty for the host's own.
    """

    run: Run
    root: str
    secrets: Mapping[str, str]
    python: str = ""


@dataclass(frozen=True)
class Reading:
    """What came of reading a host: its facts, or why there are none; how many calls it took."""

    facts: dict[str, Any] | None = None
    unreachable: str = ""
    problem: str = ""
    calls: int = 0


def read_hosts(
    hosts: Mapping[str, Host],
    program: tuple[str, bytes],
    parallel: int,
    show: Callable[[str], None],
) -> dict[str, Reading]:
    """Read hosts, at most `parallel` at a time.

    program: the name and the content of the host program; show: prints a line of progress. A host
    that fails does so for itself: this raises nothing.
    """
    readings: dict[str, Reading] = {}
    if not hosts:
        return readings
    with ThreadPoolExecutor(min(len(hosts), max(parallel, 1)), "read") as pool:
        running: dict[Future[Reading], str] = {
            # Ansible keeps in the context which task and whose warnings these are.
            pool.submit(contextvars.copy_context().run, read_host, host, program): name
            for name, host in hosts.items()
        }
        shown = time.monotonic()
        while running:
            done, _ = wait(running, timeout=LINE_SECONDS, return_when=FIRST_COMPLETED)
            for each in done:
                readings[running.pop(each)] = each.result()
            if running and time.monotonic() - shown >= LINE_SECONDS:
                shown = time.monotonic()
                show(progress_line(len(readings), len(hosts), list(running.values())))
    return {name: readings[name] for name in hosts}


def progress_line(read: int, total: int, waiting: list[str]) -> str:
    """The line of progress: how many hosts have been read, and some of those that have not."""
    names = ", ".join(waiting[:_SHOWN])
    more = f" and {len(waiting) - _SHOWN} more" if len(waiting) > _SHOWN else ""
    return f"... {read} of {total} hosts read, waiting for {names}{more}"


def read_host(host: Host, program: tuple[str, bytes]) -> Reading:
    """Read one host; every failure becomes a part of the result."""
    calls = 0
    name, content = program
    path = f"{host.root}/lib/{name}"
    asked = {"root": host.root, "secrets": dict(host.secrets), "program": path}
    options = json.dumps(asked).encode()
    python = f"p={_quote(host.python)}; " if host.python else _PYTHON
    commands = (
        (_INSTALLED.format(program=_quote(path), absent=_quote(_ABSENT)), options),
        (_SENT.format(size=len(content)), content + options),
    )
    try:
        for command, given in commands:
            calls += 1
            status, printed, complaint = host.run(python + command, given)
            if _ABSENT not in printed:
                break
        if status != 0:
            said = clean_text(complaint.strip().rpartition("\n")[2], MOST_TEXT)
            return Reading(problem=f"the command ended with {status}: {said}", calls=calls)
        return Reading(facts=parse_facts(printed), calls=calls)
    except Unreachable as error:
        return Reading(unreachable=str(error), calls=calls)
    except Exception as error:  # A host that behaves in an unknown way is read by the module.
        return Reading(problem=clean_text(str(error), MOST_TEXT) or "no reason", calls=calls)


def _quote(text: str) -> str:
    return shlex.quote(text)
