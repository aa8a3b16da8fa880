"""What was measured on a host, as the role passes it, with figures that a test changes."""

from __future__ import annotations

from typing import Any

BOARD = "Raspberry Pi 5"
MODEL = "llama-3.2-3b-instruct"


def tally(users: int, speed: float, failed: int = 0) -> dict[str, Any]:
    """One level's figures; `speed` is one user's pace."""
    return {
        "requests": 16,
        "failed": failed,
        "failures": {"the server refused with status 500: Out of order.": failed} if failed else {},
        "ttft_ms": {"p50": 900.0 * users, "p95": 1000.0 * users},
        "prompt_tokens": 2048,
        "prompt_tokens_per_second": 20.0,
        "tokens": 1000,
        "tokens_per_second": {"stream": speed / users, "all": speed},
        "seconds": 100.0,
    }


def sample(at: float, watts: float | None = 8.0, **more: Any) -> dict[str, Any]:
    return {
        "at": at,
        "watts": watts,
        "watts_of": None if watts is None else "pmic_read_adc: rails of the power chip",
        "gpu_percent": None,
        "gpu_memory": None,
        "memory_used": 3 << 30,
        "temperature": 50.0 + at / 100,
        "clocks": {"policy0": 2400},
        "throttling": {},
        **more,
    }


def measured(
    at: str = "2026-11-30T22:00:00Z",
    *,
    host: str = "pi-01",
    speed: float = 4.8,
    failed: int = 0,
    samples: list[dict[str, Any]] | None = None,
    slowdowns: tuple[str, ...] = (),
    alone: float | None = 4.9,
    image: str = "docker.io/ollama/ollama:0.34.0",
    model: str = MODEL,
    users: tuple[int, ...] = (1, 4, 8),
) -> dict[str, Any]:
    """A benchmark of a host; level N takes 100 seconds and begins at 100 * N."""
    levels = [
        {
            "parallel": number,
            "begun": 100.0 * place,
            "ended": 100.0 * (place + 1),
            "url": tally(number, speed, failed),
        }
        for place, number in enumerate(users)
    ]
    plan = {
        "provider": "ollama",
        "model": {"name": model, "quantization": "Q4_K_M", "task": "chat"},
        "engine": {"image": image},
        "environment": {"CTX_SIZE": 4096, "PARALLEL": 4, "THREADS": 4, "LLM_MODEL": model},
    }
    asked = {"tokens_per_second": alone, "prompt_tokens_per_second": 21.0} if alone else None
    return {
        "host": host,
        "at": at,
        "state": {
            "board": {
                "name": BOARD,
                "model": f"{BOARD} Model B Rev 1.0",
                "arch": "aarch64",
                "power": None,
            },
            "deployment": {"release": {"number": 7, "plan": plan}},
        },
        "bench": {"prompt_tokens": 128, "max_tokens": 64, "levels": levels},
        "readings": {
            "samples": [sample(float(second)) for second in range(0, 300, 10)]
            if samples is None
            else samples,
            "slowdowns": list(slowdowns),
        },
        "readings_problem": "",
        "engine": {
            "asked": asked,
            "asked_problem": "" if asked else "the engine at port 11434 does not answer",
            "llama_bench": None,
            "llama_bench_problem": "the engine's image has no llama-bench",
        },
    }
