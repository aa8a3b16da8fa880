"""What a check is, and what it found on a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_fleet.text import printable

Facts = Mapping[str, Any]
"""`audit` of the module host_audit_info."""
Status = Literal["failed", "note", "passed"]
RUN_AGAIN = "Run site.yml of the newest version."


@dataclass(frozen=True)
class Check:
    """What must hold. `cis`: numbers of the benchmark; empty for a check of the project's own."""

    title: str
    cis: str = ""


@dataclass(frozen=True)
class Finding:
    """The outcome of a check on a host. `found` and `advice` are sentences, empty if passed."""

    check: Check
    status: Status
    found: str = ""
    advice: str = ""

    def render(self) -> dict[str, str]:
        """The finding as Ansible passes it on."""
        return {
            "check": self.check.title,
            "cis": self.check.cis,
            "status": self.status,
            "found": printable(self.found),
            "advice": self.advice,
        }


def passed(check: Check) -> Finding:
    """The check holds."""
    return Finding(check, "passed")


def failed(check: Check, found: str, advice: str) -> Finding:
    """The check does not hold."""
    return Finding(check, "failed", found, advice)


def note(check: Check, found: str, advice: str) -> Finding:
    """The operator decides."""
    return Finding(check, "note", found, advice)


def listed(problems: list[str], most: int = 5) -> str:
    """Problems as one text; of many, the first ones and how many more there are."""
    shown = "; ".join(problems[:most])
    more = len(problems) - most
    return f"{shown}; and {more} more." if more > 0 else f"{shown}."
