"""Bodies that nobody would send, on every POST route, and the OpenAPI document taken at its word.

Whatever comes in: an answer, of a status that the document names; errors in OpenAI's shape, which
tell nothing of what is inside; never a 500, never a hang, and no slot lost.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.providers.selection import PROVIDERS
from llm_provider.server import access
from llm_provider.server.rate_limit import Rate
from tests.unit.llm_provider.fake import AUTH, KEY, MODEL, FakeEngine, serve_api

MESSAGE = "/api/chat"
REQUIRED = {
    CHAT: "messages",
    COMPLETIONS: "prompt",
    EMBEDDINGS: "input",
    RESPONSES: "input",
    MESSAGE: "message",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "messages",
    "/api/generate": "prompt",
    "/api/show": "model",
    "/tokenize": "content",
    "/detokenize": "tokens",
    "/infill": "input_prefix",
}
HANGS = 10.0
"""Seconds after which an answer counts as one that never comes."""
INSIDE = re.compile(
    r"Traceback|\.py\b|llm_provider|site-packages|<class|object at 0x|\bself\b|/src/"
)
bounded = settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def message_of(path: str, body: dict[str, Any]) -> str:
    """The message of an error, whose shape is checked: that of the path's API."""
    error = body["error"]
    if path.startswith("/api/") and isinstance(error, str):
        return error
    if path.startswith("/v1/messages"):
        assert (body["type"], bool(body["request_id"])) == ("error", True)
        assert {"type", "message"} <= set(error) <= {"type", "message", "details"}
    else:
        assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    return str(error["message"])


class Running:
    """The chat API in a thread of its own, before a fake engine of a kind."""

    def __init__(self, client: httpx.Client, url: str, document: dict[str, Any]) -> None:
        self.client = client
        self.url = url
        self.document = document

    def statuses(self, path: str) -> set[int]:
        return {int(status) for status in self.document["paths"][path]["post"]["responses"]}

    def ask(self, path: str, content: bytes) -> None:
        """Send a body, and check whatever comes of it."""
        answer = self.client.post(path, content=content)
        assert answer.status_code in self.statuses(path), answer.text
        assert answer.status_code < 500 or answer.status_code == 501, answer.text
        if answer.status_code != 200:
            assert answer.headers["Content-Type"] == "application/json"
            message = message_of(path, answer.json())
            told = set(INSIDE.findall(message))
            # What a client says itself may be quoted.
            assert not [one for one in told if one.encode() not in content], message
            assert len(message) < 2000

    def slots_are_free(self) -> None:
        report = self.client.get("/ready").json()
        assert (report["in_flight"], report["queued"], report["held"]) == (0, 0, 0)
        for stream in (False, True):
            body = {"messages": [{"role": "user", "content": "Hello"}], "stream": stream}
            assert self.client.post(CHAT, json=body).status_code == 200


