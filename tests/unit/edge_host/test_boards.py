"""What real boards said, and what is made of it; fixtures/boards/README.md tells more of them."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_host
from edge_fleet.facts import facts_problem
from edge_host.engine_log import gpu_reason, parse_engine_log
from edge_host.host_info.board import (
    BOARD_COMMANDS,
    board_kind,
    board_name,
    parse_model,
    parse_os_release,
    read_board,
)
from edge_host.host_info.docker import parse_docker_info
from edge_host.host_info.hardware import (
    parse_cpu_features,
    parse_gpus,
    parse_meminfo,
    parse_memory,
    parse_temperature,
    parse_zram,
)
from edge_host.host_info.jetson import (
    parse_l4t,
    parse_power_mode,
    parse_power_modes,
    parse_power_status,
)
from edge_host.host_info.kernel import parse_memory_cgroup
from edge_host.host_info.raspberry_pi import parse_cgroup_words, parse_throttled
from edge_host.host_info.state import read_state
from edge_host.host_info.system import parse_desktop

from .conftest import FakeHost

BOARDS = Path(__file__).parent / "fixtures/boards"
Reading = dict[str, Any]
HOSTS: list[Reading] = yaml.safe_load((BOARDS / "hosts.yml").read_text())
READINGS: list[Reading] = [
    reading
    for path in sorted(BOARDS.glob("*.yml"))
    if path.name != "hosts.yml"
    for reading in yaml.safe_load(path.read_text())
]
BY_KEY: dict[str, Reading] = {each["key"]: each for each in READINGS if "key" in each}


def model(reading: Reading) -> Any:
    """As a device tree has it, with a NUL behind."""
    name = parse_model(f"{reading['text']}\0")
    return {"kind": board_kind(name, None), "name": board_name(name)}


def dmi(reading: Reading) -> Any:
    return {"kind": board_kind(parse_model(reading["text"]), None), "name": None}


def compatible(reading: Reading) -> Any:
    """What it tells of a board whose maker has named it as nobody knows."""
    text = reading["text"]
    return {"kind": board_kind("A Carrier", None, text), "name": board_name(None, text)}


def l4t(reading: Reading) -> Any:
    found = parse_l4t(reading["text"])
    assert found is not None
    assert found["text"] == f"{found['major']}.{found['minor']}.{found['patch']}"
    return found["text"]


def meminfo(reading: Reading) -> Any:
    total, available = parse_meminfo(reading["text"])
    free = parse_memory(reading["text"])["MemFree"]
    return {"total": total, "available": available, "free": free}


def power_mode(reading: Reading) -> Any:
    return dict(zip(("mode", "id"), parse_power_mode(reading["text"]), strict=True))


def cmdline_txt(reading: Reading) -> Any:
    words = parse_cgroup_words(reading["text"])
    return {"words": words, "lines": len(reading["text"].splitlines())}


def engine_log(reading: Reading) -> Any:
    lines = [f"1970-01-02T00:00:01.500000000Z {line}\n" for line in reading["text"].splitlines()]
    found = parse_engine_log(lines, None)
    assert found.pop("start_seconds") is None
    # Most complain of nothing, and their readings do not say so.
    quiet = {"gpu_said", "gpu_reason"}
    return {name: value for name, value in found.items() if name not in quiet or value}


PARSERS: dict[str, Callable[[Reading], Any]] = {
    "model": model,
    "dmi": dmi,
    "compatible": compatible,
    "nv_tegra_release": l4t,
    "os-release": lambda each: parse_os_release(each["text"]),
    "meminfo": meminfo,
    "cpuinfo": lambda each: parse_cpu_features(each["text"]),
    "swaps": lambda each: parse_zram(each["text"]),
    "nvpmodel -q": power_mode,
    "nvpmodel.conf": lambda each: parse_power_modes(each["text"]),
    "nvpmodel status": lambda each: parse_power_status(each["text"]),
    "get_throttled": lambda each: parse_throttled(each["text"]),
    "cmdline": lambda each: parse_cgroup_words(each["text"]),
    "cmdline.txt": cmdline_txt,
    "cgroups": lambda each: parse_memory_cgroup(None, each["text"], each.get("kernel", "")),
    "cgroup.controllers": lambda each: parse_memory_cgroup(each["text"], "", ""),
    "nvidia-smi": lambda each: parse_gpus(each["text"]),
    "engine log": engine_log,
}


@pytest.mark.parametrize(
    "reading", READINGS, ids=lambda each: f"{each['reading']}: {each['board']}"
)
def test_reading(reading: Reading) -> None:
    assert PARSERS[reading["reading"]](reading) == reading["means"]


def test_every_reading_has_a_source_and_no_key_stands_twice() -> None:
    assert all(each["source"] and "text-index" not in each["source"] for each in READINGS)
    assert len(BY_KEY) == sum("key" in each for each in READINGS)
    assert {each["reading"] for each in READINGS} == set(PARSERS)


FAMILIES = {
    *("Jetson Nano", "Jetson TX1", "Jetson TX2", "Jetson TX2 NX"),
    *("Jetson Xavier NX", "Jetson AGX Xavier"),
    *("Jetson Orin Nano", "Jetson Orin NX", "Jetson AGX Orin", "Jetson AGX Thor"),
    *("Raspberry Pi 2", "Raspberry Pi 3", "Raspberry Pi 4", "Raspberry Pi 400"),
    *("Raspberry Pi 5", "Raspberry Pi 500", "Raspberry Pi Zero", "Raspberry Pi Zero 2"),
    *("Raspberry Pi Compute Module 4", "Raspberry Pi Compute Module 5"),
}


def test_every_family_was_read() -> None:
    assert {each["means"]["name"] for each in READINGS if each["reading"] == "model"} == FAMILIES


@pytest.mark.parametrize(
    ("name", "kind", "family"),
    [
        ("NVIDIA Jetson TX2 NX Developer Kit", "jetson", "Jetson TX2 NX"),
        ("NVIDIA Jetson AGX Xavier [16GB]", "jetson", "Jetson AGX Xavier"),
        ("NVIDIA Orin NX Developer Kit", "jetson", "Jetson Orin NX"),
        # Of NVIDIA, and none of these boards.
        ("NVIDIA IGX Orin Development Kit", "jetson", None),
        ("NVIDIA DRIVE AGX Orin", "jetson", None),
        ("Raspberry Pi Compute Module 4S Rev 1.0", "pi", "Raspberry Pi Compute Module 4"),
        ("Raspberry Pi Model B Plus Rev 1.2", "pi", None),
        ("Radxa ROCK 5B", "generic", None),
        ("quill of a goose", "generic", None),
        ("lanai-3636", "jetson", "Jetson TX2 NX"),
        (None, "generic", None),
    ],
)
def test_name(name: str | None, kind: str, family: str | None) -> None:
    assert (board_kind(name, None), board_name(name)) == (kind, family)


@pytest.mark.parametrize(
    ("text", "kind", "family"),
    [
        ("nvidia,p3509-0000+p3668-0001\0nvidia,tegra194\0", "jetson", "Jetson Xavier NX"),
        ("nvidia,p3509-0000+p3636-0001\0nvidia,tegra186\0", "jetson", "Jetson TX2 NX"),
        ("nvidia,p3768-0000+p3767-0004\0nvidia,p3767-0004\0", "jetson", "Jetson Orin Nano"),
        ("nvidia,lightning\0nvidia,tegra186\0", "jetson", "Jetson TX2"),
        ("nvidia,jetson-nano\0nvidia,tegra210\0", "jetson", "Jetson Nano"),
        # Two modules for one carrier say nothing, and a chip says which kind of board it is.
        ("nvidia,p3767-0000\0nvidia,p3767-0003\0nvidia,tegra234\0", "jetson", None),
        ("nvidia,p3740-0002+p3701-0002\0nvidia,tegra234\0", "jetson", None),
        ("raspberrypi,5-model-b\0brcm,bcm2712\0", "generic", None),
        ("", "generic", None),
    ],
)
def test_compatible(text: str, kind: str, family: str | None) -> None:
    assert board_kind("A Carrier", None, text) == kind
    assert board_name("A Carrier", text) == family


@pytest.mark.parametrize(
    ("text", "degrees"),
    [
        ("48125\n", 48.125),
        ("0\n", 0.0),
        ("-5000\n", -5.0),
        ("-256000\n", None),
        ("", None),
        ("\n", None),
        ("48.1\n", None),
        ("999999\n", None),
        ("2147483647\n", None),
    ],
)
def test_temperature(text: str, degrees: float | None) -> None:
    assert parse_temperature(text) == degrees


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("throttled=0x2\n", ["frequency capped now"]),
        ("throttled=0x20000\n", ["frequency capped since the start"]),
        ("throttled=0x8\n", ["soft temperature limit now"]),
        (
            "throttled=0x80008",
            ["soft temperature limit now", "soft temperature limit since the start"],
        ),
        (
            "throttled=0xe0008\n",
            [
                "soft temperature limit now",
                "frequency capped since the start",
                "throttled since the start",
                "soft temperature limit since the start",
            ],
        ),
        ("throttled=0xfff0fff0\n", []),
        ("VCHI initialization failed\n", None),
        ("Can't open device file: /dev/vcio\n", None),
        ('error=1 error_msg="Command not registered"\n', None),
        ("throttled=0x\n", None),
        ("throttled=0x5 or so\n", None),
        ("", None),
    ],
)
def test_throttled(text: str, complaints: list[str] | None) -> None:
    assert parse_throttled(text) == complaints


@pytest.mark.parametrize(
    ("text", "names"),
    [
        # A Jetson's own, should a driver once give it a number: it is the board's memory.
        ("Orin (nvgpu), 15388\nNVIDIA Thor, 125772\n", []),
        ("NVIDIA Thor, 125772\nNVIDIA RTX A6000, 49140\n", ["NVIDIA RTX A6000"]),
        ("Tesla T4, [Not Supported]\n", []),
        ("NVIDIA Thorough, 1\n", ["NVIDIA Thorough"]),
        ("No devices were found\n", []),
        ("", []),
    ],
)
def test_gpus(text: str, names: list[str]) -> None:
    assert [each["name"] for each in parse_gpus(text)] == names


@pytest.mark.parametrize(
    ("controllers", "cgroups", "release", "answer"),
    [
        ("cpuset cpu io memory hugetlb pids rdma misc\n", "", "6.12.1", True),
        ("cpuset cpu io pids\n", "memory\t0\t39\t1\n", "6.12.1", False),
        ("", "", "6.12.1", False),
        # Before 6.12 all that the kernel has is listed.
        (None, "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\n", "6.6.63", False),
        (None, "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\n", "5.10.104", False),
        (None, "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\n", "6.12.57", None),
        (None, "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\n", "10.0", None),
        (None, "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\n", "", None),
        (None, "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t8\t88\t1\n", "", True),
        (None, "", "6.6.63", None),
    ],
)
def test_memory_cgroup(
    controllers: str | None, cgroups: str, release: str, answer: bool | None
) -> None:
    assert parse_memory_cgroup(controllers, cgroups, release) is answer


@pytest.mark.parametrize(
    ("text", "mode", "number"),
    [
        ("NVPM ERROR: Error opening /etc/nvpmodel.conf: 2\n", None, None),
        ("NV Power Mode: \n0\n", None, None),
        ("NV Power Mode: MAXN\nNVPM ERROR: 13\n0\n", "MAXN", None),
        ("NV Power Mode:MAXN\n0", "MAXN", 0),
        ("NV Power Mode: 15W\n123456\n", "15W", None),
        ("", None, None),
    ],
)
def test_power_mode(text: str, mode: str | None, number: int | None) -> None:
    assert parse_power_mode(text) == (mode, number)


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("flags\t\t: fpu avx2 sse4_2 avx\n", ["avx", "avx2"]),
        # What one of them has not, a program on all of them cannot use.
        ("Features\t: asimd asimddp i8mm\n\nFeatures\t: asimd asimddp\n", ["asimddp"]),
        ("flags\t\t:\n", []),
        ("vmx flags\t: ept_ad\nbugs\t\t: avx2\n", None),
        ("processor\t: 0\n", None),
        ("", None),
    ],
)
def test_cpu_features(text: str, features: list[str] | None) -> None:
    assert parse_cpu_features(text) == features


def test_power_modes_that_are_commented_out() -> None:
    text = "# < POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=10W>\n<POWER_MODEL ID=2>\n"
    assert parse_power_modes(text) == {"10W": 1}


def text_of(value: str | dict[str, str]) -> str:
    """A text, or that of the reading with this key."""
    return value if isinstance(value, str) else str(BY_KEY[value["key"]]["text"])


def make(fake: FakeHost, made: Reading) -> None:
    """Put a host's files and commands where the module looks for them."""
    for path, value in made["files"].items():
        text = text_of(value)
        # A device tree's strings end in NUL.
        fake.write(path, text + "\0" * path.startswith("sys/firmware/devicetree"))
    for name, value in made.get("commands", {}).items():
        answer = fake.base / f"answer-{name}"
        answer.write_text(text_of(value))
        script = fake.bin / name
        script.write_text(f"#!/bin/sh\nexec /bin/cat {answer}\n")
        script.chmod(0o755)
    for number, (kind, temperature) in enumerate(made.get("zones", {}).items()):
        fake.write(f"sys/class/thermal/thermal_zone{number}/type", f"{kind}\n")
        fake.write(f"sys/class/thermal/thermal_zone{number}/temp", temperature)
    for number, name in enumerate(made.get("processes", ()), 100):
        fake.write(f"proc/{number}/comm", f"{name}\n")


