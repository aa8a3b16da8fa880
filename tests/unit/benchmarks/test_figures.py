"""The figures of benchmarks, from measurements that are given."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import attacks, candidates, llama_swap, load, process, rounds
from llm_provider.cli.bench import Address, Level, Load, Result, Tally

ADDRESS = Address("http://127.0.0.1:1")


def side(name: str, pid: int | None, *ttfts: float, tokens: int, cpu: float = 0.0) -> rounds.Side:
    tally = Tally(list(ttfts), tokens=tokens, seconds=2.0, requests=len(ttfts))
    return rounds.Side(name, ADDRESS, pid, tally, cpu)


def test_each_side_is_first_as_often_as_the_others() -> None:
    turns = [rounds.order(3, number) for number in range(3)]
    assert turns == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]


def test_a_row_compares_with_the_engine_alone() -> None:
    direct = side("engine", None, 0.010, 0.012, 0.014, tokens=200)
    through = side("chat API", 1, 0.012, 0.014, 0.016, tokens=190, cpu=0.006)
    assert rounds.row(direct, direct.tally) == [
        *("engine", "0", "3", "0.00 ms", "0.00 ms", "-", "-", "100/s", "1.000"),
    ]
    assert rounds.row(through, direct.tally) == [
        *("chat API", "0", "3", "2.00 ms", "2.00 ms", "2.00 ms", "32 µs", "95/s", "0.950"),
    ]


def test_a_row_of_a_side_that_answered_nothing_has_no_figures() -> None:
    direct = side("engine", None, 0.010, tokens=200)
    silent = side("llama-swap", 1, tokens=0)
    silent.tally.requests, silent.tally.failures = 4, Counter({"gone": 4})
    assert rounds.row(silent, direct.tally) == [
        *("llama-swap", "4", "4", "-", "-", "0.00 ms", "-", "-", "-"),
    ]


@pytest.mark.parametrize(
    ("found", "most", "sentence"),
    [
        (2.5, True, "TTFT: 2.5 ms; wanted: at most 2.5 ms: met."),
        (2.6, True, "TTFT: 2.6 ms; wanted: at most 2.5 ms: NOT MET."),
        (2.4, False, "TTFT: 2.4 ms; wanted: at least 2.5 ms: NOT MET."),
        (None, True, "TTFT: not measured; wanted: at most 2.5 ms."),
    ],
)
def test_verdict(found: float | None, most: bool, sentence: str) -> None:
    assert rounds.verdict("TTFT", found, 2.5, most=most, unit=" ms") == sentence


def test_the_load_run_has_its_number_of_requests() -> None:
    each = load.shares(load.REQUESTS, load.LEVELS)
    assert each * len(load.LEVELS) >= load.REQUESTS > (each - 1) * len(load.LEVELS)


def test_the_load_run_tells_of_failures_and_of_what_was_not_sent() -> None:
    def result(requests: int, **failures: int) -> Result:
        tally = Tally(requests=requests, failures=Counter(failures))
        return Result("", None, Load(), levels=[Level(64, tally)])

    assert load.complaint(result(2000)) is None
    assert load.complaint(result(2000, lost=2)) == "2 of 2000 requests failed."
    sentence = "1999 requests were sent within the time; wanted: 2000."
    assert load.complaint(result(1999)) == sentence
    assert load.rows("ollama", result(2000, lost=2)) == [
        ["ollama", "64", "2000", "2", "2 x lost"],
    ]


def test_an_attack_counts_the_requests_of_both_clients() -> None:
    outcome = attacks.Outcome("large bodies", 118.4, [0.010, 0.020, 0.040])
    outcome.own.update({"200": 63, "ReadError": 1})
    outcome.failures.update({"503": 2})
    assert outcome.failed == 3
    assert outcome.row() == ["large bodies", "118 MiB", "20 ms", "40 ms", "69", "3"]


def test_llama_swap_stands_before_an_engine_that_runs() -> None:
    found = json.loads(llama_swap.config("smoke", "http://127.0.0.1:1234/v1"))
    assert found["models"]["smoke"]["proxy"] == "http://127.0.0.1:1234"
    assert found["models"]["smoke"]["checkEndpoint"] == "/health"


def test_a_container_has_a_share_of_a_core_only_where_one_is_named() -> None:
    key = Path("/run/keys")
    whole = candidates.words("a", "image", ["--port=1"], environ={"X": "y"}, files=[key])
    assert whole[-4:] == ["--env=X=y", "--volume=/run/keys:/run/keys:ro", "image", "--port=1"]
    assert not [word for word in whole if word.startswith("--cpus")]
    assert "--cpus=0.25" in candidates.words("a", "image", [], cpus=candidates.QUARTER)


def test_memory_and_cpu_time_of_a_process(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "status").write_text("Name:\tpython\nVmHWM:\t  61440 kB\nVmRSS:\t  51200 kB\n")
    # After the name: the state, ten fields, then the ticks in user and in kernel mode.
    (folder / "stat").write_text(f"7 (a b) c) S {'0 ' * 10}150 50 0")
    assert process.memory(7, proc=tmp_path) == 50
    assert process.memory(7, "VmHWM", tmp_path) == 60
    with pytest.raises(OSError, match="has no VmSwap"):
        process.memory(7, "VmSwap", tmp_path)
    assert process.cpu_seconds(7, tmp_path) == pytest.approx(2.0)
