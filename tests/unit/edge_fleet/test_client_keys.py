"""Keys of clients: what `llm_api_keys` may be, and the key files that a host gets."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.client_keys import (
    BURST,
    RATE,
    SHARE,
    key_files,
    key_notices,
    own_key,
    parse_client_keys,
)
from edge_fleet.settings import check_settings
from llm_provider.server.key_store import Key, KeyFileError, KeyStore, Refusal, parse_keys

MAIN = "the-main-key-of-the-host"
ALICE, BOB = "alices-key-is-long-enough", "bobs-key-is-long-enough"
NOW = "2026-11-30T10:00:00Z"
UTC = datetime.UTC
KEY = "16 or more of letters, digits and . _ ~ + / = -"
EXPIRES = (
    "Use a date or a time with its zone, such as 2027-01-01 or 2027-01-01T00:00:00Z, as expires of"
    " entry 1"
)


def problem(value: object) -> str:
    """The message about an invalid `llm_api_keys`, without its beginning."""
    (found,) = check_settings({"llm_api_keys": value})[1]
    begin = "llm_api_keys is invalid: the value is not shown. "
    assert found.startswith(begin)
    return found.removeprefix(begin)


def with_alice(**fields: object) -> dict[str, Any]:
    return {"alice": {"key": ALICE, **fields}}


def parsed(given: object) -> dict[str, Key]:
    """The keys that the chat API reads in the host's file, by their names."""
    text = key_files(given, MAIN, "pi", NOW)["api_keys.jsonl"]
    return {each.name: each for each in parse_keys(text)}


# Values


def test_a_mapping_has_names_and_what_each_key_allows() -> None:
    given = {
        "bob": BOB,
        "alice": {
            "key": ALICE,
            "expires": "2027-01-01T02:00:00+02:00",
            "requests_per_minute": 60,
            "burst": 10,
            "share": 0.5,
        },
    }
    settings, problems = check_settings({"llm_api_keys": given})
    assert problems == []
    bob, alice = settings.llm_api_keys
    assert (bob.name, bob.key, bob.expires, bob.share) == ("bob", BOB, None, None)
    assert (alice.name, alice.key, alice.expires) == (
        "alice", ALICE, datetime.datetime(2027, 1, 1, tzinfo=UTC)
    )  # fmt: skip
    assert (alice.requests_per_minute, alice.burst, alice.share) == (60, 10, 0.5)
    assert ALICE not in repr(alice)


@pytest.mark.parametrize(
    "value",
    [
        "2027-01-01",
        " 2027-01-01 ",
        "2027-01-01T00:00:00Z",
        "2026-12-31T23:00:00-01:00",
        datetime.date(2027, 1, 1),
        datetime.datetime(2027, 1, 1, tzinfo=UTC),
    ],
)
def test_ways_to_write_a_time(value: object) -> None:
    """Dates and times are what YAML reads without quotes."""
    (key,) = check_settings({"llm_api_keys": with_alice(expires=value)})[0].llm_api_keys
    assert key.expires == datetime.datetime(2027, 1, 1, tzinfo=UTC)


