"""`make benchmark` on real engines: what it measures, what it agrees with, and the gate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import Board, board_named
from tests.playing import ROOT, message, play

CANARY, NEXT = "jetson-01", "pi-01"
FLEET = f"{CANARY},{NEXT}"
PLAYBOOK = "playbooks/benchmark.yml"
TRIES = 3
"""Both boards, the client and the other tests share the cores of one machine: a comparison of two
measurements gets this many, and one of them must hold."""


@pytest.fixture
def board() -> Board:
    return board_named(CANARY)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results of this test alone."""
    return tmp_path / "results"


@pytest.fixture
def fleet() -> Iterator[None]:
    """The boards are as their inventory says, before the test and after it."""
    for when in ("before", "after"):
        done = play("site.yml", FLEET)
        assert done.returncode == 0, f"{when}: {done.stdout}"
        if when == "before":
            yield


def records(folder: Path) -> list[dict[str, Any]]:
    """All results of a folder, the oldest first."""
    found = [json.loads(path.read_text()) for path in folder.rglob("*.json")]
    return sorted(found, key=lambda each: (each["at"], each["host"]))


def measure(folder: Path, *hosts: str, **variables: Any) -> list[dict[str, Any]]:
    """Run the playbook over hosts, and return the records of this run."""
    before = len(records(folder))
    done = play(PLAYBOOK, ",".join(hosts), board_benchmarks_dir=str(folder), **variables)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == len(hosts), done.stdout
    return records(folder)[before:]


def bench(board: Board) -> dict[str, Any]:
    """What `llm-provider bench` says of the same host, with its defaults."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "llm_provider",
            "bench",
            "--json",
            "--key-file=-",
            f"--url={board.url}",
        ],
        input=board.key,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_measured(board: Board, results: Path) -> None:
    before = board.containers(), board.history()
    found = {each["host"]: each for each in measure(results, CANARY, NEXT)}
    assert set(found) == {CANARY, NEXT}
    assert (board.containers(), board.history()) == before
    for record in found.values():
        assert [level["users"] for level in record["users"]] == [1, 4, 8]
        assert [level["failed"] for level in record["users"]] == [0, 0, 0]
        for level in record["users"]:
            assert 0 < level["ttft_ms"]["p50"] <= level["ttft_ms"]["p95"]
            assert level["prompt_tokens_per_second"] > 0
            assert level["tokens_per_second"] > 0
        assert record["sensors_problem"] == ""
        assert record["memory_used"] > 0
        # The engine's own port, and its image's llama-bench.
        assert record["engine"]["asked"]["tokens_per_second"] > 0, record["engine"]
        assert record["engine"]["llama_bench"]["tokens_per_second"] > 0, record["engine"]
        # A simulated board has no sensor of power.
        assert (record["watts_of"], record["users"][0]["joules_per_token"]) == (None, None)
    assert (found[CANARY]["provider"], found[NEXT]["provider"]) == ("llamacpp", "ollama")
    # Nothing stays on a host.
    assert board.run("sh", "-c", "ls -A /run/edge-llm-benchmark") == ""
    assert "edge-llm-llama-bench" not in board.run("docker", "ps", "--all")


def test_the_command_agrees_with_the_playbook(board: Board, results: Path) -> None:
    seen = []
    for _ in range(TRIES):
        (record,) = measure(results, CANARY)
        mine = [level["tokens_per_second"] for level in record["users"]]
        levels = bench(board)["levels"]
        theirs = [level["url"]["tokens_per_second"]["all"] for level in levels]
        seen.append([one / other for one, other in zip(mine, theirs, strict=True)])
        if all(0.95 <= share <= 1.05 for share in seen[-1]):
            return
    pytest.fail(f"playbook over command, at 1, 4 and 8 users: {seen}")


def test_the_chat_api_reaches_the_engine(board: Board, results: Path) -> None:
    seen = []
    for _ in range(TRIES):
        (record,) = measure(results, CANARY)
        alone = record["engine"]["asked"]["tokens_per_second"]
        seen.append(record["users"][0]["tokens_per_second_each"] / alone)
        if seen[-1] >= 0.98:
            return
    pytest.fail(f"chat API over the engine asked on the host: {seen}")


def change(results: Path, context: int, gate: float) -> subprocess.CompletedProcess[str]:
    """A change of both boards' engines, with a gate for the first."""
    return play(
        "site.yml",
        FLEET,
        llm_context_size=context,
        llm_benchmark_gate=gate,
        board_benchmarks_dir=str(results),
    )


def test_the_gate(board: Board, results: Path, fleet: None) -> None:
    """A canary that is slower than its baseline allows fails, and the next host is held back."""
    (first,) = measure(results, CANARY)
    assert first["baseline"] is True

    passed = change(results, 2048, 0.2)
    assert passed.returncode == 0, passed.stdout
    # Only the canary is measured.
    assert [each["host"] for each in records(results)] == [CANARY, CANARY]
    assert f"baseline: {first['at']}" in message(passed)

    # As if the host had been ten times as fast.
    (path,) = [each for each in results.rglob("*.json") if json.loads(each.read_text())["baseline"]]
    for level in first["users"]:
        level["tokens_per_second"] *= 10
    path.write_text(json.dumps(first))
    other = board_named(NEXT)
    before = other.containers(), other.history()
    failed = change(results, 1024, 0.8)
    assert failed.returncode == 2, failed.stdout
    said = message(failed)
    assert f"{CANARY}: the speed does not fit: llm_benchmark_gate requires 80% of" in said
    assert f"{NEXT}: held back, since {CANARY} failed. Repair {CANARY}, and run this again." in said
    assert (other.containers(), other.history()) == before
    # The canary serves its new release: a person decides what becomes of it.
    assert board.ready()["context_size"] == 1024
