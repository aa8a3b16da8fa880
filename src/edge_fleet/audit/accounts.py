"""Checks of the keys of clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from edge_fleet.audit.finding import Check, Facts, Finding, failed, note, passed
from edge_fleet.client_keys import MAIN, MONITORING, OWN
from edge_fleet.text import join_names

PRESENT = Check("The chat API has keys of clients")
PLAIN = Check("No key of a client is on the host in plain text")
EXPIRED = Check("No key of a client has expired")
ENDLESS = Check("Keys of clients expire")


def check_accounts(facts: Facts, now: datetime) -> list[Finding]:
    """Keys in plain text, expired keys, and keys that never expire."""
    keys = [each for each in facts["keys"] if each["name"] not in (OWN, MONITORING)]
    expired = [each["name"] for each in keys if _has_expired(each, now)]
    endless = [each["name"] for each in keys if each["expires"] is None]
    main = f" ({MAIN} is llm_api_key, which has no expiry)" if MAIN in endless else ""
    return [
        passed(PRESENT)
        if keys
        else failed(PRESENT, "The file of keys is missing or empty.", "Run site.yml."),
        failed(
            PLAIN, "secrets/api_keys has the keys: a release of version 0.1 needs them.",
            "Run site.yml until no such release is kept, and replace the keys.",
        )
        if facts["plain_keys"]
        else passed(PLAIN),
        note(
            EXPIRED, f"{join_names(expired)}: refused, but still listed.",
            "Remove the names from llm_api_keys, or give them a later `expires`.",
        )
        if expired
        else passed(EXPIRED),
        note(
            ENDLESS, f"{join_names(endless)}: valid until somebody removes them{main}.",
            "Give each client a key of its own in llm_api_keys, with `expires`.",
        )
        if endless
        else passed(ENDLESS),
    ]  # fmt: skip


def _has_expired(key: Mapping[str, Any], now: datetime) -> bool:
    """Whether a key has expired; one whose time cannot be read is refused by the chat API."""
    if key["expires"] is None:
        return False
    try:
        return datetime.fromisoformat(key["expires"]) <= now
    except (TypeError, ValueError):
        return True
