"""The keys that a request's headers carry."""

from __future__ import annotations

import base64

import pytest

from llm_provider.server.credentials import offered_keys


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "key"),
    [
        ("Bearer one", "one"),
        ("bearer  two ", "two"),
        ("BEARER two", "two"),
        ("Bearer one two", "one two"),  # no key has a space
        ("Bearer ", None),
        ("Bearer", None),
        ("one", None),
        ("", None),
        (basic("anybody:one"), "one"),
        (basic(":one"), "one"),
        (basic("a:b:c"), "b:c"),
        (basic("one").replace("Basic", "bAsIc"), None),  # no password
        (basic("anybody:"), None),
        ("Basic one", None),
        ("Basic on\xe9", None),
        ("Basic " + base64.b64encode(b"a:\xff").decode(), None),
        ("Digest one", None),
    ],
)
def test_the_authorization_header(authorization: str, key: str | None) -> None:
    headers = [(b"host", b"x"), (b"authorization", authorization.encode("latin-1"))]
    assert offered_keys(headers) == ([] if key is None else [key])


def test_the_header_of_its_own() -> None:
    assert offered_keys([]) == []
    assert offered_keys([(b"x-api-key", b" one ")]) == ["one"]
    assert offered_keys([(b"x-api-key", b"")]) == []
    assert offered_keys([(b"x-api-key", b"\xe9")]) == ["\xe9"]
    both = [(b"authorization", b"Bearer one"), (b"x-api-key", b"two")]
    assert offered_keys(both) == ["one", "two"]
    # However many there are, one of each is looked at.
    assert offered_keys(both * 1000) == ["one", "two"]
