"""The table at the end of a run."""

from __future__ import annotations

from typing import Any

import pytest

from edge_fleet import tables
from edge_fleet.fleet_comparison import remaining
from edge_fleet.rollout import failure, first_failure, rollout
from edge_fleet.tables import history_table

HOST: dict[str, Any] = {
    "inventory_hostname": "jetson-01",
    "preflight_plan": {
        "problems": [],
        "board": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "provider": "llamacpp",
        "model": {"name": "smoke", "shape": {"layers": 1}},
        "environment": {"CTX_SIZE": 4096, "PARALLEL": 4},
        "known_issues": {"notices": []},
    },
    "verify_engine_log": {
        "layers_offloaded": 29,
        "layers_total": 29,
        "gpu_buffers": ["CUDA0"],
        "start_seconds": 2.44,
    },
    "verify_report": {
        "ok": True,
        "answer": " Ready.",
        "ttft_seconds": 0.0414,
        "tokens_per_second": 105.2,
    },
}


def fleet_table(hosts: list[dict[str, Any]]) -> str:
    named = {host["inventory_hostname"] + str(i): host for i, host in enumerate(hosts)}
    return tables.fleet_table(named, list(named))


def test_a_verified_host() -> None:
    heading, row, reply = fleet_table([HOST]).splitlines()
    names = "host board provider model GPU layers context slots start TTFT tokens/s"
    assert " ".join(heading.split()) == names
    assert row.startswith("jetson-01  NVIDIA Jetson Orin NX En  llamacpp  smoke  29/29 ")
    assert "2.4 s" in row
    assert "41 ms" in row
    assert row.endswith("105")
    assert reply.strip() == "Ready."


def test_layers_without_a_gpu_are_not_counted() -> None:
    log = {"layers_offloaded": 2, "layers_total": 2, "gpu_buffers": [], "start_seconds": None}
    assert " 0/2 " in fleet_table([HOST | {"verify_engine_log": log}])
    assert " 0/- " in fleet_table([HOST | {"verify_engine_log": None}])


def test_a_host_that_was_refused() -> None:
    plan = {"problems": ["x: no"]}
    text = fleet_table([{"inventory_hostname": "x", "preflight_plan": plan}])
    assert "refused: see the message above" in text


def test_a_host_that_was_not_reached() -> None:
    assert "not reached or not read" in fleet_table([{"inventory_hostname": "x"}])


def test_a_host_that_was_not_verified() -> None:
    without = {name: value for name, value in HOST.items() if name != "verify_report"}
    assert "not verified in this run" in fleet_table([without])
    failed = HOST | {"verify_report": HOST["verify_report"] | {"ok": False}}
    assert "the verification failed: see the message above" in fleet_table([failed])


def test_keys_that_expire_are_noted_below_a_host() -> None:
    host = HOST | {"preflight_key_notices": ["the key bob has expired."]}
    assert [line.strip() for line in fleet_table([host]).splitlines()[2:]] == [
        "Ready.", "note: the key bob has expired."
    ]  # fmt: skip


RESULT: dict[str, Any] = {
    "at": "2026-11-22T10:00:00Z",
    "from": 6,
    "to": 7,
    "provider": "llamacpp",
    "model": "smoke",
    "changed_parts": ["engine"],
    "side_by_side": True,
    "pause_seconds": 0.062,
    "seconds": 2.04,
    "outcome": "committed",
    "operator": "alice@laptop",
}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "release 7 in 2.0 s; clients waited 0.06 s"),
        (
            {"side_by_side": False},
            "release 7 in 2.0 s; clients waited 0.06 s, one engine after the other",
        ),
        (
            {"side_by_side": False, "changed_parts": ["api"], "rolled_back_to": 3},
            "release 7 (as release 3) in 2.0 s; clients waited 0.06 s",
        ),
        ({"from": None}, "release 7 in 2.0 s"),
        ({"changed_parts": []}, "release 7 in 2.0 s"),
    ],
)
def test_a_host_that_was_changed(change: dict[str, Any], line: str) -> None:
    text = fleet_table([HOST | {"stack_change": {"result": RESULT | change}}])
    assert text.splitlines()[-1].strip() == line


def serving(provider: str | None) -> dict[str, Any]:
    release = provider and {"plan": {"provider": provider, "model": {"name": "former"}}}
    return {"deployment": {"release": release}}


def test_hosts_that_stay_as_they_were_are_shown_with_what_they_run() -> None:
    failed = HOST | {
        "preflight_state": serving("ollama"),
        "rollout_failure": "x: it died.\nIts log",
    }
    held = HOST | {"preflight_state": serving(None), "rollout_held_back": "jetson-01"}
    _, *lines = fleet_table([failed, held]).splitlines()
    assert lines[0].split()[-8:] == ["ollama", "former", *["-"] * 6]
    assert lines[1].strip() == "not changed over: x: it died."
    assert lines[2].split()[-8:] == ["-"] * 8
    assert lines[3].strip() == "held back, since jetson-01 failed"


