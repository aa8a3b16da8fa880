from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from llm_provider.providers.llamacpp import LlamaCpp

from .clock import Clock
from .fake import AUTH, KEY, MODEL, FakeEngine, serve_api


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the person who runs the tests has set must not decide them."""
    for name in list(os.environ):
        if name.startswith(("LLM_", "OPENAI_", "CHAT_API_")) or name == "HARDWARE":
            monkeypatch.delenv(name)


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    with pytest.MonkeyPatch.context() as patched:
        yield Clock(patched)


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine().serving() as fake:
        yield fake


@pytest.fixture
async def llm(engine: FakeEngine) -> AsyncIterator[LlamaCpp]:
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=2) as provider:
        yield provider


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "api_keys"
    path.write_text(f"# who may ask\n\n{KEY}\nkey-two-of-the-tests\n")
    return path


@pytest.fixture
async def api(llm: LlamaCpp, keys: Path) -> AsyncIterator[str]:
    """The chat API's URL; its engine is `engine`."""
    async with serve_api(llm, keys) as url:
        yield url


@pytest.fixture
async def client(api: str) -> AsyncIterator[httpx.AsyncClient]:
    # As many connections at once as a test wants.
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=api, headers=AUTH, timeout=60, limits=limits) as made:
        yield made