@pytest.fixture(scope="module", params=["llamacpp", "ollama"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("fuzz") / "api_keys"
    keys.write_text(f"{KEY}\n")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    patch = pytest.MonkeyPatch()
    # The check of keys expects 401 for each of its many wrong ones.
    patch.setattr(access, "WRONG_KEYS", Rate(per_minute=1e6, burst=10**6))

    async def begin() -> str:
        engine = await stack.enter_async_context(FakeEngine(request.param).serving())
        provider = PROVIDERS[request.param](model=MODEL, base_url=engine.url, timeout=HANGS)
        llm = await stack.enter_async_context(provider)
        return await stack.enter_async_context(serve_api(llm, keys))

    try:
        url = asyncio.run_coroutine_threadsafe(begin(), loop).result(HANGS)
        with httpx.Client(base_url=url, headers=AUTH, timeout=HANGS) as client:
            yield Running(client, url, client.get("/openapi.json").json())
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(HANGS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        patch.undo()


# Lone surrogates are among the characters, and what is no number among the numbers.
characters = st.characters(codec=None)
texts = st.one_of(st.text(characters, max_size=20), st.sampled_from(["", "default", MODEL, "auto"]))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, -1, 2**63, 10**300, -(10**40)]),
    st.floats(),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
messages = st.lists(
    st.one_of(
        values,
        st.fixed_dictionaries(
            {},
            optional={
                "role": st.one_of(st.sampled_from(["user", "system", "tool"]), values),
                "content": st.one_of(
                    texts,
                    values,
                    st.lists(
                        st.fixed_dictionaries(
                            {}, optional={"type": st.sampled_from(["text", 1]), "text": values}
                        ),
                        max_size=3,
                    ),
                ),
                "tool_calls": values,
            },
        ),
    ),
    max_size=3,
)
FIELDS = (
    *("model", "stream", "stream_options", "temperature", "top_p", "max_tokens", "stop", "seed"),
    *("max_completion_tokens", "n", "tools", "tool_choice", "response_format", "logit_bias"),
    *("logprobs", "top_logprobs", "system", "user", "metadata", "functions", "modalities"),
)
options = st.dictionaries(st.one_of(st.sampled_from(FIELDS), texts), values, max_size=4)


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """A body of JSON, or what json.dumps makes of NaN, that is more or less what is wanted."""
    body: dict[str, Any] = draw(options)
    required = st.one_of(messages if path == CHAT else texts, values)
    if draw(st.integers(0, 9)):
        body[REQUIRED[path]] = draw(required)
    if draw(st.booleans()):
        body["stream"] = draw(st.booleans())
        body.pop("model", None)
    return json.dumps(body).encode()


def nested(depth: int, opening: str, closing: str) -> bytes:
    return (
        b'{"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x",'
        b' "message": "x", "metadata": ' + (opening * depth + "1" + closing * depth).encode() + b"}"
    )


@pytest.mark.parametrize("path", REQUIRED)
@bounded
@given(data=st.data())
def test_odd_bodies(running: Running, path: str, data: st.DataObject) -> None:
    running.ask(path, data.draw(bodies(path)))


@bounded
@given(path=st.sampled_from([*REQUIRED]), content=st.binary(max_size=200))
@example(path=CHAT, content=b"\xff" * 100)
@example(path=CHAT, content='{"messages": [{}]}'.encode("utf-16"))
@example(path=CHAT, content="\ufeff{}".encode())
@example(path=CHAT, content=b'{"messages": [{}], "messages": 1}')
@example(path=CHAT, content=b'{"messages": [{}], "n": ' + b"9" * 100_000 + b"}")
@example(path=CHAT, content=b'{"messages": [{}], "n": ' + b"-" + b"9" * 4000 + b"}")
@example(path=CHAT, content=b'{"messages": [{}], "n": 1e400}')
@example(path=CHAT, content=b'{"messages": [{}], "n": 1e-99999999999999999999}')
@example(path=CHAT, content=b'{"messages": [{}], "n": NaN}')
@example(path=CHAT, content=b'{"messages": [{"content": "\\ud800"}], "model": "\\udfff"}')
@example(path=MESSAGE, content=b'{"message": "\\ud800", "system": "\\udfff\\u0000"}')
def test_bytes(running: Running, path: str, content: bytes) -> None:
    running.ask(path, content)


@bounded
@given(
    path=st.sampled_from([*REQUIRED]),
    at=st.integers(0, 100),
    cut=st.integers(0, 5),
    put=st.binary(max_size=3),
)
def test_bodies_with_a_flaw(running: Running, path: str, at: int, cut: int, put: bytes) -> None:
    whole = json.dumps({REQUIRED[path]: [{"role": "user"}], "stream": True, "n": 1.5}).encode()
    at %= len(whole)
    running.ask(path, whole[:at] + put + whole[at + cut :])


@bounded
@given(
    path=st.sampled_from([*REQUIRED]),
    depth=st.integers(1, 3000),
    kind=st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"a":[', "]}]")]),
)
@example(path=CHAT, depth=200_000, kind=("[", "]"))
def test_deep_bodies(running: Running, path: str, depth: int, kind: tuple[str, str]) -> None:
    running.ask(path, nested(depth, *kind))


def test_every_depth_at_which_one_part_gives_up(running: Running) -> None:
    """Reading, writing and comparing reach their limits at depths of their own."""
    for depth in range(150, 1100, 7):
        running.ask(CHAT, nested(depth, "[", "]"))
        running.ask(CHAT, nested(depth, '{"a":', "}").replace(b"metadata", b"logit_bias"))


def test_no_slot_was_lost(running: Running) -> None:
    running.slots_are_free()


# The document.

load_all_checks()
DOCUMENTED: list[Any] = [
    CHECKS.get_one(name)
    for name in (
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "missing_required_header",
        "ignored_auth",
    )
]
NO_FAILURE: Any = CHECKS.get_one("not_a_server_error")


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_the_document(running: Running, mode: schemathesis.GenerationMode) -> None:
    """Requests as it describes them, and others: all is answered as it says."""
    schema = schemathesis.openapi.from_dict(running.document)
    found = list(schema.get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    assert len(operations) == len(found)
    assert {operation.path for operation in operations} == set(running.document["paths"])
    asked: set[str] = set()
    for operation in operations:

        @settings(bounded, max_examples=10)
        @given(case=operation.as_strategy(generation_mode=mode))
        def conforms(case: schemathesis.Case[Any]) -> None:
            asked.add(case.operation.path)
            answer = case.call(base_url=running.url, headers=AUTH, timeout=HANGS)
            # An engine that has not a route is told of as a server's error, and is none of ours.
            checks = DOCUMENTED if answer.status_code == 501 else [*DOCUMENTED, NO_FAILURE]
            case.validate_response(answer, checks=checks)

        with suppress(Unsatisfiable):  # nothing can be wrong with a request that takes nothing
            conforms()
    assert asked >= set(REQUIRED)
