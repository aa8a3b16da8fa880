"""The units by which systemd holds the ports: their texts, and how they are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from edge_host.commands import Result
from edge_host.constants import SOCKETS_UNIT as SOCKET_UNIT
from edge_host.errors import ReleaseError
from edge_host.sockets import units
from edge_host.unit_files.sockets import SERVICE_UNIT, build_service, build_socket

from ..llm_provider.fake import free_port

ROOT, ARCHIVE = Path("/opt/edge-llm"), Path("/opt/edge-llm/lib/edge_host-1.pyz")
EXPOSURE = 20
"""systemd-analyze's figure, in tenths: at most."""


class Systemd:
    """What systemctl would do: the units' state, and the commands that came.

    `outdated` are the units whose files systemd has not read since they were written.
    """

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.commands: list[str] = []
        self.outdated: set[str] = set()
        self.fails = False

    def __call__(self, *arguments: str, accepted: Sequence[int] = (0,)) -> str:
        *_, command = [each for each in arguments[:2] if not each.startswith("-")][:1]
        names = [each for each in arguments if "." in each]
        if command == "is-active":
            return "active" if names[0] in self.active else "inactive"
        if command == "show":
            assert "--property=NeedDaemonReload" in arguments
            return "\n\n".join("yes" if each in self.outdated else "no" for each in names)
        self.commands.append(" ".join(arguments))
        if command == "daemon-reload":
            self.outdated.clear()
        if command in ("start", "restart"):
            if self.fails:
                raise ReleaseError("systemctl start failed: see its log. Check systemd on the host")
            self.active |= set(names)
        if command == "stop":
            self.active -= set(names)
        return ""


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Systemd:
    made = Systemd()
    monkeypatch.setattr(units, "run_systemctl", made)
    monkeypatch.setattr(units, "UNITS", tmp_path)
    monkeypatch.setattr(units, "find_holders", dict)
    monkeypatch.setattr(units, "find_bound", list)
    return made


def test_a_first_installation_starts_the_units(systemd: Systemd, tmp_path: Path) -> None:
    assert units.install(ROOT, ARCHIVE)
    assert (tmp_path / SOCKET_UNIT).read_text() == build_socket("")
    assert (
        f" {ARCHIVE} sockets /opt/edge-llm/run/door.sock 10010\n"
        in (tmp_path / SERVICE_UNIT).read_text()
    )
    assert systemd.commands == [
        "daemon-reload",
        f"--quiet enable {SOCKET_UNIT} {SERVICE_UNIT}",
        f"reset-failed {SOCKET_UNIT} {SERVICE_UNIT}",
        f"start {SOCKET_UNIT} {SERVICE_UNIT}",
    ]
    assert units.holding()


def test_a_second_one_changes_nothing(systemd: Systemd) -> None:
    units.install(ROOT, ARCHIVE)
    systemd.commands.clear()
    assert not units.install(ROOT, ARCHIVE)
    # A service that somebody stopped is started.
    assert systemd.commands == [
        f"--quiet enable {SOCKET_UNIT} {SERVICE_UNIT}",
        f"start {SERVICE_UNIT}",
    ]


def test_another_archive_restarts_the_service_alone(systemd: Systemd) -> None:
    units.install(ROOT, ARCHIVE)
    systemd.commands.clear()
    assert units.install(ROOT, ARCHIVE.with_name("edge_host-2.pyz"))
    assert systemd.commands == [
        "daemon-reload",
        f"--quiet enable {SOCKET_UNIT} {SERVICE_UNIT}",
        f"restart {SERVICE_UNIT}",
    ]


@pytest.mark.parametrize("former", ["", "192.0.2.10", "2001:db8::10"])
def test_an_installation_keeps_the_address(systemd: Systemd, tmp_path: Path, former: str) -> None:
    """It runs without the host's lock: nothing that clients notice may follow from it."""
    units.install(ROOT, ARCHIVE, former)
    unit = tmp_path / SOCKET_UNIT
    unit.write_text(unit.read_text().replace("Backlog=1024", "Backlog=64"))
    systemd.commands.clear()
    assert units.install(ROOT, ARCHIVE, "192.0.2.20")
    assert unit.read_text() == build_socket(former)
    assert systemd.commands == [
        "daemon-reload",
        f"--quiet enable {SOCKET_UNIT} {SERVICE_UNIT}",
        f"restart {SERVICE_UNIT}",
    ]


