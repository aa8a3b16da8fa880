"""An audit as a whole. The files beside this have each check that fails, with its message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_fleet.audit import audit, audit_problem
from edge_fleet.audit.containers import CHECKS
from edge_fleet.tables import audit_table
from tests.unit.edge_fleet.audit.hosts import NOW, Criticised, only


def test_a_host_without_fault(facts: dict[str, Any], criticised: Criticised) -> None:
    assert criticised(facts) == []
    assert len(audit(facts, NOW)) > 45


def test_a_host_without_a_release_passes_no_check_of_it(
    facts: dict[str, Any], criticised: Criticised
) -> None:
    facts["deployed"] = False
    assert only(criticised(facts)) == (
        "failed",
        "A release of edge-llm serves on the host",
        "The host has no release.",
        "Run site.yml, and audit the host then.",
    )
    assert {each["check"] for each in audit(facts, NOW)}.isdisjoint(
        each.check.title for each in CHECKS
    )


def test_every_check_is_in_a_test(facts: dict[str, Any]) -> None:
    """Titles of checks are in these files only where a check fails."""
    text = "".join(each.read_text() for each in Path(__file__).parent.glob("test_*.py"))
    assert [each["check"] for each in audit(facts, NOW) if f'"{each["check"]}' not in text] == []


def test_the_problem_of_a_host(facts: dict[str, Any]) -> None:
    assert audit_problem("kitchen", audit(facts, NOW)) == ""
    facts["plain_keys"], facts["tls"] = True, False
    assert audit_problem("kitchen", audit(facts, NOW)) == (
        "kitchen: the host does not fit: 1 check of the audit failed (No key of a client is on the"
        " host in plain text). Do what the table above says, and audit the host again."
    )
    facts["all_files"] = False
    assert "2 checks of the audit failed (All of" in audit_problem("k", audit(facts, NOW))


def test_the_table_has_problems_first_and_joins_hosts() -> None:
    bad = {"check": "No x", "cis": "5.1", "status": "failed", "found": "an x.", "advice": "Go."}
    good = {"check": "A y", "cis": "", "status": "passed", "found": "", "advice": ""}
    hint = {"check": "A z", "cis": "2.2", "status": "note", "found": "no z.", "advice": "Decide."}
    hosts: list[Mapping[str, Any]] = [
        {"inventory_hostname": "a", "audit_findings": [good, hint, bad]},
        {"inventory_hostname": "b", "audit_findings": [good, bad]},
        {"inventory_hostname": "c"},
    ]
    assert audit_table(hosts) == (
        "result  CIS  check\n"
        "failed  -    The host can be read\n"
        "        c: not reached or not read: see the message above\n"
        "failed  5.1  No x\n"
        "        a, b: an x.\n"
        "        Go.\n"
        "note    2.2  A z\n"
        "        a: no z.\n"
        "        Decide.\n"
        "passed  -    A y\n"
        "        a, b"
    )
