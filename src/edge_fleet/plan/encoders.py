"""Encoders: models that read a whole input at once, and keep nothing of it for a next token."""

from __future__ import annotations

ENCODERS = frozenset(
    {
        *("bert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"),
        *("nomic-bert", "nomic-bert-moe"),
    }
)
"""Families without a KV cache (llama_model::create_memory in llama.cpp). gemma-embedding is not
among them: some builds give it one.
"""
UNGATED = frozenset({"bert"})
"""Those whose feed-forward layers are two matrices and not three."""
