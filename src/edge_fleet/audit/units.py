"""The check of the project's units of systemd."""

from __future__ import annotations

from edge_fleet.audit.finding import RUN_AGAIN, Check, Facts, Finding, failed, listed, note, passed

SANDBOXED = Check("The project's units of systemd are sandboxed")
MOST_EXPOSED = 4.0
"""By `systemd-analyze security`: 0 is confined best, 10 not at all."""


def check_units(facts: Facts) -> Finding:
    """Whether every unit is confined, as systemd rates it."""
    units = facts["units"]
    if not units:
        return note(
            SANDBOXED, "systemd knows no unit of the project.",
            "Run site.yml: without edge-llm.service, an interrupted change is not recovered.",
        )  # fmt: skip
    exposed = [
        f"{each['unit']} has the exposure {each['exposure']}"
        for each in units
        if each["exposure"] is not None and each["exposure"] > MOST_EXPOSED
    ]
    if exposed:
        found = f"{listed(exposed)} At most {MOST_EXPOSED} is asked for."
        return failed(
            SANDBOXED, found, f"{RUN_AGAIN} `systemd-analyze security UNIT` lists the reasons."
        )
    unknown = [f"{each['unit']}: {each['error']}" for each in units if each["exposure"] is None]
    if unknown:
        return note(
            SANDBOXED, f"The exposure is unknown: {listed(unknown)}",
            "It takes systemd 240 or newer: run `systemd-analyze security` on the host.",
        )  # fmt: skip
    return passed(SANDBOXED)
