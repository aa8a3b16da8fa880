"""Providers drop what an engine ignores without harm, and tell; strict ones refuse it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from llm_provider import LlamaCpp, Unsupported, get_llm_provider
from llm_provider.errors import ConfigurationError
from llm_provider.providers.encoded_body import EncodedBody
from llm_provider.providers.routes import CHAT

from ..fake import MODEL, FakeEngine

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
ASKED = {"messages": MESSAGES, "user": "me", "stream_options": {"include_obfuscation": True}}
SENT = {"messages": MESSAGES, "stream_options": {"include_obfuscation": True}, "model": MODEL}
LOG = "llm_provider.parameters"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOG]


async def test_what_is_dropped_is_logged_once(
    engine: FakeEngine, llm: LlamaCpp, caplog: pytest.LogCaptureFixture
) -> None:
    before = repr(ASKED)
    for _ in range(2):
        await llm.chat(ASKED)
    assert engine.asked == [SENT | {"stream": False}] * 2
    assert warnings(caplog) == [
        "llamacpp ignores 'user': it is left out.",
        "llamacpp ignores 'stream_options.include_obfuscation': it is left out.",
    ]
    assert caplog.records[0].levelno == logging.WARNING
    assert "me" not in caplog.messages[0].split("'user'")[1].split()
    await llm.chat(ASKED | {"verbosity": "low"})
    assert warnings(caplog)[2:] == ["llamacpp ignores 'verbosity': it is left out."]
    assert repr(ASKED) == before  # the caller's own is left alone


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_takes_what_is_dropped_before_it_is_sent(
    engine: FakeEngine, llm: LlamaCpp, caplog: pytest.LogCaptureFixture, streamed: bool
) -> None:
    told: list[tuple[str, ...]] = []

    def take(dropped: tuple[str, ...]) -> None:
        assert engine.requests == []
        told.append(dropped)

    body = EncodedBody({})
    for name, value in ASKED.items():
        body[name] = value
    if streamed:
        async for _ in llm.raw_stream(CHAT, body, on_dropped=take):
            pass
    else:
        await llm.send(CHAT, body, on_dropped=take)
    assert engine.asked == [SENT | {"stream": streamed}]
    assert told == [("user", "stream_options.include_obfuscation")]
    assert warnings(caplog) == []


async def test_nothing_is_told_where_nothing_is_dropped(engine: FakeEngine, llm: LlamaCpp) -> None:
    def fail(_: tuple[str, ...]) -> None:
        raise AssertionError("Nothing was dropped.")

    await llm.send(CHAT, {"messages": MESSAGES, "min_p": 0.1}, on_dropped=fail)
    assert engine.asked == [{"messages": MESSAGES, "min_p": 0.1, "model": MODEL, "stream": False}]


async def test_strict_refuses_what_would_be_dropped(engine: FakeEngine) -> None:
    async with LlamaCpp(model=MODEL, base_url=engine.url, strict=True) as llm:
        for param, asked in (("user", {"user": "me"}), ("x", {"x": 1})):
            for ask in (
                llm.chat({"messages": MESSAGES} | asked),
                anext(llm.stream({"messages": MESSAGES} | asked)),
            ):
                with pytest.raises(Unsupported, match="which strict mode refuses") as caught:
                    await ask
                assert caught.value.param == param
        assert engine.requests == []
        await llm.chat({"messages": MESSAGES, "min_p": 0.1})


@pytest.mark.parametrize(
    ("environ", "given", "strict"),
    [
        ({}, None, False),
        ({"CHAT_API_STRICT": "1"}, None, True),
        ({"CHAT_API_STRICT": "0"}, None, False),
        ({"CHAT_API_STRICT": ""}, None, False),
        ({"CHAT_API_STRICT": "1"}, False, False),
        ({}, True, True),
    ],
)
async def test_where_strict_comes_from(
    environ: dict[str, str], given: bool | None, strict: bool
) -> None:
    async with get_llm_provider("vllm", model="m", strict=given, environ=environ) as llm:
        assert llm.strict is strict


def test_an_invalid_flag_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^CHAT_API_STRICT is 'yes'; it must be 0 or 1.$"):
        get_llm_provider("vllm", model="m", environ={"CHAT_API_STRICT": "yes"})
