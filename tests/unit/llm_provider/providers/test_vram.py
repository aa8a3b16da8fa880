"""What is made of Ollama's size_vram: never a share of a GPU that is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from llm_provider.providers import vram
from llm_provider.providers.base import Capacity
from llm_provider.providers.ollama import Ollama

from ..fake import CONTEXT, MODEL, FakeEngine

HERE = "http://engine-a:8080"
AMX = "processor\t: 0\nflags\t\t: fpu avx2 avx512f amx_bf16 amx_tile amx_int8\n"
PLAIN = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
ORIN = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n"

# What Ollama 0.34 with llama-server build 11669 answered on a machine without any GPU: a CPU with
# AVX-512, and a Q4_0 model of which 25.9 MiB were in a CPU_REPACK buffer.
REPACKED: dict[str, Any] = {
    "name": "tied-q4_0:latest",
    "model": "tied-q4_0:latest",
    "size": 93543463,
    "details": {"format": "gguf", "family": "llama", "quantization_level": "Q4_0"},
    "size_vram": 0,
    "context_length": 4096,
}
# The same with the share that a CPU with AMX gave for SmolLM2: its AMX buffer has 95.3 MiB.
WITH_AMX = REPACKED | {"size": 554_696_704, "size_vram": 99_929_293}


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's /proc/cpuinfo."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(vram, "CPUINFO", path)
    return path


@pytest.mark.parametrize(
    ("cpuinfo", "entry", "share"),
    [
        (PLAIN, REPACKED, 0.0),
        (AMX, WITH_AMX, None),
        (AMX, REPACKED, 0.0),
        # All of it is on a GPU, whatever the CPU is: contexts are never kept for AMX.
        (AMX, REPACKED | {"size_vram": 93543463}, 1.0),
        # A part that a Jetson or a PC has on its GPU.
        (ORIN, REPACKED | {"size_vram": 93543463 // 2}, 0.5),
        (PLAIN, REPACKED | {"size_vram": 93543463 // 2}, 0.5),
        (ORIN, REPACKED | {"size_vram": 2 * 93543463}, 1.0),
        # A machine that does not show what it is.
        (None, WITH_AMX, None),
        (None, REPACKED, 0.0),
    ],
)
def test_the_share_of_a_model(
    cpu: Path, cpuinfo: str | None, entry: dict[str, Any], share: float | None
) -> None:
    if cpuinfo is not None:
        cpu.write_text(cpuinfo)
    found = vram.gpu_share(entry["size"], entry["size_vram"], HERE)
    assert found == (None if share is None else pytest.approx(share, abs=1e-6))


@pytest.mark.parametrize(("cpuinfo", "share"), [(PLAIN, 0.18), (AMX, None)])
def test_the_provider_tells_it(cpu: Path, cpuinfo: str, share: float | None) -> None:
    cpu.write_text(cpuinfo)

    async def capacity() -> Capacity:
        async with (
            FakeEngine("ollama").serving() as engine,
            Ollama(model=MODEL, base_url=engine.url) as llm,
        ):
            engine.in_vram = 180
            await llm.load()
            return await llm.capacity()

    assert asyncio.run(capacity()) == Capacity(CONTEXT, None, share)


@pytest.mark.parametrize(
    ("url", "share"),
    [
        ("http://127.0.0.1:11434", 0.18),
        ("http://127.0.1.1:11434", 0.18),
        ("http://localhost:11434", 0.18),
        ("http://[::1]:11434", 0.18),
        ("http://engine-b:8080", 0.18),
        # Its CPU is another.
        ("http://198.51.100.7:11434", None),
        ("http://gpu.example.org", None),
        ("http://[2001:db8::7]:11434", None),
    ],
)
def test_another_machine_may_have_amx(cpu: Path, url: str, share: float | None) -> None:
    cpu.write_text(PLAIN)
    assert vram.gpu_share(100, 18, url) == share
    # All and nothing are told alike, wherever it is.
    assert vram.gpu_share(100, 100, url) == 1.0
    assert vram.gpu_share(100, 0, url) == 0.0


@pytest.mark.parametrize(
    ("size", "in_vram"), [(None, 5), (0, 0), (9, None), (9, "x"), (9, -1), (True, 1), (9, True)]
)
def test_what_is_no_size(cpu: Path, size: object, in_vram: object) -> None:
    cpu.write_text(ORIN)
    assert vram.gpu_share(size, in_vram, HERE) is None
