"""The sampler: that it ends, what it keeps, and on whose clock."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_host.benchmark import sampler
from edge_host.benchmark.sampler import SamplerError, sample, stop
from edge_host.host_info.sensors import Sensors
from tests.waiting import until


class Counted(Sensors):
    """Sensors that count their samples; `slower` events come with each."""

    def __init__(self) -> None:
        self.tegrastats = ""
        self.reads = 0

    def read(self) -> dict[str, Any]:
        self.reads += 1
        return {"at": time.time()}

    def slowdowns(self) -> dict[str, int]:
        return {"over-current": self.reads, "temperature": 7}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "INTERVAL", 0.05)
    monkeypatch.setattr(sampler, "which", lambda name: None)


def started(name: str, folder: Path, sensors: Counted, seconds: float = 600) -> threading.Thread:
    thread = threading.Thread(target=sample, args=(name, seconds, folder, sensors), daemon=True)
    thread.start()
    until(lambda: sensors.reads, "a sample", lambda reads: reads >= 2, every=0.01)
    return thread


def test_a_sampler_runs_until_it_is_stopped(tmp_path: Path) -> None:
    sensors, hour = Counted(), 3600.0
    thread = started("a", tmp_path, sensors)
    readings = stop("a", time.time() + hour, tmp_path)
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert readings["name"] == "a"
    assert len(readings["samples"]) == sensors.reads
    # On the caller's clock, which is an hour ahead.
    assert readings["samples"][-1]["at"] == pytest.approx(time.time() + hour, abs=60)
    # What was counted before is no slowdown of this benchmark.
    assert readings["slowdowns"] == ["over-current"]
    assert list(tmp_path.iterdir()) == []


def test_a_sampler_that_nobody_stops_ends(tmp_path: Path) -> None:
    readings = sample("a", 0.1, tmp_path, Counted())
    assert readings["samples"]
    # Its readings wait for whoever asks for them.
    assert stop("a", time.time(), tmp_path)["name"] == "a"


def test_another_sampler_ends_the_first(tmp_path: Path) -> None:
    first = started("a", tmp_path, Counted())
    second = started("b", tmp_path, Counted())
    first.join(timeout=60)
    assert not first.is_alive()
    with pytest.raises(SamplerError, match="the sampler is missing: it has ended, or another"):
        stop("a", time.time(), tmp_path)
    assert stop("b", time.time(), tmp_path)["name"] == "b"
    second.join(timeout=60)


def test_a_sampler_that_hangs_is_reported(tmp_path: Path) -> None:
    (tmp_path / "sampler.json").write_text('{"name": "a"}')
    with pytest.raises(SamplerError, match=r"the readings are missing: .* within 0\.2 s"):
        stop("a", time.time(), tmp_path, wait=0.2)


def test_no_sampler(tmp_path: Path) -> None:
    with pytest.raises(SamplerError, match="Run one benchmark at a time"):
        stop("a", time.time(), tmp_path)


def test_the_last_line_of_tegrastats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "tegrastats"
    command.write_text(
        "#!/bin/sh\necho 'GR3D_FREQ 1% VDD_IN 1000mW/1000mW'\n"
        "echo 'GR3D_FREQ 99% VDD_IN 9000mW/5000mW'\nexec sleep 600\n"
    )
    command.chmod(0o755)
    monkeypatch.setattr(sampler, "which", lambda name: str(command))
    sensors = Counted()
    with sampler.follow_tegrastats(sensors):
        until(lambda: sensors.tegrastats, "a line", lambda line: "99%" in line, every=0.01)
