"""What systemd allows the project's programs on a host, judged by systemd itself where it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_host import confinement
from edge_host.confinement import (
    DOWNLOAD_CAPABILITIES,
    SERVICE_CAPABILITIES,
    confine_download,
    confine_service,
)
from edge_host.constants import DOWNLOAD_UID, ENGINE_UID
from edge_host.download import process
from edge_host.registry.port import SERVICE as REGISTRY_PORT_SERVICE
from edge_host.release import systemd
from edge_host.release.host import Host
from edge_host.unit_files.clocks import CLOCKS_TEXT
from edge_host.unit_files.recovery import build_unit
from edge_host.unit_files.sockets import build_service
from tests.unit.edge_host import test_registry_port
from tests.unit.edge_host.as_user import needs_root
from tests.waiting import until

ROOT = Path("/opt/edge-llm")
SERVICE = confine_service(ROOT)
DOWNLOAD = confine_download(ROOT / "models", Path("/run/edge-llm-fetch/smoke-0123"))
MOST_EXPOSURE = 4.0
KNOWN_SINCE = {
    "CapabilityBoundingSet": 21,
    "LimitCORE": 10,
    "LockPersonality": 235,
    "MemoryDenyWriteExecute": 231,
    "MemoryMax": 231,
    "NoNewPrivileges": 187,
    "PrivateDevices": 209,
    "PrivateTmp": 1,
    "ProtectClock": 245,
    "ProtectControlGroups": 232,
    "ProtectHome": 214,
    "ProtectHostname": 242,
    "ProtectKernelLogs": 244,
    "ProtectKernelModules": 232,
    "ProtectKernelTunables": 232,
    "ProtectSystem": 214,
    "ReadWritePaths": 231,
    "RestrictAddressFamilies": 211,
    "RestrictNamespaces": 233,
    "RestrictRealtime": 231,
    "RestrictSUIDSGID": 242,
    "SystemCallArchitectures": 209,
    "SystemCallErrorNumber": 209,
    "SystemCallFilter": 187,
    "TasksMax": 227,
}
"""The version of systemd that introduced a property, from systemd.exec(5) and
systemd.resource-control(5). Of SystemCallFilter's groups, @system-service is of 239."""


def _version() -> int:
    """The version of systemd on this machine; 0 without systemd-analyze."""
    if not shutil.which("systemd-analyze"):
        return 0
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True)
    return int(said.stdout.split()[1])


# Before 250 it judges the units alone that a systemd has loaded.
needs_analyze = pytest.mark.skipif(_version() < 250, reason="systemd-analyze is older than 250")


def find_missing_limits(text: str) -> list[str]:
    """What a unit's text does not say of the limits that every unit has."""
    lines = text.split("[Service]")[1].split("\n[")[0].splitlines()
    options = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    return [
        name
        for name, expected in {
            "MemoryMax": r"[1-9]\d*[MG]",
            "TasksMax": r"[1-9]\d*",
            "LimitCORE": "0",
            "NoNewPrivileges": "yes",
        }.items()
        if not re.fullmatch(expected, options.get(name, ""))
    ]


def analyze(folder: Path, text: str) -> tuple[float, str]:
    """Return the exposure of a unit by its text, and what systemd says about the file."""
    path = folder / "edge-llm-judged.service"
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stderr
    return float(found[1]), done.stderr


def transient(properties: tuple[str, ...]) -> str:
    return "\n".join(["[Service]", "ExecStart=/usr/bin/true", *properties, ""])


def clocks() -> str:
    """The unit that a Jetson gets, with a command that there is."""
    return CLOCKS_TEXT.replace("ExecStart=/usr/bin/jetson_clocks", "ExecStart=/usr/bin/true")


UNITS = {
    "clocks": clocks(),
    "recovery": build_unit(ROOT, "/usr/bin/python3", ROOT / "lib/p.pyz"),
    "change": transient(SERVICE),
    "download": transient(DOWNLOAD),
}


ALL_UNITS = {
    **UNITS,
    "sockets": build_service(ROOT, "/usr/bin/python3", ROOT / "lib/p.pyz"),
    "registry port": test_registry_port.texts()[REGISTRY_PORT_SERVICE],
    "copy of an image": test_registry_port.copy_unit(),
}
STARTING_UNITS = {
    "download/process.py",
    "registry/mirror.py",
    "registry/port.py",
    "release/systemd.py",
    "unit_files/clocks.py",
    "unit_files/recovery.py",
    "unit_files/sockets.py",
}
"""The files that have a unit's text, or start one: ALL_UNITS has a unit of each."""


@pytest.mark.parametrize("name", sorted(ALL_UNITS))
def test_every_unit_has_limits(name: str) -> None:
    assert find_missing_limits(ALL_UNITS[name]) == []


@pytest.mark.parametrize(
    ("limit", "instead"),
    [
        ("MemoryMax", "infinity"),
        ("TasksMax", "infinity"),
        ("LimitCORE", "infinity"),
        ("NoNewPrivileges", "no"),
    ],
)
def test_a_missing_limit_is_found(limit: str, instead: str) -> None:
    others = [each for each in SERVICE if not each.startswith(f"{limit}=")]
    assert len(others) == len(SERVICE) - 1
    assert find_missing_limits(transient(tuple(others))) == [limit]
    # Of two lines systemd takes the second.
    assert find_missing_limits(transient((*SERVICE, f"{limit}={instead}"))) == [limit]


def test_all_units_are_examined() -> None:
    modules = Path(confinement.__file__).parent
    texts = {str(path.relative_to(modules)): path.read_text() for path in modules.rglob("*.py")}
    assert {
        name for name, text in texts.items() if "[Service]" in text or '"systemd-run"' in text
    } == STARTING_UNITS


