"""What a release's engine is verified for, before clients reach it."""

from __future__ import annotations

from typing import Any

from edge_host.release.verification import check_options

PLAN: dict[str, Any] = {
    "provider": "llamacpp",
    "model": {
        "name": "smoke",
        "task": "chat",
        "dimensions": None,
        "proof": {"prompt": "Are you there?", "answer": "Yes."},
    },
    "environment": {"CTX_SIZE": 4096, "PARALLEL": 4},
}
CHAT = {
    "provider": "llamacpp",
    "model": "smoke",
    "task": None,
    "dimensions": None,
    "context-size": 4096,
    "parallel": 4,
    "timeout": 600,
    "prompt": "Are you there?",
    "answer": "Yes.",
}


def test_a_chat_model() -> None:
    assert check_options(PLAN, 600) == CHAT


def test_a_release_of_a_version_without_tasks() -> None:
    """Its chat API has no option for a task."""
    model = {name: PLAN["model"][name] for name in ("name", "proof")}
    assert check_options({**PLAN, "model": model}, 600) == CHAT


def test_an_embedding_model() -> None:
    proof = {"prompt": None, "answer": None}
    model = {"name": "nomic", "task": "embedding", "dimensions": 768, "proof": proof}
    found = check_options({**PLAN, "model": model}, 600)
    assert found == CHAT | {"model": "nomic", "task": "embedding", "dimensions": 768} | proof
