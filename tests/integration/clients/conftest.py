"""The engines' harness, for the tests of clients: the same containers, options and fixtures.

Clients have requirements of their own, which .venv-clients holds (`scripts/venv clients`).
`python -m tests suite clients` runs these tests; `--engine NAME,...` names other engines.
"""

from __future__ import annotations

import os

import pytest

from tests.integration.engines.conftest import (
    endless,
    house,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    smoke,
    smollm2,
    tools,
)

__all__ = [
    "endless",
    "house",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "smoke",
    "smollm2",
    "tools",
]

_CLIENTS = ("OPENAI_", "ANTHROPIC_", "OLLAMA_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_", "LLM_")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the person who runs the tests has set for clients must not decide them."""
    for name in list(os.environ):
        if name.startswith(_CLIENTS):
            monkeypatch.delenv(name)
    # LiteLLM would load its table of prices from GitHub at its import.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
