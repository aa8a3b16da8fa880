"""Audio transcription, by the `openai` package, which sends a form with a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import openai
import pytest

from llm_provider.server.client_apis.form import Form

from ...fake import AUTH, KEY, MODEL, FakeEngine, error_of, until
from .engines import ENGINES, chat_api, offer

PATH = "/v1/audio/transcriptions"
SOUND = ("a.wav", bytes(range(256)) * 1000, "audio/wav")


def sent(engine: FakeEngine) -> Form:
    """The form that the engine got."""
    last = engine.posts[-1]
    return Form(last.headers["content-type"], last.body)


@pytest.mark.parametrize("kind", ENGINES)
async def test_the_form_is_passed_on(kind: str, keys: Path) -> None:
    async with (
        chat_api(kind, keys) as (engine, url),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as sdk,
    ):
        offer(engine)
        answer = await sdk.audio.transcriptions.create(
            model="default", file=SOUND, language="de", prompt="Größe"
        )
        assert answer.text == "Good day."
        form = sent(engine)
        assert form.text("model") == MODEL
        assert (form.text("language"), form.text("prompt")) == ("de", "Größe")
        (file,) = [part for part in form.parts if part.is_file]
        assert bytes(file.content) == SOUND[1]


async def test_a_text_and_subtitles(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.on(PATH, lambda x: x.answer(b"1\n00:00 --> 00:01\nHi", 200, "text/plain; charset=utf-8"))
    answer = await client.post(
        PATH, files={"file": SOUND}, data={"model": MODEL, "response_format": "srt"}
    )
    assert answer.text == "1\n00:00 --> 00:01\nHi"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert sent(engine).text("response_format") == "srt"


async def test_a_model_need_not_be_named(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    offer(engine)
    assert (await client.post(PATH, files={"file": SOUND})).json() == {"text": "Good day."}
    assert sent(engine).text("model") == MODEL


@pytest.mark.parametrize(
    ("files", "data", "param", "words"),
    [
        ({"sound": SOUND}, {}, "file", "'file' is missing. Send the audio as a file."),
        ({"file": ("a.wav", b"")}, {}, "file", "'file' is missing."),
        ({"file": SOUND}, {"stream": "true"}, "stream", "'stream' is not supported"),
        ({"file": SOUND}, {"model": "whisper-1"}, "model", "served: smoke"),
    ],
)
async def test_a_form_that_is_none(
    engine: FakeEngine,
    client: httpx.AsyncClient,
    files: dict[str, object],
    data: dict[str, str],
    param: str,
    words: str,
) -> None:
    answer = await client.post(PATH, files=files, data=data)  # type: ignore[arg-type]
    assert answer.status_code == (404 if param == "model" else 400)
    assert error_of(answer)["param"] == param
    assert words in error_of(answer)["message"]
    assert engine.posts == []


async def test_a_body_that_is_no_form(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"file": "a"})
    assert answer.status_code == 400
    assert "must be a form with a file" in error_of(answer)["message"]


async def test_an_engine_without_it(
    engine: FakeEngine, api: str, client: httpx.AsyncClient
) -> None:
    """llama-server's words for a model that cannot hear, and vLLM's missing route."""
    error = {
        "code": 501,
        "message": "The current model does not support audio input.",
        "type": "not_supported_error",
    }
    engine.on(PATH, lambda x: x.answer({"error": error}, 501))
    async with openai.AsyncOpenAI(base_url=f"{api}/v1", api_key=KEY, max_retries=0) as sdk:
        with pytest.raises(openai.InternalServerError) as refused:
            await sdk.audio.transcriptions.create(model=MODEL, file=SOUND)
    assert (refused.value.status_code, refused.value.code) == (501, "not_supported_by_engine")
    assert "does not support audio input" in refused.value.message


async def test_another_task(keys: Path) -> None:
    async with (
        chat_api("llamacpp", keys, LLM_TASK="embedding") as (engine, url),
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        answer = await client.post(PATH, files={"file": SOUND})
        assert answer.status_code == 501
        assert "was started for embedding" in error_of(answer)["message"]
        assert engine.posts == []


async def test_leaving_stops_the_engine(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.on(PATH, lambda x: asyncio.sleep(60))
    request = asyncio.create_task(client.post(PATH, files={"file": SOUND}))
    await until(lambda: engine.running == 1)
    request.cancel()
    await until(lambda: engine.running == 0)


async def test_it_takes_a_slot(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    offer(engine)
    goes_on = engine.paused(PATH)
    short = ("a.wav", b"sound")
    running = [asyncio.create_task(client.post(PATH, files={"file": short})) for _ in range(5)]
    await until(lambda: engine.running == 2)
    goes_on.set()
    assert {(await task).status_code for task in running} == {200}
    assert engine.most_running == 2
