"""Routes that some engines offer, on each engine and for each task."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ...fake import AUTH, KEY, MODEL, FakeEngine, error_of, until
from .engines import ENGINES, RANKS, VECTORS, asked, chat_api, offer

MESSAGES = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"model": MODEL, "max_tokens": 9, "messages": MESSAGES},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": MESSAGES},
    "/api/chat": {"model": MODEL, "messages": MESSAGES, "stream": False},
    "/api/generate": {"model": MODEL, "prompt": "Hello", "stream": False},
    "/v1/embeddings": {"input": "Hello"},
    "/api/embed": {"model": MODEL, "input": "Hello"},
    "/api/embeddings": {"model": MODEL, "prompt": "Hello"},
    "/v1/rerank": {"query": "Hello", "documents": ["a", "b"]},
    "/rerank": {"query": "Hello", "documents": ["a", "b"]},
    "/tokenize": {"content": "Hello"},
    "/detokenize": {"tokens": [1, 2]},
    "/apply-template": {"messages": MESSAGES},
    "/infill": {"input_prefix": "def f():", "input_suffix": ""},
}
CHAT_ONLY = {
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    *("/v1/messages/count_tokens", "/api/chat", "/api/generate", "/apply-template", "/infill"),
}
EMBEDDING_ONLY = {"/v1/embeddings", "/api/embed", "/api/embeddings"}
RERANK_ONLY = {"/v1/rerank", "/rerank"}
LACKING = {
    "llamacpp": set(),
    "ollama": {
        *("/v1/messages/count_tokens", "/v1/rerank", "/rerank", "/tokenize", "/detokenize"),
        *("/apply-template", "/infill"),
    },
    "vllm": {"/apply-template", "/infill"},
}


def words_of(answer: httpx.Response) -> str:
    """The message of an error, in any format."""
    error = answer.json()["error"]
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("task", ["chat", "embedding", "rerank"])
async def test_what_each_engine_serves(kind: str, task: str, keys: Path) -> None:
    """A route is served, or refused with a sentence; the engine is not asked what it lacks."""
    served_by_task = {"chat": CHAT_ONLY, "embedding": EMBEDDING_ONLY, "rerank": RERANK_ONLY}[task]
    async with (
        chat_api(kind, keys, LLM_TASK=task) as (engine, url),
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        offer(engine)
        for path, body in BODIES.items():
            before = len(asked(engine))
            answer = await client.post(path, json=body)
            lacks = path in LACKING[kind]
            wrong = path not in served_by_task | {"/tokenize", "/detokenize"}
            if not lacks and not wrong:
                assert answer.status_code == 200, (path, answer.text)
                continue
            assert answer.status_code == 501, (path, answer.text)
            assert answer.headers["x-should-retry"] == "false"
            assert len(asked(engine)) == before
            if lacks:
                assert f"{kind} does not offer" in words_of(answer)
                assert "It is served where the engine is llamacpp" in words_of(answer)
            else:
                assert f"{kind} was started for {task} and does not offer" in words_of(answer)
                assert "It is served where the engine is started with LLM_TASK=" in words_of(answer)


async def test_a_request_that_the_engine_cannot_serve_does_not_wait(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    goes_on = engine.paused()
    body = BODIES["/v1/chat/completions"]
    running = [
        asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(2)
    ]
    await until(lambda: engine.running == 2)
    answer = await asyncio.wait_for(client.post("/v1/embeddings", json={"input": "a"}), 5)
    assert answer.status_code == 501
    goes_on.set()
    await asyncio.gather(*running)


# Embeddings and ranks.


@pytest.mark.parametrize("kind", ENGINES)
async def test_embeddings_of_the_openai_package(kind: str, keys: Path) -> None:
    async with (
        chat_api(kind, keys, LLM_TASK="embedding") as (engine, url),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as sdk,
    ):
        engine.on("/v1/embeddings", lambda x: x.answer(VECTORS))
        found = await sdk.embeddings.create(model=MODEL, input=["Hello"], encoding_format="float")
        assert found.data[0].embedding == [0.5, -1.0]
        assert engine.posts[-1].body["input"] == ["Hello"]
        with pytest.raises(openai.InternalServerError) as refused:
            await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)  # type: ignore[arg-type]
        assert refused.value.status_code == 501
        assert refused.value.code == "not_supported_by_engine"


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_ranks(kind: str, path: str, keys: Path) -> None:
    async with (
        chat_api(kind, keys, LLM_TASK="rerank") as (engine, url),
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        offer(engine)
        body = BODIES["/v1/rerank"] | {"model": "default", "top_n": 2}
        answer = await client.post(path, json=body)
        assert answer.json()["results"] == RANKS
        assert engine.posts[-1].path == "/v1/rerank"
        assert engine.posts[-1].body == body | {"model": MODEL, "stream": False}
        for wrong, param in (
            ({"query": "Hello"}, "documents"),
            ({"query": "Hello", "documents": []}, "documents"),
            ({"query": "Hello", "documents": "a"}, "documents"),
            ({"documents": ["a"]}, "query"),
            ({"query": 1, "documents": ["a"]}, "query"),
        ):
            refused = await client.post(path, json=wrong)
            assert refused.status_code == 400
            assert error_of(refused)["param"] == param


# Tokens and templates.


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
async def test_tokens_in_either_format(kind: str, keys: Path) -> None:
    async with (
        chat_api(kind, keys) as (engine, url),
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        offer(engine)
        for body in ({"content": "Hello"}, {"prompt": "Hello", "model": MODEL}):
            answer = (await client.post("/tokenize", json=body)).json()
            assert (answer["tokens"], answer["count"]) == ([1, 2, 3], 3)
            name = "content" if kind == "llamacpp" else "prompt"
            assert engine.posts[-1].body[name] == "Hello"
        assert (await client.post("/tokenize", json={"content": ""})).status_code == 200
        answer = (await client.post("/detokenize", json={"tokens": [1, 2, 3]})).json()
        assert answer == {"content": "Hello", "prompt": "Hello"}
        refused = await client.post("/tokenize", json={"messages": MESSAGES})
        assert refused.status_code == 400
        assert error_of(refused)["param"] == "messages"
        refused = await client.post("/detokenize", json={"tokens": "a"})
        assert error_of(refused)["message"] == "'tokens' is invalid: a string. It must be a list."
        engine.on("/tokenize", lambda x: x.answer({}))
        assert (await client.post("/tokenize", json={"content": "a"})).status_code == 502


@pytest.mark.parametrize(
    "path", ["/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens"]
)
async def test_what_needs_no_slot_waits_for_none(
    engine: FakeEngine, client: httpx.AsyncClient, path: str
) -> None:
    offer(engine)
    goes_on = engine.paused()
    body = BODIES["/v1/chat/completions"]
    running = [
        asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(4)
    ]
    await until(lambda: engine.running == 2)
    answer = await asyncio.wait_for(client.post(path, json=BODIES[path]), 10)
    assert answer.status_code == 200
    goes_on.set()
    assert {(await task).status_code for task in running} == {200}


async def test_the_template(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    offer(engine)
    answer = await client.post("/apply-template", json={"messages": MESSAGES, "tools": []})
    assert answer.json() == {"prompt": "<user>Hello"}
    assert engine.posts[-1].body["messages"] == MESSAGES
    refused = await client.post("/apply-template", json={"messages": []})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "messages")


async def test_infill(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    offer(engine)
    body = {"input_prefix": "", "input_suffix": "}", "prompt": "x", "n_predict": 5}
    answer = await client.post("/infill", json=body)
    assert answer.json()["content"] == "middle"
    assert engine.posts[-1].body == body | {"model": MODEL, "stream": False}
    for wrong, param in (
        ({"input_suffix": "}"}, "input_prefix"),
        ({"input_prefix": "{"}, "input_suffix"),
        ({"input_prefix": 1, "input_suffix": ""}, "input_prefix"),
        (body | {"stream": True}, "stream"),
    ):
        refused = await client.post("/infill", json=wrong)
        assert refused.status_code == 400
        assert error_of(refused)["param"] == param


async def test_an_image_without_a_route_of_its_table(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    """llama.cpp's images of 2024 lack some routes: the engine's own 404 says so."""
    answer = await client.post("/apply-template", json={"messages": MESSAGES})
    assert answer.status_code == 501
    assert error_of(answer)["code"] == "not_supported_by_engine"
    assert error_of(answer)["message"] == "llamacpp has no /apply-template here: File Not Found"


# Models.


@pytest.mark.parametrize("kind", ENGINES)
async def test_models_tell_their_context(kind: str, keys: Path) -> None:
    async with (
        chat_api(kind, keys) as (engine, url),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as sdk,
    ):
        await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)  # type: ignore[arg-type]
        (model,) = (await sdk.models.list()).data
        extra: Any = model.model_extra
        assert extra["context_length"] == extra["max_model_len"] == 2048
        assert extra["meta"] == {"n_ctx": 2048, "n_ctx_train": 2048}
        assert (await sdk.models.retrieve(MODEL)) == model
        assert engine.posts[-1].body["model"] == MODEL
