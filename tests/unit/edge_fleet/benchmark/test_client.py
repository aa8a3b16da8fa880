"""`llm-provider bench` as the action runs it: progress, results, failures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.benchmark.client import BenchmarkError, run_bench
from tests.unit.llm_provider.scripted import KEY, Scripted, refusal, serving

SOURCE = str(Path(__file__).parents[4] / "src")
COMMAND = [sys.executable, "-m", "llm_provider", "bench", "--key-file=-", "--requests=2"]


def run(url: str, shown: list[str]) -> dict[str, Any]:
    command = [*COMMAND, f"--url={url}", "--parallel=1,2"]
    return run_bench(command, KEY, SOURCE, shown.append, 600)


def test_the_result_and_its_progress() -> None:
    shown: list[str] = []
    with serving(Scripted()) as server:
        result = run(server.url, shown)
    assert result["ok"] is True
    assert isinstance(result["levels"], list)
    assert [level["parallel"] for level in result["levels"]] == [1, 2]
    assert {"1 at once: 2 of 2", "2 at once: 2 of 2"} <= set(shown)


def test_a_host_that_refuses() -> None:
    shown: list[str] = []
    with serving(Scripted()) as server:
        server.reset({"stream": refusal("Out of order.", 500)})
        with pytest.raises(BenchmarkError, match=r"has no result: .*Out of order$"):
            run(server.url, shown)
    assert shown == []


def test_a_host_that_is_not_there() -> None:
    with pytest.raises(BenchmarkError, match=r"has no result: .*127\.0\.0\.1:1"):
        run("http://127.0.0.1:1", [])


def test_a_command_that_takes_too_long() -> None:
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(BenchmarkError, match="has no result: it took too long"):
        run_bench(words, KEY, SOURCE, lambda line: None, 1.0)


def test_a_command_that_cannot_be_used() -> None:
    with pytest.raises(BenchmarkError, match=r"has no result: .*unrecognized arguments: --wrong"):
        run_bench([*COMMAND, "--wrong"], KEY, SOURCE, lambda line: None, 60)
