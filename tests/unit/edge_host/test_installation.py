"""The program and the units of this version: whether a host has them, and how it gets them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_host import commands
from edge_host.constants import SOCKETS_UNIT
from edge_host.errors import ReleaseError
from edge_host.host_info.state import read_state
from edge_host.release import systemd as release_systemd
from edge_host.release.errors import HostLockedError
from edge_host.release.host import Host
from edge_host.release.installation import build_host_units, find_differences, install_units
from edge_host.release.lock import lock_host
from edge_host.release.systemd import install_recovery, remove_other_programs
from edge_host.sockets import units as socket_units
from edge_host.unit_files import clocks, installed
from edge_host.unit_files.clocks import CLOCKS_TEXT, CLOCKS_UNIT
from edge_host.unit_files.recovery import SERVICE
from edge_host.unit_files.sockets import SERVICE_UNIT, build_socket
from tests.unit.edge_host.conftest import FakeHost
from tests.waiting import until

NAMES = (SERVICE, SOCKETS_UNIT, SERVICE_UNIT)


class Systemd:
    """A systemd whose unit files are in a folder; `active` are its units, `commands` came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.active: set[str] = set()
        self.commands: list[str] = []
        self.fails = ""

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        words = [each for each in command[1:] if not each.startswith("-")]
        name, *names = words
        text = " ".join(words)
        if name == "is-active":
            said = "active" if names[0] in self.active else "inactive"
            return subprocess.CompletedProcess(command, 0, said, "")
        self.commands.append(text)
        if self.fails and text.startswith(self.fails):
            return subprocess.CompletedProcess(command, 1, "", "it fails")
        if name in ("start", "restart"):
            self.active |= set(names)
        if name == "enable":
            for each in names:
                unit = (self.folder / each).read_text()
                for target in re.findall(r"(?m)^WantedBy=(.+)$", unit):
                    link = self.folder / f"{target}.wants" / each
                    link.parent.mkdir(exist_ok=True)
                    link.unlink(missing_ok=True)
                    link.symlink_to(self.folder / each)
        return subprocess.CompletedProcess(command, 0, "", "")

    def take(self) -> list[str]:
        """The commands since the last look."""
        taken, self.commands = self.commands, []
        return taken


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Systemd:
    made = Systemd(tmp_path / "etc/systemd/system")
    made.folder.mkdir(parents=True)
    for module in (socket_units, release_systemd, installed, clocks):
        monkeypatch.setattr(module, "UNITS", made.folder)
    monkeypatch.setattr(subprocess, "run", made.run)
    monkeypatch.setattr(socket_units, "find_holders", dict)
    monkeypatch.setattr(socket_units, "find_bound", list)
    return made


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "root/lib").mkdir(parents=True)
    return Host(str(tmp_path / "root"))


