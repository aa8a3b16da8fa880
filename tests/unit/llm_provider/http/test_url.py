"""Base URLs: what is valid, and what messages say of those that are not."""

from __future__ import annotations

import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.http.client import HTTPClient
from llm_provider.http.errors import InvalidSetting
from llm_provider.http.url import BaseURL, check_path, parse_base_url, redact

SECRET = "S3CR3T-of-the-tests"


@pytest.mark.parametrize(
    ("url", "shown", "host", "port"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434", "127.0.0.1", 11434),
        ("http://engine", "http://engine", "engine", 80),
        ("http://engine:80/", "http://engine", "engine", 80),
        ("https://engine", "https://engine", "engine", 443),
        ("https://engine:80/v1//", "https://engine:80/v1", "engine", 80),
        ("HTTP://Engine.Example./a%20b", "http://engine.example./a%20b", "engine.example.", 80),
        ("http://edge_llm-engine-a:1", "http://edge_llm-engine-a:1", "edge_llm-engine-a", 1),
        ("http://[::1]:8000/x", "http://[::1]:8000/x", "::1", 8000),
        ("http://[0:0:0::1]", "http://[::1]", "::1", 80),
        (
            "http://m\u00fcnchen.example",
            "http://xn--mnchen-3ya.example",
            "xn--mnchen-3ya.example",
            80,
        ),
        (f"http://me:{SECRET}@engine/v1", "http://engine/v1", "engine", 80),
        (f"http://{SECRET}@[::1]:5", "http://[::1]:5", "::1", 5),
    ],
)
def test_a_valid_url(url: str, shown: str, host: str, port: int) -> None:
    parsed = parse_base_url(url)
    assert (str(parsed), parsed.host, parsed.port) == (shown, host, port)
    assert SECRET not in repr(parsed) + str(parsed)
    assert str(httpx.URL(parsed.join("/v1/x?y=z"))) == f"{shown}/v1/x?y=z"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "the scheme is not http or https"),
        ("nowhere", "the scheme is not http or https"),
        ("engine:8000", "the scheme is not http or https"),
        ("ftp://engine", "the scheme is not http or https"),
        ("//engine", "the scheme is not http or https"),
        ("http://", "the host name is invalid"),
        ("http:///v1", "the host name is invalid"),
        ("http://:8000", "the host name is invalid"),
        ("http://a..b", "the host name is invalid"),
        ("http://.a", "the host name is invalid"),
        ("http://-a", "the host name is invalid"),
        ("http://" + "a" * 64, "the host name is invalid"),
        ("http://" + "a." * 130 + "b", "the host name is invalid"),
        ("http://caf\u00e9..b", "the host name is invalid"),
        ("http://\u3002", "the host name is invalid"),
        ("http://a%00b", "the host name is invalid"),
        ("http://a,b", "the host name is invalid"),
        ("http://[::1", "host or port are malformed"),
        ("http://[x]", "host or port are malformed"),
        ("http://engine:port", "host or port are malformed"),
        ("http://engine:99999", "host or port are malformed"),
        ("http://engine:-1", "host or port are malformed"),
        ("http://engine:0", "port 0 cannot be used"),
        ("http://engine/?", "it has a query or a fragment"),
        ("http://engine/?key=1", "it has a query or a fragment"),
        ("http://engine/#x", "it has a query or a fragment"),
        ("http://engine/../x", "the path is invalid"),
        ("http://engine/%2e%2E/x", "the path is invalid"),
        ("http://engine/a\u00e9", "the path is invalid"),
        ("http://engine/a b", "it contains spaces or control characters"),
        (" http://engine", "it contains spaces or control characters"),
        ("http://engine\r\nX: y", "it contains spaces or control characters"),
        ("http://engine/v1 HTTP/1.1\r\nX: y", "it contains spaces or control characters"),
    ],
)
def test_an_invalid_url(url: str, reason: str) -> None:
    for make in (parse_base_url, HTTPClient):
        with pytest.raises(InvalidSetting) as caught:
            make(url)
        assert str(caught.value).startswith("The address ")
        assert str(caught.value).endswith(
            f" is not usable: {reason}. Give one such as http://127.0.0.1:11434."
        )
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://engine:port/v1", "http://engine:port/v1"),
        (f"http://me:{SECRET}@engine:port", "http://***@engine:port"),
        (f"http://me:a/{SECRET}@engine", "http://***@engine"),
        (f"http://me/:{SECRET}@engine", "http://***@engine"),
        (f"http://me:a@{SECRET}@engine:0", "http://***@engine:0"),
        (f"http://me:a#{SECRET}@engine", "http://***"),
        (f"http://me:://{SECRET}@engine", "http://***@engine"),
        (f"me:{SECRET}@engine", "***@engine"),
        (f"http://engine/?key={SECRET}", "http://engine/"),
        (f"http://engine/?key=@{SECRET}", "http://***"),
        (f"http://engine?x={SECRET}", "http://engine"),
        (f"http://engine#{SECRET}", "http://engine"),
    ],
)
def test_a_message_has_no_credentials(url: str, shown: str) -> None:
    assert redact(url) == shown
    with pytest.raises(InvalidSetting) as caught:
        parse_base_url(url)
    assert repr(shown) in str(caught.value)


printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8)


@given(before=printable, after=printable, host=printable, port=printable, user=printable)
def test_no_message_has_credentials(
    before: str, after: str, host: str, port: str, user: str
) -> None:
    url = f"http://{user}:{before}{SECRET}{after}@{host}:{port}"
    try:
        parsed = parse_base_url(url)
    except InvalidSetting as error:
        assert SECRET not in str(error)
        assert error.__suppress_context__ or error.__context__ is None
    else:
        assert SECRET not in f"{parsed} {parsed!r} {parsed.join('/v1/x')}"


@given(st.text(max_size=40))
def test_what_is_accepted_can_be_sent(text: str) -> None:
    """A URL and a path, whatever they are, give one request line, or are refused."""
    try:
        check_path(f"/{text}")
    except InvalidSetting as error:
        assert "path" in str(error)
    else:
        target = httpx.URL(BaseURL("http", "engine", 80).join(f"/{text}")).raw_path.decode()
        assert target == f"/{text}" or not text
        assert re.fullmatch(r"[!-~]+", target)
    try:
        parsed = parse_base_url(f"http://{text}")
    except InvalidSetting:
        return
    assert re.fullmatch(r"http://[!-~]+", str(parsed))
    assert httpx.URL(str(parsed)).raw_host.decode() == parsed.host