def bare_machine(fake: FakeHost) -> dict[str, Any]:
    """What is said of a host that has nothing, on the machine that this runs on."""
    room = os.statvfs(fake.base)
    return {
        "kind": "generic",
        "name": None,
        "model": None,
        "arch": platform.machine(),
        "userland_bits": struct.calcsize("P") * 8,
        "os": dict.fromkeys(("id", "version_id", "pretty_name")),
        "l4t": None,
        "kernel": {"release": None, "memory_cgroup": None},
        "boot": {"file": None, "file_words": [], "lines": 0, "words": []},
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_features": None,
        "memory_total": None,
        "zram_total": None,
        "gpus": [],
        "disk": {
            "path": str(fake.base),
            "free": pytest.approx(room.f_bavail * room.f_frsize, rel=0.2),
            "total": room.f_blocks * room.f_frsize,
        },
        "python": platform.python_version(),
        "init": "systemd",
        "container": False,
        "nvidia_runtime": None,
        "gpu_groups": [],
        "power": None,
        "tuning": {"clocks": False, "clocks_unit": False, "fan": None},
        "temperature": None,
        "throttled": None,
        "desktop": None,
        "time_synchronised": None,
        "upgrades": {"unattended": False, "held": []},
        "root": os.geteuid() == 0,
        "accounts": [],
        "tools": [],
        "addresses": [],
    }


