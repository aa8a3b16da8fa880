"""Every engine by the one interface: answers, streams, states."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from llm_provider import (
    VLLM,
    ChatCompletionChunk,
    EngineLoadingError,
    EngineRefusedError,
    LlamaCpp,
    LLMProvider,
    MalformedAnswer,
    Ollama,
)
from llm_provider.providers.base import Capacity
from llm_provider.providers.routes import CHAT, COMPLETIONS, RESPONSES
from llm_provider.providers.selection import PROVIDERS

from ..fake import (
    ANSWER,
    CONTEXT,
    DONE,
    MODEL,
    SLOTS,
    WORDS,
    Exchange,
    FakeEngine,
    completion,
    delta_event,
    event,
    free_port,
    stream_of,
)

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


@pytest.mark.parametrize("name", PROVIDERS)
async def test_chat_and_streams_on_every_provider(name: str) -> None:
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url, api_key="k") as llm,
    ):
        await llm.health()
        await llm.load()
        await llm.ready()
        assert await llm.models() == [f"{MODEL}:latest" if name == "ollama" else MODEL]
        before = len(engine.requests)
        answer = await llm.chat(BODY | {"temperature": 0, "max_tokens": 5})
        assert answer == completion()
        assert await whole(llm) == stream_of(kind=name)
        texts = [one["choices"][0]["delta"].get("content") or "" for one in await events(llm)]
        assert texts == ["", *WORDS, ""]
    chat, stream, _ = engine.requests[before:]
    assert chat.body == {
        "messages": MESSAGES,
        "temperature": 0,
        "max_tokens": 5,
        "model": MODEL,
        "stream": False,
    }
    assert stream.body["stream"] is True
    assert stream.headers["content-type"] == "application/json"
    # What keeps llama-server from closing a connection under the next request.
    assert {request.headers["connection"] for request in engine.requests} == {"close"}
    assert {request.headers["authorization"] for request in engine.requests} == {"Bearer k"}


@pytest.mark.parametrize("name", PROVIDERS)
async def test_the_whole_body_reaches_the_engine(name: str) -> None:
    """Every field that all engines honour goes on as it came, known here or not."""
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "tool_call_id": "1", "content": "12 °C"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1,
        "stop": ["\n", "end"],
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        "logprobs": True,
        "top_logprobs": 3,
        "stream_options": {"include_usage": True},
        "a field of tomorrow": {"deep": [1, None, "\ud800"]},
    }
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
    ):
        await llm.chat(body)
        async for _ in llm.stream(body):
            pass
    assert engine.asked == [body | {"model": MODEL, "stream": one} for one in (False, True)]


async def test_generate_and_generate_stream(engine: FakeEngine, llm: LlamaCpp) -> None:
    assert await llm.generate("Hello") == ANSWER
    assert await llm.generate("Hello", system="Be brief.", temperature=0, seed=3) == ANSWER
    pieces = [piece async for piece in llm.generate_stream("Hello", system="Be brief.", seed=4)]
    assert pieces == WORDS
    system = {"role": "system", "content": "Be brief."}
    common = {"model": MODEL, "stream": False}
    assert engine.asked == [
        common | {"messages": MESSAGES},
        common | {"messages": [system, *MESSAGES], "temperature": 0, "seed": 3},
        common | {"messages": [system, *MESSAGES], "seed": 4, "stream": True},
    ]


@pytest.mark.parametrize("content", [1, ["a"], {"text": "a"}])
async def test_generate_wants_text(engine: FakeEngine, llm: LlamaCpp, content: object) -> None:
    answer = completion()
    answer["choices"][0]["message"]["content"] = content
    engine.on(CHAT, lambda x: x.answer(answer))
    with pytest.raises(MalformedAnswer, match="not text"):
        await llm.generate("Hello")
    engine.on(CHAT, lambda x: x.stream(event("a "), delta_event({"content": content}), DONE))
    pieces = []
    with pytest.raises(MalformedAnswer, match="not text"):
        async for piece in llm.generate_stream("Hello"):
            pieces.append(piece)
    assert pieces == ["a "]


async def test_an_answer_without_text_is_empty(engine: FakeEngine, llm: LlamaCpp) -> None:
    """As one that calls a tool."""
    answer = completion()
    answer["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [1]}
    engine.on(CHAT, lambda x: x.answer(answer))
    assert await llm.generate("Hello") == ""


async def test_other_routes(engine: FakeEngine, llm: LlamaCpp) -> None:
    answer = await llm.send(COMPLETIONS, {"prompt": "Hello"})
    assert answer.data["choices"][0]["text"] == ANSWER
    assert b"".join([chunk async for chunk in llm.raw_stream(COMPLETIONS, {"prompt": "Hello"})])
    answer = await llm.send(RESPONSES, {"input": "Hello"})
    assert answer.data["output"][0]["content"][0]["text"] == ANSWER
    streamed = b"".join([chunk async for chunk in llm.raw_stream(RESPONSES, {"input": "Hello"})])
    assert b"event: response.completed" in streamed
    assert [request.body["model"] for request in engine.requests] == [MODEL] * 4


async def test_an_answers_bytes_are_the_engines_own(engine: FakeEngine, llm: LlamaCpp) -> None:
    raw = b' {"choices" : [{"message": {"content": "caf\\u00e9"}}]}\n'
    engine.on(CHAT, lambda x: x.answer(raw))
    answer = await llm.send(CHAT, BODY)
    assert answer.raw == raw
    assert answer.data == {"choices": [{"message": {"content": "café"}}]}


# States.


async def test_llamacpp_is_alive_while_it_loads(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.loading = True
    await llm.health()
    asks: tuple[Callable[[], Awaitable[object]], ...]
    asks = (llm.ready, llm.models, llm.capacity, lambda: llm.chat(BODY), lambda: whole(llm))
    for ask in asks:
        with pytest.raises(EngineLoadingError, match="is loading its model: Loading model"):
            await ask()
    # Not every 503 says that nothing ran.
    engine.loading = False
    engine.on(CHAT, lambda x: x.answer({"error": {"message": "no slot available"}}, 503))
    with pytest.raises(EngineRefusedError, match="no slot available"):
        await llm.chat(BODY)


async def test_ollama_is_ready_once_its_model_is_loaded(ollama: tuple[FakeEngine, Ollama]) -> None:
    engine, llm = ollama
    await llm.health()
    with pytest.raises(EngineLoadingError, match="has not loaded smoke yet; loaded: nothing"):
        await llm.ready()
    engine.loaded = ["another:latest"]
    with pytest.raises(
        EngineLoadingError, match="has not loaded smoke yet; loaded: another:latest"
    ):
        await llm.ready()
    await llm.load()
    assert engine.requests[-1].body == {"model": MODEL, "keep_alive": -1, "stream": False}
    await llm.ready()
    engine.on("/api/generate", lambda x: x.answer({"error": "model 'smoke' not found"}, 404))
    with pytest.raises(EngineRefusedError, match="model 'smoke' not found") as caught:
        await llm.load()
    assert caught.value.status == 404


@pytest.mark.parametrize("answer", [{}, {"models": [{}]}, {"models": ["smoke"]}, {"models": 1}, []])
async def test_what_ollama_may_not_say(ollama: tuple[FakeEngine, Ollama], answer: object) -> None:
    engine, llm = ollama
    engine.on("/api/ps", lambda x: x.answer(answer))
    with pytest.raises(MalformedAnswer):
        await llm.ready()


async def test_ollama_loads_an_embedding_model_by_its_own_route(
    ollama: tuple[FakeEngine, Ollama],
) -> None:
    """As Ollama 0.34 says of a model that has no `completion` among its capabilities."""
    engine, llm = ollama
    refusal = {"error": f'"{MODEL}" does not support generate'}
    engine.on("/api/generate", lambda x: x.answer(refusal, 400))

    async def embed(exchange: Exchange) -> None:
        engine.loaded = [f"{exchange.body['model']}:latest"]
        await exchange.answer({"model": MODEL, "embeddings": []})

    engine.on("/api/embed", embed)
    await llm.load()
    await llm.ready()
    assert engine.posts[-1].body == {"model": MODEL, "keep_alive": -1, "input": []}


async def test_ollama_does_not_load_in_another_way_for_another_reason(
    ollama: tuple[FakeEngine, Ollama],
) -> None:
    engine, llm = ollama
    engine.on("/api/generate", lambda x: x.answer({"error": "model 'smoke' not found"}, 404))
    with pytest.raises(EngineRefusedError, match="model 'smoke' not found"):
        await llm.load()
    assert [request.path for request in engine.posts] == ["/api/generate"]


@pytest.mark.parametrize(
    ("model", "loaded", "ready"),
    [
        ("a", "a:latest", True),
        ("a:latest", "a:latest", True),
        ("a:3b", "a:3b", True),
        ("a:3b", "a:latest", False),
        ("hub:80/a", "hub:80/a:latest", True),
    ],
)
async def test_ollamas_names(
    ollama: tuple[FakeEngine, Ollama], model: str, loaded: str, ready: bool
) -> None:
    engine, _ = ollama
    engine.loaded = [loaded]
    async with Ollama(model=model, base_url=engine.url) as llm:
        if ready:
            await llm.ready()
        else:
            with pytest.raises(EngineLoadingError):
                await llm.ready()


async def test_vllm_is_loading_while_its_port_is_closed() -> None:
    async with VLLM(model=MODEL, base_url=f"http://127.0.0.1:{free_port()}") as llm:
        asks: tuple[Callable[[], Awaitable[object]], ...]
        asks = (llm.health, llm.ready, lambda: llm.chat(BODY))
        for ask in asks:
            with pytest.raises(EngineLoadingError, match="has not opened its port"):
                await ask()


async def test_vllm_is_ready_with_an_empty_body() -> None:
    async with (
        FakeEngine("vllm").serving() as engine,
        VLLM(model=MODEL, base_url=engine.url) as llm,
    ):
        await llm.ready()
        engine.on("/health", lambda x: x.answer(b"dead", 500))
        with pytest.raises(EngineRefusedError, match="status 500: dead"):
            await llm.ready()


async def test_capacity_of_each_engine() -> None:
    for name, capacity in (
        ("llamacpp", Capacity(CONTEXT, SLOTS, None)),
        ("ollama", Capacity(CONTEXT, None, 1.0)),
        ("vllm", Capacity(CONTEXT, None, None)),
    ):
        async with (
            FakeEngine(name).serving() as engine,
            PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
        ):
            await llm.load()
            assert await llm.capacity() == capacity


@pytest.mark.parametrize(
    ("name", "path", "answer"),
    [
        ("llamacpp", "/props", {}),
        ("llamacpp", "/props", {"default_generation_settings": 1, "total_slots": "4"}),
        ("llamacpp", "/props", {"default_generation_settings": {"n_ctx": 0}}),
        ("ollama", "/api/ps", {"models": [{"name": "smoke"}]}),
        ("ollama", "/api/ps", {"models": [{"name": "smoke", "size": 0, "size_vram": 0}]}),
        ("ollama", "/api/ps", {"models": [{"name": "smoke", "size": 9, "size_vram": "x"}]}),
        ("vllm", "/v1/models", {"data": []}),
        ("vllm", "/v1/models", {"data": [{"id": MODEL, "max_model_len": None}]}),
    ],
)
async def test_a_capacity_that_is_not_told(name: str, path: str, answer: object) -> None:
    async with (
        FakeEngine(name).serving() as engine,
        PROVIDERS[name](model=MODEL, base_url=engine.url) as llm,
    ):
        engine.on(path, lambda x: x.answer(answer))
        assert await llm.capacity() == Capacity()


async def test_ollama_loads_a_model_for_embeddings() -> None:
    """It refuses to generate with such a model, also nothing."""
    async with (
        FakeEngine("ollama").serving() as engine,
        PROVIDERS["ollama"](model=MODEL, base_url=engine.url) as llm,
    ):
        refusal = {"error": f'"{MODEL}" does not support generate'}
        engine.on("/api/generate", lambda x: x.answer(refusal, 400))
        engine.on("/api/embed", lambda x: x.answer({"model": MODEL, "embeddings": []}))
        await llm.load()
        assert engine.posts[-1].path == "/api/embed"
        assert engine.posts[-1].body == {"model": MODEL, "keep_alive": -1, "input": []}
        engine.on("/api/generate", lambda x: x.answer({"error": "no such model"}, 404))
        with pytest.raises(EngineRefusedError, match="no such model"):
            await llm.load()


async def test_llamacpp_tells_whether_its_model_sees() -> None:
    async with (
        FakeEngine().serving() as engine,
        PROVIDERS["llamacpp"](model=MODEL, base_url=engine.url) as llm,
    ):
        for modalities, vision in (
            ({"vision": True, "audio": False}, True),
            ({"vision": False}, False),
            ([], False),
        ):
            props: dict[str, Any] = {"modalities": modalities}
            engine.on("/props", partial(Exchange.answer, body=props))
            assert (await llm.capacity()).vision is vision
