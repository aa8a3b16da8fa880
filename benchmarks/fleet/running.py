"""Runs of the tools that are compared, each checked for what it should have done."""

from __future__ import annotations

import configparser
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet.boards import Boards
from benchmarks.fleet.figures import Run
from benchmarks.fleet.names import Host
from benchmarks.fleet.outcome import problems
from benchmarks.fleet.usage import Usage, measured
from sandbox.instance import ROOT

SMALL_JOB = ROOT / "benchmarks/fleet/small_job"
PYINFRA = ROOT / ".venv-bench/bin/pyinfra"
_PLUGINS = "benchmarks/fleet/callback_plugins"
_TAIL = 60


class RunError(Exception):
    """A run was not what is to be measured: why, and the end of its output."""


@dataclass(frozen=True)
class Expected:
    """Names of the hosts that must change, and of those that must be unreachable."""

    changed: frozenset[str] = frozenset()
    down: frozenset[str] = frozenset()


NOTHING = Expected()


def _defaults() -> configparser.SectionProxy:
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read(ROOT / "ansible.cfg")
    return configuration["defaults"]


def callbacks(*further: str) -> str:
    """The callbacks of ansible.cfg, that of the benchmark, and further ones."""
    return ", ".join([_defaults()["callbacks_enabled"], "fleet_stats", *further])


def environment(instance: str, stats: Path, **further: str) -> dict[str, str]:
    """The environment of a run of Ansible: as the Makefile's, with what became of each host."""
    found = os.environ | {
        "SANDBOX": instance,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "false",
        "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT / _defaults()['callback_plugins']}:{ROOT / _PLUGINS}",
        "ANSIBLE_CALLBACKS_ENABLED": callbacks(),
        "FLEET_STATS": str(stats),
    }
    # Python keeps what it has compiled, else every run begins with doing so.
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found | further


def play(
    playbook: str,
    inventory: Path,
    hosts: Sequence[str],
    stats: Path,
    instance: str,
    *words: str,
    expected: Expected | None = NOTHING,
    **further: str,
) -> Usage:
    """Run a playbook over some hosts and measure it; `further` goes to its environment.

    Without `expected` the run may change what it likes, and must not fail. Raises RunError.
    """
    stats.unlink(missing_ok=True)
    used = measured(
        ["ansible-playbook", "-i", "inventories/sandbox", "-i", inventory,
         "--limit", ",".join(hosts), *words, playbook],
        ROOT, environment(instance, stats, **further),
    )  # fmt: skip
    if not stats.exists():
        raise RunError(_with_end(f"{playbook} ended before its end.", used.output))
    counts: dict[str, dict[str, int]] = json.loads(stats.read_text())
    if expected is None:
        changed = [host for host, count in counts.items() if count["changed"]]
        found = problems(counts, hosts, changed=changed)
    else:
        found = problems(counts, hosts, changed=expected.changed, down=expected.down)
    if expected is not None and bool(used.status) != bool(expected.down):
        found.append(f"{playbook} ended with the exit status {used.status}.")
    if found:
        raise RunError(_with_end(f"{playbook}: " + " ".join(found), used.output))
    return used


def pyinfra(inventory: Path, *, converged: bool) -> Usage:
    """Run the small job with pyinfra, which must change nothing where the hosts are converged."""
    used = measured([PYINFRA, "-y", inventory, SMALL_JOB / "deploy.py"], ROOT, os.environ)
    if problem := pyinfra_problem(used.status, used.output, converged=converged):
        raise RunError(_with_end(problem, used.output))
    return used


def pyinfra_problem(status: int, output: str, *, converged: bool) -> str | None:
    """What was wrong with a run of pyinfra; None: nothing."""
    if status:
        return f"pyinfra ended with the exit status {status}."
    if converged and re.search(r"\] Success\b", output):
        return "pyinfra changed a host that was converged."
    return None


def observed(boards: Boards, hosts: Collection[Host], act: Callable[[], Usage]) -> Run:
    """Run something, and add what the boards saw of it. Raises RunError."""
    before = boards.seen()
    used = act()
    try:
        by_address: Mapping[str, int] = boards.sessions_since(before)
    except ValueError as error:
        raise RunError(str(error)) from error
    calls = {host.name: by_address[host.address] for host in hosts if host.address in by_address}
    return Run(used.seconds, used.cpu, used.peak, used.ssh, calls, boards.carried_since(before))


def _with_end(sentence: str, output: str) -> str:
    return "\n".join([sentence, *(f"  | {line}" for line in output.splitlines()[-_TAIL:])])
