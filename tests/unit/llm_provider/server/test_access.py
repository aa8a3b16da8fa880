"""Keys over HTTP: expiry, rates, names in the log and in the metrics."""

from __future__ import annotations

import asyncio
import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider import LlamaCpp
from llm_provider.providers.routes import CHAT
from llm_provider.server.access import WRONG_KEYS
from llm_provider.server.admission import QUEUE

from ..fake import FakeEngine, error_of, serve_api, until

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


def key_line(name: str, **fields: Any) -> str:
    """A line of the key file; the key is KEY-NAME."""
    digest = sha256(f"key-{name}".encode()).hexdigest()
    return json.dumps({"name": name, "sha256": digest, **fields}) + "\n"


def write(keys: Path, *lines: str) -> None:
    keys.write_text("".join(lines))


def auth(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-{name}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "api_keys"
    write(
        path,
        key_line("alice"),
        key_line("bob", requests_per_minute=2, burst=2),
        key_line("carol", expires="2020-01-01T00:00:00Z"),
    )
    return path


@pytest.fixture
async def stranger(llm: LlamaCpp, keys: Path) -> Any:
    # The test's server closes idle connections soon.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with (
        serve_api(llm, keys, PARALLEL="1") as url,
        httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client,
    ):
        yield client


async def test_an_expired_key_is_refused(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/v1/models", headers=auth("carol"))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer, Basic realm="edge-llm"'
    assert error_of(answer)["message"] == "The API key has expired."
    assert error_of(answer)["code"] == "expired_api_key"


async def test_a_rate_bounds_requests_to_the_engine_alone(
    engine: FakeEngine, stranger: httpx.AsyncClient
) -> None:
    for _ in range(5):
        assert (await stranger.get("/v1/models", headers=auth("bob"))).status_code == 200
    statuses = [
        (await stranger.post(CHAT, json=BODY, headers=auth("bob"))).status_code for _ in range(3)
    ]
    assert statuses == [200, 200, 429]
    answer = await stranger.post(CHAT, json=BODY, headers=auth("bob"))
    seconds = answer.headers["Retry-After"]
    assert 1 <= int(seconds) <= 30
    assert error_of(answer) == {
        "message": "The key bob allows 2 requests per minute, 2 of them at once. "
        f"Send the request again in {seconds} s.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert (await stranger.post(CHAT, json=BODY, headers=auth("alice"))).status_code == 200
    assert len(engine.asked) == 3


async def test_a_request_without_a_place_does_not_count(
    engine: FakeEngine, stranger: httpx.AsyncClient, keys: Path
) -> None:
    # As many keys as there are places, so that nobody is displaced.
    names = [f"k{number}" for number in range(QUEUE + 1)]
    write(keys, key_line("bob", requests_per_minute=2, burst=2), *map(key_line, names))
    goes_on = engine.paused()
    tasks = [asyncio.create_task(stranger.post(CHAT, json=BODY, headers=auth(n))) for n in names]
    await until(lambda: engine.running == 1)
    for _ in range(500):
        if (await stranger.get("/ready", headers=auth("bob"))).json()["queued"] == QUEUE:
            break
        await asyncio.sleep(0.01)
    for _ in range(4):
        answer = await stranger.post(CHAT, json=BODY, headers=auth("bob"))
        assert (answer.status_code, error_of(answer)["code"]) == (429, "queue_full")
    goes_on.set()
    assert {(await task).status_code for task in tasks} == {200}
    assert (await stranger.post(CHAT, json=BODY, headers=auth("bob"))).status_code == 200


async def test_log_and_metrics_name_the_key(
    stranger: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="llm_provider")
    await stranger.post(CHAT, json=BODY, headers=auth("alice"))
    await stranger.post(CHAT, json=BODY, headers=auth("carol"))
    await stranger.post(CHAT, json=BODY, headers=auth("made-up"))
    lines = [record for record in caplog.records if record.getMessage() == "request"]
    assert [vars(line).get("key") for line in lines] == ["alice", None, None]
    text = (await stranger.get("/metrics", headers=auth("alice"))).text
    for line in (
        f'edge_llm_requests_total{{key="alice",outcome="complete",route="{CHAT}"}} 1.0',
        f'edge_llm_requests_total{{key="",outcome="expired_api_key",route="{CHAT}"}} 1.0',
        f'edge_llm_requests_total{{key="",outcome="invalid_api_key",route="{CHAT}"}} 1.0',
        'edge_llm_tokens_total{direction="in",key="alice"} 7.0',
    ):
        assert line in text
    assert "made-up" not in text


async def test_an_empty_key_file_refuses_all_and_stops_nothing(
    stranger: httpx.AsyncClient, keys: Path
) -> None:
    write(keys)
    assert (await stranger.get("/v1/models", headers=auth("alice"))).status_code == 401
    assert (await stranger.get("/health")).status_code == 200
    write(keys, key_line("alice"))
    assert (await stranger.get("/v1/models", headers=auth("alice"))).status_code == 200


async def test_wrong_keys_of_one_address_are_limited_and_valid_ones_are_not(stranger: Any) -> None:
    wrong = {"Authorization": "Bearer guessed"}
    answers = [await stranger.get("/v1/models", headers=wrong) for _ in range(WRONG_KEYS.burst)]
    assert {answer.status_code for answer in answers} == {401}
    answer = await stranger.get("/v1/models", headers={"x-api-key": "guessed, too"})
    assert answer.status_code == 429
    error = error_of(answer)
    assert (error["type"], error["code"]) == ("rate_limit_error", "too_many_wrong_keys")
    assert error["message"].startswith("127.0.0.1 has sent more than 20 wrong API keys. Correct")
    assert 1 <= int(answer.headers["Retry-After"]) <= 3
    # Without a key nothing was guessed.
    assert (await stranger.get("/v1/models")).status_code == 401
    assert (await stranger.get("/v1/models", headers=auth("alice"))).status_code == 200
