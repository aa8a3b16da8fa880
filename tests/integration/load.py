"""The board that is changed over, and clients that ask it all the while."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
import pytest
import yaml

from tests.playing import ROOT, message, play
from tests.waiting import until

HOST = "pi-01"
CONTAINER = f"test-{HOST}"
FOLDER = "/opt/edge-llm"
SHORT = "What is the capital of France? Answer in one sentence."
LONG = "Write a story about a lighthouse keeper and his cat."


@dataclass
class Board:
    """A simulated board, and its chat API as clients reach it."""

    url: str
    key: str
    name: str
    ca: str | None = None
    """The file of certificate authorities that its clients trust; None for a board without TLS."""

    @cached_property
    def trust(self) -> ssl.SSLContext | bool:
        """What its clients accept, as httpx takes it."""
        return ssl.create_default_context(cafile=self.ca) if self.ca else True

    def run(self, *words: str) -> str:
        """What a command on the board writes; fails where it does."""
        done = subprocess.run(
            ["docker", "exec", f"test-{self.name}", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def history(self) -> list[dict[str, Any]]:
        """What became of every change, the newest last."""
        text = self.run("cat", f"{FOLDER}/releases/history.jsonl")
        return [json.loads(line) for line in text.splitlines()]

    def current(self) -> dict[str, Any]:
        """The release.json of the current release."""
        found: dict[str, Any] = json.loads(self.run("cat", f"{FOLDER}/current/release.json"))
        return found

    def containers(self) -> dict[str, str]:
        """Name -> id of the containers that run."""
        lines = self.run("docker", "ps", "--no-trunc", "--format", "{{.Names}} {{.ID}}")
        return dict(line.split() for line in lines.splitlines())

    def ready(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key}"}
        found: dict[str, Any] = httpx.get(
            f"{self.url}/ready", headers=headers, timeout=30, verify=self.trust
        ).json()
        return found

    def models(self) -> list[str]:
        """The names by which clients may ask for the model."""
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.get(f"{self.url}/v1/models", headers=headers, timeout=30, verify=self.trust)
        return [each["id"] for each in answer.json()["data"]]

    def asked(self) -> str:
        """The model's known answer, which the host must give."""
        body = {
            "messages": [{"role": "user", "content": SHORT}],
            "temperature": 0,
            "max_tokens": 64,
        }
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"{self.url}/v1/chat/completions"
        answer = httpx.post(url, json=body, headers=headers, timeout=120, verify=self.trust)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["message"]["content"].strip()
        return text


def known_answers() -> dict[str, str]:
    """Model -> what it says to SHORT at temperature 0."""
    models = yaml.safe_load((ROOT / "models.yml").read_text())["models"]
    return {name: models[name]["proof"]["answer"] for name in ("smoke", "smollm2-135m")}


def board_named(host: str) -> Board:
    """A board, by what site.yml has written for its clients."""
    lines = (ROOT / f".sandbox/test/keys/{host}.env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    url, ca = found["OPENAI_BASE_URL"].removesuffix("/v1"), found.get("NODE_EXTRA_CA_CERTS")
    return Board(url, found["OPENAI_API_KEY"], host, ca)


@pytest.fixture(scope="session")
def board() -> Board:
    return board_named(HOST)


@pytest.fixture
def settled(board: Board) -> Iterator[None]:
    """The board is as its inventory says, before the test and after it."""
    for when in ("before", "after"):
        done = play("site.yml", board.name)
        assert done.returncode == 0, f"{when}: {done.stdout}"
        if when == "before":
            yield


@dataclass
class Load:
    """What clients met: (begin, first byte) of every request, the bytes, and what was wrong."""

    times: list[tuple[float, float]] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)

    def silence(self, begin: float, end: float) -> float:
        """The longest time between two moments in which no client got a byte."""
        moments = [begin, *sorted(each for each in self.arrivals if begin < each < end), end]
        return max(later - sooner for sooner, later in itertools.pairwise(moments))

    def wait(self, begin: float, end: float) -> float:
        """The longest that a request between two moments waited for its first byte."""
        return max(first - began for began, first in self.times if first > begin and began < end)


def wait_for_requests(load: Load, more: int = 8) -> None:
    """Wait until clients have got further answers."""
    seen = len(load.times)
    until(lambda: len(load.times), "answers to clients", lambda count: count >= seen + more)


@contextmanager
def loaded(board: Board, clients: int = 8) -> Iterator[Load]:
    """Clients ask the board until the block ends; their last requests are waited for."""
    load = Load()
    ended = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_clients(board, load, ended, clients)))
    thread.start()
    try:
        yield load
    finally:
        ended.set()
        thread.join(120)
    assert not thread.is_alive(), "a client still waits for an answer"


