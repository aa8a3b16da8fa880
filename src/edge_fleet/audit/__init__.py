"""Judges what the module host_audit_info read of a host: the project's own checks, and the items of
the CIS Docker Benchmark that this project decides.

Numbers of the benchmark are those of version 1.7.0; section 5 has the same in 1.8.0. A check is
failed where the project, or its operator, can put an end to what was found. It is a note where the
operator decides, or where nothing could be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from edge_fleet.audit import accounts, containers, docker, files, network, units
from edge_fleet.audit.finding import Check, Facts, Finding, failed

DEPLOYED = Check("A release of edge-llm serves on the host")


def audit(facts: Facts, now: str) -> list[dict[str, str]]:
    """The findings on a host: status (failed, note, passed), cis, check, found, advice.

    facts: `audit` of host_audit_info; now: the time, such as 2026-11-30T10:00:00Z.
    """
    found = _findings(facts, datetime.fromisoformat(now))
    return [each.render() for each in found]


def _findings(facts: Facts, now: datetime) -> list[Finding]:
    found = docker.check_docker(facts)
    if not facts["deployed"]:
        # Checks of what is not there would all be passed.
        return [
            failed(DEPLOYED, "The host has no release.", "Run site.yml, and audit the host then."),
            *found,
        ]
    return [
        *files.check_files(facts),
        *found,
        *containers.check_containers(facts),
        *network.check_network(facts),
        units.check_units(facts),
        *accounts.check_accounts(facts, now),
    ]


def audit_problem(host: str, findings: Sequence[Mapping[str, str]]) -> str:
    """Why the audit of a host fails; empty where no check failed."""
    titles = [each["check"] for each in findings if each["status"] == "failed"]
    if not titles:
        return ""
    checks = "1 check" if len(titles) == 1 else f"{len(titles)} checks"
    return (
        f"{host}: the host does not fit: {checks} of the audit failed ({'; '.join(titles)})."
        " Do what the table above says, and audit the host again."
    )