def test_the_canary_is_one_that_changes_and_serves() -> None:
    plan = {"preflight_plan": {"rollout": [1, "50%"]}}
    hosts = {
        "same": {"stack_pending": False, "preflight_state": serving("ollama")} | plan,
        "fresh": {"stack_pending": True, "preflight_state": serving(None)} | plan,
        "changes": {"stack_pending": True, "preflight_state": serving("ollama")} | plan,
        "unreached": {},
    }
    found = rollout(hosts)
    assert found == {"hosts": "changes,fresh,same,unreached", "serial": [1, "50%"]}


def test_a_fleet_that_serves_nothing_yet_needs_no_canary() -> None:
    hosts = {
        "fresh": {"stack_pending": True, "preflight_state": serving(None), "preflight_plan": {}}
    }
    assert rollout(hosts) == {"hosts": "fresh", "serial": ["100%"]}
    assert rollout({}) == {"hosts": "all", "serial": ["100%"]}


def test_a_rollback_reads_its_batches_in_the_inventory() -> None:
    """It has no plan: what is planned is not what is gone back to."""
    host = {"stack_pending": True, "preflight_state": serving("ollama")}
    hosts = {"a": host, "b": host | {"llm_rollout": [2, "100%"]}}
    assert rollout(hosts) == {"hosts": "a,b", "serial": [1, "100%"]}
    assert rollout({"b": hosts["b"], "a": host})["serial"] == [2, "100%"]


def test_hosts_are_held_back_after_the_first_failure() -> None:
    hosts: dict[str, dict[str, Any]] = {
        "a": {"inventory_hostname": "a"},
        "b": {"inventory_hostname": "b", "rollout_failure": "b: it died."},
        "c": {"inventory_hostname": "c", "rollout_held_back": "b"},
    }
    assert first_failure(hosts) == "b"
    assert first_failure({"a": hosts["a"]}) == ""
    assert [failure(host) for host in hosts.values()] == [
        "",
        "b: it died.",
        "c: held back, since b failed. Repair b, and run this again.",
    ]


def test_the_history_of_a_fleet() -> None:
    failed = RESULT | {
        "to": 8,
        "outcome": "restored",
        "reason": "it died\nof that",
        "rolled_back_to": 5,
    }
    recovered = {"at": "later", "to": None, "outcome": "removed", "reason": "cut short"}
    state = {"state": {"deployment": {"history": [RESULT, failed, recovered]}}}
    empty: dict[str, Any] = {"state": {"deployment": {"history": []}}}
    text = history_table(
        [
            {"inventory_hostname": "a", "history_read": state},
            {"inventory_hostname": "b", "history_read": empty},
        ]
    )
    lines = [line.split() for line in text.splitlines()]
    assert lines[1] == [
        *("a", "2026-11-22T10:00:00Z", "7", "llamacpp", "smoke", "engine", "2.0", "s"),
        *("62", "ms", "committed", "alice@laptop"),
    ]
    assert lines[2][2:6] == ["8", "(as", "release", "5)"]
    assert lines[3] == ["it", "died"]
    assert lines[4][-2:] == ["removed", "-"]
    assert lines[-1][-2:] == ["nothing", "yet"]


IN_PLACE = {"state": "in place", "reasons": [], "row": ["a", *["-"] * 9], "notices": "note: hot"}


def test_a_fleet_shows_problems_first_then_changes_then_a_line_for_each_other_host() -> None:
    states = {
        "a": IN_PLACE,
        "b": IN_PLACE | {"row": ["b", *["-"] * 9], "notices": ""},
        "changed": {"state": "differs", "reasons": ["x"]},
        "down": {"state": "unreachable", "reasons": ["timed out\nin vain"]},
        "refused": {"state": "differs", "reasons": ["y"]},
    }
    every = {"fleet_states": {"hosts": states}}
    hosts: dict[str, dict[str, Any]] = {
        "a": every,
        "b": every,
        "changed": HOST
        | every
        | {"inventory_hostname": "changed", "stack_change": {"result": RESULT}},
        "down": every,
        "refused": every
        | {"inventory_hostname": "refused", "preflight_plan": {"problems": ["no"]}},
    }
    _, *lines = tables.fleet_table(hosts, list(hosts)).splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == [
        *("down", "refused", "changed", "a", "b", "2"),
    ]
    assert lines[1].strip() == "unreachable: timed out"
    assert [line.strip() for line in lines[-5:-2:2]] == [
        "release 7 in 2.0 s; clients waited 0.06 s",
        "note: hot",
    ]
    assert lines[-1] == "2 of 5 hosts were as planned."
    # The last one leaves the play at once.
    assert remaining(hosts) == "changed,refused,a"


def test_nobody_remains_of_a_fleet_in_place_and_all_where_nobody_was_compared() -> None:
    every = {"fleet_states": {"hosts": {"a": IN_PLACE}}}
    assert remaining({"a": every}) == "all:!all"
    assert rollout({"a": every})["hosts"] == "all:!all"
    # The action is skipped with --tags.
    assert remaining({"a": {"fleet_states": {"skipped": True}}, "b": {}}) == "all"
