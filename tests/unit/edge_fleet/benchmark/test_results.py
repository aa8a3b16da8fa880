"""Records of benchmarks: baselines, the gate, published speeds, and the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_fleet.benchmark.measured import record_of, samples_during
from edge_fleet.benchmark.published import parse_published, read_published
from edge_fleet.benchmark.record import Record
from edge_fleet.benchmark.results import benchmark_result, read_records
from edge_fleet.benchmark_table import benchmark_table
from tests.unit.edge_fleet.benchmark.measuring import BOARD, MODEL, measured, sample

ROOT = Path(__file__).parents[4]
PUBLISHED = str(ROOT / "published_speeds.yml")


def run(folder: Path, *arguments: Any, keep: bool = True, **options: Any) -> dict[str, Any]:
    """The result of a benchmark, kept as the role keeps it."""
    names = ("new_baseline", "gate")
    given = {name: options.pop(name) for name in names if name in options}
    result = benchmark_result(measured(*arguments, **options), str(folder), PUBLISHED, **given)
    if keep:
        path = Path(result["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(result["content"])
    return result


def test_a_record_says_what_was_measured_on_what() -> None:
    record = record_of(measured(), baseline=True)
    assert (record.board, record.model, record.quantization) == (BOARD, MODEL, "Q4_K_M")
    assert record.settings == {"CTX_SIZE": "4096", "PARALLEL": "4", "THREADS": "4"}
    assert (record.release, record.load.users, record.load.prompt_tokens) == (7, (1, 4, 8), 128)
    assert record.figures() == {
        "prompt at 1 user": 20.0,
        "generation at 1 user": 4.8,
        "generation at 4 users": 4.8,
        "generation at 8 users": 4.8,
    }
    one = record.users[0]
    # 8 W for 100 seconds, 1000 tokens.
    assert (one.watts, one.joules_per_token) == (8.0, 0.8)
    assert record.memory_used == 3 << 30
    assert record.before is not None and record.after is not None
    assert (record.before.temperature, record.after.temperature) == (50.0, 52.9)
    assert record.api_share == pytest.approx(4.8 / 4.9)
    assert (record.throttled, record.usable, record.baseline) == ((), True, True)


def test_power_of_each_level_is_of_its_own_time() -> None:
    samples = [sample(50.0, 4.0), sample(150.0, 9.0), sample(151.0, 11.0)]
    record = record_of(measured(samples=samples), baseline=True)
    assert [each.watts for each in record.users] == [4.0, 10.0, None]
    assert [each.joules_per_token for each in record.users] == [0.4, 1.0, None]
    # Sensors tell averages of what was: the first moment of a level is not its own.
    found = samples_during([sample(0.2, 1.0), sample(2.0, 5.0)], 0.0, 9.0)
    assert [each["watts"] for each in found] == [5.0]
    assert samples_during([sample(0.2, 1.0)], 0.0, 0.5) != []


def test_a_board_without_sensors(tmp_path: Path) -> None:
    given = measured() | {"readings": None, "readings_problem": "the sampler is missing: gone"}
    record = record_of(given, baseline=True)
    assert [each.watts for each in record.users] == [None] * 3
    assert (record.before, record.memory_used, record.watts_of) == (None, None, None)
    assert record.usable


@pytest.mark.parametrize(
    "changed",
    [
        {"slowdowns": ("over-current or under-voltage (oc3)",)},
        {"samples": [sample(1.0, throttling={"throttled": True, "under-voltage": False})]},
        {"failed": 1},
    ],
)
def test_throttled_and_failed_runs_are_no_baseline(tmp_path: Path, changed: Any) -> None:
    result = run(tmp_path, **changed)
    assert result["record"]["baseline"] is False
    # Not even where it is asked for.
    again = run(tmp_path, "2026-12-01T00:00:00Z", new_baseline=True, **changed)
    assert again["record"]["baseline"] is False
    later = run(tmp_path, "2026-12-02T00:00:00Z")
    assert (later["baseline"], later["record"]["baseline"]) == (None, True)


def test_the_first_result_is_the_baseline_until_another_is_asked_for(tmp_path: Path) -> None:
    first = run(tmp_path, "2026-11-01T00:00:00Z", speed=4.0)
    assert (first["baseline"], first["shares"]) == (None, {})
    second = run(tmp_path, "2026-11-02T00:00:00Z", speed=3.0)
    assert second["baseline"]["at"] == "2026-11-01T00:00:00Z"
    assert second["shares"]["generation at 1 user"] == pytest.approx(0.75)
    # Slow by slow it would go down for ever: only a person changes it.
    third = run(tmp_path, "2026-11-03T00:00:00Z", speed=2.5)
    assert third["baseline"]["at"] == "2026-11-01T00:00:00Z"
    fourth = run(tmp_path, "2026-11-04T00:00:00Z", speed=2.5, new_baseline=True)
    assert fourth["record"]["baseline"] is True
    assert fourth["baseline"]["at"] == "2026-11-01T00:00:00Z"
    fifth = run(tmp_path, "2026-11-05T00:00:00Z", speed=2.5)
    assert fifth["baseline"]["at"] == "2026-11-04T00:00:00Z"


@pytest.mark.parametrize("other", [{"host": "pi-02"}, {"model": "smollm2-135m"}, {"users": (1, 4)}])
def test_another_host_model_or_load_has_a_baseline_of_its_own(tmp_path: Path, other: Any) -> None:
    run(tmp_path, "2026-11-01T00:00:00Z")
    assert run(tmp_path, "2026-11-02T00:00:00Z", **other)["baseline"] is None


def test_another_image_is_compared(tmp_path: Path) -> None:
    """That is what the gate is for."""
    run(tmp_path, "2026-11-01T00:00:00Z", speed=4.0)
    result = run(tmp_path, "2026-11-02T00:00:00Z", speed=5.0, image="docker.io/ollama/ollama:1")
    assert result["shares"]["generation at 8 users"] == 1.25
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json"))
    assert len({Path(name).parent for name in files}) == 2
    assert files[0].startswith("Raspberry-Pi-5/llama-3.2-3b-instruct/ollama-")
    assert {Path(name).name for name in files} == {
        "pi-01-20261101T000000Z.json", "pi-01-20261102T000000Z.json"
    }  # fmt: skip


@pytest.mark.parametrize("gate", [None, "", 0.8, "0.8"])
def test_the_gate_is_passed(tmp_path: Path, gate: Any) -> None:
    assert run(tmp_path, "2026-11-01T00:00:00Z", speed=5.0, gate=gate)["problem"] == ""
    assert run(tmp_path, "2026-11-02T00:00:00Z", speed=4.01, gate=gate)["problem"] == ""


def test_the_gate_is_not_passed(tmp_path: Path) -> None:
    run(tmp_path, "2026-11-01T00:00:00Z", speed=5.0)
    result = run(tmp_path, "2026-11-02T00:00:00Z", speed=3.0, gate=0.8, slowdowns=("heat",))
    assert result["problem"] == (
        "pi-01: the speed does not fit: llm_benchmark_gate requires 80% of the baseline of"
        " 2026-11-01T00:00:00Z, and the host reaches less: generation at 1 user: 3 of 5 tokens/s,"
        " 60%; generation at 4 users: 3 of 5 tokens/s, 60%; generation at 8 users: 3 of 5 tokens/s,"
        " 60%. The board was throttled: heat. Find the cause (docs/benchmarks-of-hosts.md), or roll"
        " back with playbooks/rollback.yml. If the new speed is the one to expect, make it the"
        " baseline: make benchmark BASELINE=new."
    )
    # Without a gate the same is only shown.
    assert run(tmp_path, "2026-11-03T00:00:00Z", speed=3.0)["problem"] == ""


def test_failed_requests_do_not_pass_the_gate(tmp_path: Path) -> None:
    problem = run(tmp_path, failed=2, gate=0.8)["problem"]
    assert problem == (
        "pi-01: the benchmark failed: 6 requests of 48 were not answered: the server refused with"
        " status 500: Out of order."
    )


def test_published_speeds_of_the_board_and_model(tmp_path: Path) -> None:
    shares = {
        each["variant"]: each["generation_share"] for each in run(tmp_path, speed=4.88)["published"]
    }
    assert shares == {"16 GB, D0 stepping": pytest.approx(1.0), "8 GB": pytest.approx(4.88 / 4.61)}
    assert run(tmp_path, model="smoke")["published"] == []


def test_the_published_speeds_are_valid_and_have_sources() -> None:
    figures = read_published(PUBLISHED)
    assert figures
    assert all(each.source.startswith("https://") and each.date for each in figures)
    assert read_published("/nonexistent/published_speeds.yml") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": None}, "source"),
        ({"source": "somebody said so"}, "source"),
        ({"generation": 0}, "generation"),
        ({"tokens": 5}, "tokens"),
        ({"quantization": None}, "quantization"),
    ],
)
def test_a_published_speed_without_a_source_is_refused(change: Any, words: str) -> None:
    first = yaml.safe_load(Path(PUBLISHED).read_text())["figures"][0] | change
    first = {name: value for name, value in first.items() if value is not None}
    with pytest.raises(ValueError, match=f"published_speeds.yml is invalid: .*{words}") as caught:
        parse_published(yaml.safe_dump({"figures": [first]}))
    assert str(caught.value).endswith("Correct the file.")


def test_a_file_is_the_record(tmp_path: Path) -> None:
    result = run(tmp_path)
    (record,) = read_records(str(tmp_path), "pi-01")
    assert record == Record.model_validate(result["record"])
    assert json.loads(result["content"])["format"] == 1
    assert read_records(str(tmp_path), "pi-02") == []
    assert read_records(str(tmp_path / "none"), "pi-01") == []


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2}'])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    path = Path(run(tmp_path)["path"])
    path.write_text(text)
    with pytest.raises(ValueError, match="is invalid: ") as caught:
        run(tmp_path, "2026-12-01T00:00:00Z")
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("Remove it, or restore it.")


def test_the_table(tmp_path: Path) -> None:
    run(tmp_path, "2026-11-01T00:00:00Z", speed=6.0)
    result = run(tmp_path, "2026-11-02T00:00:00Z", gate=0.9, slowdowns=("heat",))
    release = {"plan": {"model": {"task": "embedding"}}}
    read = {"state": {"deployment": {"release": release}}}
    table = benchmark_table(
        [
            {"inventory_hostname": "pi-01", "benchmark_result": result},
            {"inventory_hostname": "pi-02", "benchmark_failure": "pi-02: the benchmark failed."},
            {"inventory_hostname": "pi-03", "benchmark_read": read},
            {"inventory_hostname": "pi-04"},
        ]
    )
    heading, first, *_ = table.splitlines()
    assert heading.split("  ")[0] == "host"
    assert first.split() == [
        "pi-01", MODEL, "ollama", "1", "900", "ms", "1.0", "s", "20.0", "4.8", "4.8", "8.0", "0.8",
        "-", "80%",
    ]  # fmt: skip
    for words in (
        "llama-bench: not available: the engine's image has no llama-bench",
        "engine asked on the host: prompt/s 21.0, each 4.9; the chat API reaches 98.0% of it",
        "memory 3,072 MiB; power of pmic_read_adc: rails of the power chip",
        "before and after: 50.0 and 52.9 degrees; MHz policy0 2400 and policy0 2400",
        "throttled: heat; never used as a baseline",
        "baseline: 2026-11-01T00:00:00Z, ollama, docker.io/ollama/ollama:0.34.0",
        "published: Raspberry Pi 5 8 GB, ollama: each 104% of 4.61",
        "the gate is not passed",
        "pi-02: the benchmark failed.",
        "not measured: it serves a model for embedding, and only chat models generate tokens",
        "not reached or not measured",
    ):
        assert words in table, words