def test_another_address_restarts_the_sockets(systemd: Systemd, tmp_path: Path) -> None:
    units.install(ROOT, ARCHIVE)
    systemd.commands.clear()
    units.move("192.0.2.10")
    assert (tmp_path / SOCKET_UNIT).read_text() == build_socket("192.0.2.10")
    assert systemd.commands == [
        "daemon-reload",
        f"restart {SOCKET_UNIT}",
        f"reset-failed {SOCKET_UNIT} {SERVICE_UNIT}",
        f"start {SOCKET_UNIT} {SERVICE_UNIT}",
    ]
    assert units.holding()
    systemd.commands.clear()
    units.move("192.0.2.10")
    assert systemd.commands == []


@pytest.mark.parametrize("unit", [SOCKET_UNIT, SERVICE_UNIT])
def test_unit_files_that_systemd_has_not_read(systemd: Systemd, unit: str) -> None:
    """An installation was killed after it had written them."""
    units.install(ROOT, ARCHIVE)
    systemd.outdated = {unit}
    systemd.commands.clear()
    assert units.install(ROOT, ARCHIVE)
    assert systemd.commands == [
        "daemon-reload",
        f"--quiet enable {SOCKET_UNIT} {SERVICE_UNIT}",
        f"restart {SERVICE_UNIT}",
    ]


ANY4, ANY6 = ("0.0.0.0", 8000), ("::", 8000)
ENGINE = ("127.0.0.1", 11434)


@pytest.mark.parametrize(
    ("address", "bound", "restarted"),
    [
        ("", [], False),  # the table cannot be read
        ("", [ANY6, ENGINE], False),
        ("", [ANY4, ENGINE], False),
        ("", [("192.0.2.10", 8000), ENGINE], True),
        ("", [ENGINE], True),
        ("", [ANY6], True),
        ("192.0.2.10", [("192.0.2.10", 8000), ENGINE], False),
        ("192.0.2.10", [("192.0.2.20", 8000), ENGINE], True),
        ("192.0.2.10", [ANY6, ENGINE], True),
        ("2001:db8::10", [("2001:db8:0::10", 8000), ENGINE], False),
        ("2001:db8::10", [("2001:db8::20", 8000), ENGINE], True),
    ],
)
def test_sockets_of_another_address_than_the_unit_has(
    systemd: Systemd,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    bound: list[tuple[str, int]],
    restarted: bool,
) -> None:
    """A move was killed after systemd had read the unit, and before the restart."""
    units.install(ROOT, ARCHIVE, address)
    systemd.commands.clear()
    found = [(ip_address(each), port) for each, port in bound]
    monkeypatch.setattr(units, "find_bound", lambda: found)
    units.move(address)
    assert (f"restart {SOCKET_UNIT}" in systemd.commands) is restarted
    assert bool(systemd.commands) is restarted


def test_what_systemd_listens_at(tmp_path: Path) -> None:
    """Sockets of its own, not those that chat APIs alone still have."""
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/1/fd").mkdir(parents=True)
    rest = "00000000:00000000 00:00000000 00000000 0 0"
    lines = ["  sl  local_address"]
    for address, port, inode in (
        ("0100007F", 11434, 501),
        ("0A0200C0", 8000, 502),
        ("140200C0", 8000, 503),
        ("0100007F", 22, 504),
    ):
        lines.append(f"   0: {address}:{port:04X} 00000000:0000 0A {rest} {inode} 1")
    (tmp_path / "proc/net/tcp").write_text("\n".join(lines) + "\n")
    for inode in (501, 502, 504):
        (tmp_path / f"proc/1/fd/{inode}").symlink_to(f"socket:[{inode}]")
    assert units.find_bound(tmp_path) == [
        (ip_address("127.0.0.1"), 11434),
        (ip_address("192.0.2.10"), 8000),
    ]


