"""What hosts say of themselves: a wrong fact refuses its host alone, by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_fleet import drift, tables
from edge_fleet.facts import (
    MOST_BYTES,
    FactsError,
    checked_result,
    checked_state,
    facts_problem,
    kept_result,
)
from edge_fleet.facts_schema import MOST_ITEMS, MOST_LOG
from edge_fleet.image_distribution import cached_images, registry_clients
from edge_fleet.plan.build import deployment_plan
from edge_fleet.plan.weights import prunable
from edge_fleet.rollout import rollout
from edge_fleet.text import MOST_TEXT
from edge_fleet.uninstall import own_images
from edge_fleet.verification import unverified_gpu
from edge_fleet.weight_distribution import distribution_jobs, fetch_jobs
from edge_host.host_info.state import read_state
from tests.unit.plugin_docs import documented

Place = tuple[str | int, ...]
SHA = "a" * 64
OWN_ANSWER = (
    "Look for the cause on the host, which may be broken or not yours alone, and run this again."
)
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"
# What nobody reads on the control machine: of releases' records, and of Docker's options.
UNREAD = {"signatures", "slots", "engine_key", "made", "debug", "nvidia", "path"}


@pytest.fixture
def full(jetson: dict[str, Any], catalogues: dict[str, Any]) -> dict[str, Any]:
    """A host with something of everything that host_info can find."""
    plan = deployment_plan(jetson, "a", {"llm_models_keep": 1}, catalogues)
    record = {
        "number": 7,
        "made": "2026-11-22T10:00:00Z",
        "plan": {
            "provider": plan["provider"],
            "model": {
                "name": plan["model"]["name"],
                "task": "chat",
                "digest": SHA,
                "files": [{"path": "old.gguf"}],
            },
            "api": {"base_image": plan["api"]["base_image"], "tls": False, "listen_address": ""},
            "images": {"outside": {"192.0.2.1:5000/docker.io/x/y:1": "docker.io/x/y:1"}},
        },
        "rendered": {".env": SHA},
        "written": {".env": SHA, "engine.env": None},
        "signatures": {"engine": SHA},
        "engine_key": SHA,
        "slots": {"engine": "a", "api": "a"},
    }
    container = {
        "id": SHA,
        "image": plan["engine"]["image"],
        "status": "running",
        "health": "healthy",
        "started_at": "2026-11-22T10:00:00Z",
        "namespace": "net:[1]",
    }
    jetson["addresses"] = ["192.0.2.11", "fe80::1"]
    jetson["board"]["accounts"] = [{"kind": "user", "name": "alice", "id": 10010}]
    jetson["board"]["gpus"] = [{"name": "RTX", "memory_total": 8 << 30}]
    jetson["board"]["throttled"] = ["under-voltage now"]
    jetson["board"]["desktop"] = "gnome-shell"
    jetson["docker"] |= {
        "published_registry": False,
        "own_registries": ["192.0.2.1:5000"],
        "daemon_json": {
            "debug": True,
            "insecure-registries": ["192.0.2.1:5000"],
            "registry-mirrors": ["https://mirror.example"],
            "live-restore": True,
            "runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}},
        },
    }
    jetson["ports"]["8000"] = {
        "addresses": ["0.0.0.0"],
        "process": "systemd (pid 1)",
        "container": None,
        "unit": "edge-llm-sockets.socket",
    }
    jetson["deployment"] |= {
        "files": {".env": {"sha256": SHA, "mode": "0600", "uid": 0, "gid": 0}},
        "containers": {name: copy.deepcopy(container) for name in ("engine", "api", "network")},
        "installed": {"edge-llm.service": "in place"},
        "release": record,
        "previous": copy.deepcopy(record),
        "change": {"from": 6, "to": 7, "by": "alice", "since": "2026", "step": "stage"},
        "lock": {"by": "alice", "since": "2026", "pid": 7},
        "history": [RESULT | {"at": "2026", "outcome": "committed", "operator": "alice"}],
        "images": [plan["engine"]["image"]],
        "ollama": {"smoke": [SHA]},
        "engine_log": {
            "layers_offloaded": 29,
            "layers_total": 29,
            "gpu_buffers": ["CUDA0"],
            "platform": None,
            "gpu_said": ["no device"],
            "gpu_reason": "device",
            "start_seconds": 2.5,
        },
    }
    file = {"size": 9, "mtime_ns": 1, "recorded_sha256": SHA, "bundle": "old"}
    jetson["models"] = {"old.gguf": file, "older.gguf": {**file, "bundle": "older"}}
    jetson["unfinished"] = {plan["model"]["bundle"]: 5}
    return jetson


RESULT: dict[str, Any] = {
    "action": "deploy",
    "from": 6,
    "to": 7,
    "provider": "llamacpp",
    "model": "smoke",
    "changed_parts": ["engine"],
    "side_by_side": True,
    "pause_seconds": 0.062,
    "seconds": 2.04,
    "steps": {"stage": 0.5},
    "log": "a line\nanother",
}


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """The places of all values, and of the containers that have them."""
    if place:
        yield place
    parts = enumerate(value) if isinstance(value, list) else ()
    for name, each in value.items() if isinstance(value, dict) else parts:
        yield from places(each, (*place, name))


def changed(state: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """The state with the value at a place replaced, or removed where it is `...`."""
    found = copy.deepcopy(state)
    inner: Any = found
    for name in place[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return found


def mutations() -> Iterator[Any]:
    """What a broken or hostile host could say instead of a value; `...` for nothing."""
    yield from (None, 10**40, -1, 1.5e300, True, "A B:/@", HOSTILE, "x" * 100_000, [], {}, [None])
    yield from (
        {"A B:/@": None},
        {"A B:/@": "x"},
        ["x"] * (MOST_ITEMS + 1),
        [[]],
        {HOSTILE: HOSTILE},
        ...,
    )


def planned_as(name: str, state: dict[str, Any], catalogues: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"llm_models_keep": 1, "llm_listen_address": "192.0.2.11"}
    given["llm_images_cache"] = "good"
    if state["board"]["kind"] == "jetson":
        given |= {"board_power_mode": "15W", "board_clocks": True, "board_fan": "cool"}
    return deployment_plan(state, name, given, catalogues, images_cache="192.0.2.12")


def used(
    state: dict[str, Any], good: dict[str, Any], catalogues: dict[str, Any], planned: dict[str, Any]
) -> str:
    """Use facts as a run does, beside those of another host with its plan; what is printed."""
    bad = planned_as("bad", state, catalogues)
    # Without a plan, nobody reads most facts: as if the host had that of the other one.
    hosts: dict[str, Any] = {
        name: {
            "inventory_hostname": name,
            "ansible_host": f"192.0.2.{number}",
            "preflight_state": facts,
            "preflight_plan": planned,
            "stack_pending": True,
            "rollout_failure": "x",
            "history_read": {"state": facts},
        }
        for number, (name, facts) in enumerate((("bad", state), ("good", good)), 1)
    }
    names = list(hosts)
    assert fetch_jobs(hosts, names)["fetcher"].keys() == {"bad", "good"}
    jobs = distribution_jobs(hosts, names, lambda _: None)["jobs"]
    assert jobs.keys() == {"bad", "good"}
    cached_images(hosts, names, "good")
    registry_clients(hosts, names, "good")
    rollout(hosts)
    prunable(state, planned)
    drift.weights_in_place(state, planned)
    drift.docker_in_place(state, planned)
    drift.stack_in_place(state, planned, "image", {"a": "b"})
    own_images(state["deployment"]["images"], [])
    if log := state["deployment"]["engine_log"]:
        for provider in ("llamacpp", "ollama", "vllm"):
            gpu = {"required": True, "layers": 99, "of": 29}
            unverified_gpu({"gpu": gpu, "provider": provider}, log, {})
    shown = [hosts["bad"] | {"preflight_plan": bad}, hosts["good"]]
    return "\n".join(
        [tables.plan_table(shown), tables.fleet_table(shown), tables.history_table(shown)]
    )


@pytest.fixture
def good(pi: dict[str, Any]) -> dict[str, Any]:
    pi["addresses"] = ["192.0.2.11"]
    return checked_state(pi)


def test_facts_stay_as_they_are(full: dict[str, Any], pi: dict[str, Any]) -> None:
    assert checked_state(full) == full
    assert checked_state(pi) == pi
    assert checked_result(RESULT) == RESULT
    assert facts_problem(full) == ""


def test_the_facts_of_this_machine_are_valid(tmp_path: Path) -> None:
    """Texts of it may be escaped, such as the name of a process that somebody has chosen."""
    found = read_state(str(tmp_path))
    assert facts_problem(found) == ""


def test_of_a_result_stays_what_every_module_returns() -> None:
    common = {"changed": True, "failed": True, "msg": "m", "warnings": ["w"], "diff": {}}
    result = {**common, "_ansible_no_log": False, "state": {}, "new": 1}
    kept = {**common, "_ansible_no_log": False}
    assert kept_result(result) == kept
    assert kept_result(result | {"ansible_facts": {"board_facts_file": "/f"}}) == kept
    assert kept_result(result | {"ansible_facts": "x"}) == kept
    # Ansible's own: a module cannot return it.
    own = {"discovered_interpreter_python": "/usr/bin/python3.8"}
    found = kept_result(result | {"ansible_facts": {**own, "board_root": "/"}})
    assert found == {**kept, "ansible_facts": own}


def test_no_fact_of_a_host_ends_a_run(
    full: dict[str, Any], good: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """Each fact is replaced in many ways: the host is refused, by the name of the fact, or it is
    planned as any other; and what is printed of it is printable.
    """
    planned = planned_as("good", good, catalogues)
    assert not planned["problems"]
    refused = accepted = 0
    # Most facts are read only of a host that has no problem.
    free = changed(full, ("deployment", "lock"), None)
    free["board"]["accounts"], free["board"]["gpus"] = [], []
    del free["docker"]["own_registries"]
    assert not planned_as("bad", free, catalogues)["problems"]
    everything = [(free, place) for place in places(free)]
    everything += [(full, place) for place in places(full) if place not in set(places(free))]
    for base, place in everything:
        names = ".".join(map(str, place))
        before = refused
        for value in mutations():
            state = changed(base, place, value)
            try:
                state = checked_state(state)
            except FactsError as error:
                assert names in str(error), (place, value)
                assert str(error).isprintable(), (place, value)
                assert len(str(error)) < 500, (place, value)
                refused += 1
                continue
            try:
                printed = used(state, good, catalogues, planned)
            except Exception as error:
                raise AssertionError((place, str(value)[:100])) from error
            assert printed.replace("\n", "").isprintable(), (place, value)
            accepted += 1
        assert refused > before or UNREAD & set(place), f"{names}: nothing is refused"
    assert refused > 1500
    assert accepted > 300


def test_what_a_wrong_fact_did(
    full: dict[str, Any], good: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """The functions themselves trust facts: one that is not validated ends a run for all hosts."""
    planned = planned_as("good", good, catalogues)
    with pytest.raises(TypeError):
        used(changed(full, ("board", "tools"), None), good, catalogues, planned)


def test_a_value_of_another_type(full: dict[str, Any]) -> None:
    with pytest.raises(FactsError) as error:
        checked_state(changed(full, ("board", "tools"), None))
    assert str(error.value) == (
        "board.tools is invalid in the facts of the host: null, where a list is expected."
        f" {OWN_ANSWER}"
    )


def test_a_fact_that_is_missing(full: dict[str, Any]) -> None:
    del full["board"]["memory_total"]
    del full["ports"]["8000"]
    with pytest.raises(FactsError) as error:
        checked_state(full)
    assert str(error.value) == (
        f"board.memory_total is missing in the facts of the host (and 1 more). {OWN_ANSWER}"
    )
    full["board"]["memory_total"] = 1 << 33
    assert facts_problem(full).startswith("ports.8000 is missing in the facts of the host. ")


def test_a_release_before_the_current_one_may_be_shorter(full: dict[str, Any]) -> None:
    """Nobody compares it with the plan: its files are kept, whatever else it has."""
    full["deployment"]["previous"] = {"plan": {"model": {"files": [{"path": "old.gguf"}]}}}
    assert checked_state(full) == full
    full["deployment"]["release"] = full["deployment"]["previous"]
    assert facts_problem(full).startswith("deployment.release.rendered is missing in the facts")
    full["deployment"]["release"] = {"rendered": {}, "written": {}, "plan": {"model": {}}}
    assert facts_problem(full).startswith("deployment.release.plan.provider is missing in the ")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (
            ("unfinished", "x"), 10**40,
            "unfinished.x is invalid in the facts of the host: 1" + "0" * 40
            + ", where less than or equal to 1152921504606846976 is expected.",
        ),
        (
            ("board", "arch"), "a\x1b[2J",
            r"board.arch is invalid in the facts of the host: 'a\x1b[2J', where a text of another"
            " form, without control characters, is expected.",
        ),
        (
            ("board", "arch"), "a" * 1001,
            f"board.arch is invalid in the facts of the host: '{'a' * 59}..., where a text of at"
            " most 1000 characters is expected.",
        ),
        (
            ("deployment", "images"), ["x"] * 10_001,
            "deployment.images is invalid in the facts of the host: a list of 10001, where at most"
            " 10000 items is expected.",
        ),
        (
            ("addresses",), ["x"],
            "addresses.0 is invalid in the facts of the host: 'x', where an IP address is"
            " expected.",
        ),
        (
            ("deployment", "release", "plan", "images", "outside"), {"A B": "x"},
            "deployment.release.plan.images.outside.A B is invalid in the facts of the host:"
            " 'A B', where the reference of an image is expected.",
        ),
        (
            ("unfinished", HOSTILE), 1,
            r"unfinished.\x1b]0;owned\x07\x1b[2J\u202e is invalid in the facts of the host:",
        ),
        (("board", "model"), float("nan"), "The facts of the host are invalid: "),
        (("board", "model"), {1, 2}, "The facts of the host are invalid: "),
    ],
)  # fmt: skip
def test_a_value_out_of_its_bounds(
    full: dict[str, Any], place: Place, value: object, said: str
) -> None:
    with pytest.raises(FactsError) as error:
        checked_state(changed(full, place, value))
    assert str(error.value).startswith(said)
    assert str(error.value).isprintable()


def test_a_host_that_says_too_much(full: dict[str, Any]) -> None:
    full["new"] = "x" * MOST_BYTES
    with pytest.raises(FactsError, match=r"^The facts of the host do not fit: \d+ characters, and"):
        checked_state(full)


@pytest.mark.parametrize("found", [None, [], "x", 5, {}])
def test_what_is_no_state(found: object) -> None:
    assert OWN_ANSWER in facts_problem(found)
    with pytest.raises(FactsError):
        checked_result(found)


def test_further_keys_stay(full: dict[str, Any]) -> None:
    """Programs on hosts may be newer, or older."""
    full["new"] = {"a": [1]}
    full["board"]["new"] = None
    full["deployment"]["release"]["plan"]["new"] = "x"
    full["deployment"]["history"][0]["new"] = 1
    assert checked_state(full) == full


def test_texts_for_people_are_escaped_and_cut(full: dict[str, Any]) -> None:
    full["board"]["model"] = f"Jetson{HOSTILE}" + "x" * 5000
    full["docker"]["error"] = f"no\n{HOSTILE}\n" + "x" * 50_000
    full["models"][f"{HOSTILE}.gguf"] = full["models"]["old.gguf"]
    full["models"]["a\udcff.gguf"] = full["models"]["old.gguf"]
    found = checked_state(full)
    assert found["board"]["model"].startswith(r"Jetson\x1b]0;owned\x07\x1b[2J\u202exxx")
    assert len(found["board"]["model"]) < MOST_TEXT + 50
    first, second, _ = found["docker"]["error"].split("\n")
    assert (first, second) == ("no", r"\x1b]0;owned\x07\x1b[2J\u202e")
    assert len(found["docker"]["error"]) <= MOST_LOG
    assert r"\x1b]0;owned\x07\x1b[2J\u202e.gguf" in found["models"]
    assert "a?.gguf" in found["models"]


@pytest.mark.parametrize("name", list(RESULT))
def test_the_result_of_a_change(name: str) -> None:
    for value in mutations():
        try:
            found = checked_result(changed(RESULT, (name,), value))
        except FactsError as error:
            assert str(error).startswith(name)
            assert "in the result of the change" in str(error)
            continue
        assert tables.change_line(found)
    with pytest.raises(FactsError):
        checked_result(RESULT | {name: ["x", {}]})


def test_a_host_that_says_more_than_there_is_does_not_come_first(
    good: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """Of hosts that have come as far, the inventory's first fetches."""
    plan = deployment_plan(good, "any", {}, catalogues)
    size = sum(file["size"] for file in plan["model"]["files"])
    hosts = {
        name: {
            "preflight_plan": plan,
            "preflight_state": good | {"unfinished": {plan["model"]["bundle"]: come}},
        }
        for name, come in (("honest", size), ("liar", 1 << 60))
    }
    assert fetch_jobs(hosts, ["honest", "liar"])["fetcher"]["liar"] == "honest"


def test_each_documented_fact_has_a_definition(full: dict[str, Any]) -> None:
    """The other way round from further keys: what host_info documents, is validated."""
    docs = documented("host_info")["state"]["contains"]
    for name, part in docs.items():
        for key in part.get("contains", {}):
            if key.isupper():
                continue
            with pytest.raises(FactsError, match=rf"^{name}\.{key}\b"):
                checked_state(changed(full, (name, key), 0.5 if key != "temperature" else "x"))


def test_cells_of_tables_are_printable() -> None:
    change = RESULT | {"at": HOSTILE, "outcome": HOSTILE, "reason": HOSTILE}
    read = {"state": {"deployment": {"history": [change, {}]}}}
    text = tables.history_table([{"inventory_hostname": "a", "history_read": read}])
    assert text.replace("\n", "").isprintable()
    assert r"\x1b]0;owned\x07" in text
