"""What is on a host: board, docker, ports, deployment and models, read in one call.

Nothing here changes the host, and nothing outside the standard library is needed, so the same file
serves as the inside of the `host_state` module and over a bare connection:

    ssh HOST python3 -IS - "'$ARGUMENTS'" < module_utils/edge_llm_host.py

where ARGUMENTS is a JSON object with the module's parameters. It prints the JSON that the module
returns as `state`. Functions named `parse_*` are pure: captured text in, plain data out.
"""

from __future__ import annotations

import datetime
import fcntl
import gzip
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

Facts = Dict[str, Any]

ROOT = "/opt/edge-llm"
PORTS = (8000, 11434)
DEPLOYED_FILES = ("docker-compose.yml", ".env", "engine/engine.env")
DOOR = "edge-llm-door"
# Two containers can stand for a part: one that serves, one that is coming or going.
CONTAINERS = tuple(f"edge-llm-{part}-{slot}" for part in ("engine", "api") for slot in "ab")
RELEASES, JOURNAL, LOCK = "releases", "change.json", ".lock"
HISTORY = "releases/history.jsonl"
RELEASE = "release.json"
RECORD = ".verified.json"
WORKSHOP = ".fetch"  # below models: what is not whole yet
OLLAMA_STORE = "ollama"  # below models
OLLAMA_LIBRARY = "manifests/registry.ollama.ai/library"  # below that
OLLAMA_WEIGHTS_TYPE = "application/vnd.ollama.image.model"
OLLAMA_PROJECTOR_TYPE = "application/vnd.ollama.image.projector"

# Seconds that one command, or one batch started together, may take: a small board that is busy
# needs more than ten to ask its Docker, which is no reason to take that for one that does not run.
COMMAND_TIMEOUT = 60.0
LOG_LINES = 4000  # an engine says what it loaded at its start; the rest is requests
LOG_SECONDS = 900  # the slowest start worth waiting for: large weights from an SD card

