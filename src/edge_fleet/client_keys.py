"""The keys of the chat API's clients: `llm_api_keys`, and the key files that a host gets.

A host has hashes of the keys, in the format of `llm_provider.server.key_store`. A host with
releases of earlier versions, whose chat APIs read keys in plain text, gets such a file beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from edge_fleet.setting_types import KEY_ADVICE, InvalidPartError, hidden, is_key, number_of, plain
from edge_fleet.text import did_you_mean, join_choices
from edge_host.constants import CLIENT_KEYS, OWN_KEY_LINE, PLAIN_KEYS

MAIN, OWN, MONITORING = "default", "host", "monitoring"
"""Names of `llm_api_key`, of the key by which a host asks its own chat API for /ready, and of that
by which the fleet's Prometheus reads metrics."""
SOON = timedelta(days=14)
"""A key that expires within this time is reported."""
FIELDS = ("key", "expires", "requests_per_minute", "burst", "share")
RATE, BURST, SHARE = (0.01, 1_000_000), (1, 1_000_000), (0.01, 100)
"""Bounds of requests_per_minute, burst and share."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_HEAD = """\
# Hashes of the keys that clients send. Written by Ansible: edit the inventory.
# The next line has the key by which this host asks its own chat API.
"""


@dataclass(frozen=True)
class ClientKey:
    """A key and what it allows. `expires` is in UTC; None stands for no limit, or the default."""

    name: str
    key: str = field(repr=False)
    expires: datetime | None = None
    requests_per_minute: float | None = None
    burst: int | None = None
    share: float | None = None
    metrics_only: bool = False

    @property
    def sha256(self) -> str:
        """The hash of the key, hexadecimal."""
        return hashlib.sha256(self.key.encode()).hexdigest()


def parse_client_keys(value: object) -> tuple[ClientKey, ...]:
    """The keys that `llm_api_keys` has: a list of keys, or a mapping of names.

    Raises InvalidPartError, which names a part by its number and shows no value. Raises ValueError
    where the value is neither.
    """
    if isinstance(value, list):
        return _listed(value)
    if not isinstance(value, dict):
        raise ValueError("neither a list nor a mapping")
    keys = [_named(number, *entry) for number, entry in enumerate(value.items(), start=1)]
    numbers: dict[str, int] = {}
    for number, each in enumerate(keys, start=1):
        first = numbers.setdefault(each.key, number)
        if first != number:
            raise _invalid(f"Use another key for entry {number}: entry {first} has the same one")
    return tuple(keys)


def client_keys(given: object, main: str) -> tuple[ClientKey, ...]:
    """All keys of a host: `llm_api_key`, and those of `llm_api_keys` where that is valid.

    The key of `llm_api_key` counts once, with its own name.
    """
    try:
        further = parse_client_keys(plain(given))
    except ValueError:
        further = ()  # the plan refuses it
    return ClientKey(MAIN, main), *(each for each in further if each.key != main)


def key_files(
    given: object, main: str, host: str, now: str, monitored: bool = False
) -> dict[str, str]:
    """The key files of a host, by their names in its folder `secrets`.

    given: `llm_api_keys`; main: `llm_api_key`, or the generated key; host: the inventory name; now:
    the time, such as 2026-11-30T10:00:00Z, at which keys are left out of the file in plain text;
    monitored: whether a Prometheus of the fleet reads the host's metrics. Its key is not in the
    file in plain text: the chat APIs that read that know no key of metrics alone.
    """
    keys = client_keys(given, main)
    own = own_key(main, host)
    moment = datetime.fromisoformat(now)
    valid = [each.key for each in keys if not each.expires or each.expires > moment]
    further = [ClientKey(OWN, own)]
    if monitored:
        further.append(ClientKey(MONITORING, monitoring_key(main, host), metrics_only=True))
    lines = "".join(f"{_line(each)}\n" for each in (*keys, *further))
    return {
        CLIENT_KEYS: f"{_HEAD}{OWN_KEY_LINE}{own}\n{lines}",
        PLAIN_KEYS: "".join(f"{key}\n" for key in valid),
    }


def own_key(main: str, host: str) -> str:
    """The key by which a host asks its own chat API: the host cannot know those of clients.

    It is made from the main key, so that every control machine makes the same one, and cannot be
    turned back into that; another host has another one.
    """
    return hashlib.sha256(f"edge-llm own key\n{host}\n{main}".encode()).hexdigest()


def monitoring_key(main: str, host: str) -> str:
    """The key by which the fleet's Prometheus reads a host's metrics; made as `own_key`."""
    return hashlib.sha256(f"edge-llm monitoring key\n{host}\n{main}".encode()).hexdigest()


def key_notices(given: object, now: str) -> list[str]:
    """Sentences about the keys of `llm_api_keys` that have expired or expire soon."""
    moment = datetime.fromisoformat(now)
    notices = []
    for each in client_keys(given, ""):
        if each.expires is None or each.expires > moment + SOON:
            continue
        at, has = each.expires.strftime(_TIME), each.expires <= moment
        notices.append(
            f"the key {each.name} {'expired' if has else 'expires'} at {at}:"
            f" {'it is' if has else 'then it is'} refused. Give it a later `expires` in"
            " llm_api_keys, or remove it."
        )
    return notices


def _listed(value: Sequence[object]) -> tuple[ClientKey, ...]:
    """Keys of a list; one that is there twice counts once. Their names follow their hashes, so that
    another order or another key beside them does not change a name.
    """
    for number, each in enumerate(value, start=1):
        if not is_key(each):
            raise _invalid(f"Use {KEY_ADVICE}, as entry {number} of the list")
    keys = [str(each) for each in dict.fromkeys(value)]
    hashes = {each: hashlib.sha256(each.encode()).hexdigest() for each in keys}
    digits = next(
        length
        for length in (8, 16, 64)
        if len({each[:length] for each in hashes.values()}) == len(keys)
    )
    return tuple(ClientKey(f"key-{hashes[each][:digits]}", each) for each in keys)


def _named(number: int, name: object, value: object) -> ClientKey:
    """The key of an entry of a mapping, whose number in it is given."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _invalid(
            "Use a letter or digit, then up to 63 letters, digits or any of . _ @ -, as the name of"
            f" entry {number}"
        )
    if name in (MAIN, OWN, MONITORING):
        raise _invalid(
            f"Use another name for entry {number}: {MAIN} is that of llm_api_key, {OWN} that of the"
            f" host's own key, and {MONITORING} that of Prometheus"
        )
    entry: dict[str, Any] = value if isinstance(value, dict) else {"key": value}
    for unknown in entry.keys() - set(FIELDS):
        # Not shown: it may be a key.
        hint = did_you_mean(str(unknown), FIELDS)
        raise _invalid(f"Use {join_choices(FIELDS)} as fields of entry {number}", hint)
    if not is_key(entry.get("key")):
        raise _invalid(f"Use {KEY_ADVICE}, as the key of entry {number}")
    rate = _number(entry, number, "requests_per_minute", *RATE)
    burst = _number(entry, number, "burst", *BURST)
    if burst is not None and not isinstance(burst, int):
        raise _invalid(f"Use a whole number as burst of entry {number}")
    if burst is not None and rate is None:
        raise _invalid(f"Use requests_per_minute beside burst in entry {number}")
    share = _number(entry, number, "share", *SHARE)
    return ClientKey(name, entry["key"], _expiry(entry, number), rate, burst, share)


