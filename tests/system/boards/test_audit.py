"""playbooks/audit.yml passes a provisioned board, and fails one whose secrets are readable."""

from __future__ import annotations

from typing import Any

from edge_fleet.audit.files import SECRET_FILES
from edge_fleet.audit.units import SANDBOXED
from tests.playing import message, play, told
from tests.system.hosts.conftest import ROOT

PLAYBOOK = "playbooks/audit.yml"
_KEY = f"{ROOT}/secrets/engine_key"


def findings(name: str) -> tuple[int, dict[str, list[str]]]:
    """The exit status of an audit, and its checks by their status."""
    status, output = told(PLAYBOOK, name)
    (judged,) = (
        task["hosts"][name]["ansible_facts"]["audit_findings"]
        for part in output["plays"]
        for task in part["tasks"]
        if task["task"]["name"] == "Judge the host"
    )
    found: dict[str, list[str]] = {}
    for each in judged:
        found.setdefault(each["status"], []).append(each["check"])
    return status, found


def test_a_provisioned_board_passes_until_a_secret_is_readable(
    host: Any, plan: dict[str, Any]
) -> None:
    name, mode = plan["host"], host.check_output(f"stat -c %a {_KEY}")
    status, found = findings(name)
    assert "failed" not in found, found
    assert status == 0
    assert {SECRET_FILES.title, SANDBOXED.title} < set(found["passed"])
    host.check_output(f"chmod 0644 {_KEY}")
    try:
        done = play(PLAYBOOK, name)
    finally:
        host.check_output(f"chmod {mode} {_KEY}")
    assert done.returncode == 2, done.stdout
    said = message(done)
    assert f"{_KEY} has mode 0644." in said
    assert (
        f"{name}: the host does not fit: 1 check of the audit failed ({SECRET_FILES.title})."
        in said
    )
    assert "changed=0" in done.stdout
