"""Timeouts, headers and transports that are given to the client."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from llm_provider.http.client import HTTPClient
from llm_provider.http.errors import InvalidSetting
from llm_provider.http.settings import Timeouts

URL = "http://127.0.0.1:1"


@pytest.mark.parametrize("value", [-1, 0, -0.0, math.nan, math.inf, -math.inf, True, "5", None])
@pytest.mark.parametrize("phase", ["connect", "first_byte", "idle"])
def test_a_timeout_that_is_none(phase: str, value: Any) -> None:
    with pytest.raises(InvalidSetting, match=f"^The timeout '{phase}' is invalid: "):
        HTTPClient(URL, timeouts=Timeouts(**{phase: value}))


@pytest.mark.parametrize("value", [-1, 0, math.nan, math.inf])
def test_seconds_of_silence_that_are_none(value: float) -> None:
    with pytest.raises(InvalidSetting, match=r"^The timeout is invalid: "):
        HTTPClient(URL, {}, value)


def test_seconds_of_silence() -> None:
    assert Timeouts.of(600) == Timeouts(5, 600, 600) == Timeouts()
    assert Timeouts.of(0.5) == Timeouts(0.5, 0.5, 0.5)


SECRET = "S3CR3T-of-the-tests"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Authorization": f"Bearer {SECRET}\r\nX: y"}, "value of the header 'Authorization'"),
        ({"Authorization": f"Bearer {SECRET}\n"}, "value of the header 'Authorization'"),
        ({"X-Key": f"{SECRET}\u00e9"}, "value of the header 'X-Key'"),
        ({"X-Key": f" {SECRET}"}, "value of the header 'X-Key'"),
        ({"X-Key": f"{SECRET}\x7f"}, "value of the header 'X-Key'"),
        ({f"X: {SECRET}\r\nY": "z"}, "The name of a header is invalid"),
        ({"": SECRET}, "The name of a header is invalid"),
        ({"X-Key": "a", "x-key": SECRET}, "'x-key' is given twice"),
        ({"Host": SECRET}, "The header 'Host' cannot be set"),
        ({"content-length": SECRET}, "The header 'content-length' cannot be set"),
        ({"Transfer-Encoding": "chunked"}, "The header 'Transfer-Encoding' cannot be set"),
        ({"Connection": "keep-alive"}, "The header 'Connection' cannot be set"),
    ],
)
def test_a_header_that_is_invalid(headers: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        HTTPClient(URL, headers)
    assert text in str(caught.value)
    assert SECRET not in str(caught.value)


def test_verify_beside_a_transport() -> None:
    with pytest.raises(InvalidSetting, match="'verify' has no effect beside 'transport'"):
        HTTPClient(URL, verify=False, transport=httpx.AsyncHTTPTransport())


async def test_a_mock_transport() -> None:
    """Its responses have been read before the client gets them."""

    async def stream() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"parts"

    bodies: dict[str, Any] = {"/whole": b"at once", "/none": b"", "/parts": stream()}
    transport = httpx.MockTransport(
        lambda asked: httpx.Response(200, content=bodies[asked.url.path])
    )
    async with HTTPClient(URL, transport=transport) as client:
        read = [await (await client.open("GET", path)).read(99) for path in bodies]
    assert read == [b"at once", b"", b"in parts"]