def put_program(root: Path, content: str = "version 1") -> Path:
    """A program on the host, with the name that follows from its content."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    path = root / f"lib/edge_host-{digest}.pyz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o644)
    return path


def put_release(root: Path, **api: str) -> None:
    """A release on the host, which is the current one."""
    folder = root / "releases/0001"
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "number": 1,
        "plan": {"api": api},
        "slots": {"engine": "a", "api": "a"},
        "start_timeout": 60,
        "drain_timeout": 60,
    }
    (folder / "release.json").write_text(json.dumps(record))
    if not (root / "current").is_symlink():
        (root / "current").symlink_to("releases/0001")


def test_a_first_installation(host: Host, systemd: Systemd) -> None:
    program = put_program(host.root)
    assert find_differences(host, program) == dict.fromkeys(NAMES, "missing")
    install_units(host, program, "alice")
    assert find_differences(host, program) == {}
    assert systemd.active == set(NAMES)
    for name, text in build_host_units(host, program).items():
        assert (systemd.folder / name).read_text() == text


def test_another_version_reaches_a_host(host: Host, systemd: Systemd) -> None:
    former = put_program(host.root, "version 1")
    install_units(host, former, "alice")
    systemd.take()
    program = put_program(host.root, "version 2")
    assert find_differences(host, program) == {
        former.name: "of another version",
        SERVICE: "different",
        SERVICE_UNIT: "different",
    }
    install_units(host, program, "alice")
    assert find_differences(host, program) == {}
    assert not former.exists()
    commands = systemd.take()
    assert f"restart {SERVICE_UNIT}" in commands
    # Neither the sockets nor what serves is stopped; the recovery's unit runs from the next time.
    assert not [each for each in commands if re.match(r"(stop|restart)\b", each)][1:]
    for name in (SERVICE, SERVICE_UNIT):
        assert f" {program} " in (systemd.folder / name).read_text()


def test_the_sockets_stay_open_while_their_unit_changes(host: Host, systemd: Systemd) -> None:
    program = put_program(host.root)
    install_units(host, program, "alice")
    unit = systemd.folder / SOCKETS_UNIT
    unit.write_text(unit.read_text().replace("Backlog=1024", "Backlog=64"))
    systemd.take()
    assert find_differences(host, program) == {SOCKETS_UNIT: "different"}
    install_units(host, program, "alice")
    assert unit.read_text() == build_socket("")
    commands = systemd.take()
    assert "daemon-reload" in commands
    assert not [each for each in commands if re.match(rf"(re)?start.* {SOCKETS_UNIT}", each)]


def test_another_address_opens_other_sockets(host: Host, systemd: Systemd) -> None:
    program = put_program(host.root)
    put_release(host.root, listen_address="192.0.2.10")
    install_units(host, program, "alice")
    systemd.take()
    put_release(host.root)
    assert find_differences(host, program) == {SOCKETS_UNIT: "different"}
    install_units(host, program, "alice")
    assert f"restart {SOCKETS_UNIT}" in systemd.take()
    assert find_differences(host, program) == {}


def _edit(path: Path) -> None:
    path.write_text(path.read_text() + "# by hand\n")


def _open(path: Path) -> None:
    path.chmod(0o666)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _disable(path: Path) -> None:
    (link,) = path.parent.glob(f"*.wants/{path.name}")
    link.unlink()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (_edit, "different"),
        (_open, "different"),
        (_link, "different"),
        (_disable, "disabled"),
        (Path.unlink, "missing"),
    ],
)
def test_a_unit_that_differs_is_named_and_mended(
    host: Host, systemd: Systemd, name: str, harm: Any, found: str
) -> None:
    program = put_program(host.root)
    install_units(host, program, "alice")
    harm(systemd.folder / name)
    assert find_differences(host, program) == {name: found}
    install_units(host, program, "alice")
    assert find_differences(host, program) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files to others")
def test_a_unit_of_another_user_differs(host: Host, systemd: Systemd) -> None:
    program = put_program(host.root)
    install_units(host, program, "alice")
    os.chown(systemd.folder / SERVICE, 65534, 65534)
    os.chown(program, 65534, 65534)
    assert find_differences(host, program) == {SERVICE: "different", program.name: "different"}


def test_a_program_that_differs_is_named(host: Host, systemd: Systemd) -> None:
    program = put_program(host.root)
    install_units(host, program, "alice")
    program.write_text("half")
    assert find_differences(host, program) == {program.name: "different"}
    program.unlink()
    assert find_differences(host, program) == {program.name: "missing"}


def test_units_are_not_installed_without_their_program(host: Host, systemd: Systemd) -> None:
    program = host.root / "lib/edge_host-1.pyz"
    with pytest.raises(ReleaseError) as caught:
        install_units(host, program, "alice")
    assert str(caught.value) == f"{program} is missing. Run site.yml"
    assert systemd.commands == []


def test_a_host_that_somebody_changes_is_left_alone(host: Host, systemd: Systemd) -> None:
    former, program = put_program(host.root, "version 1"), put_program(host.root, "version 2")
    with lock_host(host.root, "bob@laptop"), pytest.raises(HostLockedError) as caught:
        install_units(host, program, "alice")
    assert "bob@laptop has been changing it" in str(caught.value)
    assert systemd.commands == []
    assert former.exists()
    assert list(systemd.folder.iterdir()) == []


@pytest.mark.parametrize("at", ["daemon-reload", "enable", f"restart {SERVICE_UNIT}"])
def test_an_installation_that_was_interrupted_is_made_anew(
    host: Host, systemd: Systemd, at: str
) -> None:
    former = put_program(host.root, "version 1")
    install_units(host, former, "alice")
    program = put_program(host.root, "version 2")
    systemd.fails = at
    with pytest.raises(ReleaseError):
        install_units(host, program, "alice")
    systemd.fails = ""
    # Whatever the unit files say: the service may still run the former program.
    assert find_differences(host, program)[former.name] == "of another version"
    systemd.take()
    install_units(host, program, "alice")
    assert f"restart {SERVICE_UNIT}" in systemd.take()
    assert find_differences(host, program) == {}


@pytest.fixture
def running(host: Host) -> Iterator[Path]:
    """A program of another version that runs, as a download does."""
    program = put_program(host.root, "import time; time.sleep(600)")
    with subprocess.Popen([sys.executable, "-I", str(program), "download"]) as process:
        try:
            line = Path(f"/proc/{process.pid}/cmdline")
            until(lambda: str(program) in line.read_text(), "it runs")
            yield program
        finally:
            process.kill()


def test_a_program_that_runs_stays(host: Host, running: Path) -> None:
    program, ended = put_program(host.root, "new"), put_program(host.root, "ended")
    remove_other_programs(program)
    assert running.exists()
    assert not ended.exists()
    assert program.exists()


def test_the_recovery_is_not_started_under_the_lock(host: Host, systemd: Systemd) -> None:
    """It takes the lock itself: the installation would wait for it in vain."""
    install_recovery(host, put_program(host.root))
    assert systemd.take() == ["daemon-reload", f"enable {SERVICE}"]
    install_recovery(host, put_program(host.root))
    assert systemd.take() == [f"enable {SERVICE}"]


def test_the_python_of_a_unit_is_named_as_the_system_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ansible finds it by its version, and a run by hand starts it without."""
    stable, version, other = (tmp_path / name for name in ("python3", "python3.13", "python3.8"))
    version.touch()
    other.touch()
    stable.symlink_to(version)
    for executable, found in ((version, stable), (stable, stable), (other, other)):
        monkeypatch.setattr(sys, "executable", str(executable))
        assert commands.find_python(str(stable)) == str(found)
    stable.unlink()
    assert commands.find_python(str(stable)) == str(other)


