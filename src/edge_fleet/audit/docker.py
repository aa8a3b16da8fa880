"""Checks of the Docker engine: its files, its options, and who controls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_fleet.audit.finding import Check, Facts, Finding, failed, note, passed
from edge_fleet.text import join_names

RUNS = Check("Docker answers")
CONTROL = Check("Only trusted users control Docker", "1.1.2")
ICC = Check("Containers on the default bridge do not reach each other", "2.2")
IPTABLES = Check("Docker makes its own rules of iptables", "2.4")
REGISTRIES = Check("Registries are used with TLS", "2.5")
TCP = Check("The Docker daemon is not controlled over TCP without TLS", "2.7")
PRIVILEGES = Check("Containers get no new privileges by default", "2.14")
LIVE_RESTORE = Check("Containers outlive a restart of Docker (live restore)", "2.15")
USERLAND_PROXY = Check("Docker's userland proxy is disabled", "2.16")
SOCKET = Check("docker.sock is closed to other users", "3.15, 3.16")
DAEMON_JSON = Check("daemon.json belongs to root, and only root can change it", "3.17, 3.18")
LOGS = Check("Logs of containers are bounded by default")
_FILE = "/etc/docker/daemon.json"


def check_docker(facts: Facts) -> list[Finding]:
    """Checks that hold for a host without a release, too."""
    options = facts["daemon_json"] or {}
    return [
        _runs(facts["docker"]),
        _daemon_json(facts),
        _socket(facts),
        _control(facts),
        _tcp(facts, options),
        _registries(options),
        _option(ICC, options, "icc", False, "the project's containers are on no such network"),
        _option(PRIVILEGES, options, "no-new-privileges", True, "the project's containers have it"),
        _option(
            USERLAND_PROXY, options, "userland-proxy", False,
            "without it, programs of the host may not reach published ports on 127.0.0.1",
        ),
        _iptables(options),
        _live_restore(facts["docker"]),
        _logs(options),
    ]  # fmt: skip


def _runs(docker: Mapping[str, Any]) -> Finding:
    if docker["running"]:
        return passed(RUNS)
    return failed(RUNS, f"{docker['error']}.", "Start Docker: systemctl start docker.")


def _daemon_json(facts: Facts) -> Finding:
    file = facts["daemon_json_file"]
    if facts["daemon_json_error"]:
        return failed(
            DAEMON_JSON, f"{_FILE} is invalid: {facts['daemon_json_error']}.", "Correct the file."
        )
    if file is None:
        return passed(DAEMON_JSON)
    problem = ""
    if file["kind"] != "file":
        problem = f"{_FILE} is a {file['kind']}"
    elif (file["uid"], file["gid"]) != (0, 0):
        problem = f"{_FILE} belongs to {file['uid']}:{file['gid']}"
    elif int(file["mode"], 8) & ~0o644:
        problem = f"{_FILE} has mode {file['mode']}"
    if problem:
        advice = f"chown root:root {_FILE} and chmod 0644 it, or stricter."
        return failed(DAEMON_JSON, f"{problem}.", advice)
    return passed(DAEMON_JSON)


def _socket(facts: Facts) -> Finding:
    found = facts["docker_socket"]
    if found is None:
        return note(
            SOCKET, "There is no /var/run/docker.sock.", "Start Docker, if it is used here."
        )
    problem = ""
    if found["uid"] != 0 or found["gid"] not in (0, facts["docker_group_id"]):
        problem = f"{found['path']} belongs to {found['uid']}:{found['gid']}"
    elif int(found["mode"], 8) & ~0o660:
        problem = f"{found['path']} has mode {found['mode']}"
    if problem:
        advice = "Who can write to it is root. Set SocketMode=0660 and SocketGroup=docker."
        return failed(SOCKET, f"{problem}.", advice)
    return passed(SOCKET)


def _control(facts: Facts) -> Finding:
    if not facts["docker_group"]:
        return passed(CONTROL)
    return note(
        CONTROL,
        f"The group docker has {join_names(facts['docker_group'])}: each can become root.",
        "Remove from it whom you do not trust with that: gpasswd --delete NAME docker.",
    )


def _tcp(facts: Facts, options: Mapping[str, Any]) -> Finding:
    ports = sorted({each["port"] for each in facts["listeners"] if each["process"] == "dockerd"})
    if not ports or options.get("tlsverify") is True:
        return passed(TCP)
    shown = ", ".join(map(str, ports))
    return failed(
        TCP,
        f"dockerd listens on TCP port {shown}: who reaches it can become root.",
        f"Remove tcp:// from `hosts` in {_FILE} and from dockerd's arguments, or set tlsverify.",
    )


def _registries(options: Mapping[str, Any]) -> Finding:
    found = options.get("insecure-registries")
    if not isinstance(found, list) or not found:
        return passed(REGISTRIES)
    return note(
        REGISTRIES,
        f"Images of {join_names(map(str, found))} are fetched without TLS.",
        "Images that have a digest cannot be replaced on the way. Use no others of it.",
    )


def _option(
    check: Check, options: Mapping[str, Any], name: str, wanted: bool, reason: str
) -> Finding:
    """A note where an option of daemon.json has not the value that the benchmark asks for."""
    if options.get(name) is wanted:
        return passed(check)
    value = str(wanted).lower()
    return note(
        check,
        f"{_FILE} does not set {name} to {value} ({reason}).",
        f'For other containers, set "{name}": {value} and restart Docker.',
    )


def _iptables(options: Mapping[str, Any]) -> Finding:
    if options.get("iptables", True) is not False:
        return passed(IPTABLES)
    advice = "Check by your own rules who reaches ports that containers publish."
    return note(IPTABLES, f'{_FILE} has "iptables": false.', advice)


def _live_restore(docker: Mapping[str, Any]) -> Finding:
    if docker["live_restore"]:
        return passed(LIVE_RESTORE)
    return note(
        LIVE_RESTORE,
        "Live restore is off: a restart or an upgrade of Docker interrupts requests.",
        f'Set "live-restore": true in {_FILE} and reload Docker, unless it is in swarm mode.',
    )


def _logs(options: Mapping[str, Any]) -> Finding:
    driver, log = options.get("log-driver", "json-file"), options.get("log-opts")
    if driver != "json-file" or (isinstance(log, dict) and log.get("max-size")):
        return passed(LOGS)
    return note(
        LOGS,
        f"{_FILE} has no max-size in log-opts (the project's containers have their own).",
        'For other containers, set "log-opts": {"max-size": "10m"} and restart Docker.',
    )
