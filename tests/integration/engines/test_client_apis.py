"""Anthropic's and Ollama's packages, unchanged, and the engines' own routes, on real engines."""

from __future__ import annotations

from typing import Any

import anthropic
import ollama

from llm_provider.providers import support
from tests.integration.engines.serving import KEY, Served

HELLO: Any = [{"role": "user", "content": "Hello"}]


def sdk_of(served: Served) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=served.api.base_url, api_key=KEY, max_retries=0)


def ollama_of(served: Served) -> ollama.AsyncClient:
    headers = {"Authorization": f"Bearer {KEY}"}
    return ollama.AsyncClient(served.api.base_url, headers=headers)


async def test_anthropics_messages(smoke: Served) -> None:
    async with sdk_of(smoke) as sdk:
        message = await sdk.messages.create(model="smoke", max_tokens=30, messages=HELLO)
        assert message.content[0].type == "text"
        assert message.content[0].text == smoke.answer
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens >= 8
        async with sdk.messages.stream(model="smoke", max_tokens=30, messages=HELLO) as stream:
            pieces = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == smoke.answer
    assert final.usage.output_tokens == message.usage.output_tokens


async def test_tokens_are_counted_as_the_engine_counts_them(smoke: Served) -> None:
    async with sdk_of(smoke) as sdk:
        message = await sdk.messages.create(model="smoke", max_tokens=30, messages=HELLO)
        try:
            counted = await sdk.messages.count_tokens(model="smoke", messages=HELLO)
        except anthropic.InternalServerError as refused:
            assert refused.status_code == 501
            assert smoke.engine.provider not in support.COUNTING_TOKENS.paths
            return
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    assert counted.input_tokens == usage.input_tokens + cached


async def test_ollamas_chat(smoke: Served) -> None:
    async with ollama_of(smoke) as client:
        answer = await client.chat("smoke", HELLO)
        assert (answer.message.content, answer.done_reason) == (smoke.answer, "stop")
        parts = [part async for part in await client.chat("smoke:latest", HELLO, stream=True)]
        assert len(parts) > 2
        assert "".join(part.message.content or "" for part in parts) == smoke.answer
        assert parts[-1].eval_count == answer.eval_count
        assert (await client.generate("smoke", "Hello")).response == smoke.answer
        assert [model.model for model in (await client.ps()).models] == ["smoke:latest"]
        assert "completion" in ((await client.show("smoke")).capabilities or [])


async def test_tokens_become_the_text_again(smoke: Served) -> None:
    async with smoke.api.client() as client:
        answer = await client.post("/tokenize", json={"content": "Hello there"})
        if smoke.engine.provider not in support.TOKENIZING.paths:
            assert answer.status_code == 501
            return
        tokens = answer.json()["tokens"]
        assert answer.json()["count"] == len(tokens) > 0
        answer = await client.post("/detokenize", json={"tokens": tokens})
    assert answer.json()["content"].strip() == "Hello there"
