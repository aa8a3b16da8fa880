"""The openai package: its synchronous client."""

from __future__ import annotations

import json

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.integration.clients.asking import (
    CALL,
    EMBEDDERS,
    KEY,
    PARIS,
    QUESTION,
    STORY,
    TOO_LONG,
    WEATHER,
    WIDTH,
    Place,
    Weather,
    embedder,
    works_on,
)
from tests.integration.engines.conftest import House
from tests.integration.engines.serving import Served


def sdk(served: Served, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.api.base_url}/v1", api_key=key, max_retries=0)


def says(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_chat(smoke: Served) -> None:
    with sdk(smoke) as client:
        answer = client.chat.completions.create(model="smoke", messages=says("Hello"))
    assert answer.choices[0].message.content == smoke.answer
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= 8


def test_a_stream(smoke: Served) -> None:
    with sdk(smoke) as client:
        stream = client.chat.completions.create(
            model="smoke",
            messages=says("Hello"),
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    pieces = [each.delta.content for chunk in chunks for each in chunk.choices]
    assert len([piece for piece in pieces if piece]) > 2
    assert "".join(piece or "" for piece in pieces) == smoke.answer
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens >= 8


def test_a_tool(tools: Served) -> None:
    with sdk(tools) as client:
        answer = client.chat.completions.create(
            model="tools", messages=says("Will it rain?"), tools=[WEATHER]
        )
        # The helper for streams takes strict tools alone.
        tool = openai.pydantic_function_tool(Weather, name="get_weather")
        with client.chat.completions.stream(
            model="tools", messages=says("Will it rain?"), tools=[tool]
        ) as stream:
            final = stream.get_final_completion()
    for choice in (answer.choices[0], final.choices[0]):
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == CALL


def test_a_structured_answer(smollm2: Served) -> None:
    with sdk(smollm2) as client:
        answer = client.chat.completions.parse(
            model="default",
            messages=says(QUESTION),
            response_format=Place,
            temperature=0,
            max_tokens=80,
        )
    assert answer.choices[0].message.parsed == PARIS


def test_responses(smoke: Served) -> None:
    with sdk(smoke) as client:
        answer = client.responses.create(model="smoke", input="Hello")
        events = list(client.responses.create(model="smoke", input="Hello", stream=True))
    assert answer.output_text.strip() == smoke.answer
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 2
    assert "".join(deltas).strip() == smoke.answer
    assert events[-1].type == "response.completed"


@pytest.mark.parametrize("name", EMBEDDERS)
def test_embeddings(house: House, name: str) -> None:
    # Unless told otherwise, the package asks for base64 and decodes it.
    with sdk(embedder(house, name)) as client:
        answer = client.embeddings.create(model="default", input=["The cat", "The dog"])
    assert [len(each.embedding) for each in answer.data] == [WIDTH] * 2
    assert {type(number) for each in answer.data for number in each.embedding} == {float}
    assert answer.usage.prompt_tokens > 0


def test_embeddings_of_a_model_for_chat(smoke: Served) -> None:
    with sdk(smoke) as client, pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model="smoke", input="Hello")
    assert (caught.value.status_code, caught.value.code) == (501, "not_supported_by_engine")


def test_errors_are_of_its_own_types(smoke: Served) -> None:
    with sdk(smoke, "another-key") as client, pytest.raises(openai.AuthenticationError) as key:
        client.chat.completions.create(model="smoke", messages=says("Hello"))
    assert key.value.code == "invalid_api_key"
    with sdk(smoke) as client:
        with pytest.raises(openai.NotFoundError) as model:
            client.chat.completions.create(model="gpt-5", messages=says("Hello"))
        assert model.value.code == "model_not_found"
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as size:
                client.chat.completions.create(
                    model="smoke", messages=says(TOO_LONG), stream=stream
                )
            assert size.value.code == "context_length_exceeded"


def test_its_timeout_and_leaving_stop_the_engine(smollm2: Served) -> None:
    works_on(smollm2, 0)
    with sdk(smollm2) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="default", messages=says(STORY), timeout=3)
        works_on(smollm2, 0)
        with client.chat.completions.create(
            model="default", messages=says(STORY), stream=True
        ) as stream:
            text = next(each for each in stream if each.choices and each.choices[0].delta.content)
            assert text
            assert smollm2.engine.busy() == 1
        works_on(smollm2, 0)
