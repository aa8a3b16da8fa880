"""The chat API as a process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import llm_provider

from ..fake import AUTH, KEY, MODEL, FakeEngine, free_port

SOURCE = Path(llm_provider.__file__).parents[1]


CANARY = "canary-8d1f"


MIB = 1024 * 1024
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": CANARY}]}


async def start(*arguments: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), **environ},
    )


def peak_memory(pid: int) -> int:
    """The most bytes of memory that a process has had until now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


@dataclass
class Served:
    """The chat API as a process."""

    port: int
    process: asyncio.subprocess.Process
    client: httpx.AsyncClient

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> list[dict[str, Any]]:
        """Wait for its end, a clean one; return the requests' log lines."""
        out, err = await asyncio.wait_for(self.process.communicate(), 15)
        assert err == b""
        assert self.process.returncode == 0
        for secret in (CANARY, KEY):
            assert secret.encode() not in out
        entries = [json.loads(line) for line in out.splitlines()]
        assert not [entry for entry in entries if "exception" in entry]
        assert not [entry for entry in entries if entry["logger"] == "httpx"]  # each is a request
        return [entry for entry in entries if entry["message"] == "request"]


@asynccontextmanager
async def served(
    engine: FakeEngine, keys: Path, trust: ssl.SSLContext | None = None, **environ: str
) -> AsyncIterator[Served]:
    """Serve until the end of the context; over HTTPS with `trust`, which checks its certificate."""
    port = free_port()
    process = await start(
        "llm_provider.server",
        "--host=127.0.0.1",
        f"--port={port}",
        CHAT_API_KEYS_FILE=str(keys),
        LLM_PROVIDER="llamacpp",
        LLM_BASE_URL=engine.url,
        LLM_MODEL=MODEL,
        **environ,
    )
    url = f"{'https' if trust else 'http'}://127.0.0.1:{port}"
    # The server may close an idle connection at any time, for others that need its place.
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        async with httpx.AsyncClient(
            base_url=url, headers=AUTH, timeout=60, verify=trust or True, limits=limits
        ) as client:
            for _ in range(1200):
                assert process.returncode is None
                try:
                    if (await client.get("/ready")).status_code == 200:
                        break
                except httpx.ConnectError:
                    pass
                await asyncio.sleep(0.05)
            else:
                pytest.fail("the chat API did not become ready")
            yield Served(port, process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
