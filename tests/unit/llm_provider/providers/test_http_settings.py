"""What is given of HTTP: addresses, headers, timeouts, certificates, transports."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import (
    ConfigurationError,
    EngineRefusedError,
    EngineTimeoutError,
    EngineUnreachableError,
    LlamaCpp,
    LLMError,
    MalformedAnswer,
    StreamInterruptedError,
    Timeouts,
    get_llm_provider,
)
from llm_provider.providers.routes import CHAT

from ..fake import MODEL, FakeEngine, completion, event, free_port, until
from .faults import BODY, STREAM_HEAD, chunk, headed, sends

SECRET = "S3CR3T-of-the-tests"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": ""}, "No model is named; set LLM_MODEL or give model=."),
        (
            {"base_url": "ftp://engine"},
            "The address 'ftp://engine' is not usable: the scheme is not http or https. "
            "Give one such as http://127.0.0.1:11434.",
        ),
        ({"base_url": "/"}, "The address '/' is not usable: the scheme is not http or https."),
        (
            {"base_url": "http://a..b"},
            "The address 'http://a..b' is not usable: the host name is invalid.",
        ),
        ({"base_url": "http://a:99999"}, "'http://a:99999' is not usable: host or port are"),
        ({"api_key": "caf\xe9"}, "The API key is invalid: it holds characters that no header can."),
        ({"api_key": "a\r\nX: y"}, "The API key is invalid: it holds characters"),
        ({"headers": {"X-Key": "a\r\nX: y"}}, "The value of the header 'X-Key' is invalid."),
        ({"headers": {"X-Key": 5}}, "The value of the header 'X-Key' is invalid."),
        ({"headers": {"Host": "other"}}, "The header 'Host' cannot be set."),
        ({"timeout": -1}, "The timeout is invalid: -1. It is above 0 and finite."),
        ({"timeout": 0}, "The timeout is invalid: 0. It is above 0 and finite."),
        ({"timeout": math.nan}, "The timeout is invalid: nan. It is above 0 and finite."),
        ({"timeout": math.inf}, "The timeout is invalid: inf. It is above 0 and finite."),
        ({"timeout": "5"}, "The timeout is invalid: '5'. It is a number of seconds."),
        ({"timeout": Timeouts(connect=-1)}, "The timeout 'connect' is invalid: -1."),
        ({"timeout": Timeouts(first_byte=0)}, "The timeout 'first_byte' is invalid: 0."),
        ({"timeout": Timeouts(idle=math.nan)}, "The timeout 'idle' is invalid: nan."),
        ({"verify": "/nowhere/ca.pem"}, "The CA file '/nowhere/ca.pem' cannot be used: No such"),
        (
            {"verify": False, "transport": httpx.AsyncHTTPTransport()},
            "'verify' has no effect beside 'transport'. Give one of the two.",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_settings_that_cannot_work(settings: dict[str, Any], sentence: str) -> None:
    for make in (LlamaCpp, get_llm_provider):
        with pytest.raises(ConfigurationError, match=re.escape(sentence)):
            make(**{"model": MODEL, **settings})


@pytest.mark.parametrize(
    "path", ["/v1/x HTTP/1.1\r\nX: y", "/v1/x\nX: y", "/v1/ x", "v1/x", "/v1/../x", "/v1/caf\xe9"]
)
async def test_a_path_cannot_inject_a_header(engine: FakeEngine, llm: LlamaCpp, path: str) -> None:
    for ask in (llm.send(path, BODY), anext(llm.raw_stream(path, BODY))):
        with pytest.raises(ConfigurationError, match="The path of a request is invalid"):
            await ask
    assert engine.connections == 0


async def test_a_body_that_is_no_json(engine: FakeEngine, llm: LlamaCpp) -> None:
    with pytest.raises(ConfigurationError, match=r"The body of the request is invalid: .*set"):
        await llm.chat({"messages": {1}})
    assert engine.connections == 0


async def test_headers_are_sent(engine: FakeEngine) -> None:
    given = {"X-Trace": "7", "User-Agent": "mine", "Authorization": "Basic abc"}
    async with LlamaCpp(model=MODEL, base_url=engine.url, api_key="k", headers=given) as llm:
        await llm.chat(BODY)
    sent = engine.requests[0].headers
    assert (sent["x-trace"], sent["user-agent"]) == ("7", "mine")
    assert sent["authorization"] == "Basic abc"


async def test_a_transport_of_the_callers_own() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=completion())

    transport = httpx.MockTransport(answer)
    async with get_llm_provider(
        "llamacpp", model=MODEL, base_url="https://engine.test/v1", transport=transport
    ) as llm:
        assert await llm.chat(BODY) == completion()
    assert str(asked[0].url) == f"https://engine.test{CHAT}"


@pytest.mark.parametrize("phase", ["connect", "first_byte", "idle"])
async def test_each_phase_has_its_own_limit(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """The others are far longer than a test may take."""
    timeouts = Timeouts(**{"connect": 60, "first_byte": 60, "idle": 60, phase: 0.2})
    url = engine.url
    if phase == "connect":
        url = url.replace("127.0.0.1", "engine.test")
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", forever)
    head = b"" if phase == "first_byte" else STREAM_HEAD + chunk(event("Hel"))
    engine.on(CHAT, sends(head, then=lambda _: asyncio.sleep(60)))
    async with asyncio.timeout(20), LlamaCpp(model=MODEL, base_url=url, timeout=timeouts) as llm:
        if phase == "connect":
            with pytest.raises(EngineUnreachableError, match="no answer to the attempt"):
                await llm.chat(BODY)
            return
        with pytest.raises(EngineTimeoutError, match="was silent for longer") as caught:
            async for _ in llm.stream(BODY):
                pass
        assert caught.value.text == ("Hel" if phase == "idle" else "")


async def forever(*_: Any, **__: Any) -> Any:
    await asyncio.sleep(60)


async def test_closing_ends_an_attempt_to_connect(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving = asyncio.Event()

    async def never(*_: Any, **__: Any) -> Any:
        resolving.set()
        await forever()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    llm = LlamaCpp(model=MODEL, base_url=f"http://engine.test:{engine.port}")
    asking = asyncio.create_task(llm.chat(BODY))
    await resolving.wait()
    async with asyncio.timeout(20):
        await llm.close()
        with pytest.raises(EngineUnreachableError, match="closed on this side"):
            await asking
    assert engine.connections == 0


Failure = Callable[[FakeEngine], Awaitable[None]]


def failures() -> dict[str, tuple[Any, type[LLMError]]]:
    """How an engine that repeats what it was sent fails, and the error that this is."""
    echo = f"Unknown credentials: Bearer {SECRET}, or user:{SECRET}".encode()
    refused = b'{"error": {"message": "%s", "type": "%s"}}' % (echo, SECRET.encode())
    return {
        "refused": (sends(headed(refused, status="401 No")), EngineRefusedError),
        "malformed": (sends(headed(echo)), MalformedAnswer),
        "no HTTP": (sends(echo + b"\r\n\r\n"), MalformedAnswer),
        "closed": (sends(b"HTTP/1.1 200 OK\r\nX: "), StreamInterruptedError),
        "silent": (lambda _: asyncio.sleep(60), EngineTimeoutError),
        "an error event": (
            sends(STREAM_HEAD + chunk(b"data: " + refused + b"\n\n") + chunk(b"")),
            EngineRefusedError,
        ),
    }


@pytest.mark.parametrize("how", ["user:SECRET@", "key", "header"])
@pytest.mark.parametrize("fault", [*failures(), "unreachable", "no path"])
async def test_no_error_contains_credentials(engine: FakeEngine, fault: str, how: str) -> None:
    url = engine.url.replace("//", f"//user:{SECRET}@") if how.startswith("user") else engine.url
    settings: dict[str, Any] = {"api_key": SECRET} if how == "key" else {}
    if how == "header":
        settings["headers"] = {"X-API-Key": SECRET}
    handler, kind = failures().get(fault, (None, LLMError))
    if handler is not None:
        engine.on(CHAT, handler)
    else:
        url = url.replace(str(engine.port), str(free_port()))
    path = "/v1/ x" if fault == "no path" else CHAT
    timeout = 0.3 if fault == "silent" else 20
    async with LlamaCpp(model=MODEL, base_url=url, timeout=timeout, **settings) as llm:
        with pytest.raises(kind) as caught:
            if fault == "an error event":
                async with aclosing(llm.raw_stream(path, BODY)) as chunks:
                    await anext(chunks)
            else:
                await llm.send(path, BODY)
        assert SECRET not in llm.base_url
    error: BaseException | None = caught.value
    while error is not None:  # what a traceback would print
        assert SECRET not in f"{error}{error!r}{vars(error)}"
        error = error.__cause__ or error.__context__
    if handler is not None:
        await until(lambda: engine.running == 0, "the end of the engine's work")


def test_an_address_that_is_no_address_keeps_its_password() -> None:
    for url in (f"http://user:{SECRET}@a..b", f"ftp://user:{SECRET}@engine", f"user:{SECRET}@x:80"):
        with pytest.raises(ConfigurationError) as caught:
            LlamaCpp(model=MODEL, base_url=url)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_ca_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate\n")
    with pytest.raises(ConfigurationError, match=r"The CA file '.*/ca\.pem' cannot be used"):
        LlamaCpp(model=MODEL, base_url="https://engine.test", verify=tmp_path / "ca.pem")
