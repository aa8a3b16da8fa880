"""What Prometheus asks of each host, and by which key."""

from __future__ import annotations

from typing import Any

from edge_fleet.client_keys import key_files, monitoring_key
from edge_fleet.control_files import client_environment
from edge_fleet.monitoring.scrapes import scrape_configs
from llm_provider.server.key_store import parse_keys

MAIN = "the-main-key-of-the-host"
CA = "-----BEGIN CERTIFICATE-----\n"
FILES = {
    "/keys/kitchen.env": client_environment("http://192.0.2.11:8000", MAIN),
    "/keys/cellar.env": client_environment(
        "https://llm.example/cellar", MAIN, "/keys/bundle.pem", "/keys/our ca.pem"
    ),
    "/keys/our ca.pem": CA,
}


def plan(provider: str, *problems: str) -> dict[str, Any]:
    return {"preflight_plan": {"provider": provider, "problems": list(problems)}}


def scraped(**hosts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = scrape_configs(hosts, list(hosts), "/keys", FILES.get)
    return {each["job_name"]: each for each in found}


def test_a_host_is_asked_at_three_paths() -> None:
    found = scraped(kitchen=plan("llamacpp"))
    assert [(each["metrics_path"], each["scheme"]) for each in found.values()] == [
        *(("/metrics", "http"), ("/metrics/engine", "http"), ("/metrics/node", "http"))
    ]
    assert found["node/kitchen"]["static_configs"] == [
        {"targets": ["192.0.2.11:8000"], "labels": {"job": "node", "host": "kitchen"}}
    ]
    assert not any("tls_config" in each for each in found.values())


def test_the_key_is_the_one_of_the_host_for_metrics_alone() -> None:
    (sent,) = {
        each["authorization"]["credentials"] for each in scraped(kitchen=plan("vllm")).values()
    }
    assert sent == monitoring_key(MAIN, "kitchen") != monitoring_key(MAIN, "cellar")
    text = key_files([], MAIN, "kitchen", "2026-11-30T10:00:00Z", True)["api_keys.jsonl"]
    assert MAIN not in text
    assert sent not in text
    assert [(key.name, key.metrics_only) for key in parse_keys(text)] == [
        *(("default", False), ("host", False), ("monitoring", True))
    ]


def test_the_key_is_on_no_host_without_monitoring_and_never_in_plain_text() -> None:
    files = key_files([], MAIN, "kitchen", "2026-11-30T10:00:00Z")
    assert [key.name for key in parse_keys(files["api_keys.jsonl"])] == ["default", "host"]
    monitored = key_files([], MAIN, "kitchen", "2026-11-30T10:00:00Z", True)
    assert monitored["api_keys"] == files["api_keys"] == f"{MAIN}\n"


def test_a_host_with_https_behind_a_proxy() -> None:
    found = scraped(cellar=plan("llamacpp"))["engine/cellar"]
    assert (found["scheme"], found["metrics_path"]) == ("https", "/cellar/metrics/engine")
    assert found["tls_config"] == {"ca": CA}
    assert found["static_configs"][0]["targets"] == ["llm.example"]
    assert found["follow_redirects"] is False


def test_ollama_has_no_metrics_of_its_own() -> None:
    assert list(scraped(kitchen=plan("ollama"))) == ["chat-api/kitchen", "node/kitchen"]


def test_a_host_that_cannot_be_read_stays_monitored() -> None:
    """Of a board that is off, an alert is to tell; a refused one may serve its former release."""
    for host in ({}, {"preflight_plan": {"problems": ["no memory"]}}):
        assert "chat-api/kitchen" in scraped(kitchen=host)


def test_a_host_that_was_never_deployed_is_left_out() -> None:
    assert scraped(attic=plan("llamacpp")) == {}
