"""ollama-python and Home Assistant's calls of it, unmodified, against the translations."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import ollama
import pytest

from llm_provider.server.translations.errors import TranslationError
from llm_provider.server.translations.ollama_embed import (
    embed_answer,
    embed_to_embeddings,
    embeddings_answer,
    embeddings_to_embeddings,
)
from llm_provider.server.translations.ollama_models import ModelInfo, running, show, tags
from llm_provider.server.translations.ollama_request import chat_to_chat, is_load_request
from llm_provider.server.translations.ollama_response import Shape, error_body, load_answer

from .recorded import answer_ollama, load, pieces, stopwatch

Handler = Callable[[httpx.Request], httpx.Response]
MODEL = ModelInfo(name="qwen3:4b", size=3, size_vram=2, capabilities=("completion", "tools"))
VECTORS = {
    "data": [{"index": 0, "embedding": [1.0, 0.0]}, {"index": 1, "embedding": [0.0, 1.0]}],
    "usage": {"prompt_tokens": 2},
}
ASK: list[Any] = [{"role": "user", "content": "Weather in Paris and Köln?"}]


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, data: bytes, size: int) -> None:
        self._pieces = list(pieces(data, size))

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class Server:
    """Ollama's routes; every chat gets one of the recorded answers. `sent` are the bodies."""

    def __init__(self, answer: str = "llama_server_text", size: int = 7) -> None:
        self._answer = answer
        self._size = size
        self.sent: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        self.sent.append(body)
        try:
            return self._respond(request.url.path, body)
        except TranslationError as error:
            return httpx.Response(400, json=error_body(str(error)))

    def _respond(self, path: str, body: dict[str, Any]) -> httpx.Response:
        match path:
            case "/api/tags":
                return httpx.Response(200, json=tags([MODEL]))
            case "/api/ps":
                return httpx.Response(200, json=running([MODEL]))
            case "/api/show":
                return httpx.Response(200, json=show(MODEL))
            case "/api/embed":
                assert embed_to_embeddings(body).body["input"] == ["a", "b"]
                answer = embed_answer(VECTORS, model=body["model"], stopwatch=stopwatch())
                return httpx.Response(200, json=answer)
            case "/api/embeddings":
                assert embeddings_to_embeddings(body).body["input"] == ["a"]
                return httpx.Response(200, json=embeddings_answer(VECTORS))
            case "/api/chat" | "/api/generate" if is_load_request(body):
                loaded = load_answer(shape=Shape(path), model=body["model"], stopwatch=stopwatch())
                return httpx.Response(200, json=loaded)
            case "/api/chat" | "/api/generate":
                kind, data = answer_ollama(path, body, self._answer)
                stream = Pieces(data, self._size)
                return httpx.Response(200, headers={"content-type": kind}, stream=stream)
        return httpx.Response(404, json=error_body(f"{path} is not found."))


def client(handler: Handler) -> ollama.Client:
    return ollama.Client("http://board:8000", transport=httpx.MockTransport(handler))


def async_client(handler: Handler) -> ollama.AsyncClient:
    return ollama.AsyncClient("http://board:8000", transport=httpx.MockTransport(handler))


def get_weather(city: str, days: int | str = 1) -> str:
    """Tell the weather of a city.

    Args:
        city: Name of the city
        days: How many days
    """
    return f"12 °C in {city} for {days}"


def check_calls(message: ollama.Message) -> None:
    calls = message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather", "get_weather"]
    assert [call.function.arguments for call in calls] == [{"city": "Paris"}, {"city": "Köln"}]


def test_a_chat() -> None:
    found = client(Server()).chat("qwen3:4b", ASK)
    assert found.message.content == "The capital of France is Paris."
    assert found["message"]["content"] == "The capital of France is Paris."
    assert (found.done, found.done_reason, found.eval_count) == (True, "stop", 8)
    assert found.message.tool_calls is None


async def test_a_chat_with_tools_async() -> None:
    server = Server("llama_server_tools")
    found = await async_client(server).chat("qwen3:4b", ASK, tools=[get_weather], think=True)
    assert found.message.thinking == "Two cities, two calls."
    check_calls(found.message)
    schema = chat_to_chat(server.sent[0]).body["tools"][0]["function"]["parameters"]
    assert sorted(schema["properties"]["days"]["type"]) == ["integer", "string"]


