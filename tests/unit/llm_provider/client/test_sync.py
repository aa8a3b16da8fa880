"""A provider for programs without asyncio."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_provider import (
    ChatCompletionAccumulator,
    ConfigurationError,
    EngineRefusedError,
    EngineUnreachableError,
    LLMProvider,
    StreamInterruptedError,
    SyncLLMProvider,
    get_sync_llm_provider,
)
from llm_provider.providers.routes import CHAT

from ..scripted import ANSWER, MODEL, Scripted, paced, refusal, serving, words

MESSAGES = [{"role": "user", "content": "Hello"}]
ENDLESS = paced(*words("on and on " * 100_000), seconds=0.01)


@pytest.fixture(scope="module")
def serve() -> Iterator[Scripted]:
    with serving(Scripted()) as scripted:
        yield scripted


@pytest.fixture
def server(serve: Scripted) -> Scripted:
    serve.reset()
    return serve


@pytest.fixture
def llm(server: Scripted) -> Iterator[SyncLLMProvider]:
    with provider(server) as made:
        yield made


def provider(server: Scripted) -> SyncLLMProvider:
    key = "key-one-of-the-tests"
    return get_sync_llm_provider("llamacpp", model=MODEL, base_url=server.url, api_key=key)


def test_whole_answers(server: Scripted, llm: SyncLLMProvider) -> None:
    assert (llm.name, llm.base_url, llm.model) == ("llamacpp", server.url, MODEL)
    assert llm.generate("Hello", seed=1) == ANSWER
    answer = llm.chat(messages=MESSAGES, seed=2)
    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert llm.send(CHAT, {"messages": MESSAGES}).data == answer
    assert llm.models() == [MODEL, "an-alias"]
    llm.health()
    llm.load()
    assert [each.body["seed"] for each in server.asked[:2]] == [1, 2]


def test_streamed_answers(llm: SyncLLMProvider) -> None:
    answer = ChatCompletionAccumulator()
    with llm.stream({"messages": MESSAGES}) as events:
        for event in events:
            answer.add(event)
    assert answer.text.strip() == ANSWER
    assert "".join(llm.generate_stream("Hello")).strip() == ANSWER
    assert b"".join(llm.raw_stream(CHAT, {"messages": MESSAGES})).endswith(b"data: [DONE]\n\n")


def test_errors_are_the_modules(server: Scripted, llm: SyncLLMProvider) -> None:
    server.reset({"chat": refusal("Too long.", 400), "stream": refusal("Too long.", 400)})
    asks: list[Callable[[], object]]
    asks = [lambda: llm.chat(messages=MESSAGES), lambda: next(llm.generate_stream("Hello"))]
    for ask in asks:
        with pytest.raises(EngineRefusedError, match="refused with status 400: Too long"):
            ask()
    with pytest.raises(ConfigurationError, match="neither a body nor messages"):
        llm.chat()
    with pytest.raises(ConfigurationError, match="The provider is 'none', which is not known"):
        get_sync_llm_provider("none", model=MODEL)


def test_a_stream_that_is_closed_is_at_its_end(server: Scripted, llm: SyncLLMProvider) -> None:
    server.reset({"stream": ENDLESS})
    with llm.generate_stream("Hello") as pieces:
        assert next(pieces) == "on "
    assert list(pieces) == []
    pieces.close()


def test_closing_a_stream_that_another_thread_reads(server: Scripted, llm: SyncLLMProvider) -> None:
    server.reset({"stream": ENDLESS})
    stream = llm.generate_stream("Hello")
    begun, caught = threading.Event(), []

    def read() -> None:
        try:
            for _ in stream:
                begun.set()
        except StreamInterruptedError as error:
            caught.append(str(error))

    reading = threading.Thread(target=read)
    reading.start()
    assert begun.wait(20)
    stream.close()
    reading.join(20)
    assert not reading.is_alive()
    assert caught in ([], ["The stream was closed while it was read."])


def test_after_close(server: Scripted) -> None:
    server.reset({"stream": ENDLESS})
    llm = provider(server)
    stream = llm.generate_stream("Hello")
    next(stream)
    before = threading.active_count()
    llm.close()
    assert threading.active_count() < before
    llm.close()  # twice is once
    with pytest.raises(EngineUnreachableError, match="this provider is closed"):
        llm.generate("Hello")
    with pytest.raises(StreamInterruptedError, match="its provider is closed"):
        next(stream)
    stream.close()


async def test_within_a_running_loop(llm: SyncLLMProvider) -> None:
    """As in a notebook."""
    assert llm.generate("Hello") == ANSWER


def test_from_several_threads(llm: SyncLLMProvider) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(llm.generate("Hello"))) for _ in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert found == [ANSWER] * 8


def test_it_has_every_method_of_a_provider() -> None:
    def parameters(of: type, name: str) -> list[str]:
        return list(inspect.signature(getattr(of, name)).parameters)

    methods = [name for name in vars(LLMProvider) if not name.startswith("_")]
    methods = [name for name in methods if callable(getattr(LLMProvider, name))]
    assert {"chat", "embed", "generate_stream"} <= set(methods)
    for name in methods:
        assert parameters(SyncLLMProvider, name) == parameters(LLMProvider, name), name


def test_it_is_made_as_a_provider_is(tmp_path: Path) -> None:
    environ: Any = {"LLM_MODEL": "m", "HARDWARE": "jetson"}
    with get_sync_llm_provider(environ=environ, root=tmp_path, timeout=1) as llm:
        assert (llm.name, llm.model) == ("llamacpp", "m")
