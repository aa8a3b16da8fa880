"""Every failure of an engine is one of the errors that callers know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from llm_provider import (
    ChatCompletionChunk,
    EngineRefusedError,
    EngineTimeoutError,
    EngineUnreachableError,
    LlamaCpp,
    LLMError,
    LLMProvider,
    MalformedAnswer,
    Ollama,
    StreamInterruptedError,
)
from llm_provider.errors import Unsupported
from llm_provider.providers.routes import CHAT, EMBEDDINGS
from llm_provider.providers.selection import PROVIDERS

from ..clock import Clock
from ..fake import MODEL, Exchange, FakeEngine, completion, error_event, event, free_port, stream_of

MESSAGES = [{"role": "user", "content": "Hello"}]


BODY: dict[str, Any] = {"messages": MESSAGES, "model": "ignored"}


async def whole(llm: LLMProvider) -> bytes:
    return b"".join([chunk async for chunk in llm.raw_stream(CHAT, BODY)])


async def events(llm: LLMProvider) -> list[ChatCompletionChunk]:
    return [one async for one in llm.stream(BODY)]


@pytest.fixture
async def ollama() -> AsyncIterator[tuple[FakeEngine, Ollama]]:
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url, timeout=60) as llm,
    ):
        yield engine, llm


# Errors.


def test_every_error_is_an_llm_error() -> None:
    import llm_provider.errors as errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.__name__ for kind in kinds if issubclass(kind, LLMError)} == {
        "LLMError",
        "ConfigurationError",
        "EngineUnreachableError",
        "EngineLoadingError",
        "Unsupported",
        "EngineRefusedError",
        "ContextFullError",
        "MalformedAnswer",
        "_Partial",
        "StreamInterruptedError",
        "EngineTimeoutError",
    }


@pytest.mark.parametrize("kind", [LlamaCpp, Ollama])
async def test_not_reachable(kind: type[LLMProvider]) -> None:
    port = free_port()
    async with kind(model=MODEL, base_url=f"http://127.0.0.1:{port}") as llm:
        asks: tuple[Callable[[], Awaitable[object]], ...]
        asks = (llm.health, llm.ready, llm.models, lambda: llm.chat(BODY), lambda: whole(llm))
        for ask in asks:
            with pytest.raises(EngineUnreachableError) as caught:
                await ask()
            assert str(caught.value) == (
                f"{llm.name} at http://127.0.0.1:{port} is not reachable: "
                "the connection was refused."
            )


async def test_a_name_that_is_none() -> None:
    async with LlamaCpp(model=MODEL, base_url="http://nothing.invalid") as llm:
        with pytest.raises(
            EngineUnreachableError, match=r"at http://nothing\.invalid is not reachable: "
        ):
            await llm.chat(BODY)


@pytest.mark.parametrize(
    ("addresses", "reached"),
    [
        (["127.0.0.2", "127.0.0.1"], True),
        (["127.0.0.1", "127.0.0.2"], True),
        (["127.0.0.2", "127.0.0.3"], False),
    ],
)
async def test_a_name_with_several_addresses(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, addresses: list[str], reached: bool
) -> None:
    """As `localhost`, which is ::1 and 127.0.0.1, whichever an engine serves."""
    resolve = asyncio.get_running_loop().getaddrinfo

    async def two(host: str, port: int, **how: Any) -> list[Any]:
        hosts = addresses if host == "two.test" else [host]
        return [entry for one in hosts for entry in await resolve(one, port, **how)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
    url = f"http://two.test:{engine.port}"
    async with LlamaCpp(model=MODEL, base_url=url) as llm:
        if reached:
            assert await llm.chat(BODY) == completion()
        else:
            with pytest.raises(EngineUnreachableError, match="the connection was refused"):
                await llm.chat(BODY)


async def test_a_proxy_for_the_outside_is_not_for_engines(
    engine: FakeEngine, llm: LlamaCpp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert await llm.chat(BODY) == completion()


NESTED = (
    '{"error":{"code":400,"message":"request (6031 tokens) exceeds the available context size",'
    '"type":"exceed_context_size_error"}}\n'
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": {"message": "context too long", "type": "x"}}, "context too long"),
        ({"error": "no such model"}, "no such model"),
        ({"detail": "not now"}, "not now"),
        (b"<html>Bad</html>", "<html>Bad</html>"),
        (b"", "Bad Request"),
        ({"error": {"message": NESTED}}, "request (6031 tokens) exceeds the available"),
        ({"error": {"message": '{"error": {"message": ""}}'}}, '{"error": {"message": ""}}'),
        ({"error": {"message": "{not json"}}, "{not json"),
        ({"error": {"message": "x" * 10_000}}, "x" * 500),
        ({"error": {"message": 5}}, "5"),
    ],
)
async def test_rejected_with_the_engines_own_words(
    engine: FakeEngine, llm: LlamaCpp, answer: object, words: str
) -> None:
    engine.on(CHAT, lambda x: x.answer(answer, 400))
    for ask in (llm.chat(BODY), whole(llm)):
        with pytest.raises(EngineRefusedError) as caught:
            await ask
        assert caught.value.status == 400
        assert caught.value.words.startswith(words)
        assert len(caught.value.words) <= 500
        assert str(caught.value) == (
            f"llamacpp at {engine.url} refused with status 400: {caught.value.words}"
        )


async def test_an_input_that_does_not_fit_a_micro_batch(engine: FakeEngine, llm: LlamaCpp) -> None:
    """llama-server (b11669) answers a text that is too long for embeddings with status 500."""
    words = (
        "input (602 tokens) is too large to process. increase the physical batch size"
        " (current batch size: 512)"
    )
    error = {"code": 500, "message": words, "type": "server_error"}
    engine.on(EMBEDDINGS, lambda x: x.answer({"error": error}, 500))
    with pytest.raises(EngineRefusedError) as caught:
        await llm.send(EMBEDDINGS, {"input": "a" * 600})
    assert (caught.value.status, caught.value.words) == (400, words)
    assert caught.value.error == {
        "code": 400,
        "message": words,
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 602,
        "n_ctx": 512,
    }


async def test_an_error_with_status_200_is_a_refusal(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "out of memory"}}))
    for ask in (llm.chat(BODY), whole(llm)):
        with pytest.raises(EngineRefusedError, match="out of memory"):
            await ask


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_route_that_the_engine_has_not(name: str) -> None:
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
    ):
        for path in ("/v1/rerank", EMBEDDINGS):
            for ask in (llm.send(path, {}), anext(llm.raw_stream(path, {}))):
                with pytest.raises(Unsupported, match=f"{name} has no {path} here: ") as caught:
                    await ask
                assert caught.value.param is None
        engine.on(CHAT, lambda x: x.answer(b"405 method not allowed", 405, "text/plain"))
        with pytest.raises(Unsupported):
            await llm.chat(BODY)


async def test_a_model_that_is_not_there_is_no_missing_route(
    ollama: tuple[FakeEngine, Ollama],
) -> None:
    engine, llm = ollama
    error = {"message": "model 'smoke' not found", "type": "not_found_error"}
    engine.on(CHAT, lambda x: x.answer({"error": error}, 404))
    with pytest.raises(EngineRefusedError, match="model 'smoke' not found"):
        await llm.chat(BODY)


async def test_pictures_for_a_model_that_only_reads(engine: FakeEngine, llm: LlamaCpp) -> None:
    words = "image input is not supported - hint: provide the mmproj"
    engine.on(CHAT, lambda x: x.answer({"error": {"message": words}}, 500))
    with pytest.raises(Unsupported, match="image input is not supported") as caught:
        await llm.chat(BODY)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Welcome</html>",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        {},
        {"choices": []},
        {"choices": [1]},
        {"choices": 1},
        {"data": [1]},
        {"data": [{}]},
        {"data": 1},
    ],
)
async def test_malformed_answers(engine: FakeEngine, llm: LlamaCpp, answer: object) -> None:
    engine.on(CHAT, lambda x: x.answer(answer))
    engine.on("/v1/models", lambda x: x.answer(answer))
    for ask in (llm.chat(BODY), whole(llm), llm.models()):
        with pytest.raises(MalformedAnswer):
            await ask


async def test_a_broken_stream_holds_what_had_arrived(engine: FakeEngine, llm: LlamaCpp) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(event("Hel") + event("lo")[:-9])

    async def unfinished(exchange: Exchange) -> None:
        await cut(exchange)
        await exchange.chunk(b"")

    for handler in (cut, unfinished):
        engine.on(CHAT, handler)
        with pytest.raises(StreamInterruptedError) as caught:
            await events(llm)
        assert caught.value.received == event("Hel") + event("lo")[:-9]
        assert caught.value.text == "Hel"
        with pytest.raises(StreamInterruptedError) as caught:
            await whole(llm)
        assert (caught.value.received, caught.value.text) == (b"", "")
        pieces = []
        with pytest.raises(StreamInterruptedError) as caught:
            async for piece in llm.generate_stream("Hello"):
                pieces.append(piece)
        assert (pieces, caught.value.text) == (["Hel"], "Hel")


async def test_an_error_in_the_middle_of_a_stream(engine: FakeEngine, llm: LlamaCpp) -> None:
    raw = event("Hel") + error_event("Context size has been exceeded.")
    engine.on(CHAT, lambda x: x.stream(raw))
    with pytest.raises(StreamInterruptedError, match="Context size has been exceeded") as caught:
        await events(llm)
    assert (caught.value.received, caught.value.text) == (raw, "Hel")


LIMIT = 600.0
"""Seconds of silence that a provider allows: more than any test takes."""


async def test_silence_holds_what_had_arrived(engine: FakeEngine, clock: Clock) -> None:
    arrived = asyncio.Event()

    async def silent(exchange: Exchange) -> None:
        if exchange.body["stream"]:
            await exchange.begin_stream()
            await exchange.chunk(event("Hel"))
            await arrived.wait()
        clock.put_forward(LIMIT + 1)
        await asyncio.sleep(10)

    async def read(llm: LLMProvider) -> None:
        async for _ in llm.stream(BODY):
            arrived.set()

    engine.on(CHAT, silent)
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=LIMIT) as llm:
        with pytest.raises(EngineTimeoutError) as caught:
            await llm.chat(BODY)
        assert caught.value.received == b""
        with pytest.raises(EngineTimeoutError) as caught:
            await read(llm)
        assert (caught.value.received, caught.value.text) == (event("Hel"), "Hel")


async def test_a_slow_answer_is_no_silence(engine: FakeEngine, clock: Clock) -> None:
    """In all it takes longer than the limit, and no part of it does."""
    parts = [part + b"\n\n" for part in stream_of().split(b"\n\n") if part]
    read: asyncio.Queue[bytes] = asyncio.Queue()

    async def slow(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for part in parts:
            await exchange.chunk(part)
            assert await read.get() == part
            clock.put_forward(LIMIT * 0.8)  # the client waits for the next part by now
        await exchange.chunk(b"")

    engine.on(CHAT, slow)
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=LIMIT) as llm:
        async for part in llm.raw_stream(CHAT, BODY):
            read.put_nowait(part)
    assert len(parts) > 5
    assert read.empty()
