"""Readings of power, load and clocks, from texts that boards have printed.

Where a text is from stands beside it. Files of sysfs have the names and units of the kernel's
documents (Documentation/hwmon/ina3221.rst) and of L4T's drivers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_host.host_info.clocks import read_clocks
from edge_host.host_info.power import (
    choose_watts,
    parse_nvidia_smi,
    parse_pmic_adc,
    parse_tegrastats,
    read_gpu_load,
    read_ina3221,
    total_watts,
)
from edge_host.host_info.throttling import read_slowdowns, read_throttling

# Jetson TX2, L4T R28; gist.github.com/TerryTsao/fa30ba54e660c51d5c91aafb55715d89
TX2 = (
    "RAM 977/7846MB (lfb 1509x4MB) CPU [85%@2035,67%@2033,56%@2034,81%@2034,80%@2034,86%@2034]"
    " EMC_FREQ 2%@1866 GR3D_FREQ 0%@1300 APE 150 MTS fg 0% bg 1% BCPU@38.5C MCPU@38.5C GPU@35.5C"
    " PLL@38.5C Tboard@32C Tdiode@33.25C PMIC@100C thermal@37.3C VDD_IN 7358/7453"
    " VDD_CPU 3353/3429 VDD_GPU 228/228 VDD_SOC 990/990 VDD_WIFI 0/0 VDD_DDR 1318/1308"
)
# Jetson Orin Nano 8 GB, L4T R39; tests of github.com/dlhagger/SqueakView
ORIN_NANO_R39 = (
    "09-01-2026 09:25:18 RAM 5739/7546MB (lfb 1x2MB) SWAP 2047/2048MB (cached 209MB)"
    " CPU [72%@1728,75%@1728,88%@1728,79%@1728,87%@1728,78%@1728] GR3D_FREQ 33% cpu@50C/50C"
    " soc2@47.937C/47.937C soc0@48.437C/48.437C gpu@48.75C/48.75C tj@50C/50C soc1@48.5C/48.5C"
    " VDD_IN 9761mW/9761mW/9761mW VDD_CPU_GPU_CV 4238mW/4238mW/4238mW"
    " VDD_SOC 1825mW/1825mW/1825mW"
)
# Jetson Orin Nano, L4T R36; a recorded line in a public monitoring script, 2025-09-21
ORIN_NANO_R36 = (
    "09-21-2025 15:38:17 RAM 3645/7620MB (lfb 63x4MB) SWAP 236/3810MB (cached 0MB)"
    " CPU [1%@729,1%@729,4%@729,1%@729,0%@729,0%@729] EMC_FREQ 0%@204 GR3D_FREQ 0%@[305]"
    " NVDEC off NVJPG off NVJPG1 off VIC off OFA off APE 200 cpu@44.125C soc2@43.375C"
    " soc0@42.125C gpu@44.531C tj@44.531C soc1@43.156C VDD_IN 2957mW/2957mW"
    " VDD_CPU_GPU_CV 486mW/486mW VDD_SOC 1012mW/1012mW"
)
# Jetson AGX Orin: rails beside each other; a line in the tests of a public benchmark
AGX_ORIN = (
    "RAM 3000/30000MB (lfb 1x1MB) SWAP 0/15000MB CPU [1%@2201,2%@2201] GR3D_FREQ 0%"
    " VDD_GPU_SOC 4876mW/4876mW VDD_CPU_CV 975mW/975mW VIN_SYS_5V0 4461mW/4461mW"
)
# Raspberry Pi 5, idle, 2026-09-27; a recording in the tests of a public dashboard
PMIC = """\
 3V7_WL_SW_A current(0)=0.07709848A
   3V3_SYS_A current(1)=0.04782057A
   1V8_SYS_A current(2)=0.11515970A
  DDR_VDD2_A current(3)=0.00780744A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.17664330A
    0V8_SW_A current(6)=0.33084030A
  VDD_CORE_A current(7)=0.94657990A
   3V3_DAC_A current(17)=0.00146520A
   3V3_ADC_A current(18)=0.00140415A
   0V8_AON_A current(16)=0.00494505A
      HDMI_A current(22)=0.01697190A
 3V7_WL_SW_V volt(8)=3.69049700V
   3V3_SYS_V volt(9)=3.29982600V
   1V8_SYS_V volt(10)=1.79633500V
  DDR_VDD2_V volt(11)=1.10805800V
  DDR_VDDQ_V volt(12)=0.60329610V
   1V1_SYS_V volt(13)=1.10146400V
    0V8_SW_V volt(14)=0.80219700V
  VDD_CORE_V volt(15)=0.72097620V
   3V3_DAC_V volt(20)=3.30402600V
   3V3_ADC_V volt(21)=3.29670000V
   0V8_AON_V volt(19)=0.79941320V
      HDMI_V volt(23)=5.11612000V
     EXT5V_V volt(24)=5.11478000V
      BATT_V volt(25)=0.01880340V
