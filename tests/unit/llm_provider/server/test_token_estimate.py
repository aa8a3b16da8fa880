"""What a request takes of an engine, read from its body as it is admitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.routes import MESSAGE
from llm_provider.server.token_estimate import TokenEstimate

from ..fake import AUTH, serve_api

MESSAGES = [{"role": "user", "content": "Hello"}]
REQUIRED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": MESSAGES},
    COMPLETIONS: {"prompt": "Hello"},
    EMBEDDINGS: {"input": "Hello"},
    RESPONSES: {"input": "Hello"},
    MESSAGE: {"message": "Hello"},
}


@pytest.fixture
def admitted(monkeypatch: pytest.MonkeyPatch) -> list[TokenEstimate]:
    """The estimates of the requests that were admitted."""
    found: list[TokenEstimate] = []
    fits = AdmissionQueue._fits

    def noted(self: AdmissionQueue, ticket: Any) -> bool:
        found.append(ticket.estimate)
        return fits(self, ticket)

    monkeypatch.setattr(AdmissionQueue, "_fits", noted)
    return found


@pytest.mark.parametrize(
    ("path", "body", "answers"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": 3}, 3),
        (MESSAGE, {"n": 3}, 3),
        (COMPLETIONS, {"prompt": "one", "n": 2}, 2),
        (COMPLETIONS, {"prompt": ["one", "two"], "n": 2}, 4),
        (EMBEDDINGS, {"input": ["one", "two"]}, 2),
        (EMBEDDINGS, {"input": ["one", "two"], "n": 5}, 2),
        (RESPONSES, {"input": [{"role": "user"}, {"role": "user"}]}, 1),  # messages of one
        (CHAT, {"messages": [{}, {}], "prompt": ["a", "b"]}, 1),
        (CHAT, {"n": None}, 1),
        (CHAT, {"n": 0}, 1),
        (CHAT, {"n": -1}, 1),
        (CHAT, {"n": True}, 1),
        (CHAT, {"n": "2"}, 1),
        (CHAT, {"n": [2]}, 1),
    ],
)
async def test_how_many_answers_a_request_asks_for(
    llm: LlamaCpp,
    keys: Path,
    admitted: list[TokenEstimate],
    path: str,
    body: dict[str, Any],
    answers: int,
) -> None:
    task = "embedding" if path == EMBEDDINGS else "chat"
    async with (
        serve_api(llm, keys, LLM_TASK=task) as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        await client.post(path, json=REQUIRED[path] | body)
    assert admitted[0].answers == answers


async def test_prompt_and_most_tokens(
    llm: LlamaCpp, keys: Path, admitted: list[TokenEstimate]
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 30_000}}
    message = {"role": "user", "content": [{"type": "text", "text": "x" * 3000}, image]}
    async with (
        serve_api(llm, keys, CHAT_API_IMAGE_TOKENS="256") as url,
        httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client,
    ):
        await client.post(CHAT, json={"messages": [message], "max_tokens": 5})
    assert admitted[0].most == 5
    assert 1256 < admitted[0].prompt < 1330
    assert admitted[0].tokens(1000) == admitted[0].prompt + 5
