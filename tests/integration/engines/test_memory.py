"""The plan's estimate of memory, held to what the engines say and take themselves, for each class
of CPUs that this machine can stand for.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from sandbox import docker
from tests.integration.engines import running
from tests.integration.engines.conftest import House
from tests.integration.engines.cpus import CpuClass, classes, this_machine
from tests.integration.engines.footprint import MIB, SMAPS, needed, resident, said
from tests.integration.engines.running import READY_SECONDS, REAL, SHAPES, Container
from tests.waiting import until_async

NEAR = 0.1
BEST, *HIDDEN = classes()
Case = tuple[str, str, int, int, dict[str, Any], CpuClass]
CASES: list[Case] = [
    *((engine, model, 4096, 4, {}, BEST) for engine in ("llamacpp", "ollama") for model in SHAPES),
    *(
        (engine, model, 4096, 4, {}, cpu)
        for engine in ("llamacpp", "ollama")
        for model in (REAL, "tied-q4_0", "grouped-q4_k_m")
        for cpu in (BEST, *HIDDEN)
    ),
    *(
        ("llamacpp", model, 4096, 4, {}, BEST)
        for model in ("tied-q4_k_m", "tied-q6_k", "tied-f16", "wide-q4_k_m")
    ),
    # The same words mean the same on both.
    ("llamacpp", "grouped", 8192, 2, {}, BEST),
    ("ollama", "grouped", 8192, 2, {}, BEST),
    # Ollama chooses its micro-batch by the tokens of all slots.
    ("ollama", "grouped", 2048, 2, {}, BEST),
    ("ollama", "grouped", 16384, 4, {}, BEST),
    ("llamacpp", "deep", 4096, 4, {"llm_cache_type": "q8_0"}, BEST),
    ("ollama", "grouped", 4096, 2, {"llm_cache_type": "q8_0"}, BEST),
    ("llamacpp", "grouped", 4096, 4, {"llm_cache_type": "q4_0"}, BEST),
    ("llamacpp", "wide", 4096, 4, {"llm_ubatch_size": 128}, BEST),
    ("llamacpp", "ungrouped", 4096, 4, {"llm_flash_attention": False}, BEST),
]


def name_of(case: Case) -> str:
    engine, model, context, parallel, settings, cpu = case
    return "-".join(
        [engine, model, f"{parallel}x{context}", *map(str, settings.values()), cpu.name]
    )


def container_of(name: str) -> type[Container]:
    """The engine of that name, which runs in a container."""
    kind: type[object] = running.engine(name)
    assert issubclass(kind, Container)
    return kind


async def answered(engine: Container, name: str) -> None:
    """Start an engine, and have it answer a prompt that takes a whole micro-batch."""
    engine.start()
    headers = {}
    if engine.key_file:
        headers = {"Authorization": f"Bearer {engine.key_file.read_text().strip()}"}

    def status() -> int:
        state = docker.inspect("container", engine.name)
        assert state is not None
        assert state["State"]["Running"], engine.logs()
        return httpx.get(f"{engine.base_url}/health", timeout=1).status_code

    await until_async(
        status,
        f"{name} to listen",
        # Ollama has no /health, and says so: 404.
        lambda found: found != 503,
        seconds=READY_SECONDS,
        every=0.2,
        ignored=(httpx.TransportError,),
    )
    async with httpx.AsyncClient(timeout=READY_SECONDS, headers=headers) as client:
        await ask(client, engine, "random")  # Ollama loads the model for the first request
        sizes = await until_async(
            lambda: re.findall(r"n_ubatch += (\d+)", engine.logs()),
            f"{name} to log the size of its micro-batch",
            seconds=READY_SECONDS,
            every=0.2,
        )
        await ask(client, engine, "random weights " * (int(sizes[-1]) // 12))


async def ask(client: httpx.AsyncClient, engine: Container, words: str) -> None:
    """Ask for an answer of two tokens."""
    body = {
        "model": engine.model,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": 2,
    }
    answer = await client.post(f"{engine.base_url}/v1/chat/completions", json=body)
    assert answer.is_success, answer.text


@pytest.mark.parametrize(
    ("name", "model", "context", "parallel", "settings", "cpu"), CASES, ids=map(name_of, CASES)
)
async def test_the_estimate_is_near(
    house: House,
    name: str,
    model: str,
    context: int,
    parallel: int,
    settings: dict[str, Any],
    cpu: CpuClass,
) -> None:
    engine = container_of(name)(model, context, parallel, cpu, **settings)
    engine.remove()
    with ExitStack() as stack:
        stack.callback(engine.remove)
        await answered(engine, name)
        log = engine.logs()
        mapped = resident(docker.lines("exec", engine.name, "bash", "-c", SMAPS))

    backends = {file.rpartition("/")[2] for file in mapped if "/libggml-cpu-" in file}
    assert len(backends) == 1
    assert cpu.library in (None, *backends)
    plan = engine.plan["memory"]
    found = {
        "weights": (plan["weights"] + plan["repacking"], said(log, "model")),
        "kv_cache": (plan["kv_cache"], said(log, "KV")),
        "compute": (plan["compute"], said(log, "compute")),
    }
    if settings.get("llm_flash_attention") is not False:
        # Without it, what is reserved is used by a full context only.
        found["total"] = (plan["total"] - plan["system"], needed(log, mapped))
    table = {
        part: f"{asked / MIB:.1f} MiB, and {real / MIB:.1f} ({asked / real - 1:+.1%})"
        for part, (asked, real) in found.items()
    }
    print(table)
    assert all(abs(asked / real - 1) <= NEAR for asked, real in found.values()), table


async def test_what_was_read_of_a_file_can_be_dropped(house: House) -> None:
    """An engine that keeps its weights in another form runs in the memory that was estimated, which
    has no room for the file beside them.
    """
    engine = container_of("llamacpp")("tied-q4_0", 4096, 4, this_machine())
    plan = engine.plan["memory"]
    limit = round((plan["total"] - plan["system"]) * (1 + NEAR))
    engine.words = [
        *(f"--memory{swap}={limit}" for swap in ("", "-swap")),
        *(word for word in engine.words if not word.startswith("--memory")),
    ]
    engine.remove()
    with ExitStack() as stack:
        stack.callback(engine.remove)
        await answered(engine, "llamacpp")
        state = docker.inspect("container", engine.name)
        assert state is not None
        assert state["HostConfig"]["Memory"] == limit
        assert not state["State"]["OOMKilled"]