async def _clients(board: Board, load: Load, ended: threading.Event, clients: int) -> None:
    kinds = [
        # prompt, streamed, a connection of its own for each request
        *((SHORT, False, True), (LONG, True, False), (SHORT, True, True), (SHORT, False, False)),
        *((SHORT, True, False), (SHORT, True, False), (LONG, False, False), (LONG, True, True)),
    ]
    async with httpx.AsyncClient(timeout=120, verify=board.trust) as kept:
        asking = (_client(board, load, ended, kept, *kind) for kind in kinds[:clients])
        await asyncio.gather(*asking)


async def _client(
    board: Board,
    load: Load,
    ended: threading.Event,
    kept: httpx.AsyncClient,
    prompt: str,
    stream: bool,
    fresh: bool,
) -> None:
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 64 if prompt == SHORT else 96,
        "stream": stream,
    }
    while not ended.is_set():
        try:
            if fresh:
                async with httpx.AsyncClient(timeout=120, verify=board.trust) as client:
                    await _ask(board, load, client, body)
            else:
                await _ask(board, load, kept, body)
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
            load.wrong.append(
                f"{time.monotonic():.2f} {body['stream']} {type(error).__name__}: {error}"
            )
        # Somebody reads the answer; and the board's one core has time for more than answering.
        await asyncio.sleep(0.5)


async def _ask(board: Board, load: Load, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    began = time.monotonic()
    first = None
    received = b""
    url = f"{board.url}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {board.key}"}
    async with client.stream("POST", url, json=body, headers=headers) as answer:
        async for piece in answer.aiter_bytes():
            load.arrivals.append(time.monotonic())
            first = first or load.arrivals[-1]
            received += piece
    if answer.status_code != 200:
        load.wrong.append(f"{answer.status_code}: {received[:300]!r}")
        return
    model, text, reason = _read(received, bool(body["stream"]))
    load.times.append((began, first or time.monotonic()))
    load.models[model] += 1
    short = body["messages"][0]["content"] == SHORT
    expected = known_answers()[model]
    if short or model == "smoke":
        if (text.strip(), reason) != (expected, "stop"):
            load.wrong.append(f"{model} said {text!r} and ended with {reason}")
    elif reason not in ("stop", "length") or len(text) < 100:
        load.wrong.append(f"{model} told a story of {len(text)} characters and ended with {reason}")


def _read(received: bytes, stream: bool) -> tuple[str, str, str]:
    """(model, text, finish_reason) of an answer; raises ValueError where it is not whole."""
    if not stream:
        found = json.loads(received)
        choice = found["choices"][0]
        return _name(found["model"]), choice["message"]["content"], choice["finish_reason"]
    events = [line[6:] for line in received.decode().split("\n\n") if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise ValueError(f"a stream without its end: {received[-300:]!r}")
    chunks = [json.loads(event) for event in events[:-1]]
    if any("error" in chunk for chunk in chunks):
        raise ValueError(f"a stream with an error: {received[-300:]!r}")
    names = {_name(chunk["model"]) for chunk in chunks}
    if len(names) != 1:
        raise ValueError(f"one answer of several models: {names}")
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    return names.pop(), text, reasons[-1]


def assert_a_pause_at_most(
    board: Board, swap: str, changes: Sequence[tuple[dict[str, Any], list[str]]]
) -> None:
    """Change a board over under eight clients: variables, and the parts that they change."""
    windows = []
    with loaded(board) as load:
        for given, parts in changes:
            before, begun = len(board.history()), time.monotonic()
            done = play("site.yml", board.name, **given, stack_swap=swap)
            assert done.returncode == 0, done.stdout
            (told,) = board.history()[before:]
            assert (told["outcome"], told["parts"]) == ("committed", parts)
            assert told["beside"] == (swap == "beside" and "engine" in parts)
            assert f"clients waited {told['pause']:.2f} s" in message(done)
            windows.append((begun, time.monotonic(), told))
            seen = len(load.times)
            end = time.monotonic() + 60
            while len(load.times) < seen + 8 and time.monotonic() < end:
                time.sleep(0.1)
    assert load.wrong == []
    assert len(load.times) >= 8 * len(windows)
    assert set(load.models) == {given.get("llm_model", "smollm2-135m") for given, _ in changes}
    for begun, ended, told in windows:
        print(
            f"{swap}: to {told['provider']} with {told['model']} ({', '.join(told['parts'])}):"
            f" told {told['pause']:.2f} s of pause; no client got a byte for"
            f" {load.silence(begun, ended):.2f} s, and none waited longer than"
            f" {load.wait(begun, ended):.2f} s; {told['seconds']:.1f} s in all"
        )


def _name(model: str) -> str:
    return model.removesuffix(":latest")
