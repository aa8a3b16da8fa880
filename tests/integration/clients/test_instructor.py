"""instructor: structured answers by a schema and by a tool."""

from __future__ import annotations

import instructor
import openai
import pytest
from instructor.core.exceptions import InstructorRetryException
from openai.types.chat import ChatCompletionMessageParam
from pydantic import create_model

from tests.integration.clients.asking import (
    CALL,
    KEY,
    PARIS,
    QUESTION,
    STORY,
    TOO_LONG,
    Place,
    Weather,
    stops_when_cancelled,
)
from tests.integration.engines.serving import Served

GetWeather = create_model("get_weather", __base__=Weather, __doc__="The weather of the next days.")


def url(served: Served) -> str:
    return f"{served.api.base_url}/v1"


def patched(
    served: Served, mode: instructor.Mode = instructor.Mode.JSON_SCHEMA, key: str = KEY
) -> instructor.AsyncInstructor:
    sdk = openai.AsyncOpenAI(base_url=url(served), api_key=key, max_retries=0)
    return instructor.from_openai(sdk, mode=mode)


def says(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_a_schema(smollm2: Served) -> None:
    sdk = openai.OpenAI(base_url=url(smollm2), api_key=KEY, max_retries=0)
    client = instructor.from_openai(sdk, mode=instructor.Mode.JSON_SCHEMA)
    found = client.chat.completions.create(
        model="default",
        response_model=Place,
        messages=says(QUESTION),
        max_retries=1,
        temperature=0,
        max_tokens=80,
    )
    assert found.model_dump() == PARIS.model_dump()


async def test_a_schema_s_parts_as_they_come(smollm2: Served) -> None:
    parts = [
        part
        async for part in patched(smollm2).chat.completions.create_partial(
            model="default",
            response_model=Place,
            messages=says(QUESTION),
            max_retries=1,
            temperature=0,
            max_tokens=80,
        )
    ]
    assert len(parts) > 2
    assert parts[-1].model_dump() == PARIS.model_dump()


async def test_a_tool(tools: Served) -> None:
    found = await patched(tools, instructor.Mode.TOOLS).chat.completions.create(
        model="default", response_model=GetWeather, messages=says("Will it rain?"), max_retries=1
    )
    assert found.model_dump() == CALL


async def test_errors_are_of_its_own_type(smoke: Served) -> None:
    """It has the package's below as its cause."""
    for key, text, kind in (
        ("another-key", "Hello", openai.AuthenticationError),
        (KEY, TOO_LONG, openai.BadRequestError),
    ):
        with pytest.raises(InstructorRetryException) as caught:
            await patched(smoke, key=key).chat.completions.create(
                model="default", response_model=Place, messages=says(text), max_retries=1
            )
        assert kind.__name__ in repr(causes_of(caught.value))


def causes_of(error: BaseException) -> list[BaseException]:
    """What an exception was raised from, the nearest first."""
    found = []
    cause = error.__cause__ or error.__context__
    while cause is not None:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


async def test_cancelling_stops_the_engine(smollm2: Served) -> None:
    async def ask() -> None:
        await patched(smollm2).chat.completions.create(
            model="default", response_model=None, messages=says(STORY)
        )

    await stops_when_cancelled(smollm2, ask())
