"""Everything on a host that an audit judges, read in one call. Nothing here changes the host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from ..commands import Result, run_together, which
from ..constants import PLAIN_KEYS, PROJECT, ROOT, SECRETS
from ..files import read_text
from ..host_info.deployment import read_release
from ..host_info.docker import parse_daemon_json, parse_docker_info, select_options
from ..json_data import Facts, parse_json, parse_json_lines
from .accounts import parse_group_members, read_client_keys
from .containers import parse_confinement, parse_networks
from .files import MOST_FILES, read_owner, read_tree
from .sockets import read_listeners
from .units import read_units

REGISTRY_ROOT = f"{ROOT}-registry"
AUDITED_OPTIONS = (
    "icc",
    "insecure-registries",
    "iptables",
    "log-driver",
    "log-opts",
    "no-new-privileges",
    "tlsverify",
    "userland-proxy",
)
"""The options of Docker's daemon.json that an audit judges."""
_LOG_OPTIONS = ("max-size",)
_JSON = "{{json .}}"
_NO_ANSWER = Result(None, "", "there is no docker command")


class AuditError(Exception):
    """The host cannot be audited; a sentence."""


def read_audit(
    root: str = ROOT,
    registry_root: str = REGISTRY_ROOT,
    system: str = "/",
    user: Optional[int] = None,
) -> Facts:
    """What an audit judges; `library/host_audit_info.py` documents it.

    root: the deployment's folder; registry_root: that of a fleet's registry, which few hosts have;
    system: where /etc and /proc are; user: the user id to take this process for (default: its
    own). Raises AuditError for a user that is not root: what it cannot see would look as if it were
    not there.
    """
    if (os.geteuid() if user is None else user) != 0:
        raise AuditError(
            "The audit needs root on the host: it reads folders that other users cannot see. Set"
            " ansible_become: true."
        )
    folder, base = Path(root), Path(system)
    files, complete = read_tree(folder)
    registry, registry_complete = read_tree(Path(registry_root), MOST_FILES)
    daemon_json, error = parse_daemon_json(read_text(base / "etc/docker/daemon.json"))
    groups, users = (read_text(base / "etc" / name) or "" for name in ("group", "passwd"))
    return {
        "deployed": (folder / "current").exists(),
        "tls": _serves_tls(read_release(folder, "current")),
        "files": [*files, *registry],
        "all_files": complete and registry_complete,
        "roots": [str(each) for each in (folder, Path(registry_root)) if each.exists()],
        "daemon_json": _select_audited(daemon_json),
        "daemon_json_error": error,
        "daemon_json_file": read_owner(base / "etc/docker/daemon.json"),
        "docker_socket": read_owner((base / "var/run/docker.sock").resolve()),
        "docker_group": parse_group_members(groups, users, "docker"),
        "docker_group_id": _group_id(groups, "docker"),
        **_read_docker(),
        "units": read_units(),
        "listeners": read_listeners(base),
        "core_pattern": (read_text(base / "proc/sys/kernel/core_pattern") or "").strip() or None,
        "keys": read_client_keys(folder),
        "plain_keys": (folder / SECRETS / PLAIN_KEYS).exists(),
    }


def _select_audited(options: Optional[Facts]) -> Optional[Facts]:
    """The options that an audit judges; those of a log driver can hold a token."""
    found = select_options(options, AUDITED_OPTIONS)
    if found is not None and isinstance(found.get("log-opts"), dict):
        found["log-opts"] = select_options(found["log-opts"], _LOG_OPTIONS)
    return found


def _serves_tls(release: Optional[Mapping[str, Any]]) -> bool:
    """Whether the current release's chat API serves HTTPS."""
    plan = (release or {}).get("plan")
    api = plan.get("api") if isinstance(plan, dict) else None
    return bool(api.get("tls")) if isinstance(api, dict) else False


def _group_id(groups: str, name: str) -> Optional[int]:
    fields = (line.split(":") for line in groups.splitlines())
    numbers = [each[2] for each in fields if len(each) >= 4 and each[0] == name]
    return int(numbers[0]) if numbers and numbers[0].isdigit() else None


def _read_docker() -> Facts:
    """{"docker", "containers", "networks"}; empty lists where Docker does not answer."""
    command = which("docker")
    answers: Dict[str, Result] = {}
    if command is not None:
        answers = run_together(
            {
                "info": [command, "info", "--format", _JSON],
                "ps": [command, "ps", "--all", "--no-trunc", "--format", _JSON],
            }
        )
    info = answers.get("info", _NO_ANSWER)
    engine = parse_docker_info(info.out, info.err)
    details = parse_json(info.out)
    containers = _inspect(command, _names(answers.get("ps", _NO_ANSWER).out))
    networks = sorted({name for each in containers for name in each["networks"]})
    text = ""
    if command is not None and networks:
        text = run_together({"": [command, "network", "inspect", *networks]})[""].out
    return {
        "docker": {
            "running": engine["running"],
            "version": engine["version"],
            "error": engine["error"],
            "live_restore": isinstance(details, dict) and details.get("LiveRestoreEnabled") is True,
        },
        "containers": containers,
        "networks": parse_networks(text),
    }


def _names(text: str) -> List[str]:
    """The names of containers in `docker ps`'s JSON lines that begin as the project's do."""
    names = [str(each.get("Names", "")).split(",")[0] for each in parse_json_lines(text)]
    return sorted(name for name in names if name.startswith(PROJECT))


def _inspect(command: Optional[str], names: List[str]) -> List[Facts]:
    if command is None or not names:
        return []
    done = run_together({"": [command, "inspect", "--type", "container", *names]})[""]
    return parse_confinement(done.out)
