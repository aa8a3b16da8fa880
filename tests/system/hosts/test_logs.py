"""Nothing that clients send is in a log of a container, whatever they send it as."""

from __future__ import annotations

import re
import secrets
from typing import Any

import httpx
import pytest

from tests.waiting import until

ROUTE = "/v1/chat/completions"
HANDLED = re.compile(f"processing task|{ROUTE}")
"""In an engine's log, once or more for a request: llama.cpp's words, and the others'."""


@pytest.fixture
def marker() -> str:
    """A word that is in no other text; letters and digits, which no log writes differently."""
    return f"marker{secrets.token_hex(12)}"


def logs(host: Any) -> dict[str, str]:
    """What all containers of the project have logged, also those that do not run."""
    listed = host.check_output(
        "docker ps --all --format '{{.Names}}' --filter label=com.docker.compose.project=edge-llm"
    )
    return {name: host.check_output(f"docker logs {name} 2>&1") for name in listed.split()}


def bodies(marker: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Requests by what has the marker in them: path and body."""
    said = {"role": "user", "content": f"Repeat {marker}."}
    plain: dict[str, Any] = {"messages": [said], "max_tokens": 8}
    hello = plain | {"messages": [{"role": "user", "content": "Hello"}]}
    properties = {marker: {"type": "string", "description": marker}}
    schema = {"type": "object", "properties": properties, "required": [marker]}
    function = {"name": marker, "description": marker, "parameters": schema}
    return {
        "prompt": (ROUTE, plain),
        "streamed prompt": (ROUTE, plain | {"stream": True}),
        # The engine looks for a prompt with the same beginning, and says how similar it is.
        "similar prompt": (
            ROUTE,
            plain | {"messages": [said | {"content": f"Repeat {marker}. Or do not repeat it."}]},
        ),
        "earlier messages": (
            ROUTE,
            plain
            | {
                "messages": [
                    {"role": "system", "content": marker},
                    said,
                    {"role": "assistant", "content": marker},
                    {"role": "user", "content": "Hello"},
                ]
            },
        ),
        "stop": (ROUTE, hello | {"stop": [marker]}),
        "user": (ROUTE, hello | {"user": marker}),
        "schema": (
            ROUTE,
            hello
            | {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": marker, "schema": schema},
                }
            },
        ),
        "tool": (ROUTE, hello | {"tools": [{"type": "function", "function": function}]}),
        "text to complete": ("/v1/completions", {"prompt": marker, "max_tokens": 8}),
        "message": ("/api/chat", {"message": marker, "max_tokens": 8}),
        # Refused, by the chat API or by the engine.
        "unknown field": (ROUTE, hello | {marker: marker}),
        "unknown role": (ROUTE, plain | {"messages": [{"role": "nobody", "content": marker}]}),
        "unknown model": (ROUTE, plain | {"model": marker}),
        "text that is no list": (ROUTE, {"messages": marker}),
    }


def test_prompts_are_in_no_log(
    host: Any, client: httpx.Client, containers: dict[str, str], marker: str
) -> None:
    api, engine = containers["api"], containers["engine"]
    asked_before = len(HANDLED.findall(logs(host)[engine]))
    asked = bodies(marker)
    ids = {name: f"logs-{secrets.token_hex(8)}" for name in asked}
    answers = {
        name: client.post(path, json=body, headers={"X-Request-Id": ids[name]})
        for name, (path, body) in asked.items()
    }
    for name in ("prompt", "streamed prompt", "similar prompt", "earlier messages", "message"):
        assert answers[name].status_code == 200, (name, answers[name].text)
    for name in ("unknown model", "text that is no list"):
        assert 400 <= answers[name].status_code < 500, (name, answers[name].text)
    # Without these requests in them, logs prove nothing.
    found = until(
        lambda: logs(host),
        "the requests are in the logs of the chat API and of the engine",
        lambda seen: (
            all(each in seen[api] for each in ids.values())
            and len(HANDLED.findall(seen[engine])) > asked_before
        ),
        seconds=60,
    )
    assert set(containers.values()) <= set(found)
    assert [name for name, text in found.items() if marker in text] == []