def test_numbers_may_be_text() -> None:
    given = with_alice(requests_per_minute="0.5", burst="2", share=" 3 ")
    (key,) = check_settings({"llm_api_keys": given})[0].llm_api_keys
    assert (key.requests_per_minute, key.burst, key.share) == (0.5, 2, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([ALICE, "short"], f"Use {KEY}, as entry 2 of the list."),
        ([{"key": ALICE}], f"Use {KEY}, as entry 1 of the list."),
        ({"bob": BOB, "alice": "short"}, f"Use {KEY}, as the key of entry 2."),
        ({"alice": [ALICE]}, f"Use {KEY}, as the key of entry 1."),
        ({"alice": {}}, f"Use {KEY}, as the key of entry 1."),
        ({"alice": None}, f"Use {KEY}, as the key of entry 1."),
        (
            {"two words": ALICE},
            "Use a letter or digit, then up to 63 letters, digits or any of . _ @ -, as the name of"
            " entry 1.",
        ),
        (
            {1: ALICE},
            "Use a letter or digit, then up to 63 letters, digits or any of . _ @ -, as the name of"
            " entry 1.",
        ),
        (
            {"bob": BOB, "default": ALICE},
            "Use another name for entry 2: default is that of llm_api_key, host that of the"
            " host's own key, and monitoring that of Prometheus.",
        ),
        (
            {"host": ALICE},
            "Use another name for entry 1: default is that of llm_api_key, host that of the"
            " host's own key, and monitoring that of Prometheus.",
        ),
        (
            {"bob": ALICE, "alice": ALICE},
            "Use another key for entry 2: entry 1 has the same one.",
        ),
        (
            with_alice(expire="2027-01-01"),
            "Use key, expires, requests_per_minute, burst or share as fields of entry 1."
            " Did you mean expires?",
        ),
        (
            {"alice": {BOB: ALICE}},
            "Use key, expires, requests_per_minute, burst or share as fields of entry 1.",
        ),
        (with_alice(expires="soon"), f"{EXPIRES}."),
        (with_alice(expires="2027-01-01T00:00:00"), f"{EXPIRES}."),
        (with_alice(expires="2027-02-30"), f"{EXPIRES}."),
        (with_alice(expires=2027), f"{EXPIRES}."),
        (with_alice(expires="0001-01-01T00:00:00+14:00"), f"{EXPIRES}."),
        (
            with_alice(requests_per_minute=0),
            "Use a number from 0.01 to 1000000 as requests_per_minute of entry 1.",
        ),
        (
            with_alice(requests_per_minute=True),
            "Use a number from 0.01 to 1000000 as requests_per_minute of entry 1.",
        ),
        (
            with_alice(requests_per_minute=6, burst=0),
            "Use a number from 1 to 1000000 as burst of entry 1.",
        ),
        (
            with_alice(requests_per_minute=6, burst=1.5),
            "Use a whole number as burst of entry 1.",
        ),
        (with_alice(burst=5), "Use requests_per_minute beside burst in entry 1."),
        (with_alice(share=101), "Use a number from 0.01 to 100 as share of entry 1."),
        (with_alice(share="many"), "Use a number from 0.01 to 100 as share of entry 1."),
    ],
)
def test_an_invalid_entry_is_named_by_its_number(value: object, message: str) -> None:
    assert problem(value) == message
    for secret in (ALICE, BOB, "short"):
        assert secret not in problem(value)


@pytest.mark.parametrize("value", [ALICE, 7, True])
def test_neither_a_list_nor_a_mapping(value: object) -> None:
    assert problem(value) == (
        "Use a list of keys, or a mapping of name to key or to {key, expires, requests_per_minute,"
        f" burst, share}}; a key has {KEY}."
    )


# The files of a host


def test_the_chat_api_reads_the_file() -> None:
    keys = parsed(
        {
            "bob": BOB,
            "alice": {
                "key": ALICE,
                "expires": "2027-01-01",
                "requests_per_minute": 60,
                "burst": 7,
                "share": 0.5,
            },
        }
    )
    assert list(keys) == ["default", "bob", "alice", "host"]
    assert keys["default"].digest == hashlib.sha256(MAIN.encode()).digest()
    assert keys["bob"] == Key("bob", hashlib.sha256(BOB.encode()).digest())
    alice = keys["alice"]
    assert alice.expires == datetime.datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert alice.rate is not None
    assert (alice.rate.per_minute, alice.rate.burst, alice.share) == (60, 7, 0.5)


def test_no_key_of_a_client_is_in_the_file_with_hashes() -> None:
    text = key_files([ALICE, BOB], MAIN, "pi", NOW)["api_keys.jsonl"]
    for key in (MAIN, ALICE, BOB):
        assert key not in text
        assert hashlib.sha256(key.encode()).hexdigest() in text


def test_names_of_a_list_do_not_depend_on_its_order() -> None:
    name = f"key-{hashlib.sha256(ALICE.encode()).hexdigest()[:8]}"
    assert list(parsed([ALICE])) == ["default", name, "host"]
    assert set(parsed([ALICE, BOB])) == set(parsed([BOB, ALICE])) > {name}


def test_a_key_counts_once() -> None:
    assert len(parsed([ALICE, MAIN, ALICE])) == len(parsed([ALICE]))
    assert list(parsed({"alice": MAIN, "bob": BOB})) == ["default", "bob", "host"]


def test_hashes_that_begin_alike_give_longer_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hash:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def hexdigest(self) -> str:
            return "0" * 8 + self._data.hex()

    monkeypatch.setattr("edge_fleet.client_keys.hashlib.sha256", Hash)
    names = [each.name for each in parse_client_keys(["1" * 16, "2" * 16])]
    assert names == ["key-0000000031313131", "key-0000000032323232"]


