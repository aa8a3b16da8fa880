"""What is wrong with a host: each problem alone, with its message."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from edge_fleet.status import problems
from edge_fleet.status.problems import notes_of, problems_of
from tests.certificates import NOW
from tests.unit.edge_fleet.conftest import ROOT, change
from tests.unit.edge_fleet.status.hosts import certificate, healthy

PUT_BACK = "Run site.yml, which puts it back."
LOGS = "See docker compose logs in the deployment's folder; then run site.yml."


def found(path: str, value: Any) -> list[str]:
    return problems_of(change(healthy(), path, value), NOW)


def test_a_healthy_host_has_no_problems_and_no_notes() -> None:
    assert problems_of(healthy(), NOW) == notes_of(healthy()) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (
            "deployment.containers.engine.status",
            "exited",
            f"The container of the engine does not run: it is exited. {LOGS}",
        ),
        ("deployment.containers.api", None, f"The container of the chat API is missing. {LOGS}"),
        (
            "deployment.containers.api.health",
            "unhealthy",
            f"The container of the chat API is unhealthy. {LOGS}",
        ),
        (
            "deployment.containers.engine.image",
            "other:1",
            f"The container of the engine has another image. {LOGS}",
        ),
        (
            "deployment.containers.network.namespace",
            "net:[1]",
            "edge-llm-network was restarted alone, so that the containers are in different network"
            " namespaces. Run site.yml.",
        ),
        ("ports.8000", None, "Nobody listens on port 8000. Run site.yml."),
        (
            "deployment.release.plan.api",
            {"listen_address": "192.0.2.11"},
            "systemd listens at 0.0.0.0, not at 192.0.2.11. Run site.yml.",
        ),
        ("deployment.change", {"from": 1, "to": 2}, "A change was interrupted. Run site.yml."),
        ("deployment.release", None, "The host has no release. Run site.yml."),
        ("status.drift", [".env"], f".env is not as it was deployed. {PUT_BACK}"),
        (
            "status.drift",
            ["models/m.gguf"],
            f"models/m.gguf is not as it was deployed. {PUT_BACK}",
        ),
        (
            "status.certificate",
            None,
            f"The certificate of the chat API is missing or cannot be read. {PUT_BACK}",
        ),
        (
            "status.certificate",
            "no PEM",
            f"The certificate of the chat API is missing or cannot be read. {PUT_BACK}",
        ),
        (
            "status.sensors.throttling",
            {"under-voltage": True, "temperature": False},
            "The board is throttled: under-voltage. Under-voltage needs another power supply or"
            " cable, temperature better cooling.",
        ),
        ("status.sensors.temperature", 80.0, "The board has 80 °C. Improve its cooling."),
        (
            "board.disk",
            {"path": "/", "free": 99 << 20, "total": 1000 << 20},
            "The disk is almost full: 99 MiB of 1,000 MiB are free. llm_models_keep removes old"
            " weights.",
        ),
    ],
)
def test_each_problem_is_named(path: str, value: Any, problem: str) -> None:
    assert found(path, value) == [problem]


def test_a_docker_that_does_not_run_is_the_problem_and_not_its_containers() -> None:
    state = change(healthy(), "docker", {"running": False, "error": "connection refused"})
    state["deployment"]["containers"] = {"engine": None, "api": None, "network": None}
    assert problems_of(state, NOW) == [
        "Docker does not run: connection refused. See journalctl -u docker on the host."
    ]


@pytest.mark.parametrize(
    ("days", "words"), [(14, ""), (13, "expires on"), (0, "expired on"), (-3, "expired on")]
)
def test_a_certificate_that_expires_is_a_problem_two_weeks_before(days: int, words: str) -> None:
    problem = found("status.certificate", certificate(days))
    assert bool(problem) is bool(words)
    if words:
        day = f"{NOW + timedelta(days=days):%Y-%m-%d}"
        assert problem[0].startswith(f"The certificate of the chat API {words} {day}. Run site.yml")


def test_a_host_without_https_needs_no_certificate() -> None:
    state = change(healthy(), "status.certificate", None)
    state["deployment"]["release"]["plan"]["api"] = {"listen_address": ""}
    assert problems_of(state, NOW) == []


def test_layers_that_are_not_on_the_gpu_are_a_problem() -> None:
    log = {"layers_offloaded": 0, "gpu_buffers": []}
    state = healthy()
    state["deployment"]["engine_log"] |= log
    (problem,) = problems_of(state, NOW)
    assert problem.startswith("GPU: 29 of 29 layers were asked onto the GPU, and ")
    # Ollama tells clients alone; an engine that does not run is a problem by itself.
    state["deployment"]["release"]["plan"]["provider"] = "ollama"
    assert problems_of(state, NOW) == []
    state["deployment"]["release"]["plan"]["provider"] = "llama.cpp"
    state["deployment"]["containers"]["engine"]["status"] = "exited"
    assert [each[:13] for each in problems_of(state, NOW)] == ["The container"]


def test_a_release_of_an_earlier_version_has_no_network_namespace() -> None:
    state = healthy()
    del state["deployment"]["release"]["plan"]["network"]
    state["deployment"]["containers"]["network"] = None
    state["deployment"]["containers"]["api"]["namespace"] = "net:[2]"
    assert problems_of(state, NOW) == []


def test_a_change_that_runs_is_a_note_and_its_files_are_no_drift() -> None:
    state = change(healthy(), "deployment.lock", {"by": "alice@desk", "since": "10:00", "pid": 1})
    state["deployment"]["change"] = {"from": 7, "to": 8}
    state["status"]["drift"] = [".env"]
    assert problems_of(state, NOW) == []
    assert notes_of(state) == ["alice@desk has been changing the host since 10:00"]


@pytest.mark.parametrize(
    ("path", "value", "note"),
    [
        (
            "deployment.installed",
            {"edge-llm.service": "different"},
            "not of this version of the project: edge-llm.service (different)",
        ),
        (
            "board.throttled",
            ["under-voltage now", "throttled since the start"],
            "the board reports: throttled since the start",
        ),
        (
            "board.time_synchronised",
            False,
            "the clock is not synchronised: certificates and logs have wrong times",
        ),
    ],
)
def test_each_note_is_shown(path: str, value: Any, note: str) -> None:
    assert notes_of(change(healthy(), path, value)) == [note]


def test_limits_are_those_of_the_alerts() -> None:
    alerts = (ROOT / "roles/monitoring/files/alerts.yml").read_text()
    for pattern, limit in (
        (r"temperature_celsius >= (\d+)", problems.HOT_CELSIUS),
        (r"disk_size_bytes < ([\d.]+)", problems.DISK_SHARE),
        (r"expiry_timestamp_seconds - time\(\) < (\d+) \* 86400", problems.CERTIFICATE_DAYS),
    ):
        assert [float(each) for each in re.findall(pattern, alerts)] == [limit]
