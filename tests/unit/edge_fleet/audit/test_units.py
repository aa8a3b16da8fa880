"""Checks of the units of systemd."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.edge_fleet.audit.hosts import NEWEST, Criticised, only

UNITS = "The project's units of systemd are sandboxed"


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (
            [{"unit": "edge-llm.service", "exposure": 9.6, "error": None}],
            (
                "failed",
                UNITS,
                "edge-llm.service has the exposure 9.6. At most 4.0 is asked for.",
                f"{NEWEST} `systemd-analyze security UNIT` lists the reasons.",
            ),
        ),
        (
            [{"unit": "edge-llm.service", "exposure": None, "error": "no output"}],
            (
                "note",
                UNITS,
                "The exposure is unknown: edge-llm.service: no output.",
                "It takes systemd 240 or newer: run `systemd-analyze security` on the host.",
            ),
        ),
        (
            [],
            (
                "note",
                UNITS,
                "systemd knows no unit of the project.",
                "Run site.yml: without edge-llm.service, an interrupted change is not recovered.",
            ),
        ),
    ],
)
def test_units(
    facts: dict[str, Any], criticised: Criticised, units: Any, expected: tuple[str, ...]
) -> None:
    facts["units"] = units
    assert only(criticised(facts)) == expected