def test_the_same_keys_give_the_same_files() -> None:
    given = {"alice": {"key": ALICE, "expires": "2027-01-01"}}
    assert key_files(given, MAIN, "pi", NOW) == key_files(given, MAIN, "pi", "2026-12-24T00:00:00Z")


@pytest.mark.parametrize("given", [7, ["short"], {"alice": {"key": ALICE, "share": 0}}])
def test_what_the_plan_refuses_is_no_key(given: object) -> None:
    assert key_files(given, MAIN, "pi", NOW) == key_files([], MAIN, "pi", NOW)


def test_the_host_has_a_key_of_its_own(tmp_path: Path) -> None:
    text = key_files([], MAIN, "pi", NOW)["api_keys.jsonl"]
    own = own_key(MAIN, "pi")
    assert f"\n# own key: {own}\n" in text
    assert len({own, own_key(MAIN, "jetson"), own_key(ALICE, "pi")}) == 3
    (tmp_path / "keys").write_text(text)
    found = KeyStore(tmp_path / "keys").find(None, own)
    assert isinstance(found, Key)
    assert found.name == "host"


def test_an_expired_key_is_refused_and_not_in_plain_text(tmp_path: Path) -> None:
    given = {
        "alice": {"key": ALICE, "expires": "2026-11-30T10:00:00Z"},
        "bob": {"key": BOB, "expires": "2026-11-30T10:00:01Z"},
    }
    files = key_files(given, MAIN, "pi", NOW)
    path = tmp_path / "keys"
    path.write_text(files["api_keys.jsonl"])
    now = datetime.datetime.fromisoformat(NOW).timestamp()
    store = KeyStore(path, clock=lambda: now)
    assert store.find(f"Bearer {ALICE}", None) is Refusal.EXPIRED
    assert isinstance(store.find(f"Bearer {BOB}", None), Key)
    assert read_by_earlier_versions(files["api_keys"]) == [MAIN, BOB]


def read_by_earlier_versions(text: str) -> list[str]:
    """The keys that a chat API of an earlier version reads in a file."""
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    assert all(key.isascii() and " " not in key for key in keys), "it ends: this is no key"
    return keys


def test_chat_apis_of_earlier_versions_read_the_file_in_plain_text() -> None:
    files = key_files([ALICE], MAIN, "pi", NOW)
    assert read_by_earlier_versions(files["api_keys"]) == [MAIN, ALICE]
    # Which is why the file with hashes has a name that they do not know.
    with pytest.raises(AssertionError, match="this is no key"):
        read_by_earlier_versions(files["api_keys.jsonl"])


@pytest.mark.parametrize(
    ("name", "bounds"), [("requests_per_minute", RATE), ("burst", BURST), ("share", SHARE)]
)
def test_bounds_are_those_of_the_chat_api(name: str, bounds: tuple[float, float]) -> None:
    def line(value: float) -> str:
        fields = {"name": "alice", "sha256": "0" * 64, "requests_per_minute": 60, name: value}
        return json.dumps(fields)

    least, most = bounds
    for value in bounds:
        assert parse_keys(line(value))
        assert (
            check_settings(
                {"llm_api_keys": with_alice(**{"requests_per_minute": 60, name: value})}
            )[1]
            == []
        )
    for value in (least - 0.001, most + 1):
        with pytest.raises(KeyFileError):
            parse_keys(line(value))
        assert problem(with_alice(**{"requests_per_minute": 60, name: value}))


# Notices


def test_keys_that_have_expired_or_expire_soon_are_reported() -> None:
    given = {
        "alice": {"key": ALICE, "expires": "2026-11-01"},
        "bob": {"key": BOB, "expires": "2026-12-14T10:00:00Z"},
        "carol": {"key": "carols-key-is-long-enough", "expires": "2026-12-14T10:00:01Z"},
        "dave": "daves-key-is-long-enough",
    }
    assert key_notices(given, NOW) == [
        "the key alice expired at 2026-11-01T00:00:00Z: it is refused. Give it a later `expires`"
        " in llm_api_keys, or remove it.",
        "the key bob expires at 2026-12-14T10:00:00Z: then it is refused. Give it a later"
        " `expires` in llm_api_keys, or remove it.",
    ]
    assert key_notices([ALICE], NOW) == []
    assert key_notices("no keys", NOW) == []
