from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm_provider import (
    VLLM,
    Interrupted,
    LlamaCpp,
    LLMError,
    LLMProvider,
    Loading,
    MalformedAnswer,
    NotReachable,
    Ollama,
    Rejected,
    TimedOut,
)
from llm_provider.engines import PROVIDERS
from llm_provider.sse import EventParser, events

from .fake import ANSWER, MODEL, Exchange, FakeEngine, event, free_port, stream_of

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "model": "ignored"}
CHAT = "/v1/chat/completions"


async def whole(llm: LLMProvider) -> bytes:
    return b"".join([chunk async for chunk in llm.stream(BODY)])


@pytest.mark.parametrize("name", PROVIDERS)
async def test_chat_and_stream_on_every_provider(engine: FakeEngine, name: str) -> None:
    async with PROVIDERS[name](model=MODEL, base_url=engine.url, api_key="k") as llm:
        await llm.health()
        await llm.load()
        await llm.ready()
        assert await llm.models() == [MODEL]
        answer = await llm.chat(BODY | {"temperature": 0})
        assert answer["choices"][0]["message"]["content"] == ANSWER
        assert await whole(llm) == stream_of()
    chat, stream = engine.requests[-2:]
    assert chat.body == BODY | {"temperature": 0, "model": MODEL, "stream": False}
    assert stream.body == BODY | {"model": MODEL, "stream": True}
    # What keeps llama-server from closing a connection under the next request.
    assert {request.headers["connection"] for request in engine.requests} == {"close"}
    assert {request.headers["authorization"] for request in engine.requests} == {"Bearer k"}


async def test_events_of_a_stream_cut_inside_characters(llm: LlamaCpp) -> None:
    texts = [
        one["choices"][0]["delta"].get("content", "")
        async for one in events(llm.stream(BODY))
        if one["choices"]
    ]
    assert "".join(texts).strip() == ANSWER


def test_event_parser_on_every_cut() -> None:
    raw = b": note\r\ndata: a\xc3\xa9\r\n\r\nevent: x\ndata:b\ndata: c\n\ndata: [DONE]\n\n"
    for cut in range(len(raw)):
        parser = EventParser()
        assert parser.feed(raw[:cut]) + parser.feed(raw[cut:]) == ["aé", "b\nc", "[DONE]"]


async def test_llamacpp_is_alive_while_it_loads(engine: FakeEngine, llm: LlamaCpp) -> None:
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    engine.on("/health", lambda x: x.answer(loading, 503))
    engine.on(CHAT, lambda x: x.answer(loading, 503))
    await llm.health()
    with pytest.raises(Loading, match="Loading model"):
        await llm.ready()
    with pytest.raises(Loading):
        await llm.chat(BODY)
    with pytest.raises(Loading):
        await whole(llm)


async def test_ollama_is_ready_once_its_model_is_loaded(engine: FakeEngine) -> None:
    async with Ollama(model=MODEL, base_url=engine.url) as llm:
        await llm.health()
        engine.loaded = ["another:latest"]
        with pytest.raises(Loading, match="has not loaded smoke yet; loaded: another:latest"):
            await llm.ready()
        await llm.load()
        assert engine.requests[-1].body == {"model": MODEL, "keep_alive": -1, "stream": False}
        await llm.ready()
        engine.on("/api/generate", lambda x: x.answer({"error": "model 'smoke' not found"}, 404))
        with pytest.raises(Rejected, match="model 'smoke' not found") as caught:
            await llm.load()
        assert caught.value.status == 404


async def test_vllm_is_loading_while_its_port_is_closed() -> None:
    async with VLLM(model=MODEL, base_url=f"http://127.0.0.1:{free_port()}") as llm:
        for ask in (llm.health, llm.ready, lambda: llm.chat(BODY)):
            with pytest.raises(Loading, match="has not opened its port"):
                await ask()


async def test_vllm_is_ready_with_an_empty_body(engine: FakeEngine) -> None:
    engine.on("/health", lambda x: x.answer(b""))
    async with VLLM(model=MODEL, base_url=engine.url) as llm:
        await llm.ready()
        engine.on("/health", lambda x: x.answer(b"dead", 500))
        with pytest.raises(Rejected, match="status 500: dead"):
            await llm.ready()


