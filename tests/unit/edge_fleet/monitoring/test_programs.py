"""The images of the monitoring, and whether its host can run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_fleet.catalogue import read
from edge_fleet.monitoring.programs import monitoring_images, monitoring_problem
from edge_host.constants import MIB

DIGEST = f"sha256:{'a' * 64}"
OWN = f"registry.example/prometheus@{DIGEST}"
CATALOGUES = {
    "monitoring": {
        "prometheus": {"image": "docker.io/prom/prometheus:v3", "digest": DIGEST},
        "grafana": {"image": "docker.io/grafana/grafana:12", "digest": None},
    }
}


def test_images_are_those_with_a_digest() -> None:
    assert monitoring_images(CATALOGUES, {}) == {
        "prometheus": f"docker.io/prom/prometheus:v3@{DIGEST}"
    }
    assert monitoring_images(CATALOGUES, {"prometheus": OWN, "grafana": "grafana:12"}) == {
        "prometheus": OWN
    }


def test_an_older_catalogue_has_none() -> None:
    assert monitoring_images({"engines": {}}, {}) == {}


def test_this_catalogue_has_all() -> None:
    found = monitoring_images(read(str(Path(__file__).parents[4])), {})
    assert sorted(found) == ["alertmanager", "grafana", "node_exporter", "prometheus"]


def host(memory: int, total: int | None) -> dict[str, Any]:
    return {
        "preflight_plan": {"memory": {"total": memory * MIB}},
        "preflight_state": {"board": {"memory_total": total and total * MIB}},
    }


def test_one_host_with_enough_memory_fits() -> None:
    assert monitoring_problem({"a": host(3000, 3768)}, ["a"], 768) == ""
    assert monitoring_problem({"a": host(3000, None)}, ["a"], 768) == ""


def test_a_host_without_the_memory_is_refused() -> None:
    assert monitoring_problem({"a": host(3000, 3767)}, ["a"], 768) == (
        "a does not fit: the model and the monitoring need 3,768 MiB of memory, and the board has"
        " 3,767 MiB. Put another host into the inventory group monitoring, choose a smaller model,"
        " or lower monitoring_memory."
    )


def test_two_hosts_are_refused() -> None:
    assert monitoring_problem({}, ["b", "a"], 768) == (
        "The inventory group monitoring is invalid: it has 2 hosts (a, b). Keep one of them in it."
    )
