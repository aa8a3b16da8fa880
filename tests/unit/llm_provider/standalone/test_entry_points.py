"""Names of programs that compose files of earlier releases, and people, use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llm_provider import api, door
from llm_provider.server import process as server
from llm_provider.standalone import socket_holder


def test_earlier_names_start_the_same_programs() -> None:
    assert door.main is socket_holder.main
    assert api.main is server.main


@pytest.mark.parametrize("name", ["door", "standalone.socket_holder", "standalone.healthcheck"])
def test_programs_of_compose_files_load_no_http_client(name: str) -> None:
    code = f"import sys, llm_provider.{name}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {"aiohttp", "asyncio", "fastapi", "httptools", "httpx", "uvicorn"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("name", ["api", "door", "server", "standalone.socket_holder"])
def test_programs_have_help(name: str) -> None:
    words = [sys.executable, "-m", f"llm_provider.{name}", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("usage: ")
