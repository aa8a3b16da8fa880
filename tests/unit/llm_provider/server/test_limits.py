"""Limits from the environment."""

from __future__ import annotations

import ipaddress
from dataclasses import FrozenInstanceError, fields

import pytest

from llm_provider.errors import ConfigurationError
from llm_provider.server.limits import Limits


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Limits.from_environ({}) == Limits()
    assert Limits.from_environ({"CHAT_API_MAX_HEADERS": " "}) == Limits()


def test_every_field_has_its_variable() -> None:
    environ = {f"CHAT_API_{field.name.upper()}": "7" for field in fields(Limits)}
    environ["CHAT_API_ALLOWED_NETWORKS"] = "192.0.2.0/24"
    environ["CHAT_API_TRUSTED_PROXIES"] = "192.0.2.7, 198.51.100.9/24,2001:db8::1"
    read = Limits.from_environ(environ)
    networks = ("trusted_proxies", "allowed_networks")
    others = [getattr(read, each.name) for each in fields(read) if each.name not in networks]
    assert others == [7] * len(others)
    assert list(map(str, read.allowed_networks)) == ["192.0.2.0/24"]
    assert read.trusted_proxies == (
        ipaddress.ip_network("192.0.2.7"),
        ipaddress.ip_network("198.51.100.0/24"),
        ipaddress.ip_network("2001:db8::1"),
    )


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().max_headers = 1  # type: ignore[misc]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "1e3", "٣", "9" * 16])
def test_an_invalid_count_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits.from_environ({"CHAT_API_MAX_HEADER_BYTES": text})
    assert str(caught.value) == (
        f"CHAT_API_MAX_HEADER_BYTES is invalid: {text!r}. Set a whole number above 0."
    )


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_an_invalid_time_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits.from_environ({"CHAT_API_HEADER_SECONDS": text})
    assert str(caught.value) == (
        f"CHAT_API_HEADER_SECONDS is invalid: {text!r}. Set a number of seconds above 0."
    )


@pytest.mark.parametrize("text", ["proxy.example", "192.0.2.1,,", "192.0.2.0/33"])
def test_an_invalid_proxy_is_named(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^CHAT_API_TRUSTED_PROXIES is invalid: '.*'\. Set IP"
    ):
        Limits.from_environ({"CHAT_API_TRUSTED_PROXIES": text})


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits.from_environ(
            {"CHAT_API_MAX_BODY_BYTES": "200", "CHAT_API_MAX_QUEUED_BODY_BYTES": "100"}
        )
    assert str(caught.value) == (
        "CHAT_API_MAX_BODY_BYTES is 200, more than CHAT_API_MAX_QUEUED_BODY_BYTES, which is 100. "
        "Lower the first or raise the second."
    )