# A bare ssh command may come with a PATH that lacks the sbin folders.
SEARCH_PATH = os.pathsep.join(
    [
        os.environ.get("PATH", ""),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
)


class Result(NamedTuple):
    """How a command ended: its exit status and what it wrote.

    The status is None where it ran out of time or could not be started; `err` then says so.
    """

    code: Optional[int]
    out: str
    err: str


def parse_json(text: str) -> Any:
    """What JSON text stands for; None for text that is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def objects(found: Any) -> List[Facts]:
    """The JSON objects of a list; none where it is something else."""
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def words(found: Any) -> List[str]:
    """The items of a JSON list, or the names in an object, as text; none of anything else."""
    return [str(each) for each in found] if isinstance(found, (list, dict)) else []


# --- board ---------------------------------------------------------------------------------------

# What a device tree calls a board, and its family; older releases of L4T had code names there. DMI
# is not asked: it can call an Orin Nano an Orin NX.
_FAMILIES = (
    (r"\bOrin Nano\b", "Jetson Orin Nano"),
    (r"\bOrin NX\b", "Jetson Orin NX"),
    (r"\bJetson AGX Orin\b|\bOrin Jetson-Small\b", "Jetson AGX Orin"),
    (r"\bJetson AGX Thor\b", "Jetson AGX Thor"),
    (r"\bXavier NX\b", "Jetson Xavier NX"),
    (r"\bJetson AGX Xavier\b|^Jetson-AGX$|^jetson-xavier$", "Jetson AGX Xavier"),
    (r"\bJetson TX2 NX\b", "Jetson TX2 NX"),
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

CMDLINE_FILES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
# What Raspberry Pi OS leaves at the second where the first is the file.
_MOVED = "The file you are looking for has moved"
# Thermal zones that are at 100 degrees whatever the board does (a Jetson's PMIC-Die), or are a
# card's (iwlwifi).
_OTHER_ZONES = re.compile(r"PMIC|iwlwifi", re.I)
_THROTTLED = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "soft temperature limit now",
    16: "under-voltage since the start",
    17: "frequency capped since the start",
    18: "throttled since the start",
    19: "soft temperature limit since the start",
}
# Main processes of desktop sessions, as far as comm holds their names (15 characters); the first
# that runs is named, since a session has several.
_DESKTOPS = (
    *("gnome-shell", "plasmashell", "xfce4-session", "lxsession", "lxqt-session"),
    *("mate-session", "cinnamon", "compiz", "kwin_wayland", "kwin_x11", "kwin"),
    *("labwc", "wayfire", "sway", "weston", "Xorg", "Xwayland"),
)
# A Jetson's own GPU, whose memory is the board's.
_OWN_GPU = re.compile(r"\(nvgpu\)|^(?:NVIDIA )?(?:Orin|Thor|Xavier)\b")
# What decides how llama.cpp keeps weights in memory (edge_llm_repack.py), by its names in
# /proc/cpuinfo: of x86-64, and in the last line of arm64.
CPU_FEATURES = {
    *("avx", "avx2", "bmi2", "f16c", "fma", "avx512bw", "avx512cd", "avx512dq", "avx512f"),
    *("avx512vl", "avx512_bf16", "avx512_vnni", "avx512vbmi", "amx_int8", "amx_tile"),
    *("asimddp", "i8mm", "sve", "sve2"),
}
NO_RAW = "DOCKER_INSECURE_NO_IPTABLES_RAW"
DOCKER_PACKAGES = (
    *("containerd", "containerd.io", "docker-ce"),
    *("docker-compose", "docker-compose-v2", "docker.io"),
)

# Each is asked where the host has it.
BOARD_COMMANDS: Dict[str, Sequence[str]] = {
    "addresses": ["ip", "-json", "address"],
    "gpus": [
        "nvidia-smi",
        "--query-gpu=name,memory.total,memory.free",
        "--format=csv,noheader,nounits",
    ],
    "power": ["nvpmodel", "-q"],
    "throttled": ["vcgencmd", "get_throttled"],
    "time": ["timedatectl", "show", "-p", "NTPSynchronized", "--value"],
}


def parse_l4t(text: str) -> Optional[Facts]:
    """Release of Jetson Linux from the first line of /etc/nv_tegra_release.

    `# R36 (release), REVISION: 4.3, GCID: ...` is {"major": 36, "minor": 4, "patch": 3,
    "text": "36.4.3"}; a revision without a patch number has patch 0; None for any other text.
    """
    match = re.match(r"#\s*R(\d{1,4})\s*\(release\),\s*REVISION:\s*(\d{1,4})(?:\.(\d{1,4}))?", text)
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups())
    return {"major": major, "minor": minor, "patch": patch, "text": f"{major}.{minor}.{patch}"}


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
        "codename": fields.get("VERSION_CODENAME"),
        "pretty_name": fields.get("PRETTY_NAME"),
    }


def parse_memory(text: str) -> Dict[str, int]:
    """The sizes of /proc/meminfo in bytes, by their names in it."""
    return {
        key: int(kilobytes) * 1024
        for key, kilobytes in re.findall(r"^(\w+):\s+([0-9]{1,15}) kB$", text, re.M)
    }


def parse_cpu_features(text: str) -> Optional[List[str]]:
    """The CPU_FEATURES that all CPUs of /proc/cpuinfo have; None where it names no features."""
    lines = re.findall(r"^(?:flags|Features)[ \t]*:(.*)$", text, re.M)
    if not lines:
        return None
    return sorted(CPU_FEATURES.intersection(*(line.split() for line in lines)))


def parse_meminfo(text: str) -> Tuple[Optional[int], Optional[int]]:
    """(MemTotal, MemAvailable) of /proc/meminfo in bytes; None for one that is not there."""
    found = parse_memory(text)
    return found.get("MemTotal"), found.get("MemAvailable")


def parse_swaps(text: str) -> Optional[Tuple[int, int]]:
    """(all swap, the part of it that is compressed memory: zram) of /proc/swaps in bytes.

    None for any other text.
    """
    if not text.startswith("Filename"):
        return None
    sizes = [
        (name, int(kilobytes) * 1024)
        for name, kilobytes in re.findall(r"^(\S+)[ \t]+\w+[ \t]+([0-9]{1,15})\b", text, re.M)
    ]
    zram = sum(size for name, size in sizes if name.startswith("/dev/zram"))
    return sum(size for _, size in sizes), zram


def parse_gpus(text: str) -> List[Facts]:
    """The GPUs with memory of their own: [{"name", "memory_total", "memory_free"}], in bytes.

    From `nvidia-smi --query-gpu=name,memory.total,memory.free --format=csv,noheader,nounits`,
    which has [N/A] for a Jetson's.
    """
    rows = re.findall(r"^(.+), *([0-9]{1,9}), *([0-9]{1,9})\s*$", text, re.M)
    return [
        {"name": name, "memory_total": int(total) << 20, "memory_free": int(free) << 20}
        for name, total, free in rows
        if not _OWN_GPU.search(name)
    ]


def parse_model(text: str) -> Optional[str]:
    """A board's name from a device tree property (which ends in NUL) or from DMI."""
    return text.replace("\0", "").strip() or None


def board_name(model: Optional[str], compatible: str = "") -> Optional[str]:
    """The family of a board, such as "Jetson Orin Nano" or "Raspberry Pi 5"; None where unknown.

    `model` is the device tree's property of that name; where it does not tell, `compatible`
    does, which names the module.
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


def parse_memory_cgroup(controllers: Optional[str], cgroups: str, release: str) -> Optional[bool]:
    """Whether the kernel can limit the memory of a group of processes; None where nothing tells.

    `controllers` is cgroup v2's cgroup.controllers, None where the host has v1; `cgroups` is
    /proc/cgroups; `release` the kernel's.
    """
    if controllers is not None:
        return "memory" in controllers.split()
    match = re.search(r"^memory\s+[0-9]+\s+[0-9]+\s+([01])\s*$", cgroups, re.M)
    if match:
        return match.group(1) == "1"
    version = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", release)
    if not cgroups.startswith("#subsys_name") or version is None:
        return None
    # From 6.12 on, that file may leave out what is there: raspberrypi/linux#6980.
    return False if (int(version.group(1)), int(version.group(2))) < (6, 12) else None


def parse_kernel_option(text: str, option: str) -> Optional[bool]:
    """Whether a kernel has an option, in it or as a module; None for text that is no kernel's
    configuration.
    """
    if not re.search(r"^(?:# )?CONFIG_\w", text, re.M):
        return None
    return re.search(rf"^CONFIG_{option}=[ym]\s*$", text, re.M) is not None


def parse_module(builtin: str, loadable: str, module: str) -> Optional[bool]:
    """Whether a kernel has a module, by its modules.builtin and modules.dep; None where one of the
    two is empty and the other does not have it.
    """
    if re.search(rf"^(?:\S*/)?{module}\.ko\b", f"{builtin}\n{loadable}", re.M):
        return True
    return False if builtin and loadable else None


def parse_cgroup_words(text: str) -> List[str]:
    """The words of a kernel's command line that are about cgroups, in their order."""
    return [word for word in text.split() if "cgroup" in word]


def parse_power_mode(text: str) -> Tuple[Optional[str], Optional[int]]:
    """(name, number) of the power mode that `nvpmodel -q` tells; None for what it does not tell.

    Warnings can come before, and where the caller is not root, errors behind.
    """
    match = re.search(r"NV Power Mode: *(\S+)[^\n]*(?:\n+ *([0-9]{1,4}) *(?:\n|$))?", text)
    if match is None:
        return None, None
    return match.group(1), None if match.group(2) is None else int(match.group(2))


def parse_power_modes(text: str) -> Dict[str, int]:
    """Name -> number of the power modes that /etc/nvpmodel.conf defines."""
    lines = re.findall(r"^[^#\n]*\bPOWER_MODEL:?\s+ID=([0-9]{1,4})\s+NAME=([^\s>]+)", text, re.M)
    return {name: int(number) for number, name in lines}


def parse_power_status(text: str) -> Optional[int]:
    """The number of the power mode that nvpmodel has kept in /var/lib/nvpmodel/status."""
    match = re.search(r"\bpmode:([0-9]{1,4})\b", text)
    return None if match is None else int(match.group(1))


def parse_temperature(text: str) -> Optional[float]:
    """Degrees Celsius of a thermal zone; None for what none has: one without power is at -256."""
    match = re.match(r"(-?[0-9]{1,6})\s*$", text)
    value = int(match.group(1)) if match else None
    return None if value is None or not -100_000 < value < 200_000 else value / 1000


def parse_throttled(text: str) -> Optional[List[str]]:
    """What `vcgencmd get_throttled` complains of, in words; None where it does not answer."""
    match = re.match(r"throttled=0x([0-9a-fA-F]{1,8})\s*$", text)
    if match is None:
        return None
    bits = int(match.group(1), 16)
    return [phrase for bit, phrase in _THROTTLED.items() if bits >> bit & 1]


def parse_desktop(names: Iterable[str]) -> Optional[str]:
    """The main process of a desktop session among the names of processes, or None."""
    running = set(names)
    return next((name for name in _DESKTOPS if name in running), None)


def parse_unattended(text: str) -> Optional[bool]:
    """Whether apt's configuration asks for unattended upgrades; None where it does not say."""
    # Comments go, and what is in quotes stays.
    bare = re.sub(r'("[^"\n]*")|/\*.*?\*/|//[^\n]*|#[^\n]*', r"\1", text, flags=re.S)
    values = re.findall(r'\bUnattended-Upgrade\s+"([^"\n]*)"\s*;', bare, re.I)
    return values[-1] not in ("", "0") if values else None


def parse_packages(text: str) -> Dict[str, List[str]]:
    """{"installed", "held"}: the names of Docker's packages of which dpkg's status file says so."""
    names = "|".join(map(re.escape, DOCKER_PACKAGES))
    found = re.findall(rf"^Package: ({names})\n(?:.+\n)*?Status: (\w+) \w+ ([\w-]+)$", text, re.M)
    return {
        "installed": sorted({name for name, _, state in found if state == "installed"}),
        "held": sorted({name for name, wanted, _ in found if wanted == "hold"}),
    }


def read_text(path: Path) -> Optional[str]:
    """A small file's text, or None where it is not there or not ours to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def first_text(paths: Iterable[Path]) -> str:
    """The text of the first path that has any, else an empty string."""
    for path in paths:
        text = read_text(path)
        if text:
            return text
    return ""


def entries(folder: Path) -> List[Path]:
    """What is in a folder, by name; nothing where it is not there or not ours to read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def read_json(path: Path) -> Optional[Facts]:
    """A file's JSON object, or None where it is not there or holds something else."""
    found = parse_json(read_text(path) or "")
    return found if isinstance(found, dict) else None


def read_disk(root: Path) -> Facts:
    """Room on the file system that `root` is on, or would be made on: bytes free and in all."""
    path = root
    while not path.exists():
        path = path.parent
    room = os.statvfs(path)
    return {
        "path": str(path),
        "free": room.f_bavail * room.f_frsize,
        "total": room.f_blocks * room.f_frsize,
    }


def parse_addresses(text: str) -> List[str]:
    """The addresses by which others reach the host, from `ip -json address`.

    Those of containers' networks are left out, and those that mean nothing beyond one cable.
    """
    inside = re.compile(r"lo$|docker|br-|veth|cni|virbr|l4tbr|rndis|usb")
    return [
        str(each["local"])
        for link in objects(parse_json(text))
        if not inside.match(str(link.get("ifname", "")))
        for each in objects(link.get("addr_info"))
        if each.get("scope") == "global" and not each.get("temporary") and "local" in each
    ]


def read_tools() -> List[str]:
    """Those of the commands that bring weights and images which the host has."""
    return [name for name in ("aria2c", "curl", "skopeo") if shutil.which(name, path=SEARCH_PATH)]


def read_gpu_groups(devices: Path) -> List[int]:
    """The groups, other than root's, that own a GPU's device files; `devices` is /dev."""
    groups = set()
    for pattern in ("nvmap", "nvhost-*", "nvgpu/*/*", "nvidia*", "dri/render*"):
        for path in devices.glob(pattern):
            if path.is_char_device():
                groups.add(path.stat().st_gid)
    return sorted(groups - {0})


def read_kernel(system: Path) -> Facts:
    """{"release", "memory_cgroup", "ip_nf_raw"}: the latter are None where it cannot be told."""
    release = (read_text(system / "proc/sys/kernel/osrelease") or "").strip()
    if not re.match(r"[0-9][\w.+~-]*$", release, re.ASCII):  # it becomes the name of a file
        release = ""
    return {
        "release": release or None,
        "memory_cgroup": parse_memory_cgroup(
            read_text(system / "sys/fs/cgroup/cgroup.controllers"),
            read_text(system / "proc/cgroups") or "",
            release,
        ),
        "ip_nf_raw": read_ip_nf_raw(system, release),
    }


def read_ip_nf_raw(system: Path, release: str) -> Optional[bool]:
    """Whether the kernel has iptables' raw table, in which Docker 28 writes; None if unknown."""
    try:
        packed = gzip.decompress((system / "proc/config.gz").read_bytes())
    except (OSError, EOFError, zlib.error):
        packed = b""
    answer = parse_kernel_option(packed.decode("utf-8", "replace"), "IP_NF_RAW")
    if answer is None and release:
        text = read_text(system / "boot" / f"config-{release}") or ""
        answer = parse_kernel_option(text, "IP_NF_RAW")
    if answer is None and release:
        folder = system / "lib/modules" / release
        builtin, loadable = (
            read_text(folder / f"modules.{kind}") or "" for kind in ("builtin", "dep")
        )
        answer = parse_module(builtin, loadable, "iptable_raw")
    return answer


def read_boot(system: Path, kind: str) -> Facts:
    """The words about cgroups with which the kernel started, and those of a Raspberry Pi's file.

    {"file": path of cmdline.txt or None, "file_words", "lines" (that have any text: the firmware
    reads the first), "words": the kernel's own, of which the last on a subject counts}
    """
    found, text = None, ""
    for path in CMDLINE_FILES if kind == "pi" else ():
        there = read_text(system / path.lstrip("/"))
        if there is not None and _MOVED not in there:
            found, text = path, there
            break
    return {
        "file": found,
        "file_words": parse_cgroup_words(text),
        "lines": sum(1 for line in text.splitlines() if line.strip()),
        "words": parse_cgroup_words(read_text(system / "proc/cmdline") or ""),
    }


def read_power(system: Path, answer: Optional[Result]) -> Optional[Facts]:
    """The power mode of a Jetson: {"mode" (name), "id", "modes": {name: id}}, or None.

    `answer` is that of `nvpmodel -q`, None where there is no such command. What it does not tell
    comes from the file that it keeps.
    """
    settings = read_text(system / "etc/nvpmodel.conf")
    kept = read_text(system / "var/lib/nvpmodel/status")
    if answer is None and settings is None and kept is None:
        return None
    modes = parse_power_modes(settings or "")
    mode, number = parse_power_mode(answer.out if answer else "")
    if mode is None:
        number = parse_power_status(kept or "")
        mode = next((name for name, each in modes.items() if each == number), None)
    elif number is None:
        number = modes.get(mode)
    return {"mode": mode, "id": number, "modes": modes}


def read_tuning(system: Path) -> Facts:
    """{"clocks" (does this project's service have them at their highest), "fan" (the profile that
    a Jetson's fan follows, or None)}."""
    profile = re.search(
        r"^\s*FAN_DEFAULT_PROFILE\s+(\w+)", read_text(system / "etc/nvfancontrol.conf") or "", re.M
    )
    wanted = "etc/systemd/system/multi-user.target.wants/edge-llm-clocks.service"
    return {
        "clocks": os.path.lexists(system / wanted),
        "fan": profile.group(1) if profile else None,
    }


def read_temperature(system: Path) -> Optional[float]:
    """Degrees Celsius of the board's hottest zone, or None where no zone has any."""
    found = []
    for zone in (system / "sys/class/thermal").glob("thermal_zone*"):
        if not _OTHER_ZONES.search(read_text(zone / "type") or ""):
            found.append(parse_temperature(read_text(zone / "temp") or ""))
    return max((each for each in found if each is not None), default=None)


def process_names(system: Path) -> List[str]:
    """The names of all processes that can be seen."""
    processes = [path for path in entries(system / "proc") if path.name.isdigit()]
    return [(read_text(process / "comm") or "").strip() for process in processes]


def read_container(system: Path) -> bool:
    """Whether the host is a container, as systemd, Docker, Podman or its first process tells."""
    environment = (read_text(system / "proc/1/environ") or "").split("\0")
    marks = ("run/systemd/container", ".dockerenv", "run/.containerenv")
    return any(word.startswith("container=") and word != "container=" for word in environment) or (
        any((system / mark).exists() for mark in marks)
    )


def read_unattended(system: Path) -> bool:
    """Whether apt is told to make upgrades by itself."""
    # As apt chooses them: others are what was before, or is not to be.
    paths = [
        path
        for path in entries(system / "etc/apt/apt.conf.d")
        if re.match(r"[\w-][\w.-]*$", path.name, re.ASCII) and path.suffix in ("", ".conf")
    ]
    told = [
        parse_unattended(read_text(path) or "") for path in [*paths, system / "etc/apt/apt.conf"]
    ]
    return next((each for each in reversed(told) if each is not None), False)


def read_packages(system: Path) -> Dict[str, List[str]]:
    """{"installed", "held"} of Docker's packages, by dpkg."""
    return parse_packages(read_text(system / "var/lib/dpkg/status") or "")


def board_commands() -> Dict[str, Sequence[str]]:
    """Those of the board's commands that the host has, by the names under which answers come."""
    return {
        name: command
        for name, command in BOARD_COMMANDS.items()
        if shutil.which(command[0], path=SEARCH_PATH)
    }


def read_swap(system: Path, memory: Mapping[str, int]) -> Tuple[Optional[int], Optional[int]]:
    """(all swap, the part of it in zram) in bytes; `memory` is what /proc/meminfo says."""
    found = parse_swaps(read_text(system / "proc/swaps") or "")
    if found is None:  # a kernel that cannot swap has no such file
        total = memory.get("SwapTotal")
        return total, 0 if total == 0 else None
    return found


def read_board(
    root: Path,
    system: Path,
    answers: Optional[Mapping[str, Result]] = None,
    packages: Optional[Mapping[str, List[str]]] = None,
) -> Facts:
    """What the host is. `system` is the folder that holds its /etc, /proc and /sys: `/`.

    `answers` are those of `board_commands`, and `packages` is what `read_packages` says: both are
    asked here where they are not given.
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
    swap, zram = read_swap(system, memory)
    said = {name: answer.out for name, answer in answers.items() if answer.code == 0}
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
        "memory_available": memory.get("MemAvailable"),
        "memory_free": memory.get("MemFree"),
        "swap_total": swap,
        "zram_total": zram,
        "gpus": parse_gpus(said.get("gpus", "")),
        "disk": read_disk(root),
        "python": platform.python_version(),
        "init": (read_text(system / "proc/1/comm") or "").strip(),
        "container": read_container(system),
        "nvidia_runtime": shutil.which("nvidia-container-runtime", path=SEARCH_PATH),
        "gpu_groups": read_gpu_groups(system / "dev"),
        "power": read_power(system, answers.get("power")),
        "tuning": read_tuning(system),
        "temperature": read_temperature(system),
        "throttled": parse_throttled(said.get("throttled", "")),
        "desktop": parse_desktop(process_names(system)),
        "time_synchronised": {"yes": True, "no": False}.get(said.get("time", "").strip()),
        "upgrades": {"unattended": read_unattended(system), "held": packages["held"]},
        "root": os.geteuid() == 0,
        "apt": shutil.which("apt-get", path=SEARCH_PATH) is not None,
        "tools": read_tools(),
        "addresses": parse_addresses(said.get("addresses", "")),
    }


# --- docker --------------------------------------------------------------------------------------


def run_together(
    commands: Mapping[str, Sequence[str]], timeout: float = COMMAND_TIMEOUT
) -> Dict[str, Result]:
    """Start the commands at once and collect what each wrote.

    Together, because each is mostly waiting: for the docker command to start, then for the engine.
    All share one limit of `timeout` seconds; what is still running then is killed.
    """
    environment = dict(os.environ, PATH=SEARCH_PATH, LC_ALL="C")
    deadline = time.monotonic() + timeout
    started, results = {}, {}
    for name, command in commands.items():
        try:
            started[name] = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=environment,
                start_new_session=True,
            )
        except OSError as error:  # it is there, and not for this machine
            results[name] = Result(None, "", str(error))
    for name, process in started.items():
        try:
            out, err = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
            results[name] = Result(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            end_session(process)
            results[name] = Result(None, "", f"no answer within {timeout:g} seconds")
    return results


def end_session(process: subprocess.Popen[str]) -> None:
    """Kill a process and those that it started: one of them could hold its output open."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
    try:
        process.communicate(timeout=1)
    except subprocess.TimeoutExpired:  # it waits for a device, and ends when that answers
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def parse_docker_info(text: str, complaint: str = "") -> Facts:
    """The engine and its compose plugin from `docker info --format '{{json .}}'`.

    {"running": bool, "version": str or None, "compose": str or None, "runtimes": [str],
    "no_raw": whether the engine says that it makes no rules in iptables' raw table (one that can
    do so says it: moby/moby#49621), "error": None or why the engine did not answer}. `complaint`
    is what the command wrote to its standard error, used where the answer itself gives no reason.
    Client and plugins are described even when the engine is dead.
    """
    info = parse_json(text)
    if not isinstance(info, dict):
        info = {}
    version = str(info.get("ServerVersion") or "") or None
    problems = words(info.get("ServerErrors"))
    running = version is not None and not problems
    compose = None
    client = info.get("ClientInfo")
    for plugin in objects(client.get("Plugins") if isinstance(client, dict) else None):
        if plugin.get("Name") == "compose" and not plugin.get("Err"):
            compose = str(plugin.get("Version", "")).lstrip("v") or None
    reason = "; ".join(problems) or complaint.strip() or "docker info gave no answer"
    return {
        "running": running,
        "version": version if running else None,
        "compose": compose,
        "runtimes": sorted(words(info.get("Runtimes"))),
        "no_raw": any(f"{NO_RAW} is set" in each for each in words(info.get("Warnings"))),
        "error": None if running else reason,
    }


def parse_unit_environment(texts: Iterable[str]) -> Dict[str, str]:
    """What a systemd unit's files, in their order, put into its environment with Environment=."""
    found: Dict[str, str] = {}
    for line in "\n".join(texts).replace("\\\n", " ").splitlines():
        key, equals, value = line.strip().partition("=")
        if key.rstrip() != "Environment" or not equals:
            continue
        if not value.strip():  # as systemd does: nothing of what came before
            found.clear()
        for word in split_words(value):
            name, _, content = word.partition("=")
            found[name] = content
    return found


def split_words(text: str) -> List[str]:
    """The words of a text in which quotes hold words together."""
    try:
        return shlex.split(text)
    except ValueError:  # an unbalanced quote: the bare words are still the best answer
        return [word.strip("\"'") for word in text.split()]


def read_no_raw(system: Path) -> bool:
    """Whether the engine's service is to have Docker 28's way around a kernel without a raw table.

    For an engine that does not run: one that runs tells what it has.
    """
    folder = system / "etc/systemd/system/docker.service.d"
    texts = [read_text(path) or "" for path in sorted(folder.glob("*.conf"))]
    return parse_unit_environment(texts).get(NO_RAW) == "1"


def parse_daemon_json(text: Optional[str], path: str) -> Tuple[Optional[Facts], Optional[str]]:
    """(settings, None), or (None, a sentence) where the file is not a JSON object."""
    if text is None:
        return None, None
    try:
        settings = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        return None, f"{path} must be a JSON object and is not JSON: {error}"
    if not isinstance(settings, dict):
        return None, f"{path} must be a JSON object and holds a {type(settings).__name__}"
    return settings, None


def parse_json_lines(text: str) -> List[Facts]:
    """One JSON object a line, as docker prints lists with `--format '{{json .}}'`."""
    return objects([parse_json(line) for line in text.splitlines() if line.startswith("{")])


def parse_published(text: str) -> List[Tuple[str, str, int]]:
    """(container, address, host port) for each TCP port published in `docker ps`'s JSON lines."""
    published = []
    for row in parse_json_lines(text):
        name = str(row.get("Names", "")).split(",")[0]
        for entry in str(row.get("Ports", "")).split(", "):
            match = re.match(r"(.*?):?([0-9]{1,5})(?:-([0-9]{1,5}))?->.*/tcp$", entry)
            if match is None:
                continue
            address, first, last = match.groups()
            for port in range(int(first), int(last or first) + 1):
                published.append((name, address.strip("[]") or "0.0.0.0", port))  # noqa: S104
    return published


def parse_images(text: str) -> List[str]:
    """Every `repository:tag` and `repository@digest` in `docker image ls --digests`' lines."""
    names = set()
    for row in parse_json_lines(text):
        repository = row.get("Repository", "<none>")
        if repository == "<none>":
            continue
        if row.get("Tag", "<none>") != "<none>":
            names.add(f"{repository}:{row['Tag']}")
        if row.get("Digest", "<none>") != "<none>":
            names.add(f"{repository}@{row['Digest']}")
    return sorted(names)


def parse_containers(text: str) -> Dict[str, Facts]:
    """The project's containers by name, from `docker inspect`, as far as they are there.

    {"id", "image" (as configured), "image_id", "status" (created, running, restarting, exited,
    ...), "health" (starting, healthy, unhealthy, or None without a check), "restarts" (by the
    engine, int), "started_at" (RFC 3339), "config_hash" (compose's, or None)}
    """
    containers: Dict[str, Facts] = {}
    for item in objects(parse_json(text)):
        try:
            state, config = item["State"], item["Config"]
            health = (state.get("Health") or {}).get("Status")
            containers[item["Name"].lstrip("/")] = {
                "id": item["Id"],
                "image": config["Image"],
                "image_id": item["Image"],
                "status": state["Status"],
                "health": None if health == "none" else health,
                "restarts": item["RestartCount"],
                "started_at": state["StartedAt"],
                "config_hash": (config.get("Labels") or {}).get("com.docker.compose.config-hash"),
            }
        except (AttributeError, KeyError, TypeError):  # not docker's words
            continue
    return containers


# --- engine log ----------------------------------------------------------------------------------

# llama.cpp names a buffer after its device, with what it is used for behind an underscore. A list
# of what is a GPU, not of what is none: a device unknown here must not count as proof of one.
_GPU = re.compile(r"^(?:CUDA|ROCm|HIP|MUSA|Vulkan|SYCL|MTL|Metal|OpenCL|CANN)\d*$")
# Before 2025 it did not say of which kind a buffer is in the lines about loading the model.
_BUFFER = re.compile(r"load_tensors:\s+(\S+) (?:model )?buffer size")
_OFFLOADED = re.compile(r"offloaded ([0-9]{1,6})/([0-9]{1,6}) layers to GPU")
_READY = re.compile(
    r"(?:main|llama_server): model loaded"  # llama.cpp
    r"|server is listening on http|llama_server: listening on http"  # llama.cpp
    r"|Application startup complete"  # vLLM
)
# Ollama loads a model when it is first asked for, which may be long after its start.
_OLLAMA_LISTENS = re.compile(r'msg="Listening on \S+ \(version ')
_OLLAMA_LOADED = re.compile(
    r"(?:llama-server|llama runner) started in ([0-9]{1,6}(?:\.[0-9]{1,9})?) seconds"
)
_PLATFORM = re.compile(r"Automatically detected platform (\w{1,40})\b")  # vLLM


def parse_time(text: str) -> Optional[float]:
    """Seconds since 1970 of an RFC 3339 time in UTC, as docker writes them (9 decimals)."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,12})?Z$", text, re.ASCII)
    if match is None:
        return None
    try:
        moment = datetime.datetime.strptime(match.group(1) + "+0000", "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:  # a 13th month
        return None
    return moment.timestamp() + float(match.group(2) or 0)


def parse_engine_log(lines: Iterable[str], started: Optional[float]) -> Facts:
    """What an engine said of its start, from `docker logs --timestamps`.

    {"layers_offloaded", "layers_total" (ints or None), "gpu_buffers" (devices that hold a model
    buffer of their own), "platform" (vLLM's word for what it runs on, such as "cuda" or "cpu", or
    None), "gpu_said" (lines about a GPU that it cannot use), "start_seconds" (float or None)}.
    `started` is the container's start in seconds since 1970.

    A build without any GPU can say that it offloaded all layers: the proof of offload is the
    number together with a device in gpu_buffers. start_seconds is how long the engine took until
    it could answer; for Ollama, its own start and its first load, without the time between them in
    which nobody asked.
    """
    offloaded: Optional[int] = None
    total: Optional[int] = None
    devices: List[str] = []
    detected: Optional[str] = None
    said: List[str] = []
    seconds: Optional[float] = None
    ollama: Optional[float] = None  # seconds until it listened
    for line in lines:
        stamp, _, message = line.partition(" ")
        match = _OFFLOADED.search(message)
        if match:
            offloaded, total = int(match.group(1)), int(match.group(2))
        match = _BUFFER.search(message)
        if match:
            device = re.sub(r"_(Mapped|Split|Private)$", "", match.group(1))
            if _GPU.match(device) and device not in devices:
                devices.append(device)
        match = _PLATFORM.search(message)
        if match:
            detected = match.group(1)
        complaint = message.strip()[:200]
        if len(said) < GPU_LINES and _GPU_SAID.search(message) and complaint not in said:
            said.append(complaint)
        moment = parse_time(stamp)
        if seconds is not None or started is None or moment is None:
            continue
        loaded = _OLLAMA_LOADED.search(message)
        if _OLLAMA_LISTENS.search(message):
            ollama = moment - started
        elif ollama is not None and loaded:
            seconds = round(ollama + float(loaded.group(1)), 2)
        elif ollama is None and _READY.search(message):
            seconds = round(moment - started, 2)
    return {
        "layers_offloaded": offloaded,
        "layers_total": total,
        "gpu_buffers": devices,
        "platform": detected,
        "gpu_said": said,
        "start_seconds": seconds,
    }


def read_engine_log(docker: str, engine: Optional[Facts]) -> Facts:
    """The start of the engine container's log, read no further than it says anything of it."""
    started = parse_time(str(engine["started_at"])) if engine else None
    # Year 1: created and never started.
    if engine is None or started is None or not 0 <= started < 1e11:
        return parse_engine_log([], None)
    until = datetime.datetime.fromtimestamp(started + LOG_SECONDS, datetime.timezone.utc)
    command = [docker, "logs", "--timestamps", "--since", engine["started_at"]]
    command += ["--until", until.strftime("%Y-%m-%dT%H:%M:%SZ"), engine["id"]]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        timer = threading.Timer(COMMAND_TIMEOUT, process.kill)
        timer.start()
        lines = []
        try:
            for line in process.stdout or ():
                lines.append(line)
                if len(lines) == LOG_LINES:
                    break
        finally:
            timer.cancel()
            process.kill()
    return parse_engine_log(lines, started)


# What engines say of a GPU that they cannot use, and the likely reason of each.
_GPU_REASONS = (
    (
        # https://github.com/ggml-org/llama.cpp/pull/23732: L4T from 36.4.7 on.
        r"NvMapMem\w+: (?:\d+ )?error|cudaMalloc failed: out of memory|CUDA error: out of memory"
        r"|unable to allocate CUDA\d* buffer|failed to allocate CUDA\d* buffer",
        "the GPU's memory was full or in pieces: stop what else holds it (a desktop session),"
        " restart the board, or choose a smaller llm_context_size or llm_model",
    ),
    (
        # llama.cpp#13629, ollama#18067
        r"driver version is insufficient|unsupported display driver|libcudart\.so|err: 801"
        r"|no kernel image is available|device kernel image is invalid",
        "the image is for another CUDA than the board's driver: set llm_image to one for its L4T",
    ),
    (
        r"no CUDA-capable device|no compatible GPUs|no GPU detected|failed to initialize CUDA"
        r"|NVML_SUCCESS == r",
        "the container saw no GPU: look at the host's driver, and at Docker's nvidia runtime"
        " (nvidia-ctk)",
    ),
    (
        r"no usable GPU found",
        "the image's engine was built without a GPU, or the container saw none: see which image it"
        " is, and the host's driver",
    ),
)
_GPU_SAID = re.compile("|".join(pattern for pattern, _ in _GPU_REASONS))
GPU_LINES = 3
"""How much an engine may say of its GPU."""


def gpu_problem(gpu: Facts, provider: str, log: Facts, share: Optional[float]) -> Optional[str]:
    """Why it is not proven that an engine has its layers on a GPU; None where it is.

    llama.cpp is held to its log: a build without a GPU can say that it offloaded them all, so the
    proof is a GPU's own buffer, too. Ollama is held to what it tells of the model's place, vLLM to
    the platform that it found. `gpu` is that of the plan ({"layers", "of": how many there are}),
    `share` is gpu_share of the chat API's report.
    """
    # Records of changes that were made before `of` was told have it not.
    asked, of = gpu["layers"], gpu.get("of", gpu["layers"])
    if provider == "ollama":
        if share is not None and share >= 1:
            return None
        seen = "ollama does not tell" if share is None else f"{share:.0%} of the model is there"
    elif provider == "vllm":
        if log["platform"] == "cuda":
            return None
        seen = f"vllm found the platform {log['platform'] or 'that it does not tell'}"
    else:
        offloaded, total = log["layers_offloaded"], log["layers_total"]
        if log["gpu_buffers"] and offloaded is not None and offloaded >= min(asked, total):
            return None
        seen = (
            f"the engine's log tells of {'none' if offloaded is None else offloaded} of"
            f" {'an unknown number' if total is None else total}, with model buffers on"
            f" {', '.join(log['gpu_buffers']) or 'no GPU'}"
        )
    said = log["gpu_said"]
    return (
        f"{min(asked, of)} of {of} layers were asked onto the GPU, and {seen}"
        + (f" (it said: {'; '.join(said)})" if said else "")
        + f"; likely {gpu_reason(said)}; accepted is all that were asked, or"
        " llm_gpu_required: false"
    )


def gpu_reason(said: Sequence[str]) -> str:
    """The likely reason for what an engine said of its GPU."""
    for pattern, reason in _GPU_REASONS:
        if any(re.search(pattern, line) for line in said):
            return reason
    return "the image's engine was built without a GPU: see which image it is, and llm_image"


# --- ports ---------------------------------------------------------------------------------------


def parse_address(text: str) -> Optional[str]:
    """An address of /proc/net/tcp or tcp6: 32-bit words in the machine's own byte order.

    None for what is no address.
    """
    if not re.fullmatch(r"[0-9A-F]{8}|[0-9A-F]{32}", text):
        return None
    numbers = [int(text[index : index + 8], 16) for index in range(0, len(text), 8)]
    packed = struct.pack(f"={len(numbers)}I", *numbers)
    return socket.inet_ntop(socket.AF_INET if len(numbers) == 1 else socket.AF_INET6, packed)


def parse_listeners(text: str) -> List[Tuple[int, str, int]]:
    """(port, address, socket inode) for each listening line of /proc/net/tcp or tcp6."""
    listeners = []
    for line in text.splitlines():
        columns = line.split()
        if len(columns) < 10 or columns[3] != "0A":  # TCP_LISTEN
            continue
        host, _, port = columns[1].rpartition(":")
        address, inode = parse_address(host), columns[9]
        if address and re.fullmatch("[0-9A-F]{4}", port) and re.fullmatch("[0-9]{1,20}", inode):
            listeners.append((int(port, 16), address, int(inode)))
    return listeners


def socket_owners(inodes: Iterable[int], system: Path) -> Dict[int, str]:
    """`name (pid N)` of the process that holds each socket, for those that can be seen."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: Dict[int, str] = {}
    if not wanted:
        return owners
    for process in sorted((system / "proc").iterdir()):
        if not process.name.isdigit():
            continue
        for link in open_files(process):
            inode = wanted.get(link)
            if inode is not None and inode not in owners:
                name = (read_text(process / "comm") or "").strip()
                owners[inode] = f"{name} (pid {process.name})"
    return owners


def open_files(process: Path) -> List[str]:
    """What the descriptors of a process stand for, as far as they can be seen."""
    links = []
    try:
        for entry in (process / "fd").iterdir():
            try:
                links.append(os.readlink(entry))  # noqa: PTH115 - Path.readlink is of Python 3.9
            except FileNotFoundError:  # closed meanwhile
                continue
    except OSError:  # the process ended meanwhile, or is not ours to look into
        pass
    return links


def read_ports(
    ports: Iterable[int], published: Iterable[Tuple[str, str, int]], system: Path
) -> Dict[str, Optional[Facts]]:
    """Who listens on each of the host's TCP ports: None for a port that is free."""
    listeners = [
        listener
        for name in ("tcp", "tcp6")
        for listener in parse_listeners(read_text(system / "proc/net" / name) or "")
    ]
    published = list(published)
    wanted = set(ports)
    owners = socket_owners((inode for port, _, inode in listeners if port in wanted), system)
    taken: Dict[str, Optional[Facts]] = {}
    for port in sorted(wanted):
        here = [(address, inode) for number, address, inode in listeners if number == port]
        # Docker may publish a port by packet filter rules alone, with nobody listening.
        by_docker = [(name, address) for name, address, number in published if number == port]
        addresses = {address for address, _ in here} | {address for _, address in by_docker}
        if not addresses:
            taken[str(port)] = None
            continue
        processes = [owners[inode] for _, inode in here if inode in owners]
        taken[str(port)] = {
            "addresses": sorted(addresses),
            "process": processes[0] if processes else None,
            "container": by_docker[0][0] if by_docker else None,
        }
    return taken


# --- deployment and models -----------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, lower-case hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_file(path: Path) -> Optional[Facts]:
    """{"sha256", "mode" (as "0644"), "uid", "gid"} of a regular file, or None."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return {
        "sha256": file_sha256(path),
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def check_file_name(name: str, what: str) -> str:
    """The name, when it is that of a file in a folder and leads nowhere else; else ValueError."""
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
        raise ValueError(
            f"{what}: {name!r} is asked; accepted is the name of a file in that folder, "
            "without separators"
        )
    return name


_SHA256_OF_NOTHING = hashlib.sha256(b"").hexdigest()


def read_secrets(
    folder: Path, expected: Mapping[str, str], owner: Optional[int]
) -> Dict[str, bool]:
    """For each file name: is it there with that sha256, mode 0600, and (if given) that owner?

    An empty sha256 is any content but none: a secret that only the host knows.
    """
    answers = {}
    for name, sha256 in expected.items():
        found = read_file(folder / check_file_name(name, "secrets"))
        answers[name] = (
            found is not None
            and (found["sha256"] == sha256 if sha256 else found["sha256"] != _SHA256_OF_NOTHING)
            and found["mode"] == "0600"
            and owner in (None, found["uid"])
        )
    return answers


def read_record(folder: Path) -> Dict[str, Facts]:
    """The record of verified files: {name: {"size", "mtime_ns", "sha256"}}.

    What cannot be read as that counts as no record: the files are then hashed again.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    return {
        name: entry
        for name, entry in record.items()
        if isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("mtime_ns"), int)
        and isinstance(entry.get("sha256"), str)
    }


