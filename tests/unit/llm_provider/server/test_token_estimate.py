"""What a request takes of an engine, read from its body."""

from __future__ import annotations

from typing import Any

import pytest

from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.server.routes import MESSAGE, ROUTES
from llm_provider.server.token_estimate import TokenEstimate


@pytest.mark.parametrize(
    ("path", "body", "answers"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": 3}, 3),
        (MESSAGE, {"n": 3}, 3),
        (COMPLETIONS, {"prompt": "one", "n": 2}, 2),
        (COMPLETIONS, {"prompt": ["one"]}, 1),
        (COMPLETIONS, {"prompt": ["one", "two", "three"]}, 3),
        (COMPLETIONS, {"prompt": ["one", "two"], "n": 2}, 4),
        (COMPLETIONS, {"prompt": [[1, 2], [3]]}, 2),
        (COMPLETIONS, {"prompt": [1, 2, 3, 4]}, 1),  # the tokens of one prompt
        (COMPLETIONS, {"prompt": [1, 2, "and text"]}, 1),  # as llama-server reads it
        (EMBEDDINGS, {"input": ["one", "two"]}, 2),
        (EMBEDDINGS, {"input": [1, 2]}, 1),
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
def test_how_many_answers_a_request_asks_for(path: str, body: dict[str, Any], answers: int) -> None:
    assert TokenEstimate.of(b"", body, ROUTES[path]).answers == answers


def test_size_and_most_tokens() -> None:
    estimate = TokenEstimate.of(b"x" * 9, {"max_tokens": 5}, ROUTES[CHAT])
    assert (estimate.size, estimate.most) == (9, 5)
