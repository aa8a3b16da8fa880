"""The chat API's settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_provider.errors import ConfigurationError
from llm_provider.server.limits import Limits
from llm_provider.server.settings import ServerSettings

KEYS = {"CHAT_API_KEYS_FILE": "/keys"}


def test_without_tls_and_limits() -> None:
    settings = ServerSettings.from_environ({**KEYS, "CHAT_API_TLS_KEY": ""})
    assert settings.tls is None
    assert settings.limits == Limits()


def test_limits_are_read_with_the_settings() -> None:
    settings = ServerSettings.from_environ({**KEYS, "CHAT_API_MAX_CONNECTIONS_PER_ADDRESS": "7"})
    assert settings.limits == Limits(max_connections_per_address=7)


def test_certificate_and_key() -> None:
    environ = {**KEYS, "CHAT_API_TLS_CERTIFICATE": "/tls/cert", "CHAT_API_TLS_KEY": "/tls/key"}
    assert ServerSettings.from_environ(environ).tls == (Path("/tls/cert"), Path("/tls/key"))


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("CHAT_API_TLS_CERTIFICATE", "CHAT_API_TLS_KEY"),
        ("CHAT_API_TLS_KEY", "CHAT_API_TLS_CERTIFICATE"),
    ],
)
def test_one_of_certificate_and_key_alone(given: str, missing: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServerSettings.from_environ({**KEYS, given: "/tls/file"})
    assert str(caught.value) == f"{missing} is not set, but {given} is. Set both, or neither."
