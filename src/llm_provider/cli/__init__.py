"""The `llm-provider` command."""

from __future__ import annotations

from llm_provider.cli.command import main

__all__ = ["main"]
