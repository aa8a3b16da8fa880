"""The `llm-provider` command, run in this process or on a terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path

from llm_provider.cli.command import main

ROOT = Path(__file__).parents[4]


NAMES = ["health", "key", "ready", "models", "context", "chat", "stream", "identity"]


COMMAND = "import sys; from llm_provider.cli import main; sys.exit(main(sys.argv[1:]))"


async def run(*arguments: str) -> int:
    """The command as typed; in a thread, since it runs a loop of its own."""
    return await asyncio.to_thread(main, list(arguments))
