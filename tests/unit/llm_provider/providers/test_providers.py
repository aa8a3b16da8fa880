"""The three providers against engines that behave as they should, and the errors otherwise."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from llm_provider import (
    VLLM,
    ConfigurationError,
    EngineLoadingError,
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
from llm_provider.providers.base import Capacity
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
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
    error_event,
    event,
    free_port,
    stream_of,
    until,
)

MESSAGES = [{"role": "user", "content": "Hello"}]
BODY: dict[str, Any] = {"messages": MESSAGES, "model": "ignored"}


async def whole(llm: LLMProvider) -> bytes:
    return b"".join([chunk async for chunk in llm.raw_stream(CHAT, BODY)])


async def events(llm: LLMProvider) -> list[dict[str, Any]]:
    return [one async for one in llm.stream(BODY)]


@pytest.fixture
async def ollama() -> AsyncIterator[tuple[FakeEngine, Ollama]]:
    async with (
        FakeEngine("ollama").serving() as engine,
        Ollama(model=MODEL, base_url=engine.url, timeout=2) as llm,
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
        "user": "somebody",
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


# What Ollama does its own way.

CANNOT = "ollama cannot do {0} {1!r}; leave '{0}' out."


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"max_completion_tokens": None, "max_tokens": 9}, {"max_tokens": 9}),
        ({"tools": [1], "tool_choice": "auto"}, {"tools": [1]}),
        ({"tools": [1], "tool_choice": None}, {"tools": [1]}),
        ({"tools": [1], "tool_choice": "none"}, {}),
        ({"n": 1, "logit_bias": {}, "parallel_tool_calls": True}, {"n": 1, "logit_bias": {},
          "parallel_tool_calls": True}),
        ({"modalities": ["text"], "grammar": ""}, {"modalities": ["text"], "grammar": ""}),
        ({"logprobs": True, "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
    ],
)  # fmt: skip
async def test_what_ollama_is_sent(
    ollama: tuple[FakeEngine, Ollama], asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    engine, llm = ollama
    given = BODY | asked
    before = repr(given)
    await llm.chat(given)
    always = {"messages": MESSAGES, "model": MODEL, "stream": False, "max_tokens": CONTEXT}
    assert engine.asked == [always | sent]
    assert repr(given) == before  # the caller's own is left alone


@pytest.mark.parametrize(
    ("param", "value", "words"),
    [
        ("tool_choice", "required", "ollama cannot be made to call a tool"),
        ("tool_choice", {"type": "function"}, "ollama cannot be made to call a tool"),
        ("top_logprobs", 3, "ollama gives top_logprobs only beside logprobs"),
        *(
            (param, value, CANNOT.format(param, value))
            for param, value in (
                ("n", 2),
                ("n", 0),
                ("logit_bias", {"5": 1}),
                ("parallel_tool_calls", False),
                ("functions", [1]),
                ("function_call", "auto"),
                ("modalities", ["audio"]),
                ("prediction", {"type": "content"}),
                ("audio", {"voice": "x"}),
                ("top_k", 40),
                ("min_p", 0.05),
                ("repeat_penalty", 1.1),
                ("typical_p", 0.9),
                ("mirostat", 2),
                ("ignore_eos", True),
                ("grammar", "root ::= x"),
            )
        ),
    ],
)
async def test_what_ollama_cannot_do_is_said(
    ollama: tuple[FakeEngine, Ollama], param: str, value: object, words: str
) -> None:
    engine, llm = ollama
    for ask in (llm.chat(BODY | {param: value}), anext(llm.stream(BODY | {param: value}))):
        with pytest.raises(Unsupported, match=re.escape(words)) as caught:
            await ask
        assert caught.value.param == param
    assert engine.requests == []


@pytest.mark.parametrize(
    ("param", "value"), [("n", 2), ("best_of", 2), ("echo", True), ("logprobs", 1), ("top_k", 1)]
)
async def test_what_ollamas_completions_cannot_do(
    ollama: tuple[FakeEngine, Ollama], param: str, value: object
) -> None:
    engine, llm = ollama
    with pytest.raises(Unsupported) as caught:
        await llm.send(COMPLETIONS, {"prompt": "Hello", param: value})
    assert caught.value.param == param
    await llm.send(COMPLETIONS, {"prompt": "Hello", "echo": False, "best_of": 1, "n": 1})
    assert engine.paths().count(COMPLETIONS) == 1


async def test_others_get_what_ollama_could_not_do(engine: FakeEngine, llm: LlamaCpp) -> None:
    asked = {"n": 2, "top_k": 3, "tool_choice": "required", "max_completion_tokens": 7}
    await llm.chat(BODY | asked)
    assert engine.asked == [BODY | asked | {"model": MODEL, "stream": False}]


async def test_what_vllm_cannot_do_is_said_and_its_parts_are_one_text() -> None:
    async with (
        FakeEngine("vllm").serving() as engine,
        VLLM(model=MODEL, base_url=engine.url) as llm,
    ):
        for param, value in (
            ("functions", [1]),
            ("repeat_penalty", 1.1),
            ("audio", {"voice": "x"}),
        ):
            with pytest.raises(Unsupported, match=f"vllm cannot do {param} ") as caught:
                await llm.chat(BODY | {param: value})
            assert caught.value.param == param
        assert engine.requests == []
        parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
        await llm.chat(BODY | {"messages": [{"role": "user", "content": parts}], "n": 2})
        asked = {"messages": [{"role": "user", "content": "Hello"}], "n": 2}
        assert engine.asked == [BODY | asked | {"model": MODEL, "stream": False}]


async def test_a_refusal_that_comes_after_the_200(engine: FakeEngine, llm: LlamaCpp) -> None:
    """As vLLM says that a schema cannot be: before its stream's first word, and ended properly."""
    error = {"message": "Invalid type", "type": "BadRequestError", "param": None, "code": 400}
    first = (
        b'data: {"error": {"message": "Invalid type", "type": "BadRequestError", '
        b'"param": null, "code": 400}}\n\n'
    )
    engine.on(CHAT, lambda x: x.stream(first, b"data: [DONE]\n\n"))
    for ask in (anext(llm.stream(BODY)), anext(llm.raw_stream(CHAT, BODY))):
        with pytest.raises(
            EngineRefusedError, match="refused with status 400: Invalid type"
        ) as caught:
            await ask
        assert (caught.value.status, caught.value.error) == (400, error)


