"""llama-bench in a container like the engine's, by a docker command that answers as told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_host.benchmark import llama_bench
from edge_host.benchmark.llama_bench import (
    LlamaBenchError,
    bench_arguments,
    parse_llama_bench,
    read_settings,
    run_llama_bench,
)
from edge_host.constants import MIB
from tests.unit.edge_host.conftest import FakeHost

# Fields of `llama-bench -o json`, shortened.
PRINTED = json.dumps(
    [
        {"build_number": 7651, "n_prompt": 128, "n_gen": 0, "avg_ts": 210.54, "stddev_ts": 2.1},
        {"build_number": 7651, "n_prompt": 0, "n_gen": 64, "avg_ts": 8.437, "stddev_ts": 0.05},
    ]
)
FIGURES = {"prompt_tokens_per_second": 210.5, "tokens_per_second": 8.44, "build": 7651}
INSPECTED = [
    {
        "Config": {"Image": "llama@sha256:1", "Env": ["NVIDIA_VISIBLE_DEVICES=all", "KEY=secret"]},
        "HostConfig": {"Runtime": "nvidia", "GroupAdd": ["44"]},
    }
]
ENV = (
    "MODEL_PATH=/models/m.gguf\nN_GPU_LAYERS=99\nTHREADS=4\nBATCH=2048\nUBATCH=512\n"
    "CACHE_TYPE={cache}\n"
)


@pytest.fixture
def root(fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_host.root.mkdir(parents=True)
    (fake_host.root / ".env").write_text(ENV.format(cache="f16"))
    monkeypatch.setattr(llama_bench, "which", lambda name: str(fake_host.bin / name))
    memory = "MemTotal: 8192000 kB\nMemAvailable: 4096000 kB\n"
    monkeypatch.setattr(
        llama_bench,
        "read_text",
        lambda path: memory if path == Path("/proc/meminfo") else path.read_text(),
    )
    return fake_host.root


def run(root: Path, memory: int = 1000 * MIB) -> dict[str, object]:
    return run_llama_bench(root, "edge-llm-engine-a", 128, 64, memory, 30)


def test_the_command_is_the_engines(fake_host: FakeHost, root: Path) -> None:
    fake_host.docker(
        exec="echo /app/llama-bench", inspect=f"echo '{json.dumps(INSPECTED)}'",
        run=f"echo 'ggml_cuda_init: found 1 CUDA devices' >&2; echo '{PRINTED}'", rm="true",
    )  # fmt: skip
    assert run(root) == FIGURES
    calls = fake_host.log.read_text()
    for words in (
        "--network=none", "--read-only", "--cap-drop=ALL", "--user=10011:10011",
        "--memory=1115684864", f"source={root}/models,target=/models,readonly", "--runtime=nvidia",
        "--group-add=44", "--env=NVIDIA_VISIBLE_DEVICES=all", "--entrypoint=/app/llama-bench",
        "llama@sha256:1",
    ):  # fmt: skip
        assert words in calls, words
    # Variables of the engine are none of llama-bench's.
    assert "secret" not in calls
    assert "rm --force edge-llm-llama-bench" in calls


def test_an_image_without_llama_bench(fake_host: FakeHost, root: Path) -> None:
    fake_host.docker(exec="exit 127")
    with pytest.raises(LlamaBenchError, match="the engine's image has no llama-bench"):
        run(root)


def test_no_memory_for_a_second_copy(fake_host: FakeHost, root: Path) -> None:
    fake_host.docker(exec="echo /app/llama-bench", inspect=f"echo '{json.dumps(INSPECTED)}'")
    with pytest.raises(LlamaBenchError, match="does not fit beside the engine: it takes 4,000 MiB"):
        run(root, 4000 * MIB)
    assert "run" not in [line.split()[0] for line in fake_host.log.read_text().splitlines()]


def test_a_failure_is_its_last_line(fake_host: FakeHost, root: Path) -> None:
    fake_host.docker(
        exec="echo /app/llama-bench", inspect=f"echo '{json.dumps(INSPECTED)}'",
        run="echo loading; echo 'failed to load model' >&2; exit 1", rm="true",
    )  # fmt: skip
    with pytest.raises(LlamaBenchError, match="llama-bench failed: failed to load model"):
        run(root)


def test_no_figures() -> None:
    assert parse_llama_bench(f"load_backend: loaded\n{PRINTED}\n") == FIGURES
    for text in ("", "[]", "no JSON", '[{"n_gen": 64}]'):
        with pytest.raises(LlamaBenchError, match="printed no figures"):
            parse_llama_bench(text)


def test_the_settings_are_the_releases(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\n" + ENV.format(cache="q8_0"))
    words = " ".join(bench_arguments(read_settings(tmp_path), 128, 64))
    assert words == (
        "-m /models/m.gguf -p 128 -n 64 -ngl 99 -t 4 -b 2048 -ub 512 -ctk q8_0 -ctv q8_0 -fa 1"
        " -r 3 -o json"
    )
    # A host without a GPU has 0, which is no option that is left out.
    assert "-ngl 0" in " ".join(bench_arguments({"N_GPU_LAYERS": "0"}, 1, 1))
