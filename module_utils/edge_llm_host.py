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
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
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

COMMAND_TIMEOUT = 10.0  # seconds that one command, or one batch started together, may take
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
    """How a command ended: its exit status (None: it ran out of time) and what it wrote."""

    code: Optional[int]
    out: str
    err: str


# --- board ---------------------------------------------------------------------------------------


def parse_l4t(text: str) -> Optional[Facts]:
    """Release of Jetson Linux from the first line of /etc/nv_tegra_release.

    `# R36 (release), REVISION: 4.3, GCID: ...` is {"major": 36, "minor": 4, "patch": 3,
    "text": "36.4.3"}; a revision without a patch number has patch 0; None for any other text.
    """
    match = re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+)(?:\.(\d+))?", text)
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


def parse_meminfo(text: str) -> Tuple[Optional[int], Optional[int]]:
    """(MemTotal, MemAvailable) of /proc/meminfo in bytes; None for one that is not there."""
    found = {
        key: int(kilobytes) * 1024
        for key, kilobytes in re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", text, re.M)
    }
    return found.get("MemTotal"), found.get("MemAvailable")


def parse_model(text: str) -> Optional[str]:
    """A board's name from a device tree property (which ends in NUL) or from DMI."""
    return text.replace("\0", "").strip() or None


def board_kind(model: Optional[str], l4t: Optional[Facts]) -> str:
    """`jetson`, `pi` or `generic`, from the board's name and its Jetson Linux release."""
    name = model or ""
    if name.startswith("Raspberry Pi"):
        return "pi"
    if l4t is not None or re.search(r"\bJetson\b|\bNVIDIA .*\b(Orin|Xavier|Thor)\b", name):
        return "jetson"
    return "generic"


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