@pytest.mark.parametrize("kind", [LlamaCpp, Ollama])
async def test_not_reachable(kind: type[LLMProvider]) -> None:
    port = free_port()
    async with kind(model=MODEL, base_url=f"http://127.0.0.1:{port}") as llm:
        for ask in (llm.health, llm.ready, llm.models, lambda: llm.chat(BODY), lambda: whole(llm)):
            with pytest.raises(NotReachable) as caught:
                await ask()
            assert str(caught.value) == (
                f"{llm.name} at http://127.0.0.1:{port} is not reachable: "
                "the connection was refused."
            )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": {"message": "context too long", "type": "x"}}, "context too long"),
        ({"error": "no such model"}, "no such model"),
        ({"detail": "not now"}, "not now"),
        (b"<html>Bad</html>", "<html>Bad</html>"),
        (b"", "Bad Request"),
    ],
)
async def test_rejected_with_the_engines_own_words(
    engine: FakeEngine, llm: LlamaCpp, answer: object, words: str
) -> None:
    engine.on(CHAT, lambda x: x.answer(answer, 400))
    for ask in (llm.chat(BODY), whole(llm)):
        with pytest.raises(Rejected) as caught:
            await ask
        assert (caught.value.status, caught.value.words) == (400, words)
        assert words in str(caught.value)


async def test_an_error_with_status_200_is_a_refusal(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "out of memory"}}))
    for ask in (llm.chat(BODY), whole(llm)):
        with pytest.raises(Rejected, match="out of memory"):
            await ask


@pytest.mark.parametrize(
    "answer", [b"<html>Welcome</html>", b"[]", b"{", {"choices": []}, {"hello": 1}, b"\xff"]
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
        await exchange.chunk(event("Hel"))

    async def unfinished(exchange: Exchange) -> None:
        await cut(exchange)
        await exchange.chunk(b"")

    for handler in (cut, unfinished):
        engine.on(CHAT, handler)
        with pytest.raises(Interrupted) as caught:
            await whole(llm)
        assert caught.value.received == event("Hel")


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"nonsense\r\n\r\n"])
async def test_closed_before_the_answer(engine: FakeEngine, llm: LlamaCpp, raw: bytes) -> None:
    engine.on(CHAT, lambda x: x.send(raw))
    for ask in (llm.chat(BODY), whole(llm)):
        before = len(engine.requests)
        with pytest.raises(Interrupted):
            await ask
        assert len(engine.requests) == before + 1  # it may have run: never sent twice


async def test_silence(engine: FakeEngine) -> None:
    async def silent(exchange: Exchange) -> None:
        if exchange.body["stream"]:
            await exchange.begin_stream()
            await exchange.chunk(event("Hel"))
        await asyncio.sleep(10)

    engine.on(CHAT, silent)
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=0.1) as llm:
        with pytest.raises(TimedOut):
            await llm.chat(BODY)
        with pytest.raises(TimedOut) as caught:
            await whole(llm)
        assert caught.value.received == event("Hel")


async def test_leaving_a_stream_stops_the_engine(engine: FakeEngine, llm: LlamaCpp) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.begin_stream()
        while True:
            await exchange.chunk(event("on "))
            await asyncio.sleep(0.005)

    engine.on(CHAT, endless)
    stream = llm.stream(BODY)
    await anext(stream)
    assert engine.running == 1
    await stream.aclose()
    await asyncio.wait_for(engine.left.wait(), 1)


async def test_events_tell_of_what_is_wrong() -> None:
    for raw, kind in (
        (b'data: {"error": {"message": "out of slots"}}\n\n', Interrupted),
        (b"data: hello\n\n", MalformedAnswer),
        (b"data: 1\n\n", MalformedAnswer),
        (b"data: \xff\n\n", MalformedAnswer),
    ):

        async def stream(raw: bytes = raw) -> Any:
            yield raw

        with pytest.raises(kind):
            _ = [one async for one in events(stream())]


def test_every_error_is_an_llm_error() -> None:
    import llm_provider.errors as errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.__name__ for kind in kinds if issubclass(kind, LLMError)} == {
        "LLMError",
        "ConfigurationError",
        "NotReachable",
        "Loading",
        "Rejected",
        "MalformedAnswer",
        "Interrupted",
        "TimedOut",
    }
