"""The served model in OpenAI's and Ollama's lists."""

from __future__ import annotations

from llm_provider.providers.settings import Task
from llm_provider.server.client_apis.model_list import model_entry, ollama_models
from llm_provider.server.translations.ollama_models import show, tags


def test_an_entry_has_the_context_size_where_clients_look() -> None:
    assert model_entry("smoke", 12, 4096) == {
        "id": "smoke",
        "object": "model",
        "created": 12,
        "owned_by": "edge-llm",
        "context_length": 4096,
        "max_model_len": 4096,
        "meta": {"n_ctx": 4096, "n_ctx_train": 4096},
    }
    assert set(model_entry("smoke", 12, None)) == {"id", "object", "created", "owned_by"}


def test_models_of_ollama() -> None:
    first, second = ollama_models(["smoke", "gpt-4o"], Task.CHAT, 4096, vision=True)
    assert (first.tagged, second.tagged) == ("smoke:latest", "gpt-4o:latest")
    assert first.capabilities == ("completion", "tools", "vision")
    assert len(first.digest) == 64
    assert first.digest != second.digest
    assert tags([first, second])["models"][1]["name"] == "gpt-4o:latest"
    assert show(first)["model_info"]["unknown.context_length"] == 4096
    (embedding,) = ollama_models(["smoke"], Task.EMBEDDING, None)
    assert (embedding.capabilities, embedding.context_size) == (("embedding",), 0)
    assert ollama_models(["smoke"], Task.RERANK, None)[0].capabilities == ()
