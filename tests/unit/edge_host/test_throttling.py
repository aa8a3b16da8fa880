"""What slows a board down, from files and answers as boards have them."""

from __future__ import annotations

from pathlib import Path

from edge_host.host_info.raspberry_pi import parse_throttled
from edge_host.host_info.throttling import read_throttling


def cooling(system: Path, number: int, kind: str, state: int) -> None:
    folder = system / f"sys/class/thermal/cooling_device{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "cur_state").write_text(f"{state}\n")


def test_a_fan_that_turns_slows_nothing_down(tmp_path: Path) -> None:
    cooling(tmp_path, 0, "pwm-fan", 3)
    assert read_throttling(tmp_path) == {}
    cooling(tmp_path, 1, "thermal-cpufreq-0", 0)
    assert read_throttling(tmp_path) == {"temperature": False}
    cooling(tmp_path, 2, "thermal-devfreq-0", 2)
    cooling(tmp_path, 3, "thermal-cpufreq-1", 0)
    assert read_throttling(tmp_path) == {"temperature": True}


def test_an_alert_of_a_jetson_has_its_own_name(tmp_path: Path) -> None:
    cooling(tmp_path, 0, "gpu-throttle-alert", 1)
    cooling(tmp_path, 1, "cpu-throttle-alert", 0)
    cooling(tmp_path, 2, "hot-surface-alert", 1)
    assert read_throttling(tmp_path) == {"gpu-throttle-alert": True, "cpu-throttle-alert": False}


def test_a_raspberry_pi_tells_what_holds_now(tmp_path: Path) -> None:
    assert read_throttling(tmp_path, parse_throttled("throttled=0x50005")) == {
        "under-voltage": True,
        "frequency capped": False,
        "throttled": True,
        "soft temperature limit": False,
    }
    # It was so since the start, and is not now.
    assert not any(read_throttling(tmp_path, parse_throttled("throttled=0x50000")).values())


def test_cards_tell_what_holds_now(tmp_path: Path) -> None:
    assert read_throttling(tmp_path, cards=["power brake"]) == {
        "hardware slowdown": False,
        "software thermal slowdown": False,
        "hardware thermal slowdown": False,
        "power brake": True,
    }