"""


@pytest.mark.parametrize(
    ("line", "watts", "load"),
    [
        (TX2, 7.358, 0),
        (ORIN_NANO_R36, 2.957, 0),
        (ORIN_NANO_R39, 9.761, 33),
        (AGX_ORIN, 4.876 + 0.975 + 4.461, 0),
        ("", None, None),
        ("RAM 10/20MB random-vendor-field 7", None, None),
    ],
)
def test_tegrastats(line: str, watts: float | None, load: int | None) -> None:
    found = parse_tegrastats(line)
    assert found["watts"] == (None if watts is None else pytest.approx(watts))
    assert found["gpu_percent"] == load


def test_pmic_read_adc_is_the_sum_of_rails_that_have_both_values() -> None:
    watts = parse_pmic_adc(PMIC)
    assert watts == pytest.approx(1.9005, abs=0.001)
    without = "\n".join(line for line in PMIC.splitlines() if "VDD_CORE_A" not in line)
    assert parse_pmic_adc(without) == pytest.approx(1.9005 - 0.9466 * 0.7210, abs=0.001)
    # A Raspberry Pi 4's answer.
    assert parse_pmic_adc('error=1 error_msg="Command not registered"\n') is None
    assert parse_pmic_adc("") is None


# By the columns of `nvidia-smi --help-query-gpu`; masks of nvml.h (nvmlClocksThrottleReasons).
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "NVIDIA GeForce RTX 3060, 21.58, 37, 512, 61, 1777, 0x0000000000000000\n",
            (21.58, 37.0, 512 << 20, 61.0, 1777.0, []),
        ),
        (  # idle, and at the power limit that it is set to
            "NVIDIA A2, 9.10, 0, 4, 40, 210, 0x0000000000000001\n"
            "NVIDIA A2, 60.00, 100, 8000, 79, 1500, 0x0000000000000004\n",
            (69.10, 50.0, 8004 << 20, 79.0, 210.0, []),
        ),
        (
            "NVIDIA A2, 40.00, 99, 8000, 95, 900, 0x0000000000000068\n",
            (
                40.0,
                99.0,
                8000 << 20,
                95.0,
                900.0,
                ["hardware slowdown", "software thermal slowdown", "hardware thermal slowdown"],
            ),
        ),
        (
            "NVIDIA GeForce GT 710, [N/A], [N/A], 300, 45, [N/A], [N/A]\n",
            (None, None, 300 << 20, 45.0, None, []),
        ),
    ],
)
def test_nvidia_smi(text: str, expected: tuple[object, ...]) -> None:
    found = parse_nvidia_smi(text)
    assert found is not None
    names = ("watts", "gpu_percent", "gpu_memory", "temperature", "gpu_mhz", "throttling")
    assert tuple(found[name] for name in names) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        # A Jetson of JetPack 6: its own GPU.
        "Orin (nvgpu), [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\n",
    ],
)
def test_no_card(text: str) -> None:
    assert parse_nvidia_smi(text) is None


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


# Values of a Jetson Orin Nano under load.
HWMON = {
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": "4968",
    "sys/class/hwmon/hwmon1/curr1_input": "1520",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in2_input": "4960",
    "sys/class/hwmon/hwmon1/curr2_input": "1784",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC",
    "sys/class/hwmon/hwmon1/in3_input": "4960",
    "sys/class/hwmon/hwmon1/curr3_input": "496",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
}


def test_ina3221_of_jetpack_5_and_later(tmp_path: Path) -> None:
    write(tmp_path, HWMON | {"sys/class/hwmon/hwmon0/name": "thermal"})
    rails = read_ina3221(tmp_path)
    assert rails == {
        "VDD_IN": pytest.approx(7.551, abs=0.001),
        "VDD_CPU_GPU_CV": pytest.approx(8.849, abs=0.001),
        "VDD_SOC": pytest.approx(2.460, abs=0.001),
    }
    assert choose_watts(rails, {"watts": 1.0}, 2.0, None) == (rails["VDD_IN"], "INA3221: VDD_IN")


def test_ina3221_of_an_agx_has_no_total(tmp_path: Path) -> None:
    """It has two of them; a channel that is not connected is called NC."""
    folder = "sys/class/hwmon/hwmon"
    for number, rails in enumerate((("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), ("NC", "VDDQ"))):
        write(tmp_path, {f"{folder}{number}/name": "ina3221"})
        for channel, name in enumerate(rails, 1):
            write(
                tmp_path,
                {
                    f"{folder}{number}/in{channel}_label": name,
                    f"{folder}{number}/in{channel}_input": "20000",
                    f"{folder}{number}/curr{channel}_input": "100",
                },
            )
    rails_of_board = read_ina3221(tmp_path)
    assert sorted(rails_of_board) == ["VDDQ", "VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"]
    assert total_watts(rails_of_board) == pytest.approx(8.0)
    assert choose_watts(rails_of_board, {}, None, None)[1] == "INA3221: all rails"


def test_ina3221_of_jetpack_4(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write(
        tmp_path,
        {
            f"{folder}/rail_name_0": "POM_5V_IN",
            f"{folder}/in_power0_input": "2417",
            f"{folder}/rail_name_1": "POM_5V_GPU",
            f"{folder}/in_power1_input": "0",
        },
    )
    rails = read_ina3221(tmp_path)
    assert rails == {"POM_5V_IN": 2.417, "POM_5V_GPU": 0.0}
    assert total_watts(rails) == 2.417


def test_the_source_of_watts_is_named(tmp_path: Path) -> None:
    cards = {"watts": 30.0}
    assert read_ina3221(tmp_path) == {}
    assert choose_watts({}, {"watts": 9.8}, None, None) == (9.8, "tegrastats")
    assert choose_watts({}, {"watts": None}, 3.1, cards) == (
        3.1,
        "pmic_read_adc: rails of the power chip",
    )
    assert choose_watts({}, {"watts": None}, None, cards) == (30.0, "nvidia-smi: the cards alone")
    assert choose_watts({}, {"watts": None}, None, None) == (None, None)


def test_gpu_load_clocks_slowdowns_and_alerts(tmp_path: Path) -> None:
    assert read_gpu_load(tmp_path) is None
    assert read_clocks(tmp_path) == read_slowdowns(tmp_path) == read_throttling(tmp_path) == {}
    write(
        tmp_path,
        {
            "sys/devices/platform/gpu.0/load": "999",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1728000",
            "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "729600",
            "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000",
            "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
            "sys/class/hwmon/hwmon3/name": "soctherm_oc",
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "0",
            "sys/class/hwmon/hwmon3/oc3_event_cnt": "37",
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "3",
            "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "3",
            "sys/class/thermal/cooling_device0/type": "cpu-throttle-alert",
            "sys/class/thermal/cooling_device0/cur_state": "1",
            "sys/class/thermal/cooling_device1/type": "hot-surface-alert",
            "sys/class/thermal/cooling_device1/cur_state": "1",
        },
    )
    assert read_gpu_load(tmp_path) == 99.9
    assert read_clocks(tmp_path) == {"policy0": 1728, "policy4": 729, "gpu": 1020}
    assert read_slowdowns(tmp_path) == {
        "over-current or under-voltage (oc1)": 0,
        "over-current or under-voltage (oc3)": 37,
        "temperature of the processor": 3,
    }
    assert read_throttling(tmp_path) == {"cpu-throttle-alert": True}