def test_the_tools_answers_are_sent_back() -> None:
    server = Server("llama_server_tools")
    sdk = client(server)
    first = sdk.chat("qwen3:4b", ASK, tools=[get_weather])
    results = [
        {
            "role": "tool",
            "tool_name": call.function.name,
            "content": get_weather(**call.function.arguments),
        }
        for call in first.message.tool_calls or []
    ]
    sdk.chat("qwen3:4b", [*ASK, first.message, *results], tools=[get_weather])
    messages = chat_to_chat(server.sent[1]).body["messages"]
    calls = [call["id"] for call in messages[1]["tool_calls"]]
    assert [message["tool_call_id"] for message in messages[2:]] == calls
    assert messages[3]["content"] == "12 °C in Köln for 1"
    assert messages[1]["reasoning_content"] == "Two cities, two calls."


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_stream(size: int) -> None:
    parts = list(client(Server(size=size)).chat("qwen3:4b", ASK, stream=True))
    assert [part.message.content for part in parts] == [
        *("The capital", " of France", " is Paris.", "")
    ]
    assert [part.done for part in parts] == [False, False, False, True]
    assert parts[-1].prompt_eval_count == 21


@pytest.mark.parametrize("answer", ["llama_server_tools", "ollama_tools"])
async def test_a_stream_with_tools_async(answer: str) -> None:
    stream = await async_client(Server(answer)).chat(
        "qwen3:4b", ASK, tools=[get_weather], stream=True
    )
    parts = [part async for part in stream]
    assert "".join(part.message.content or "" for part in parts) == "Let me look."
    check_calls(next(part.message for part in parts if part.message.tool_calls))


def test_generate_whole_and_streamed() -> None:
    sdk = client(Server("llama_server_text"))
    whole = sdk.generate("qwen3:4b", "Capital of France?", options={"temperature": 0})
    assert whole.response == "The capital of France is Paris."
    parts = list(sdk.generate("qwen3:4b", "Capital of France?", stream=True))
    assert "".join(part.response or "" for part in parts) == "The capital of France is Paris."
    assert parts[-1].done_reason == "stop"


def test_a_model_is_loaded_by_a_request_without_a_prompt() -> None:
    sdk = client(Server())
    assert sdk.generate("qwen3:4b", keep_alive=-1).done_reason == "load"
    assert sdk.chat("qwen3:4b", []).done_reason == "load"
    with pytest.raises(ollama.ResponseError, match="the model stays loaded") as refused:
        sdk.generate("qwen3:4b", keep_alive=0)
    assert refused.value.status_code == 400


def test_embeddings_by_either_route() -> None:
    sdk = client(Server())
    assert sdk.embed("m", ["a", "b"]).embeddings == [[1.0, 0.0], [0.0, 1.0]]
    assert sdk.embeddings("m", "a").embedding == [1.0, 0.0]


def test_an_error_is_the_sdks_own() -> None:
    sdk = client(lambda request: httpx.Response(404, json=error_body("model 'm' not found")))
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError) as refused:
            list(sdk.chat("m", ASK, stream=stream))
        assert refused.value.status_code == 404
        assert refused.value.error == "model 'm' not found"


@pytest.mark.parametrize(
    ("answer", "words"),
    [("engine_error", "context size has been exceeded"), ("broken_off", "broke off")],
)
async def test_an_error_in_a_stream_is_raised_after_the_text_before_it(
    answer: str, words: str
) -> None:
    texts = []
    with pytest.raises(ollama.ResponseError, match=words):
        async for part in await async_client(Server(answer)).chat("m", ASK, stream=True):
            texts.append(part.message.content)
    assert texts == ["The capital"]


async def test_home_assistant_sets_up() -> None:
    """Its config flow and coordinator: list, ps, and the models' names."""
    sdk = async_client(Server())
    listed = await sdk.list()
    assert {entry["model"] for entry in listed.get("models", [])} == {"qwen3:4b"}
    loaded = await sdk.ps()
    assert [entry.model for entry in loaded.models] == ["qwen3:4b"]
    assert (loaded.models[0].size, loaded.models[0].size_vram) == (3, 2)
    shown = await sdk.show("qwen3:4b")
    assert shown.capabilities == ["completion", "tools"]


async def test_home_assistant_talks() -> None:
    """Its conversation: each delta is read as entity.py's _transform_stream does."""
    recorded = load("ollama_requests")["home_assistant_first"]["request"]
    server = Server("llama_server_tools")
    stream = await async_client(server).chat(
        model="qwen3:4b",
        messages=[ollama.Message(**message) for message in recorded["messages"]],
        tools=recorded["tools"],
        stream=True,
        keep_alive=-1,
        options={"num_ctx": 8192},
        think=False,
        format=None,
    )
    content, thinking, calls = "", "", []
    async for response in stream:
        message = response["message"]
        if (tool_calls := message.get("tool_calls")) is not None:
            calls += [
                (call["function"]["name"], call["function"]["arguments"]) for call in tool_calls
            ]
        if (text := message.get("content")) is not None:
            content += text
        if (thought := message.get("thinking")) is not None:
            thinking += thought
    assert server.sent == [recorded]
    assert content == "Let me look."
    assert thinking == "Two cities, two calls."
    assert calls == [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Köln"})]