def _number(
    entry: dict[str, Any], number: int, name: str, least: float, most: float
) -> float | None:
    value = number_of(entry.get(name))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise _invalid(f"Use a number from {least} to {most} as {name} of entry {number}")
    return value


def _expiry(entry: dict[str, Any], number: int) -> datetime | None:
    """The time from which on a key is refused; a date stands for its beginning, in UTC."""
    value = entry.get("expires")
    if value is None:
        return None
    try:
        if isinstance(value, str):
            text = value.strip()
            value = (date if _DATE.fullmatch(text) else datetime).fromisoformat(text)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, datetime) and value.tzinfo:
            return value.astimezone(UTC)
    except (OverflowError, ValueError):
        pass
    raise _invalid(
        "Use a date or a time with its zone, such as 2027-01-01 or 2027-01-01T00:00:00Z, as expires"
        f" of entry {number}"
    )


def _invalid(advice: str, hint: str = "") -> InvalidPartError:
    return InvalidPartError(f"{hidden(None)}. {advice}.{hint}")


def _line(key: ClientKey) -> str:
    """A line of the key file."""
    fields: Iterable[tuple[str, object]] = (
        ("name", key.name),
        ("sha256", key.sha256),
        ("expires", key.expires and key.expires.strftime(_TIME)),
        ("requests_per_minute", key.requests_per_minute),
        ("burst", key.burst),
        ("share", key.share),
        ("metrics_only", key.metrics_only or None),
    )
    return json.dumps({name: value for name, value in fields if value is not None})
