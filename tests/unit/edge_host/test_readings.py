"""The readings of a board, from files as boards have them, in Prometheus' own format."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_host.constants import DEPLOYED_FILES
from edge_host.host_info import sensors
from edge_host.readings import (
    FILE,
    main,
    read_board_metrics,
    render,
)
from tests.unit.edge_host.deployed import deployed


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def cooling(system: Path, number: int, kind: str, state: int) -> None:
    write(system / f"sys/class/thermal/cooling_device{number}", type=kind, cur_state=state)


@pytest.fixture(autouse=True)
def no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "which", lambda _: None)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return deployed(tmp_path / "edge-llm")


def test_the_text_is_read_by_prometheus_library(release: Path, tmp_path: Path) -> None:
    write(tmp_path / "sys/class/thermal/thermal_zone0", type="CPU-therm", temp=61500)
    cooling(tmp_path, 0, "cpufreq-cpu0", 1)
    write(
        tmp_path / "sys/class/hwmon/hwmon1",
        name="ina3221", in1_label='a "b\\', in1_input=5000, curr1_input=1000,
    )  # fmt: skip
    metrics = read_board_metrics(release, tmp_path)
    found = list(text_string_to_metric_families(render(metrics)))
    assert [each.name for each in found] == [each.name for each in metrics]
    samples = {each.name: each.samples for each in found}
    assert samples["edge_llm_board_temperature_celsius"][0].value == 61.5
    assert samples["edge_llm_board_throttled"][0].labels == {"reason": "temperature"}
    assert samples["edge_llm_board_power_watts"][0].labels == {"rail": 'a "b\\'}
    assert len(samples["edge_llm_board_drift"]) == len(DEPLOYED_FILES) + 1
    free, size = (
        samples[f"edge_llm_board_disk_{name}_bytes"][0].value for name in ("free", "size")
    )
    assert 0 < free < size


def test_the_power_of_a_board_without_rails_is_named_by_what_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text(
        "#!/bin/sh\necho ' VDD_CORE_A current(7)=2.0A'\necho ' VDD_CORE_V volt(15)=0.75V'\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sensors, "which", lambda name: str(program) if name == "vcgencmd" else None)
    metrics = {each.name: each.samples for each in read_board_metrics(tmp_path, tmp_path)}
    assert metrics["edge_llm_board_power_watts"] == [
        ({"rail": "pmic_read_adc: rails of the power chip"}, 1.5)
    ]


def test_what_a_board_cannot_tell_is_left_out(tmp_path: Path) -> None:
    text = render(read_board_metrics(tmp_path, tmp_path))
    assert "temperature" not in text
    assert "drift" not in text
    assert "edge_llm_board_disk_free_bytes" in text


def test_the_program_replaces_the_file_in_one_step(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_LLM_ROOT", str(release))
    folder = tmp_path / "readings"
    folder.mkdir()
    (folder / FILE).write_text("of before")
    assert main([str(folder)]) == 0
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert "edge_llm_board_drift" in (folder / FILE).read_text()
    # The node exporter is another user.
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o644
