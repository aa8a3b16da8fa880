"""The sensors of a board: what its commands and its files tell together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_host.host_info import sensors
from edge_host.host_info.sensors import Sensors
from tests.unit.edge_host.conftest import FakeHost


@pytest.fixture(autouse=True)
def no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "which", lambda name: None)


def holding(sample: dict[str, Any]) -> list[str]:
    return [reason for reason, holds in sample["throttling"].items() if holds]


def test_the_sensors_of_a_board_without_any(fake_host: FakeHost) -> None:
    found = Sensors(fake_host.system).read()
    assert found["memory_used"] == (8245856 - 6985556) * 1024
    assert found["clocks"] == found["throttling"] == found["rails"] == {}
    for name in ("watts", "watts_of", "gpu_percent", "gpu_memory", "temperature"):
        assert found[name] is None, name
    assert Sensors(fake_host.system).slowdowns() == {}


def test_the_commands_of_a_raspberry_pi(
    fake_host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "vcgencmd"
    command.write_text(
        "#!/bin/sh\ncase $1 in\nget_throttled) echo throttled=0x50005;;\n"
        "pmic_read_adc) echo ' VDD_CORE_A current(7)=2.00000000A';"
        " echo ' VDD_CORE_V volt(15)=0.75000000V';;\nesac\n"
    )
    command.chmod(0o755)
    monkeypatch.setattr(sensors, "which", lambda name: str(command) if name == "vcgencmd" else None)
    found = Sensors(fake_host.system).read()
    assert (found["watts"], found["watts_of"]) == (1.5, "pmic_read_adc: rails of the power chip")
    # What has been since the start of the board is not this benchmark's.
    assert holding(found) == ["under-voltage", "throttled"]


@pytest.mark.parametrize("known", ["clocks_event_reasons", "clocks_throttle_reasons"])
def test_cards_by_the_name_that_the_driver_knows(
    fake_host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f"*{known}.active) echo 'NVIDIA A2, 40.0, 99, 8000, 60, 900, 0x8';;\n"
        "*) echo 'Field is not a valid field to query.'; exit 2;;\nesac\n"
    )
    command.chmod(0o755)
    monkeypatch.setattr(
        sensors, "which", lambda name: str(command) if name == "nvidia-smi" else None
    )
    found = Sensors(fake_host.system).read()
    assert (found["watts"], found["gpu_percent"]) == (40.0, 99.0)
    assert (found["clocks"], holding(found)) == ({"gpu": 900}, ["hardware slowdown"])
    assert (found["temperature"], found["gpu_memory"]) == (60.0, 8000 << 20)
