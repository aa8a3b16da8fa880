"""The role `benchmark` on this machine, against a chat API of the tests: what it keeps, and when it
fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.llm_provider.scripted import KEY, MODEL, Scripted, refusal, serving

ROOT = Path(__file__).parents[3]
OPTIONS = ["--requests=2", "--parallel=1,2", "--max-tokens=8"]


@pytest.fixture(scope="module")
def served() -> Iterator[Scripted]:
    with serving(Scripted()) as scripted:
        yield scripted


@pytest.fixture
def server(served: Scripted) -> Scripted:
    served.reset()
    return served


def release(folder: Path, task: str = "chat") -> None:
    """A release of a host, as far as a benchmark reads it."""
    plan = {
        "provider": "llamacpp",
        "model": {"name": MODEL, "quantization": "F16", "task": task},
        "engine": {"image": "registry.example/llama@sha256:1"},
        "environment": {"CTX_SIZE": 4096, "PARALLEL": 4},
        "memory": {"total": 1 << 30, "system": 1 << 29},
    }
    path = folder / "releases/0001/release.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"number": 1, "plan": plan, "slots": {"engine": "a", "api": "a"}}))
    (folder / "current").symlink_to("releases/0001")


def run(
    folder: Path, server: Scripted, entry: str = "gate", *words: str, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run an entry point of the role on this machine, and the report after it."""
    given = {
        "ansible_python_interpreter": sys.executable,
        "benchmark_url": server.url,
        "benchmark_api_key": KEY,
        "benchmark_ca_file": "",
        "benchmark_root": str(folder / "host"),
        "benchmark_project": str(ROOT),
        "benchmark_folder": str(folder / "results"),
        "benchmark_published": str(ROOT / "published_speeds.yml"),
        "benchmark_options": OPTIONS,
        "benchmark_gate": "",
        **variables,
    }
    play = {
        "hosts": "localhost",
        "connection": "local",
        "tasks": [
            {"ansible.builtin.include_role": {"name": "benchmark", "tasks_from": each}}
            for each in (entry, "report")
        ],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", "localhost,", "-e", json.dumps(given), *words),
            str(folder / "play.yml"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stdout.split()).replace("''", "'")


def records(folder: Path) -> list[Path]:
    return sorted((folder / "results").rglob("*.json"))


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the sampler runs as root on a host")


def test_a_host_is_measured_and_compared(tmp_path: Path, server: Scripted) -> None:
    release(tmp_path / "host")
    first = run(tmp_path, server)
    assert first.returncode == 0, first.stdout + first.stderr
    # How far it was, while it ran.
    assert "localhost: 2 at once: 2 of 2" in first.stdout
    assert "baseline: this result, the first of this host, model and load" in said(first)
    assert "engine asked on the host: not available: the engine's key cannot be read" in said(first)
    (path,) = records(tmp_path)
    record = json.loads(path.read_text())
    assert record["baseline"] is True
    assert record["sensors_problem"] == ""
    assert record["memory_used"] > 0
    assert [level["users"] for level in record["users"]] == [1, 2]
    assert "changed=0" in first.stdout
    assert KEY not in first.stdout + path.read_text()

    # The same host, ten times as fast before: a gate of 80 % is not passed.
    for level in record["users"]:
        level["tokens_per_second"] *= 10
    path.write_text(json.dumps(record))
    second = run(tmp_path, server, benchmark_gate=0.8)
    assert second.returncode == 2, second.stdout
    assert "localhost: the speed does not fit: llm_benchmark_gate requires 80% of" in said(second)
    assert len(records(tmp_path)) == 2

    # Without a gate it is shown, and nothing fails; a share that it reaches is passed.
    for gate in ("", "0.01"):
        done = run(tmp_path, server, benchmark_gate=gate)
        assert done.returncode == 0, done.stdout
    assert f"baseline: {record['at']}" in said(done)

    again = run(tmp_path, server, benchmark_baseline="new")
    assert again.returncode == 0, again.stdout
    assert run(tmp_path, server, benchmark_gate=0.01).returncode == 0
    newest = json.loads(records(tmp_path)[-2].read_text())
    assert newest["baseline"] is True


def test_a_host_whose_requests_fail(tmp_path: Path, server: Scripted) -> None:
    release(tmp_path / "host")
    server.reset({"stream": refusal("Out of order.", 500)})
    done = run(tmp_path, server)
    assert done.returncode == 2
    assert "localhost: the benchmark has no result: " in said(done)
    assert "Out of order" in said(done)
    assert records(tmp_path) == []


def test_a_host_without_a_release(tmp_path: Path, server: Scripted) -> None:
    done = run(tmp_path, server)
    assert done.returncode == 2
    assert "localhost: the release is missing: the host serves no model. Run site.yml" in said(done)


def test_a_model_that_does_not_chat_is_not_measured(tmp_path: Path, server: Scripted) -> None:
    release(tmp_path / "host", task="embedding")
    done = run(tmp_path, server, benchmark_gate=0.8)
    assert done.returncode == 0, done.stdout
    assert "not measured: it serves a model for embedding" in said(done)
    assert records(tmp_path) == []


def test_a_check_run_measures_nothing(tmp_path: Path, server: Scripted) -> None:
    release(tmp_path / "host")
    done = run(tmp_path, server, "gate", "--check")
    assert done.returncode == 0, done.stdout
    assert records(tmp_path) == []
    assert not [one for one in server.asked if one.body]