def test_ports_of_an_earlier_version_are_left_alone(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enabled, and not started: systemd has them from the next boot on."""
    monkeypatch.setattr(units, "find_holders", lambda: {8000: "edge-llm-door"})
    assert units.install(ROOT, ARCHIVE)
    assert systemd.commands == [
        "daemon-reload",
        f"--quiet enable {SOCKET_UNIT} {SERVICE_UNIT}",
    ]
    assert not units.holding()
    systemd.commands.clear()
    units.move("192.0.2.10")
    assert systemd.commands == ["daemon-reload"]


@pytest.mark.parametrize(
    ("holders", "message"),
    [
        (
            {8000: "nginx (pid 12)", 11434: "container ollama"},
            "systemd cannot listen: port 8000 is in use by nginx (pid 12) and port 11434 is in use"
            " by container ollama. Stop the other user of the port, and run this again",
        ),
        ({}, "systemctl start failed: see its log. Check systemd on the host"),
    ],
)
def test_a_start_that_fails(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, holders: dict[int, str], message: str
) -> None:
    monkeypatch.setattr(units, "find_holders", lambda: holders)
    systemd.fails = True
    with pytest.raises(ReleaseError) as caught:
        units.start()
    assert str(caught.value) == message


def test_holders_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes by the kernel's tables; containers by Docker, also where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = server.getsockname()[1], free_port()
        monkeypatch.setattr(units, "PORTS", ports)
        monkeypatch.setattr(units, "which", lambda _: None)
        (found,) = units.find_holders().items()
        assert found[0] == ports[0]
        assert found[1].endswith(f" (pid {os.getpid()})")
        row = json.dumps({"Names": "own", "Ports": f"0.0.0.0:{ports[1]}->8000/tcp"})
        monkeypatch.setattr(units, "which", lambda _: "docker")
        monkeypatch.setattr(units, "run_together", lambda _: {"ps": Result(0, row, "")})
        assert units.find_holders()[ports[1]] == "own"


def test_a_removal(systemd: Systemd, tmp_path: Path) -> None:
    units.remove()
    assert systemd.commands == []  # there is nothing
    units.install(ROOT, ARCHIVE)
    units.remove()
    assert not units.holding()
    assert list(tmp_path.iterdir()) == []
    assert systemd.commands[-1] == "daemon-reload"


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("", "ListenStream=8000"),
        ("192.0.2.10", "ListenStream=192.0.2.10:8000"),
        ("2001:db8::10", "ListenStream=[2001:db8::10]:8000"),
    ],
)
def test_addresses(address: str, line: str) -> None:
    lines = build_socket(address).splitlines()
    assert [each for each in lines if each.startswith("Listen")] == [
        line,
        "ListenStream=127.0.0.1:11434",
    ]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with the units, whose program exists."""
    program = tmp_path / "edge_host-1.pyz"
    program.touch()
    (tmp_path / SOCKET_UNIT).write_text(build_socket("2001:db8::10"))
    (tmp_path / SERVICE_UNIT).write_text(build_service(tmp_path, "/bin/true", program))
    return tmp_path


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing"
)


@needs_systemd
def test_systemd_accepts_the_units(written: Path) -> None:
    found = analyze(written, "verify", f"./{SOCKET_UNIT}", f"./{SERVICE_UNIT}")
    assert (found.returncode, found.stderr) == (0, "")
    unit = written / SERVICE_UNIT
    unit.write_text(unit.read_text().replace("MemoryMax=", "MemoryMost="))
    assert "'MemoryMost'" in analyze(written, "verify", f"./{unit.name}").stderr


@needs_systemd
def test_the_service_is_confined(written: Path) -> None:
    command = ("security", "--offline=true", f"--threshold={EXPOSURE}", f"./{SERVICE_UNIT}")
    found = analyze(written, *command)
    assert found.returncode == 0, found.stdout + found.stderr
    unit = written / SERVICE_UNIT
    unit.write_text(re.sub("ProtectSystem=.*|SystemCallFilter=.*", "", unit.read_text()))
    assert analyze(written, *command).returncode != 0


def test_options_are_old_enough() -> None:
    """Ubuntu 20.04 has systemd 245, which does not know these."""
    newer = {"ProtectProc", "ProcSubset", "RestrictFileSystems", "ExecSearchPath", "PrivateIPC"}
    options = set(re.findall(r"(?m)^(\w+)=", build_service(ROOT, "python3", ARCHIVE)))
    assert not options & newer