# --- facts ---------------------------------------------------------------------------------------


def test_facts_name_what_differs(fake_host: FakeHost) -> None:
    def read() -> Any:
        state = read_state(str(fake_host.root), system=str(fake_host.system), program=str(program))
        return state["deployment"]["installed"]

    program = put_program(fake_host.root)
    assert read() == {program.name: "in place", **dict.fromkeys(NAMES, "missing")}
    put_release(fake_host.root, listen_address="192.0.2.10")
    texts = build_host_units(Host(str(fake_host.root)), program)
    assert "ListenStream=192.0.2.10:8000\n" in texts[SOCKETS_UNIT]
    for name, text in texts.items():
        fake_host.write(f"etc/systemd/system/{name}", text)
        (fake_host.system / "etc/systemd/system" / name).chmod(0o644)
    assert read() == {program.name: "in place", **dict.fromkeys(NAMES, "disabled")}
    (fake_host.root / "lib/edge_host-0.pyz").touch()
    assert read()["edge_host-0.pyz"] == "of another version"


def test_facts_of_the_clocks(fake_host: FakeHost) -> None:
    def read() -> Any:
        return read_state(str(fake_host.root), system=str(fake_host.system))["board"]["tuning"]

    unit = f"etc/systemd/system/{CLOCKS_UNIT}"
    assert (read()["clocks"], read()["clocks_unit"]) == (False, False)
    fake_host.write(f"etc/systemd/system/multi-user.target.wants/{CLOCKS_UNIT}", "")
    fake_host.write(unit, "[Service]\nExecStart=/usr/bin/jetson_clocks\n")
    assert (read()["clocks"], read()["clocks_unit"]) == (True, False)
    fake_host.write(unit, CLOCKS_TEXT)
    (fake_host.system / unit).chmod(0o644)
    assert (read()["clocks"], read()["clocks_unit"]) == (True, True)


# --- clocks --------------------------------------------------------------------------------------


def test_the_unit_of_the_clocks(systemd: Systemd) -> None:
    assert clocks.find_clocks_difference() == {CLOCKS_UNIT: "missing"}
    clocks.install_clocks()
    assert clocks.find_clocks_difference() == {}
    assert systemd.take() == [
        "daemon-reload",
        f"enable {CLOCKS_UNIT}",
        f"restart {CLOCKS_UNIT}",
    ]
    (systemd.folder / CLOCKS_UNIT).write_text("[Service]\n")
    assert clocks.find_clocks_difference() == {CLOCKS_UNIT: "different"}
    clocks.install_clocks()
    assert (systemd.folder / CLOCKS_UNIT).read_text() == CLOCKS_TEXT
