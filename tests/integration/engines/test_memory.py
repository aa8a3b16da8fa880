"""The plan's estimate of memory, held to what the engines say and take themselves."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from sandbox import docker
from tests.integration.engines import running
from tests.integration.engines.conftest import House
from tests.integration.engines.running import READY_SECONDS, REAL, SHAPES, Container
from tests.waiting import until_async

MIB = 1024**2
NEAR = 0.1
ALL = (REAL, *SHAPES)
CASES: list[tuple[str, str, int, int, dict[str, Any]]] = [
    *((engine, model, 4096, 4, {}) for engine in ("llamacpp", "ollama") for model in ALL),
    # The same words mean the same on both.
    ("llamacpp", "grouped", 8192, 2, {}),
    ("ollama", "grouped", 8192, 2, {}),
    ("llamacpp", "deep", 4096, 4, {"llm_cache_type": "q8_0"}),
    ("ollama", "grouped", 4096, 2, {"llm_cache_type": "q8_0"}),
    ("llamacpp", "grouped", 4096, 4, {"llm_cache_type": "q4_0"}),
    ("llamacpp", "wide", 4096, 4, {"llm_ubatch_size": 128}),
    ("llamacpp", "ungrouped", 4096, 4, {"llm_flash_attention": False}),
]


def said(log: str, what: str) -> float:
    """Bytes of all buffers of a kind that an engine's log tells of."""
    sizes = re.findall(rf" {what} buffer size = +([\d.]+) MiB", log)
    assert sizes, f"The log tells of no {what} buffer: {log}"
    return sum(map(float, sizes)) * MIB


def taken(container: str) -> int:
    """Bytes that the processes of a container have had at most, but for the shell that asks."""
    script = "for each in /proc/[0-9]*; do grep -Es '^(Name|VmHWM):' $each/status; done"
    lines = docker.lines("exec", container, "bash", "-c", script)
    names = [line.split()[1] for line in lines if line.startswith("Name:")]
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    assert len(names) == len(sizes), lines
    return sum(size for name, size in zip(names, sizes, strict=True) if name != "bash")


@pytest.mark.parametrize(
    ("name", "model", "context", "parallel", "settings"),
    CASES,
    ids=[
        "-".join([*case[:2], f"{case[3]}x{case[2]}", *map(str, case[4].values())]) for case in CASES
    ],
)
async def test_the_estimate_is_near(
    house: House, name: str, model: str, context: int, parallel: int, settings: dict[str, Any]
) -> None:
    kind = running.engine(name)
    assert issubclass(kind, Container)
    engine = kind(model, context, parallel, **settings)
    engine.remove()
    engine.start()
    try:
        words = {}
        if engine.key_file:
            words = {"Authorization": f"Bearer {engine.key_file.read_text().strip()}"}

        await until_async(
            lambda: httpx.get(f"{engine.base_url}/health", timeout=1).status_code,
            f"{name} to listen",
            # Ollama has no /health, and says so: 404.
            lambda status: status != 503,
            seconds=READY_SECONDS,
            every=0.2,
            ignored=(httpx.TransportError,),
        )
        # Long enough for a whole micro-batch.
        body = {
            "model": model,
            "messages": [
                {"role": "user", "content": "random weights " * (80 if name == "ollama" else 40)}
            ],
            "max_tokens": 2,
        }
        async with httpx.AsyncClient(timeout=READY_SECONDS, headers=words) as client:
            answer = await client.post(f"{engine.base_url}/v1/chat/completions", json=body)
        assert answer.is_success, answer.text
        log, peak = engine.logs(), taken(engine.name)
    finally:
        engine.remove()

    plan = engine.plan["memory"]
    found = {
        "weights": (plan["weights"], said(log, "model")),
        "kv_cache": (plan["kv_cache"], said(log, "KV")),
        "compute": (plan["compute"], said(log, "compute")),
    }
    if settings.get("llm_flash_attention") is not False:
        # Without it, what is reserved is used by a full context only.
        found["total"] = (plan["total"] - plan["system"], peak)
    table = {
        part: f"{asked / MIB:.1f} MiB, and {real / MIB:.1f} ({asked / real - 1:+.1%})"
        for part, (asked, real) in found.items()
    }
    print(table)
    assert all(abs(asked / real - 1) <= NEAR for asked, real in found.values()), table
