"""Checks of the keys of clients."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.edge_fleet.audit.hosts import NOW, Criticised, only

KEYS: list[tuple[dict[str, Any], tuple[str, str, str, str]]] = [
    (
        {"keys": [{"name": "host", "expires": None}]},
        (
            "failed",
            "The chat API has keys of clients",
            "The file of keys is missing or empty.",
            "Run site.yml.",
        ),
    ),
    (
        {"plain_keys": True},
        (
            "failed",
            "No key of a client is on the host in plain text",
            "secrets/api_keys has the keys: a release of version 0.1 needs them.",
            "Run site.yml until no such release is kept, and replace the keys.",
        ),
    ),
    (
        {
            "keys": [
                {"name": "old", "expires": NOW},
                {"name": "odd", "expires": "never"},
                {"name": "zoneless", "expires": "2027-01-01T00:00:00"},
            ]
        },
        (
            "note",
            "No key of a client has expired",
            "odd, old, zoneless: refused, but still listed.",
            "Remove the names from llm_api_keys, or give them a later `expires`.",
        ),
    ),
    (
        {"keys": [{"name": "default", "expires": None}, {"name": "kitchen", "expires": None}]},
        (
            "note",
            "Keys of clients expire",
            "default, kitchen: valid until somebody removes them (default is llm_api_key, which has"
            " no expiry).",
            "Give each client a key of its own in llm_api_keys, with `expires`.",
        ),
    ),
]


@pytest.mark.parametrize(("change", "expected"), KEYS)
def test_keys(
    facts: dict[str, Any],
    criticised: Criticised,
    change: dict[str, Any],
    expected: tuple[str, str, str, str],
) -> None:
    assert only(criticised(facts | change)) == expected
