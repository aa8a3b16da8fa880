"""The `ollama` package as the tests use it."""

from __future__ import annotations

from typing import Any

import ollama

from ...fake import KEY

ASK: list[Any] = [{"role": "user", "content": "Hello"}]


def client(url: str, key: str = KEY) -> ollama.AsyncClient:
    return ollama.AsyncClient(url, headers={"Authorization": f"Bearer {key}"}, timeout=10)
