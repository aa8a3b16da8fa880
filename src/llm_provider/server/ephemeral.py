"""A chat API for one check of one engine, in this very process, that nobody else knows of."""

from __future__ import annotations

import logging
import secrets
import socket
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from llm_provider.server.application import create_app
from llm_provider.server.uvicorn_server import serving


@asynccontextmanager
async def ephemeral_server(
    file: Path, environ: Mapping[str, str]
) -> AsyncGenerator[tuple[str, str], None]:
    """Serve the engine that `file` (of LLM_ENGINE_FILE's form) describes; yields a URL and a key.

    Raises ConfigurationError for what cannot work.
    """
    key = secrets.token_hex()
    with (
        tempfile.NamedTemporaryFile("w", prefix="llm-provider-") as keys,  # for this user alone
        _quiet(),
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        keys.write(f"{key}\n")
        keys.flush()
        app = create_app({**environ, "CHAT_API_KEYS_FILE": keys.name, "LLM_ENGINE_FILE": str(file)})
        # Whether the file holds requests is for the clients' chat API, as is what becomes of it.
        app.state.queue.engine.retire()
        async with serving(app, listener) as url:
            yield url, key


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Log nothing below an error: what a check sees is in its report."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