@pytest.fixture
def empty_host(fake_host: FakeHost) -> FakeHost:
    for path in ("etc/os-release", "proc/meminfo"):
        (fake_host.system / path).unlink()
    return fake_host


def test_bare_machine(empty_host: FakeHost) -> None:
    assert read_board(empty_host.root, empty_host.system) == bare_machine(empty_host)


@pytest.mark.parametrize("made", HOSTS, ids=lambda each: str(each["host"]))
def test_whole_board(made: Reading, empty_host: FakeHost) -> None:
    make(empty_host, made)
    expected = bare_machine(empty_host) | made["board"]
    if expected["l4t"]:
        expected["l4t"] = parse_l4t(
            "# R{} (release), REVISION: {}.{}".format(*expected["l4t"].split("."))
        )
    board = read_board(empty_host.root, empty_host.system)
    assert board == expected
    assert json.loads(json.dumps(board)) == board
    state = read_state(str(empty_host.root), system=str(empty_host.system))
    assert state["board"] == expected
    # Of some boards nobody has captured /proc/meminfo, which each of them has.
    state["board"]["memory_total"] = state["board"]["memory_total"] or 1 << 33
    assert facts_problem(state) == ""


# --- garbage -------------------------------------------------------------------------------------

bounded = settings(max_examples=400, deadline=None, database=None)
WORDS = (
    *("# R36 (release), REVISION: ", "REVISION: 4.3", "MemTotal:", " kB", "Filename", "/dev/zram0"),
    *("partition", "file", "memory", "#subsys_name", "# "),
    *("NV Power Mode: ", "POWER_MODEL ID=", "NAME=", "< ", " >", "pmode:", "throttled=0x", "[N/A]"),
    *(
        "load_tensors: ",
        "CUDA0 ",
        "model buffer size",
        "offloaded ",
        "/",
        " layers to GPU",
        "cgroup",
    ),
    *("Automatically detected platform ", "device_config=", "LLM engine (v1) with config: "),
    *("Initializing a V1 ", "loading draft model '", 'msg="model weights" device=', "llvmpipe"),
    *(
        "using device Vulkan0 (",
        "ggml_vulkan: 0 = ",
        "CUDA out of memory",
        "started in ",
        " seconds",
        "Package: docker.io\n",
    ),
    *(
        "Status: hold ok installed",
        "APT::Periodic::Unattended-Upgrade ",
        '"1"',
        ";",
        "//",
        "/*",
        "*/",
    ),
    *("Environment=", "1970-01-02T00:00:01.5Z ", "9999-99-99T99:99:99Z", "0001-01-01T00:00:00Z "),
    *(
        "0100007F:2CAA ",
        "0A ",
        "->",
        "/tcp",
        ":::",
        "8000-",
        '{"Names": ',
        '"Ports": "',
        "}",
        "[",
        "]",
    ),
    *(
        "9" * 20,
        "9" * 5000,
        "-256000",
        "0",
        "1",
        "7",
        "\n",
        "\n\n",
        " ",
        "\t",
        "\0",
        "\r\n",
        "\x1b[0m",
    ),
    *("\u0661\u0662", "\ud7ff", "\ufffd", "=", ":", ",", '"', "'", "\\"),
)
garbage = st.one_of(
    st.text(),
    st.binary().map(lambda each: each.decode("utf-8", "replace")),
    st.lists(st.sampled_from(WORDS), max_size=30).map("".join),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "ServerVersion",
                        "ServerErrors",
                        "ClientInfo",
                        "Plugins",
                        "Name",
                        "Err",
                        "Version",
                    ),
                    *("Runtimes", "Warnings", "State", "Config", "Health", "Labels", "Image", "Id"),
                    *(
                        "RestartCount",
                        "Status",
                        "StartedAt",
                        "config",
                        "digest",
                        "layers",
                        "mediaType",
                    ),
                    *(
                        "addr_info",
                        "local",
                        "scope",
                        "ifname",
                        "Repository",
                        "Tag",
                        "Digest",
                        "Ports",
                    ),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
