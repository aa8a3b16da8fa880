"""What the board is: its kind, system, memory and everything else in `board`."""

from __future__ import annotations

import os
import platform
import re
import shlex
import struct
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

from ..commands import Result, run_together, which
from ..constants import USER_IDS
from ..files import first_text, read_text
from ..json_data import Facts
from .hardware import (
    parse_cpu_features,
    parse_gpus,
    parse_memory,
    read_disk,
    read_gpu_groups,
    read_temperature,
    read_zram,
)
from .jetson import parse_l4t, read_power, read_tuning
from .kernel import read_kernel
from .raspberry_pi import THROTTLED_COMMAND, parse_throttled, read_boot
from .system import (
    parse_accounts,
    parse_addresses,
    parse_desktop,
    process_names,
    read_container,
    read_packages,
    read_tools,
    read_unattended,
)

# What a device tree calls a board, and its family; older releases of L4T had code names there. DMI
# is not read: it can call an Orin Nano an Orin NX.
_FAMILIES = (
    (r"\bOrin Nano\b", "Jetson Orin Nano"),
    (r"\bOrin NX\b", "Jetson Orin NX"),
    (r"\bJetson AGX Orin\b|\bOrin Jetson-Small\b", "Jetson AGX Orin"),
    (r"\bJetson AGX Thor\b", "Jetson AGX Thor"),
    (r"\bXavier NX\b", "Jetson Xavier NX"),
    (r"\bJetson AGX Xavier\b|^Jetson-AGX$|^jetson-xavier$", "Jetson AGX Xavier"),
    (r"\bJetson TX2 NX\b|^lanai-3636$", "Jetson TX2 NX"),
    (r"\bJetson TX2i?\b|^quill$", "Jetson TX2"),
    (r"\bJetson TX1\b|^jetson_tx1$", "Jetson TX1"),
    (r"\bJetson Nano\b|^jetson-nano$", "Jetson Nano"),
)
_PI = re.compile(r"Raspberry Pi (?:Compute Module [0-9]{1,3}|Zero 2|Zero|[0-9]{1,3})")
# The module on a carrier board of another maker, who may call the board as they like.
_MODULES = (
    (r"p3767-000[345]", "Jetson Orin Nano"),
    (r"p3767-000[01]", "Jetson Orin NX"),
    (r"p3701-000[01458]", "Jetson AGX Orin"),
    (r"p3834-", "Jetson AGX Thor"),
    (r"p3668-", "Jetson Xavier NX"),
    (r"p2888-|p2972-|,jetson-xavier", "Jetson AGX Xavier"),
    (r"p3636-", "Jetson TX2 NX"),
    (r"p3310-|p2771-|p3489-|,quill|,lightning|,storm", "Jetson TX2"),
    (r"p2180-|p2371-2180|,jetson-cv", "Jetson TX1"),
    (r"p3448-|p3450-|,jetson-nano", "Jetson Nano"),
)
_TEGRA = re.compile(r"nvidia,tegra(?:186|19|2[136])")
# Each runs where the host has it.
BOARD_COMMANDS: Dict[str, Sequence[str]] = {
    # From wherever the host has its accounts: they may be in a directory service.
    "users": ["getent", "passwd", *map(str, USER_IDS)],
    "groups": ["getent", "group", *map(str, USER_IDS)],
    "addresses": ["ip", "-json", "address"],
    "gpus": [
        "nvidia-smi",
        "--query-gpu=name,memory.total",
        "--format=csv,noheader,nounits",
    ],
    "power": ["nvpmodel", "-q"],
    "throttled": THROTTLED_COMMAND,
    "time": ["timedatectl", "show", "-p", "NTPSynchronized", "--value"],
}


def parse_os_release(text: str) -> Facts:
    """The fields of os-release(5) that decisions need; None where the system names none."""
    fields: Dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith("#"):
            continue
        try:
            fields[key] = "".join(shlex.split(value))
        except ValueError:  # an unbalanced quote: the bare text is still the best answer
            fields[key] = value.strip("\"'")
    return {
        "id": fields.get("ID"),
        "version_id": fields.get("VERSION_ID"),
        "pretty_name": fields.get("PRETTY_NAME"),
    }


def parse_model(text: str) -> Optional[str]:
    """A board's name from a device tree property (which ends in NUL) or from DMI."""
    return text.replace("\0", "").strip() or None


