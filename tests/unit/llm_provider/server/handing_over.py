"""A socket holder, and the chat APIs behind it, as processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_provider.providers.routes import CHAT
from llm_provider.standalone import socket_holder

from ..fake import AUTH, MODEL, until
from .crowd import EngineFile
from .processes import start

BARE = (sys.executable, "-I", "-S", socket_holder.__file__)
"""A Python that finds nothing but its own library: the package is not there."""


@dataclass
class HolderProcess:
    """A socket holder as a process, and where it is."""

    folder: Path
    process: asyncio.subprocess.Process
    ports: tuple[int, int]

    @property
    def path(self) -> Path:
        return self.folder / "door.sock"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"


async def start_holder(path: Path, *ports: int) -> asyncio.subprocess.Process:
    words = [*BARE, "--socket", str(path), *map(str, ports)]
    return await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def end(process: asyncio.subprocess.Process, number: int = signal.SIGTERM) -> bytes:
    """Have a process end, cleanly (0: it was told already); what it wrote to standard output."""
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), 15)
    assert (process.returncode, err) == (0, b""), (process.returncode, err, out[-2000:])
    return out


@dataclass
class Api:
    """A chat API as a process, and what it is asked through its own socket."""

    process: asyncio.subprocess.Process
    path: Path
    log: list[dict[str, Any]] = field(default_factory=list)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.path))
        return httpx.AsyncClient(
            base_url="http://api", transport=transport, headers=AUTH, timeout=60
        )

    async def report(self) -> dict[str, Any]:
        async with self.client() as client:
            found: dict[str, Any] = (await client.get("/ready")).json()
            return found

    async def becomes(self, **wanted: object) -> None:
        """Wait until /ready says so."""
        told: dict[str, Any] = {}
        for _ in range(1200):
            assert self.process.returncode is None
            if self.path.exists():
                told = await self.report()
                if wanted.items() <= told.items():
                    return
            await asyncio.sleep(0.02)
        pytest.fail(f"it did not become {wanted}: {told}")

    def retire(self) -> None:
        self.process.send_signal(signal.SIGUSR1)

    async def ended(self, number: int = signal.SIGTERM) -> None:
        out = await end(self.process, number)
        self.log = [json.loads(line) for line in out.splitlines()]
        assert not [entry for entry in self.log if "exception" in entry]
        assert not self.path.exists()

    def outcomes(self) -> list[str]:
        return [entry["outcome"] for entry in self.log if entry.get("path") == CHAT]


@asynccontextmanager
async def api_behind(
    holder: HolderProcess, keys: Path, name: str, **environ: str
) -> AsyncIterator[Api]:
    path = holder.folder / f"{name}.sock"
    path.write_text("left behind")
    process = await start(
        "llm_provider.server",
        f"--port={holder.ports[0]}",
        f"--engine-port={holder.ports[1]}",
        CHAT_API_DOOR=str(holder.path),
        CHAT_API_SOCKET=str(path),
        CHAT_API_KEYS_FILE=str(keys),
        **environ,
    )
    await until(path.is_socket, "its own socket")
    try:
        yield Api(process, path)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def following(file: EngineFile) -> dict[str, str]:
    return {"LLM_ENGINE_FILE": str(file.path), "LLM_MODEL": MODEL}