def recorded_sha256(
    record: Mapping[str, Facts], name: str, status: os.stat_result
) -> Optional[str]:
    """The recorded hash of a file, as long as its size and time of change are those recorded."""
    entry = record.get(name)
    if entry is None:
        return None
    if (entry["size"], entry["mtime_ns"]) != (status.st_size, status.st_mtime_ns):
        return None
    return str(entry["sha256"])


def read_models(folder: Path) -> Dict[str, Facts]:
    """The files of the models folder, by their paths in it, with those of models of several files:
    size (bytes), mtime_ns, inode, links, recorded_sha256, bundle (of which files it is one).
    """
    record = read_record(folder)
    models = {}
    for path in weights_in(folder):
        status, name = path.lstat(), str(path.relative_to(folder))
        models[name] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "inode": status.st_ino,
            "links": status.st_nlink,
            "recorded_sha256": recorded_sha256(record, name, status),
            "bundle": record.get(name, {}).get("bundle"),
        }
    return models


def weights_in(folder: Path) -> List[Path]:
    """The regular files of the models folder, and of its folders that are no engine's store."""
    found: List[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        inside = path.is_dir() and not path.is_symlink() and path.name != OLLAMA_STORE
        for each in sorted(path.iterdir()) if inside else [path]:
            if stat.S_ISREG(each.lstat().st_mode) and not each.name.startswith("."):
                found.append(each)
    return found


def allocated(path: Path) -> int:
    """Bytes of disk that a file or a folder takes; a file with holes takes less than its size."""
    try:
        entries = [path, *path.rglob("*")]
        return sum(each.lstat().st_blocks * 512 for each in entries if not each.is_dir())
    except OSError:  # it comes or goes meanwhile
        return 0


def read_unfinished(folder: Path) -> Dict[str, int]:
    """What has come of models that are not whole yet: name of the bundle -> bytes on the disk."""
    workshop = folder / WORKSHOP
    if not workshop.is_dir():
        return {}
    return {path.name: allocated(path) for path in sorted(workshop.iterdir()) if path.is_dir()}


def parse_manifest(text: str) -> Optional[Tuple[str, List[str]]]:
    """(sha256 of the config blob, sha256 of each layer of weights) of an Ollama manifest, or None.

    The model's own weights are the first.
    """
    kinds = (OLLAMA_WEIGHTS_TYPE, OLLAMA_PROJECTOR_TYPE)
    try:
        manifest = parse_json(text)
        config = str(manifest["config"]["digest"])
        layers = [layer for layer in manifest["layers"] if layer["mediaType"] in kinds]
        layers.sort(key=lambda layer: kinds.index(layer["mediaType"]))
        weights = [str(layer["digest"]).partition("sha256:")[2] for layer in layers]
    except (KeyError, TypeError):
        return None
    return (config.partition("sha256:")[2], weights) if weights else None


def read_ollama(folder: Path) -> Dict[str, List[str]]:
    """Model name -> sha256 of its weights, for each model in Ollama's store that is whole.

    Whole: manifest and config blob are there, and the weights' blobs are files of the models folder
    itself, not second copies. `folder` is the models folder.
    """
    store = folder / OLLAMA_STORE
    library = store / OLLAMA_LIBRARY
    if not library.is_dir():
        return {}
    ours = {path.lstat().st_ino for path in weights_in(folder)}
    models = {}
    for path in sorted(library.iterdir()):
        named = parse_manifest(read_text(path / "latest") or "")
        if named is None:
            continue
        config, *weights = (store / "blobs" / f"sha256-{each}" for each in (named[0], *named[1]))
        if config.is_file() and all(
            blob.is_file() and blob.stat().st_ino in ours for blob in weights
        ):
            models[path.name] = named[1]
    return models


# --- releases ------------------------------------------------------------------------------------


def read_lock(root: Path) -> Optional[Facts]:
    """Who changes the host now, and since when ({"by", "since", "pid"}); None where nobody does.

    The lock is the kernel's, so what a dead holder has left written does not count.
    """
    try:
        with (root / LOCK).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return read_json(root / LOCK) or {"by": "somebody", "since": None, "pid": None}
    except OSError:
        pass
    return None


def read_journal(root: Path) -> Optional[Facts]:
    """The change that has begun and not ended: from, to, by, since, step; None where there is none.

    Its first line is an object, the others are the steps that it has begun.
    """
    text = read_text(root / JOURNAL)
    if text is None:
        return None
    first, *steps = text.splitlines() or [""]
    return {**(_object(first) or {}), "step": steps[-1] if steps else None}


def read_release(root: Path, link: str) -> Optional[Facts]:
    """The release.json of the release that a link in the root names."""
    return read_json(root / link / RELEASE)


def read_history(root: Path, most: Optional[int] = 20) -> List[Facts]:
    """What became of the last changes, the newest last; of all, where `most` is None."""
    lines = (read_text(root / HISTORY) or "").splitlines()
    # A cut of the power can leave half a line.
    return [each for each in map(_object, lines[-most:] if most else lines) if each]


def _object(line: str) -> Optional[Facts]:
    found = parse_json(line)
    return found if isinstance(found, dict) else None


# --- all of it -----------------------------------------------------------------------------------

_JSON = "{{json .}}"


def read_state(
    root: str = ROOT,
    ports: Sequence[int] = PORTS,
    secrets: Optional[Mapping[str, str]] = None,
    secrets_owner: Optional[int] = None,
    system: str = "/",
) -> Facts:
    """Everything on this host that decisions need. Reads only.

    root: the deployment's folder (absolute); ports: TCP ports to look at; secrets: file name under
    root/secrets -> sha256 expected; secrets_owner: the user id these files must belong to, None
    for any; system: where /etc, /proc and /sys are. Returns {"board", "docker", "ports",
    "deployment", "models"}; `library/host_state.py` documents each. Raises ValueError, with a
    sentence, for arguments that cannot be meant. A docker that is missing or dead is a state.
    """
    folder, base = Path(root), Path(system)
    if not folder.is_absolute():
        raise ValueError(f"root: {root!r} is asked; accepted is an absolute path such as {ROOT}")
    docker = shutil.which("docker", path=SEARCH_PATH)
    commands = board_commands()
    if docker is not None:
        commands.update(
            {
                "info": [docker, "info", "--format", _JSON],
                "ps": [docker, "ps", "--no-trunc", "--format", _JSON],
                "inspect": [docker, "inspect", "--type", "container", DOOR, *CONTAINERS],
                "images": [docker, "image", "ls", "--digests", "--no-trunc", "--format", _JSON],
            }
        )
    answers = run_together(commands)
    none = Result(None, "", "there is no docker command")
    info, ps = answers.get("info", none), answers.get("ps", none)
    engine = parse_docker_info(info.out, info.err)
    packages = read_packages(base)
    daemon_json, daemon_json_error = parse_daemon_json(
        read_text(base / "etc/docker/daemon.json"), "/etc/docker/daemon.json"
    )
    containers = parse_containers(answers.get("inspect", none).out)
    release = read_release(folder, "current")
    slots = release["slots"] if release else {"engine": "a", "api": "a"}
    parts = {part: containers.get(f"edge-llm-{part}-{slots[part]}") for part in ("engine", "api")}
    return {
        "board": read_board(folder, base, answers, packages),
        "docker": {
            "cli": docker is not None,
            # Docker's own packages, which those of the system's archive would replace.
            "ce": (base / "var/lib/dpkg/info/docker-ce.list").exists(),
            "packages": packages["installed"],
            **engine,
            "no_raw": engine["no_raw"] if engine["running"] else read_no_raw(base),
            "containers": len(parse_json_lines(ps.out)) if ps.code == 0 else None,
            "daemon_json": daemon_json,
            "daemon_json_error": daemon_json_error,
        },
        "ports": read_ports(ports, parse_published(ps.out), base),
        "deployment": {
            # What the links lead to: the current release's.
            "files": {name: read_file((folder / name).resolve()) for name in DEPLOYED_FILES},
            "secrets": read_secrets(folder / "secrets", secrets or {}, secrets_owner),
            "containers": {**parts, "door": containers.get(DOOR)},
            "release": release,
            "previous": read_release(folder, "previous"),
            "change": read_journal(folder),
            "lock": read_lock(folder),
            "history": read_history(folder),
            "ollama": read_ollama(folder / "models"),
            "images": parse_images(answers.get("images", none).out),
            "engine_log": read_engine_log(docker or "", parts["engine"]),
        },
        "models": read_models(folder / "models"),
        "unfinished": read_unfinished(folder / "models"),
    }


def main(arguments: Sequence[str]) -> int:
    """Print the state as JSON; exit status 2 with a sentence where it cannot be read."""
    try:
        state = read_state(**json.loads(arguments[0] if arguments else "{}"))
    except (OSError, TypeError, ValueError) as error:
        print(f"host_state: {error}", file=sys.stderr)
        return 2
    print(json.dumps(state, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
