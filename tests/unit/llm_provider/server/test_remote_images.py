"""Images that a request names by an address: refused, whatever hides them; others are passed on."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from llm_provider.providers.encoded_body import MOST_VALUES, TooManyValuesError
from llm_provider.providers.routes import CHAT
from llm_provider.server.fields import FieldError, Fields
from llm_provider.server.remote_images import refuse_remote_images

from ..fake import FakeEngine, completion

URL = "http://169.254.169.254/latest/meta-data/"
DATA = "data:image/png;base64,iVBORw0KGgo="
IMAGE = {"type": "image_url", "image_url": {"detail": "auto", "url": URL}}


def check(body: str) -> None:
    data = body.encode()
    refuse_remote_images(data, Fields.parse(data))


def asking(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, *parts]}]}


@pytest.mark.parametrize(
    "part",
    [
        IMAGE,
        {"type": "image_url", "image_url": URL},
        {"type": "image_url", "image_url": {"x": {}, "url": f" {URL}"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "HTTPS://example.com/a.png"}},
        {"type": "input_image", "image_url": URL},
        {"type": "video_url", "video_url": {"url": URL}},
        {"type": "audio_url", "audio_url": {"url": URL}},
        {"type": "input_file", "file_url": URL},
        {"type": "image", "source": {"type": "url", "url": URL}},
        {
            "type": "tool_result",
            "content": [{"type": "image", "source": {"url": URL, "type": "url"}}],
        },
    ],
)
@pytest.mark.parametrize("hides", [False, True])
def test_an_address_is_refused(part: dict[str, Any], hides: bool) -> None:
    text = json.dumps(asking({"image_url": {"url": DATA}}, part))
    if hides:
        for found in ("image_url", "url", "http"):
            text = text.replace(f'"{found}', f'"\\u{ord(found[0]):04x}{found[1:]}')
        text = text.replace("://", "\\u003a\\/\\/")
    with pytest.raises(FieldError) as caught:
        check(text)
    assert str(caught.value) == (
        "'messages' is invalid: it names an image or a file by its address, which is not fetched"
        " here. Send the content itself, as data:image/png;base64,..."
    )
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "body",
    [
        asking({"type": "image_url", "image_url": {"url": DATA}}),
        asking({"type": "image_url", "image_url": DATA}),
        asking({"type": "text", "text": json.dumps(IMAGE)}),
        asking({"type": "tool_use", "name": "fetch", "input": {"url": URL}}),
        {"messages": [], "metadata": {"url": URL}, "tools": [{"parameters": {"image_url": {}}}]},
        {"messages": [{"role": "user", "content": "\\u0041 is an escape of JSON"}]},
    ],
)
def test_what_no_engine_fetches_is_passed_on(body: dict[str, Any]) -> None:
    check(json.dumps(body))
    check(json.dumps(body).replace("/", "\\/"))


def test_a_body_that_may_have_an_address_is_decoded_within_limits() -> None:
    with pytest.raises(TooManyValuesError, match="'messages' holds more than 100000 values"):
        check(json.dumps({"messages": [{"url": URL}, *[0] * MOST_VALUES]}))


async def test_the_engine_is_not_asked(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    answer = await client.post(CHAT, json=asking(IMAGE))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "messages")
    assert "which is not fetched here" in error["message"]
    assert engine.asked == []


async def test_an_image_within_the_request_is_passed_on(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    asked = asking({"type": "image_url", "image_url": {"url": DATA}})
    assert (await client.post(CHAT, json=asked)).json() == completion()
    assert [body["messages"] for body in engine.asked] == [asked["messages"]]
