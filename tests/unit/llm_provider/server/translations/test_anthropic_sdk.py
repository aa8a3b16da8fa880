"""The anthropic SDK, unmodified, against the translations: sync and async, streamed and not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic

from llm_provider.server.translations.anthropic_errors import error_body
from llm_provider.server.translations.anthropic_request import count_tokens_to_chat, token_count
from llm_provider.server.translations.errors import TranslationError

from .recorded import answer_anthropic, pieces

Handler = Callable[[httpx2.Request], httpx2.Response]

HELLO: dict[str, Any] = {
    "model": "qwen3-4b",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Weather in Paris and Köln?"}],
}
TOOLS: list[Any] = [
    {
        "name": "get_weather",
        "description": "Weather of a city",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, data: bytes, size: int) -> None:
        self._pieces = list(pieces(data, size))

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def serve(answer: str, size: int = 7) -> Handler:
    """A server that answers every request with one of the recorded answers."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/v1/messages"
        try:
            kind, data = answer_anthropic(json.loads(request.content), answer)
        except TranslationError as error:
            body = error_body(400, {"message": str(error), "param": error.param})
            return httpx2.Response(400, json=body)
        return httpx2.Response(200, headers={"content-type": kind}, stream=Pieces(data, size))

    return handle


def refuse(status: int, **error: Any) -> Handler:
    return lambda request: httpx2.Response(
        status, json=error_body(status, error, "req_1"), headers={"request-id": "req_1"}
    )


def client(handler: Handler) -> Anthropic:
    return Anthropic(
        base_url="http://board:8000",
        api_key="key",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handler)),
    )


def async_client(handler: Handler) -> AsyncAnthropic:
    return AsyncAnthropic(
        base_url="http://board:8000",
        api_key="key",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(handler)),
    )


def check_tools(message: anthropic.types.Message) -> None:
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    calls = [block for block in message.content if block.type == "tool_use"]
    assert [call.name for call in calls] == ["get_weather", "get_weather"]
    assert [call.input for call in calls] == [{"city": "Paris"}, {"city": "Köln"}]
    assert message.stop_reason == "tool_use"
    assert message.usage.input_tokens == 180
    assert message.usage.output_tokens == 57


def test_a_message() -> None:
    message = client(serve("llama_server_text")).messages.create(**HELLO)
    assert message.content[0].type == "text"
    assert message.content[0].text == "The capital of France is Paris."
    assert message.model == "qwen3-4b"
    assert message.stop_reason == "end_turn"
    assert message.usage.cache_read_input_tokens == 5


async def test_a_message_async() -> None:
    message = await async_client(serve("llama_server_tools")).messages.create(**HELLO, tools=TOOLS)
    check_tools(message)


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("answer", ["llama_server_tools", "ollama_tools"])
def test_a_stream_is_accumulated(answer: str, size: int) -> None:
    with client(serve(answer, size)).messages.stream(**HELLO, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        check_tools(stream.get_final_message())
    assert kinds.count("input_json") >= 2
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


@pytest.mark.parametrize("answer", ["llama_server_tools", "ollama_tools"])
async def test_a_stream_is_accumulated_async(answer: str) -> None:
    async with async_client(serve(answer)).messages.stream(**HELLO, tools=TOOLS) as stream:
        thinking = [event.thinking async for event in stream if event.type == "thinking"]
        check_tools(await stream.get_final_message())
    assert "".join(thinking) == "Two cities, two calls."


def test_a_stream_of_text_comes_in_pieces() -> None:
    with client(serve("llama_server_text")).messages.stream(**HELLO) as stream:
        assert list(stream.text_stream) == ["The capital", " of France", " is Paris."]
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert final.usage.input_tokens == 16
    assert final.usage.cache_read_input_tokens == 5


def test_a_stop_sequence_is_told_in_a_stream() -> None:
    with client(serve("vllm_stop")).messages.stream(**HELLO, stop_sequences=["three"]) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", "three")


def test_raw_events_of_a_stream() -> None:
    events = list(client(serve("llama_server_text")).messages.create(**HELLO, stream=True))
    assert [event.type for event in events][:2] == ["message_start", "content_block_start"]


def test_a_message_of_the_sdk_can_be_sent_back() -> None:
    sent: list[dict[str, Any]] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        return serve("llama_server_tools")(request)

    sdk = client(handle)
    first = sdk.messages.create(**HELLO, tools=TOOLS)
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "12 °C"}
        for block in first.content
        if block.type == "tool_use"
    ]
    messages = [
        *HELLO["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    check_tools(sdk.messages.create(**HELLO | {"messages": messages}, tools=TOOLS))
    assert len(sent[1]["messages"][1]["content"]) == 4


def test_a_refused_parameter_is_the_sdks_bad_request() -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        client(serve("llama_server_text")).messages.create(
            **HELLO, tools=[{"type": "web_search_20250305", "name": "web_search"}]
        )
    assert refused.value.type == "invalid_request_error"
    assert "is a tool of Anthropic's own" in str(refused.value.api_message)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (413, anthropic.APIStatusError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (503, anthropic.InternalServerError),
        (504, anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_errors_are_the_sdks_own(
    status: int, kind: type[anthropic.APIStatusError], streamed: bool
) -> None:
    sdk = client(refuse(status, message="No.", code="a_code", type="x"))
    with pytest.raises(kind) as refused:
        sdk.messages.create(**HELLO, stream=streamed)
    error = refused.value
    assert error.status_code == status
    assert error.api_message == "No."
    assert error.error_code == "a_code"
    assert error.request_id == "req_1"


async def test_errors_are_the_sdks_own_async() -> None:
    with pytest.raises(anthropic.RateLimitError) as refused:
        await async_client(refuse(429, message="Later.")).messages.create(**HELLO)
    assert refused.value.type == "rate_limit_error"


def test_an_error_in_a_stream_is_raised_after_the_text_before_it() -> None:
    texts = []
    with (
        pytest.raises(anthropic.APIStatusError) as failed,
        client(serve("engine_error")).messages.stream(**HELLO) as stream,
    ):
        for text in stream.text_stream:
            texts.append(text)
    assert texts == ["The capital"]
    assert failed.value.type == "api_error"
    assert failed.value.api_message == "context size has been exceeded"


async def test_a_stream_that_breaks_off_is_an_error_async() -> None:
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        async with async_client(serve("broken_off")).messages.stream(**HELLO) as stream:
            await stream.get_final_message()


def test_tokens_are_counted() -> None:
    counted: list[dict[str, Any]] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/v1/messages/count_tokens"
        counted.append(count_tokens_to_chat(json.loads(request.content)).body)
        return httpx2.Response(200, json=token_count(42))

    request = {"model": HELLO["model"], "messages": HELLO["messages"]}
    found = client(handle).messages.count_tokens(**request, tools=TOOLS, system="Be brief.")
    assert found.input_tokens == 42
    assert counted[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert counted[0]["tools"][0]["function"]["name"] == "get_weather"