async def test_ollama_is_told_to_stop_at_the_contexts_end(
    ollama: tuple[FakeEngine, Ollama],
) -> None:
    """It would shift its context and go on, to ten times that."""
    engine, llm = ollama
    await llm.load()
    await llm.ready()
    await llm.chat(BODY)
    await llm.chat(BODY | {"max_tokens": None})
    await llm.chat(BODY | {"max_tokens": 5})
    assert [body["max_tokens"] for body in engine.asked] == [CONTEXT, CONTEXT, 5]


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([], ""),
        ("a", "a"),
        (None, None),
        ([{"type": "text", "text": 1}], [{"type": "text", "text": 1}]),
        ([{"type": "image_url"}, {"type": "text", "text": "b"}],) * 2,
    ],
)
async def test_ollama_gets_one_message_for_one(
    ollama: tuple[FakeEngine, Ollama], content: object, sent: object
) -> None:
    engine, llm = ollama
    await llm.chat({"messages": [{"role": "tool", "tool_call_id": "1", "content": content}]})
    assert engine.asked[0]["messages"] == [{"role": "tool", "tool_call_id": "1", "content": sent}]


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


async def test_silence_holds_what_had_arrived(engine: FakeEngine) -> None:
    async def silent(exchange: Exchange) -> None:
        if exchange.body["stream"]:
            await exchange.begin_stream()
            await exchange.chunk(event("Hel"))
        await asyncio.sleep(10)

    engine.on(CHAT, silent)
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=0.1) as llm:
        with pytest.raises(EngineTimeoutError) as caught:
            await llm.chat(BODY)
        assert caught.value.received == b""
        with pytest.raises(EngineTimeoutError) as caught:
            await events(llm)
        assert (caught.value.received, caught.value.text) == (event("Hel"), "Hel")


