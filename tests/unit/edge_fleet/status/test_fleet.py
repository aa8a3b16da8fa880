"""The status of a fleet as data, and its table."""

from __future__ import annotations

import json
from datetime import timedelta

from edge_fleet.status.fleet import EMPTY, fleet_status
from edge_fleet.status.table import STATUS, status_table
from tests.certificates import NOW
from tests.unit.edge_fleet.conftest import OWN_IMAGE, change
from tests.unit.edge_fleet.status.hosts import TIME, healthy, host

OFF = host("pi-02", unreachable=True, msg="Failed to connect to the host via ssh: timed out\nmore")


def test_the_facts_of_a_host() -> None:
    (found,) = fleet_status([host("orin", healthy())], TIME)
    assert found == {
        "host": "orin",
        "ok": True,
        "problems": [],
        "notes": [],
        "board": "Jetson Orin NX",
        "provider": "llama.cpp",
        "model": "smollm2-135m",
        "model_files": [{"place": "owner/m/resolve/1/m.gguf", "sha256": "a" * 64}],
        "release": 7,
        "released_at": f"{NOW - timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}",
        "image": OWN_IMAGE,
        "engine": "healthy",
        "chat_api": "healthy",
        "gpu_layers": "29/29",
        "memory_used": 3 * 1024**3,
        "memory_total": 8 * 1024**3,
        "temperature": 51.5,
        "throttling": [],
        "power_mode": "MAXN",
        "watts": 9.76,
        "watts_of": "INA3221: VDD_IN",
        "disk_free": 50 * 1024**3,
        "disk_total": 100 * 1024**3,
        "drift": [],
        "certificate_expires": f"{NOW + timedelta(days=60):%Y-%m-%dT%H:%M:%SZ}",
    }
    assert json.loads(json.dumps(found)) == found


def test_hosts_with_problems_come_first() -> None:
    stopped = change(healthy(), "deployment.containers.engine.status", "exited")
    edited = change(healthy(), "status.drift", [".env"])
    hosts = [
        host("a", healthy()), host("b", stopped), host("c", healthy()), OFF, host("d", edited),
    ]  # fmt: skip
    found = fleet_status(hosts, TIME)
    assert [each["host"] for each in found] == ["b", "pi-02", "d", "a", "c"]
    assert [each["ok"] for each in found] == [False] * 3 + [True] * 2
    assert found[0]["engine"] == "exited"


def test_a_host_that_is_off_and_one_that_cannot_be_read_have_a_reason() -> None:
    unread = host("pi-03", failed=True, msg="The module failed to execute correctly.")
    off, failed, silent = fleet_status([OFF, unread, {"inventory_hostname": "pi-04"}], TIME)
    assert off["problems"] == [
        "The host is not reached: Failed to connect to the host via ssh: timed out. See whether the"
        " host is on and answers SSH."
    ]
    assert failed["problems"] == [
        "The host cannot be read: The module failed to execute correctly. Run ansible -m ping for"
        " the host."
    ]
    assert silent["problems"] == [
        "The host cannot be read: no answer. Run ansible -m ping for the host."
    ]
    assert {name: off[name] for name in EMPTY} == EMPTY


def test_a_host_without_a_release_has_facts_of_its_board() -> None:
    state = change(healthy(), "deployment.release", None)
    (found,) = fleet_status([host("orin", state)], TIME)
    assert (found["board"], found["release"], found["engine"]) == ("Jetson Orin NX", None, None)


def test_the_table_of_a_fleet_with_problems() -> None:
    state = change(healthy(), "status.drift", [".env"])
    state["board"]["time_synchronised"] = False
    found = fleet_status([host("orin", healthy()), host("pi-01", state), OFF], TIME)
    lines = status_table(found, TIME).splitlines()
    assert lines[0] == "2 of 3 hosts have problems: pi-01, pi-02"
    assert lines[1].split("  ")[0] == STATUS[0]
    assert lines[2].startswith("pi-01  Jetson Orin NX  llama.cpp  smollm2-135m  7  ")
    assert lines[3].strip().startswith("PROBLEM: .env is not as it was deployed.")
    assert lines[4].strip().startswith("note: the clock is not synchronised")
    assert lines[5].split() == ["pi-02", *["-"] * (len(STATUS) - 1)]
    assert lines[6].strip().startswith("PROBLEM: The host is not reached")
    cells = [each.strip() for each in lines[7].split("  ") if each.strip()]
    assert cells[0] == "orin"
    assert cells[5:] == [
        "3 d", cells[6], "healthy", "healthy", "29/29", "3.0 of 8.0 GiB", "52 °C", "MAXN", "9.8",
        "50.0 of 100.0 GiB", "60 d",
    ]  # fmt: skip


def test_the_table_of_a_fleet_without_problems() -> None:
    state = change(
        healthy(), "deployment.release.made", f"{NOW - timedelta(hours=5):%Y-%m-%dT%H:%M:%SZ}"
    )
    lines = status_table(fleet_status([host("orin", state)], TIME), TIME).splitlines()
    assert lines[0] == "1 hosts, no problems"
    assert "  5 h  " in lines[2]


def test_what_a_host_says_does_not_steer_the_terminal() -> None:
    state = change(healthy(), "status.drift", ["models/\x1b[2J.gguf"])
    state["board"]["name"] = "Jetson\x1b[2J"
    found = fleet_status([host("orin", state)], TIME)
    assert found[0]["problems"][0].startswith("models/\\x1b[2J.gguf is not as it was deployed.")
    assert "\x1b" not in status_table(found, TIME)
