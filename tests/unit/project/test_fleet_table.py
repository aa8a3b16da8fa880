"""The table at the end of a run."""

from __future__ import annotations

from typing import Any

from filter_plugins.fleet import fleet_table

HOST: dict[str, Any] = {
    "inventory_hostname": "jetson-01",
    "board_plan": {
        "problems": [],
        "board": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "provider": "llamacpp",
        "model": {"name": "smoke", "shape": {"layers": 1}},
        "environment": {"CTX_SIZE": 4096, "PARALLEL": 4},
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


def test_a_proven_host() -> None:
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
    text = fleet_table([{"inventory_hostname": "x", "board_plan": plan}])
    assert "refused: see the message above" in text


def test_a_host_that_was_not_reached() -> None:
    assert "not reached or not read" in fleet_table([{"inventory_hostname": "x"}])


def test_a_host_that_was_not_proven() -> None:
    without = {name: value for name, value in HOST.items() if name != "verify_report"}
    assert "not proven in this run" in fleet_table([without])
    failed = HOST | {"verify_report": HOST["verify_report"] | {"ok": False}}
    assert "the proof failed: see the message above" in fleet_table([failed])