async def test_a_slow_answer_is_no_silence(engine: FakeEngine) -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.begin_stream()
        raw = stream_of()
        for start in range(0, len(raw), len(raw) // 8):
            await asyncio.sleep(0.1)
            await exchange.chunk(raw[start : start + len(raw) // 8])
        await exchange.chunk(b"")

    engine.on(CHAT, slow)
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=0.6) as llm:
        assert await whole(llm) == stream_of()


# Leaving.


async def endless(exchange: Exchange) -> None:
    if exchange.body["stream"]:
        await exchange.begin_stream()
    while True:
        if exchange.body["stream"]:
            await exchange.chunk(event("on "))
        await asyncio.sleep(0.005)


async def test_leaving_a_stream_stops_the_engine(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, endless)
    for stream in (llm.stream(BODY), llm.raw_stream(CHAT, BODY), llm.generate_stream("Hello")):
        engine.left.clear()
        await anext(stream)
        assert engine.running == 1
        await stream.aclose()
        await asyncio.wait_for(engine.left.wait(), 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_stops_the_engine(engine: FakeEngine, llm: LlamaCpp, stream: bool) -> None:
    engine.on(CHAT, endless)
    task: asyncio.Task[object]
    task = asyncio.create_task(whole(llm) if stream else llm.chat(BODY))
    await until(lambda: engine.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(engine.left.wait(), 1)


async def test_closing_a_provider_ends_its_streams(engine: FakeEngine, llm: LlamaCpp) -> None:
    engine.on(CHAT, endless)
    stream = llm.stream(BODY)
    await anext(stream)
    await llm.close()
    with pytest.raises(StreamInterruptedError):
        async for _ in stream:
            pass
    with pytest.raises(EngineUnreachableError, match="this provider is closed"):
        await llm.chat(BODY)
    await llm.close()  # twice is once


async def test_an_answer_cut_on_this_side_is_not_whole(engine: FakeEngine, llm: LlamaCpp) -> None:
    """Even where it tells no length, and what came of it is JSON."""

    async def unending(exchange: Exchange) -> None:
        await exchange.send(b'HTTP/1.1 200 OK\r\n\r\n{"choices": [{}]}')
        await asyncio.sleep(60)

    engine.on(CHAT, unending)
    task = asyncio.create_task(llm.chat(BODY))
    await until(lambda: engine.running == 1)
    await asyncio.sleep(0.05)
    await llm.close()
    with pytest.raises(StreamInterruptedError):
        await task


async def test_many_at_a_time(engine: FakeEngine, llm: LlamaCpp) -> None:
    answers = await asyncio.gather(*(whole(llm) for _ in range(64)))
    assert set(answers) == {stream_of()}
    assert len(engine.requests) == 64


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": ""}, "No model is named; set LLM_MODEL or give model=."),
        ({"model": "m", "base_url": "ftp://engine"}, "The address 'ftp://engine' is not usable"),
        ({"model": "m", "base_url": ""}, "The address '' is not usable; give one such as http"),
        ({"model": "m", "api_key": "caf\xe9"}, "holds characters no header can"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        LlamaCpp(**settings)


async def test_ollamas_answer_that_breaks_off(ollama: tuple[FakeEngine, Ollama]) -> None:
    engine, llm = ollama
    engine.on(CHAT, lambda x: x.answer(completion("half of", None)))
    with pytest.raises(
        StreamInterruptedError, match=r"an answer that breaks off: no finish_reason\.$"
    ):
        await llm.chat(BODY)