PURE: list[Callable[[str], object]] = [
    parse
    for module in pkgutil.walk_packages(edge_host.__path__, "edge_host.")
    if module.name == "edge_host.engine_log" or ".host_info." in module.name
    for name, parse in vars(importlib.import_module(module.name)).items()
    if name.startswith("parse_")
    and parse.__module__ == module.name
    and name
    not in {
        *("parse_memory_cgroup", "parse_desktop", "parse_engine_log"),
    }
]
PURE += [
    lambda text: parse_memory_cgroup(None, text, text),
    lambda text: parse_memory_cgroup(text, text, text),
    lambda text: parse_desktop(text.splitlines()),
    lambda text: parse_engine_log(text.splitlines(), 0.0),
    lambda text: gpu_reason(text.splitlines()),
    lambda text: parse_docker_info(text, text),
    lambda text: board_name(text, text),
    lambda text: board_kind(text, None, text),
]


@bounded
@given(text=garbage)
def test_garbage(text: str) -> None:
    for parse in PURE:
        json.dumps(parse(text))


@bounded
@given(value=values)
def test_json_of_another_shape(value: object) -> None:
    text = json.dumps(value)
    for parse in PURE:
        parse(text)
        parse(f"[{text}]")


def test_json_without_an_end() -> None:
    for parse in PURE:
        parse("[" * 100_000)
        parse('{"a": ' * 100_000)


