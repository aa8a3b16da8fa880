from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_provider.providers.llamacpp import LlamaCpp

from ...fake import MODEL, FakeEngine


@pytest.fixture
async def llm(engine: FakeEngine) -> AsyncIterator[LlamaCpp]:
    """An engine that may be silent for as long as a test has it wait."""
    async with LlamaCpp(model=MODEL, base_url=engine.url, timeout=60) as provider:
        yield provider