def read_json(path: Path) -> Optional[Facts]:
    """A file's JSON object, or None where it is not there or holds something else."""
    try:
        found = json.loads(read_text(path) or "")
    except ValueError:
        return None
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
    try:
        links = json.loads(text)
    except ValueError:
        return []
    return [
        each["local"]
        for link in links
        if not re.match(r"lo$|docker|br-|veth|cni|virbr|l4tbr|rndis|usb", link.get("ifname", ""))
        for each in link.get("addr_info") or []
        if each.get("scope") == "global" and not each.get("temporary")
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


def read_board(root: Path, system: Path) -> Facts:
    """What the host is. `system` is the folder that holds its /etc, /proc and /sys: `/`."""
    l4t = parse_l4t(read_text(system / "etc/nv_tegra_release") or "")
    model = parse_model(
        first_text(
            # The same property; the first is there in a container as well, the second is not.
            [
                system / "sys/firmware/devicetree/base/model",
                system / "proc/device-tree/model",
                system / "sys/class/dmi/id/product_name",
            ]
        )
    )
    total, available = parse_meminfo(read_text(system / "proc/meminfo") or "")
    return {
        "kind": board_kind(model, l4t),
        "model": model,
        "arch": platform.machine(),
        # The kernel may be of 64 bits where the programs are not, as on some Raspberry Pi OS.
        "userland_bits": struct.calcsize("P") * 8,
        "os": parse_os_release(
            first_text([system / "etc/os-release", system / "usr/lib/os-release"])
        ),
        "l4t": l4t,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_total": total,
        "memory_available": available,
        "disk": read_disk(root),
        "python": platform.python_version(),
        "init": (read_text(system / "proc/1/comm") or "").strip(),
        "nvidia_runtime": shutil.which("nvidia-container-runtime", path=SEARCH_PATH),
        "gpu_groups": read_gpu_groups(system / "dev"),
        "root": os.geteuid() == 0,
        "apt": shutil.which("apt-get", path=SEARCH_PATH) is not None,
        "tools": read_tools(),
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
    started = {
        name: subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )
        for name, command in commands.items()
    }
    results = {}
    for name, process in started.items():
        try:
            out, err = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
            results[name] = Result(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            results[name] = Result(None, "", f"no answer within {timeout:g} seconds")
    return results


def parse_docker_info(text: str, complaint: str = "") -> Facts:
    """The engine and its compose plugin from `docker info --format '{{json .}}'`.

    {"running": bool, "version": str or None, "compose": str or None, "runtimes": [str],
    "error": None or why the engine did not answer}. `complaint` is what the command wrote to its
    standard error, used where the answer itself gives no reason. Client and plugins are described
    even when the engine is dead.
    """
    try:
        info = json.loads(text)
    except ValueError:
        info = {}
    if not isinstance(info, dict):
        info = {}
    version = info.get("ServerVersion") or None
    problems = info.get("ServerErrors") or []
    running = version is not None and not problems
    compose = None
    for plugin in (info.get("ClientInfo") or {}).get("Plugins") or []:
        if plugin.get("Name") == "compose" and not plugin.get("Err"):
            compose = plugin.get("Version", "").lstrip("v") or None
    reason = "; ".join(problems) or complaint.strip() or "docker info gave no answer"
    return {
        "running": running,
        "version": version if running else None,
        "compose": compose,
        "runtimes": sorted(info.get("Runtimes") or {}),
        "error": None if running else reason,
    }


def parse_daemon_json(text: Optional[str], path: str) -> Tuple[Optional[Facts], Optional[str]]:
    """(settings, None), or (None, a sentence) where the file is not a JSON object."""
    if text is None:
        return None, None
    try:
        settings = json.loads(text) if text.strip() else {}
    except ValueError as error:
        return None, f"{path} must be a JSON object and is not JSON: {error}"
    if not isinstance(settings, dict):
        return None, f"{path} must be a JSON object and holds a {type(settings).__name__}"
    return settings, None


def parse_json_lines(text: str) -> List[Facts]:
    """One JSON object a line, as docker prints lists with `--format '{{json .}}'`."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def parse_published(text: str) -> List[Tuple[str, str, int]]:
    """(container, address, host port) for each TCP port published in `docker ps`'s JSON lines."""
    published = []
    for row in parse_json_lines(text):
        name = str(row.get("Names", "")).split(",")[0]
        for entry in str(row.get("Ports", "")).split(", "):
            outside, arrow, inside = entry.partition("->")
            if not arrow or not inside.endswith("/tcp"):
                continue
            address, _, ports = outside.rpartition(":")
            first, _, last = ports.partition("-")
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
    try:
        found = json.loads(text)
    except ValueError:
        found = []
    containers: Dict[str, Facts] = {}
    for item in found:
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
    return containers


# --- engine log ----------------------------------------------------------------------------------

# llama.cpp names a buffer after its device, with what it is used for behind an underscore. A list
# of what is a GPU, not of what is none: a device unknown here must not count as proof of one.
_GPU = re.compile(r"^(?:CUDA|ROCm|HIP|MUSA|Vulkan|SYCL|MTL|Metal|OpenCL|CANN)\d*$")
_BUFFER = re.compile(r"load_tensors:\s+(\S+) model buffer size")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_READY = re.compile(
    r"(?:main|llama_server): model loaded"  # llama.cpp
    r"|server is listening on http|llama_server: listening on http"  # llama.cpp
    r"|Application startup complete"  # vLLM
)
# Ollama loads a model when it is first asked for, which may be long after its start.
_OLLAMA_LISTENS = re.compile(r'msg="Listening on \S+ \(version ')
_OLLAMA_LOADED = re.compile(r"(?:llama-server|llama runner) started in ([\d.]+) seconds")


def parse_time(text: str) -> Optional[float]:
    """Seconds since 1970 of an RFC 3339 time in UTC, as docker writes them (9 decimals)."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z$", text)
    if match is None:
        return None
    moment = datetime.datetime.strptime(match.group(1) + "+0000", "%Y-%m-%dT%H:%M:%S%z")
    return moment.timestamp() + float(match.group(2) or 0)


def parse_engine_log(lines: Iterable[str], started: Optional[float]) -> Facts:
    """What an engine said of its start, from `docker logs --timestamps`.

    {"layers_offloaded", "layers_total" (ints or None), "gpu_buffers" (devices that hold a model
    buffer of their own), "start_seconds" (float or None)}. `started` is the container's start in
    seconds since 1970. A build without any GPU can say that it offloaded all layers: the proof of
    offload is the number together with a device in gpu_buffers. start_seconds is how long the
    engine took until it could answer; for Ollama, its own start and its first load, without the
    time between them in which nobody asked.
    """
    offloaded: Optional[int] = None
    total: Optional[int] = None
    devices: List[str] = []
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
        "start_seconds": seconds,
    }


def read_engine_log(docker: str, engine: Optional[Facts]) -> Facts:
    """The start of the engine container's log, read no further than it says anything of it."""
    started = parse_time(engine["started_at"]) if engine else None
    if engine is None or started is None or started < 0:  # year 1: created and never started
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


def gpu_problem(log: Facts, layers: int) -> Optional[str]:
    """Why an engine's log does not prove that `layers` are on a GPU; None where it does.

    A build without a GPU can say that it offloaded them all: the proof is a GPU's own buffer, too.
    """
    offloaded, total = log["layers_offloaded"], log["layers_total"]
    if log["gpu_buffers"] and offloaded is not None and offloaded >= min(layers, total):
        return None
    seen = "none" if offloaded is None else offloaded
    of = "an unknown number" if total is None else total
    where = ", ".join(log["gpu_buffers"]) or "no GPU"
    return (
        f"{layers} layers were asked onto the GPU, and the engine's log tells of {seen} of {of},"
        f" with model buffers on {where}; accepted is all that were asked, on a GPU, or"
        " llm_gpu_required: false"
    )


# --- ports ---------------------------------------------------------------------------------------


def parse_address(text: str) -> str:
    """An address of /proc/net/tcp or tcp6: 32-bit words in the machine's own byte order."""
    words = [int(text[index : index + 8], 16) for index in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def parse_listeners(text: str) -> List[Tuple[int, str, int]]:
    """(port, address, socket inode) for each listening line of /proc/net/tcp or tcp6."""
    listeners = []
    for line in text.splitlines():
        columns = line.split()
        if len(columns) < 10 or columns[3] != "0A":  # TCP_LISTEN
            continue
        address, _, port = columns[1].rpartition(":")
        listeners.append((int(port, 16), parse_address(address), int(columns[9])))
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
        manifest = json.loads(text)
        config = str(manifest["config"]["digest"])
        layers = [layer for layer in manifest["layers"] if layer["mediaType"] in kinds]
        layers.sort(key=lambda layer: kinds.index(layer["mediaType"]))
        weights = [str(layer["digest"]).partition("sha256:")[2] for layer in layers]
    except (KeyError, TypeError, ValueError):
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
    try:
        found = json.loads(line)
    except ValueError:
        return None
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
    commands: Dict[str, Sequence[str]] = {}
    if shutil.which("ip", path=SEARCH_PATH):
        commands["addresses"] = ["ip", "-json", "address"]
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
    info = answers.get("info", none)
    daemon_json, daemon_json_error = parse_daemon_json(
        read_text(base / "etc/docker/daemon.json"), "/etc/docker/daemon.json"
    )
    containers = parse_containers(answers.get("inspect", none).out)
    release = read_release(folder, "current")
    slots = release["slots"] if release else {"engine": "a", "api": "a"}
    parts = {part: containers.get(f"edge-llm-{part}-{slots[part]}") for part in ("engine", "api")}
    addresses = parse_addresses(answers.get("addresses", none).out)
    return {
        "board": {**read_board(folder, base), "addresses": addresses},
        "docker": {
            "cli": docker is not None,
            # Docker's own packages, which those of the system's archive would replace.
            "ce": (base / "var/lib/dpkg/info/docker-ce.list").exists(),
            **parse_docker_info(info.out, info.err),
            "daemon_json": daemon_json,
            "daemon_json_error": daemon_json_error,
        },
        "ports": read_ports(ports, parse_published(answers.get("ps", none).out), base),
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