@pytest.mark.parametrize("seed", range(8))
def test_a_host_of_garbage(seed: int, fake_host: FakeHost) -> None:
    """Every file that is read, and every command, has what no file or command should."""
    chance = random.Random(seed)  # noqa: S311

    def noise() -> bytes:
        if chance.random() < 0.5:
            return chance.randbytes(300)
        return "".join(chance.choices(WORDS, k=20)).encode("utf-8", "surrogatepass")

    paths = {path for made in HOSTS for path in made["files"]} | {
        *("proc/1/environ", "proc/1/comm", "proc/7/comm", "etc/docker/daemon.json"),
        *("etc/systemd/system/docker.service.d/a.conf", "etc/apt/apt.conf.d/20auto-upgrades"),
        *("sys/class/thermal/thermal_zone0/temp", "sys/class/thermal/thermal_zone0/type"),
        *("proc/net/tcp", "proc/net/tcp6", "proc/device-tree/model"),
    }
    for path in sorted(paths):
        fake_host.write(path, "")
        start = b"\x1f\x8b\x08\0\0\0\0\0\0\0" if path.endswith(".gz") else b""
        (fake_host.system / path).write_bytes(start + noise())
    for name in [*(command[0] for command in BOARD_COMMANDS.values()), "docker"]:
        answer = fake_host.base / f"answer-{name}"
        answer.write_bytes(noise())
        script = fake_host.bin / name
        script.write_text(f"#!/bin/sh\nexec /bin/cat {answer}\n")
        script.chmod(0o755)
    state = read_state(str(fake_host.root), system=str(fake_host.system))
    json.dumps(state)
    assert facts_problem(state).isprintable()
