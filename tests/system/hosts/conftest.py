"""What the host tests share: the host's plan, its key, and a client of its chat API."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edge_host.constants import NETWORK

ROOT = "/opt/edge-llm"


@pytest.fixture
def variables(host: Any) -> dict[str, Any]:
    found: dict[str, Any] = host.ansible.get_variables()
    return found


@pytest.fixture
def plan(variables: dict[str, Any]) -> dict[str, Any]:
    """The plan that the host was provisioned by (see edge_fleet.plan).

    `ca_file` is the file of certificate authorities that its clients trust; empty for none.
    """
    planned: dict[str, Any] = variables["plan"]
    assert planned["problems"] == []
    return planned


def trust(plan: dict[str, Any]) -> ssl.SSLContext:
    """What clients of the host accept, as httpx takes it."""
    return ssl.create_default_context(cafile=plan["ca_file"] or None)


@pytest.fixture
def containers(host: Any) -> dict[str, str]:
    """Part -> its container: which of its two places each has in the current release."""
    release = json.loads(host.file(f"{ROOT}/current/release.json").content_string)
    slots = {part: f"edge-llm-{part}-{slot}" for part, slot in release["slots"].items()}
    return slots | {"network": NETWORK}


@pytest.fixture
def key(variables: dict[str, Any]) -> str:
    return str(variables["key"])


@pytest.fixture
def client(plan: dict[str, Any], key: str) -> Iterator[httpx.Client]:
    """A client as one on the same network would be."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(
        base_url=plan["url"], headers=headers, timeout=120, verify=trust(plan)
    ) as opened:
        yield opened


@pytest.fixture
def question(plan: dict[str, Any]) -> dict[str, Any]:
    """The body of a chat request whose answer is the model's known one at temperature 0."""
    prompt = plan["model"]["proof"]["prompt"] or "What is the capital of France?"
    return {
        "model": plan["model"]["name"],
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": 64,
    }