@needs_analyze
@pytest.mark.parametrize("name", sorted(UNITS))
def test_the_exposure_of_a_unit_is_low(tmp_path: Path, name: str) -> None:
    exposure, said = analyze(tmp_path, UNITS[name])
    assert exposure <= MOST_EXPOSURE
    # A misspelt name or value is ignored by systemd, with a message.
    assert not said


@needs_analyze
def test_a_unit_without_limits_is_recognised(tmp_path: Path) -> None:
    exposure, _ = analyze(tmp_path, transient(()))
    assert exposure > 9
    _, said = analyze(tmp_path, transient((*SERVICE, "ProtectEverything=yes")))
    assert "Unknown key" in said
    _, said = analyze(tmp_path, transient((*SERVICE, "ProtectSystem=everything")))
    assert "Failed to parse" in said


def test_clocks_may_be_set() -> None:
    """/sys stays writable, and the GPU's devices are there."""
    text = clocks()
    for name in ("ProtectKernelTunables", "PrivateDevices", "ProtectClock", "PrivateNetwork"):
        assert f"{name}=" not in text
    limits = {line.partition("=")[0] for line in text.split("[Service]")[1].splitlines() if line}
    known = set(KNOWN_SINCE) | {"Type", "RemainAfterExit", "ExecStart", "[Install]", "WantedBy"}
    assert limits <= known


@pytest.mark.parametrize("properties", [SERVICE, DOWNLOAD])
def test_systemd_245_knows_all_properties(properties: tuple[str, ...]) -> None:
    """systemd-run refuses a unit for a property that it does not know."""
    names = [each.partition("=")[0] for each in properties]
    assert len(names) == len(set(names))
    assert {name for name in names if KNOWN_SINCE[name] > 245} == set()


def test_a_change_may_write_to_its_folder_alone_and_reach_no_network() -> None:
    assert "ReadWritePaths=/opt/edge-llm" in SERVICE
    assert "RestrictAddressFamilies=AF_UNIX" in SERVICE


def test_a_download_may_change_its_user_and_reach_other_machines() -> None:
    assert "ReadWritePaths=/opt/edge-llm/models /run/edge-llm-fetch/smoke-0123" in DOWNLOAD
    (capabilities,) = (each for each in DOWNLOAD if each.startswith("CapabilityBoundingSet="))
    assert {"CAP_SETUID", "CAP_SETGID", "CAP_KILL"} <= set(capabilities.split("=")[1].split())
    (families,) = (each for each in DOWNLOAD if each.startswith("RestrictAddressFamilies="))
    assert {"AF_INET", "AF_INET6"} <= set(families.split("=")[1].split())


def become(user: int, capabilities: set[str]) -> subprocess.CompletedProcess[str]:
    """What a download does, by a root that has these capabilities at most."""
    bounds = ",".join(["-all", *(f"+{each[4:].lower()}" for each in sorted(capabilities))])
    return subprocess.run(
        [
            *("setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", "--no-new-privs", "--"),
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *("--no-new-privs", "--", "grep", "-E", "^(Uid|CapEff)", "/proc/self/status"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@needs_root
def test_a_download_gives_up_all_that_root_may() -> None:
    allowed = set(DOWNLOAD_CAPABILITIES)
    done = become(DOWNLOAD_UID, allowed)
    assert done.stdout.split()[:2] == ["Uid:", str(DOWNLOAD_UID)]
    assert int(done.stdout.split()[-1], 16) == 0
    for missing in ("CAP_SETUID", "CAP_SETGID"):
        assert "Operation not permitted" in become(DOWNLOAD_UID, allowed - {missing}).stderr


@needs_root
def test_a_recovery_sees_the_namespaces_of_containers() -> None:
    def read(capabilities: set[str]) -> str:
        bounds = ",".join(["-all", *(f"+{each[4:].lower()}" for each in sorted(capabilities))])
        limited = ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", "--no-new-privs", "--"]
        command = [*limited, "readlink", f"/proc/{other.pid}/ns/net"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    with subprocess.Popen(
        ["setpriv", f"--reuid={ENGINE_UID}", "--clear-groups", "--", "sleep", "600"]
    ) as other:
        try:
            uid = Path(f"/proc/{other.pid}/status")
            until(lambda: f"Uid:\t{ENGINE_UID}" in uid.read_text(), "it is another user's")
            until(lambda: "sleep" in Path(f"/proc/{other.pid}/cmdline").read_text()[:6], "it runs")
            allowed = set(SERVICE_CAPABILITIES)
            assert read(allowed).startswith("net:[")
            assert read(allowed - {"CAP_SYS_PTRACE"}) == ""
        finally:
            other.kill()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run, of which all succeed."""
    found: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        found.append(list(command))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return found


def properties_of(command: list[str]) -> set[str]:
    words = [each.partition("=") for each in command]
    return {value for option, _, value in words if option == "--property"}


def test_a_change_starts_with_them(tmp_path: Path, started: list[list[str]]) -> None:
    systemd.run_change(Host(str(tmp_path)), tmp_path / "p.pyz", 7, "deploy", "alice")
    assert set(confine_service(tmp_path)) <= properties_of(started[0])


def test_a_download_starts_with_them(tmp_path: Path, started: list[list[str]]) -> None:
    process._start_unit("edge-llm-fetch-x", ["true"], tmp_path / "run", tmp_path / "models")
    wanted = confine_download(tmp_path / "models", tmp_path / "run")
    assert set(wanted) <= properties_of(started[0])
    assert started[0][-1] == "true"
