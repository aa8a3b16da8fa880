"""Keys with names, hashes and expiry, from a file that changes."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from llm_provider.server import key_store
from llm_provider.server.key_store import Key, KeyFileError, KeyStore, Refusal, parse_keys
from llm_provider.server.rate_limit import Rate

ALICE = "alice-0f3c7a51"
BOB = "bob-77e1c9"


def line(name: str, key: str, **more: object) -> str:
    return json.dumps({"name": name, "sha256": sha256(key.encode()).hexdigest(), **more})


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def name_of(found: Key | Refusal) -> str:
    return found.name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "api_keys"
    path.write_text(f"# who may ask\n\n{line('alice', ALICE)}\n  {line('bob', BOB)}  \n")
    return path


@pytest.mark.parametrize(
    ("authorization", "x_api_key"),
    [
        (f"Bearer {ALICE}", None),
        (f"bearer   {ALICE} ", None),
        (None, ALICE),
        (basic(f"anyone:{ALICE}"), None),
        (basic(f":{ALICE}"), None),
        (basic("proxy:of its own"), ALICE),
        ("Bearer another", ALICE),
        (f"Bearer {ALICE}", "another"),
    ],
)
def test_a_key_is_found_however_it_is_sent(
    path: Path, authorization: str | None, x_api_key: str | None
) -> None:
    assert name_of(KeyStore(path).find(authorization, x_api_key)) == "alice"


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "refusal"),
    [
        (None, None, Refusal.MISSING),
        ("", "", Refusal.MISSING),
        ("Bearer ", None, Refusal.MISSING),
        (f"Token {ALICE}", None, Refusal.MISSING),
        (ALICE, None, Refusal.MISSING),
        ("Basic !!!", None, Refusal.MISSING),
        ("Basic /w==", None, Refusal.MISSING),
        (basic(ALICE), None, Refusal.MISSING),
        ("Bearer wrong", None, Refusal.UNKNOWN),
        (None, ALICE + "x", Refusal.UNKNOWN),
        ("Bearer \xff\xe4", None, Refusal.UNKNOWN),
        (f"Bearer {sha256(ALICE.encode()).hexdigest()}", None, Refusal.UNKNOWN),
        (f"Bearer {ALICE * 100}", None, Refusal.MISSING),
    ],
)
def test_a_request_without_a_key_is_refused(
    path: Path, authorization: str | None, x_api_key: str | None, refusal: Refusal
) -> None:
    assert KeyStore(path).find(authorization, x_api_key) is refusal


def test_the_refusals_say_what_to_do() -> None:
    assert Refusal.MISSING.value.startswith("The request has no API key. Send one as ")
    assert Refusal.UNKNOWN.value == "The API key is not valid."
    assert Refusal.EXPIRED.value == "The API key has expired."


def test_plain_keys_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "api_keys"
    path.write_text(f"# old\n{ALICE}\n\n{line('bob', BOB)}\nthird\n")
    store = KeyStore(path)
    assert store.names == ("key-1", "bob", "key-3")
    assert store.find(f"Bearer {ALICE}", None) == Key("key-1", sha256(ALICE.encode()).digest())
    assert name_of(store.find(None, "third")) == "key-3"
    assert store.find(None, "old") is Refusal.UNKNOWN


def test_all_fields_are_read() -> None:
    (key,) = parse_keys(
        line(
            "a.b_c@d-1",
            ALICE,
            expires="2027-01-01T02:00:00+02:00",
            requests_per_minute=30,
            burst=7,
            share=2,
        )
    )
    assert key == Key("a.b_c@d-1", sha256(ALICE.encode()).digest(), 1798761600.0, Rate(30, 7), 2.0)


def test_a_rate_without_a_burst_allows_ten_seconds_at_once() -> None:
    rates = [parse_keys(line("a", ALICE, requests_per_minute=each))[0].rate for each in (1, 60)]
    assert rates == [Rate(1, 1), Rate(60, 10)]


def test_a_key_expires(path: Path) -> None:
    path.write_text(line("alice", ALICE, expires="2027-01-01T00:00:00Z"))
    now = 1798761599.0
    store = KeyStore(path, lambda: now)
    assert name_of(store.find(None, ALICE)) == "alice"
    now += 1
    assert store.find(None, ALICE) is Refusal.EXPIRED
    assert store.find(None, BOB) is Refusal.UNKNOWN


def test_the_file_is_read_again_when_it_changes(path: Path) -> None:
    store = KeyStore(path)
    assert store.find(None, "new") is Refusal.UNKNOWN
    path.write_text(line("carol", "new"))
    assert name_of(store.find(None, "new")) == "carol"
    assert store.find(None, ALICE) is Refusal.UNKNOWN
    # As a careful program writes it: in place of the file, with its time and size.
    status = path.stat()
    other = path.with_name("other")
    other.write_text(line("carol", "old"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert name_of(store.find(None, "old")) == "carol"


def test_the_file_is_not_read_for_each_request(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KeyStore(path)

    def read(text: str) -> tuple[Key, ...]:
        raise AssertionError("read again")

    monkeypatch.setattr(key_store, "parse_keys", read)
    assert name_of(store.find(None, ALICE)) == "alice"


@pytest.mark.parametrize("emptied", ["", "# nobody\n\n"])
def test_an_emptied_file_refuses_all(
    path: Path, emptied: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = KeyStore(path)
    path.write_text(emptied)
    assert store.find(None, ALICE) is Refusal.UNKNOWN
    assert f"the key file {path} has no keys: every request is refused" in caplog.text
    path.write_text(line("alice", ALICE))
    assert name_of(store.find(None, ALICE)) == "alice"


def test_a_deleted_file_refuses_all(path: Path) -> None:
    store = KeyStore(path)
    path.unlink()
    assert store.find(None, ALICE) is Refusal.UNKNOWN
    path.write_text(line("alice", ALICE))
    assert name_of(store.find(None, ALICE)) == "alice"


def test_an_empty_file_at_the_start_refuses_all(path: Path) -> None:
    path.write_text("")
    assert KeyStore(path).find(None, ALICE) is Refusal.UNKNOWN


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"two words\n", b'{"name": "x"}\n', b"{", b"x" * 5_000_000]
)
def test_an_unreadable_file_keeps_the_former_keys(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = KeyStore(path)
    path.write_bytes(content)
    for _ in range(3):
        assert name_of(store.find(None, ALICE)) == "alice"
    assert [each.message for each in caplog.records if each.levelno == logging.ERROR] == [
        each.message for each in caplog.records if "the former keys stay valid" in each.message
    ]
    assert caplog.text.count("the former keys stay valid") == 1, "logged once for each change"
    with pytest.raises(KeyFileError):
        KeyStore(path)


def test_a_folder_in_place_of_the_file_keeps_the_former_keys(path: Path) -> None:
    store = KeyStore(path)
    path.unlink()
    path.mkdir()
    assert name_of(store.find(None, ALICE)) == "alice"


def test_a_missing_file_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"The key file .*none cannot be read: .*No such file"):
        KeyStore(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("two words", "a key is one ASCII word, or a JSON object with its name and hash."),
        ("käse", "a key is one ASCII word, or a JSON object with its name and hash."),
        ("{", "it starts with { and is no JSON object."),
        ("{" * 100_000, "it starts with { and is no JSON object."),
        ('{"secret-key": 1}', "it has an unknown field; known fields are name, sha256, expires, "
         "requests_per_minute, burst, share."),
        (line("", ALICE), "'name' must be a letter or digit, then up to 63 letters, digits or any "
         "of . _ @ -"),
        (line("a\nb", ALICE), "'name' must be a letter or digit, then up to 63 letters, digits or "
         "any of . _ @ -"),
        ('{"name": "a"}', "'sha256' must be 64 hexadecimal digits."),
        ('{"name": "a", "sha256": "12"}', "'sha256' must be 64 hexadecimal digits."),
        (line("a", ALICE, expires="2027-01-01"), "'expires' must be a time with its zone, such as "
         "2027-01-01T00:00:00Z."),
        (line("a", ALICE, expires=7), "'expires' must be a time with its zone, such as "
         "2027-01-01T00:00:00Z."),
        (line("a", ALICE, share=0), "'share' must be a number from 0.01 to 100."),
        (line("a", ALICE, share=True), "'share' must be a number from 0.01 to 100."),
        (line("a", ALICE, burst=3), "'burst' needs 'requests_per_minute' beside it."),
        (line("a", ALICE, requests_per_minute="60"), "'requests_per_minute' must be a number from "
         "0.01 to 1e+06."),
        (line("a", ALICE, requests_per_minute=float("nan")), "'requests_per_minute' must be a "
         "number from 0.01 to 1e+06."),
    ],
)  # fmt: skip
def test_an_invalid_line_is_named(text: str, message: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_keys(f"# a comment\n{line('first', BOB)}\n{text}\n")
    assert str(caught.value) == f"Line 3 of the key file is invalid: {message}"
    assert caught.value.__cause__ is None


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_keys(f"{line('a', ALICE)}\n{line('a', BOB)}")
    assert str(caught.value) == (
        "Line 2 of the key file is invalid: the name 'a' is that of line 1 too. "
        "Give each key a name of its own."
    )


def test_no_error_and_no_log_holds_a_key(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = KeyStore(path)
    for content in (
        f"{ALICE} {BOB}",
        f'{{"{ALICE}": 1}}',
        f'{{"name": "{ALICE} "}}',
        f"{ALICE}\xff",
    ):
        path.write_bytes(content.encode("latin-1"))
        store.find(None, ALICE)
        with pytest.raises(KeyFileError) as caught:
            KeyStore(path)
        assert ALICE not in repr(caught.value)
    assert ALICE not in caplog.text


def test_every_key_is_compared_in_constant_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after one was found: the time must not tell the place of a key in the file."""
    store = KeyStore(path)
    compared: list[Any] = []
    genuine = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return genuine(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in (ALICE, BOB, "wrong"):
        compared.clear()
        store.find(None, key)
        assert compared == [sha256(each.encode()).digest() for each in (ALICE, BOB)]
