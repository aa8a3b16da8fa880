"""pydantic-ai: agents, with answers as text, by a schema and by a tool."""

from __future__ import annotations

import pytest
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider

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

# It keeps connections for later calls, and they belong to the loop that opened them.
pytestmark = pytest.mark.asyncio(loop_scope="module")


def model(served: Served, key: str = KEY) -> OpenAIChatModel:
    # The model `tools` calls its tool by itself, and says nothing else where a grammar makes it.
    profile = OpenAIModelProfile(openai_supports_tool_choice_required=False)
    provider = OpenAIProvider(base_url=f"{served.api.base_url}/v1", api_key=key)
    return OpenAIChatModel("default", provider=provider, profile=profile)


async def test_chat(smoke: Served) -> None:
    result = await Agent(model(smoke)).run("Hello")
    assert result.output == smoke.answer
    assert result.usage.output_tokens >= 8


async def test_a_stream(smoke: Served) -> None:
    async with Agent(model(smoke)).run_stream("Hello") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 2
    assert "".join(pieces) == smoke.answer


async def test_a_tool_s_arguments_are_the_answer(tools: Served) -> None:
    agent = Agent(model(tools), output_type=ToolOutput(Weather, name="get_weather"))
    assert (await agent.run("Will it rain?")).output == Weather(**CALL)


async def test_a_structured_answer(smollm2: Served) -> None:
    agent = Agent(
        model(smollm2),
        output_type=NativeOutput(Place),
        model_settings={"temperature": 0, "max_tokens": 80},
    )
    assert (await agent.run(QUESTION)).output == PARIS


async def test_errors_are_of_its_own_type(smoke: Served) -> None:
    with pytest.raises(ModelHTTPError) as key:
        await Agent(model(smoke, "another-key")).run("Hello")
    assert key.value.status_code == 401
    with pytest.raises(ModelHTTPError) as size:
        await Agent(model(smoke)).run(TOO_LONG)
    assert size.value.status_code == 400
    assert isinstance(size.value.body, dict)
    assert size.value.body["code"] == "context_length_exceeded"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_cancelling_stops_the_engine(smollm2: Served, streamed: bool) -> None:
    async def ask() -> None:
        agent = Agent(model(smollm2))
        if not streamed:
            await agent.run(STORY)
            return
        async with agent.run_stream(STORY) as result:
            async for _ in result.stream_text():
                pass

    await stops_when_cancelled(smollm2, ask())