def board_name(model: Optional[str], compatible: str = "") -> Optional[str]:
    """The family of a board, such as "Jetson Orin Nano" or "Raspberry Pi 5"; None where unknown.

    `model` is the device tree's property of that name; where it is unknown, `compatible`
    decides, which names the module.
    """
    name = model or ""
    pi = _PI.match(name)
    if pi:
        return pi.group()
    for pattern, family in _FAMILIES:
        if re.search(pattern, name):
            return family
    families = {family for pattern, family in _MODULES if re.search(pattern, compatible)}
    return families.pop() if len(families) == 1 else None


def board_kind(model: Optional[str], l4t: Optional[Facts], compatible: str = "") -> str:
    """`jetson`, `pi` or `generic`, from the board's name and its Jetson Linux release.

    `compatible` is the device tree's property of that name.
    """
    name = model or ""
    if name.startswith("Raspberry Pi"):
        return "pi"
    family = board_name(model, compatible) or ""
    if (
        l4t is not None
        or family.startswith("Jetson")
        or re.search(r"\bJetson\b|\bNVIDIA .*\b(Orin|Xavier|Thor)\b", name)
        or _TEGRA.search(compatible)
    ):
        return "jetson"
    return "generic"


def board_commands() -> Dict[str, Sequence[str]]:
    """The board's commands that the host has, by the names of their results."""
    return {name: command for name, command in BOARD_COMMANDS.items() if which(command[0])}


def read_board(
    root: Path,
    system: Path,
    answers: Optional[Mapping[str, Result]] = None,
    packages: Optional[Mapping[str, List[str]]] = None,
) -> Facts:
    """Read the facts of the board. `system` is the folder with its /etc, /proc and /sys: `/`.

    `answers` are the results of `board_commands`, and `packages` is the result of `read_packages`;
    both are read here where they are not given.
    """
    if answers is None:
        answers = run_together(board_commands())
    if packages is None:
        packages = read_packages(system)
    l4t = parse_l4t(read_text(system / "etc/nv_tegra_release") or "")
    # The same folder; the first is there in a container as well, the second is not.
    trees = [system / "sys/firmware/devicetree/base", system / "proc/device-tree"]
    tree = parse_model(first_text([folder / "model" for folder in trees]))
    compatible = first_text([folder / "compatible" for folder in trees])
    model = tree or parse_model(read_text(system / "sys/class/dmi/id/product_name") or "")
    kind = board_kind(model, l4t, compatible)
    memory = parse_memory(read_text(system / "proc/meminfo") or "")
    # getent's exit status is 2 where one of the numbers is nobody's.
    printed = {name: answer.out for name, answer in answers.items() if answer.code in (0, 2)}
    return {
        "kind": kind,
        "name": board_name(tree, compatible),
        "model": model,
        "arch": platform.machine(),
        # The kernel may be of 64 bits where the programs are not, as on some Raspberry Pi OS.
        "userland_bits": struct.calcsize("P") * 8,
        "os": parse_os_release(
            first_text([system / "etc/os-release", system / "usr/lib/os-release"])
        ),
        "l4t": l4t,
        "kernel": read_kernel(system),
        "boot": read_boot(system, kind),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_features": parse_cpu_features(read_text(system / "proc/cpuinfo") or ""),
        "memory_total": memory.get("MemTotal"),
        "zram_total": read_zram(system, memory),
        "gpus": parse_gpus(printed.get("gpus", "")),
        "disk": read_disk(root),
        "python": platform.python_version(),
        "init": (read_text(system / "proc/1/comm") or "").strip(),
        "container": read_container(system),
        "nvidia_runtime": which("nvidia-container-runtime"),
        "gpu_groups": read_gpu_groups(system / "dev"),
        "power": read_power(system, answers.get("power")),
        "tuning": read_tuning(system),
        "temperature": read_temperature(system),
        "throttled": parse_throttled(printed.get("throttled", "")),
        "desktop": parse_desktop(process_names(system)),
        "time_synchronised": {"yes": True, "no": False}.get(printed.get("time", "").strip()),
        "upgrades": {"unattended": read_unattended(system), "held": packages["held"]},
        "root": os.geteuid() == 0,
        "accounts": [
            *parse_accounts(printed.get("users", "")),
            *parse_accounts(printed.get("groups", ""), "group"),
        ],
        "tools": read_tools(),
        "addresses": parse_addresses(printed.get("addresses", "")),
    }
