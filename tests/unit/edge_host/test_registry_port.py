"""The units of the registry's port: their texts, and how they are started and stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_host.constants import REGISTRY_PORT, REGISTRY_UID
from edge_host.image_ref import ImageRef
from edge_host.registry import port
from edge_host.registry.errors import RegistryError
from edge_host.registry.mirror import Source
from edge_host.registry.port import (
    SERVICE,
    SOCKET,
    build_units,
    close_port,
    is_open,
    open_port,
    remove_units,
    resolve,
)
from tests.unit.edge_host.fake_registry import FakeRegistry

PROGRAM = Path("/opt/edge-llm/lib/edge_host-1.pyz")
READS = Path("/opt/edge-llm-registry/reads/registry.sock")
EXPOSURE = 40  # tenths


def texts() -> dict[str, str]:
    return dict(build_units(PROGRAM, READS, ["127.0.0.1", "192.0.2.12"], 7200, "/usr/bin/python3"))


def options(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_port_closes_with_the_service() -> None:
    """And the service ends by its time limit: the port of a run that was killed does not stay."""
    listening, serving = (options(texts()[name]) for name in (SOCKET, SERVICE))
    assert listening["ListenStream"] == str(REGISTRY_PORT)
    assert listening["BindsTo"] == SERVICE
    assert serving["RuntimeMaxSec"] == "7200s"
    assert serving["Requires"] == serving["After"] == SOCKET
    # Neither starts at boot, or anew.
    assert not {"WantedBy", "Restart"} & {*listening, *serving}


def test_the_service_knows_the_addresses_and_nothing_else() -> None:
    assert options(texts()[SERVICE])["ExecStart"] == (
        f"/usr/bin/python3 -I {PROGRAM} registry {REGISTRY_UID} {READS} 127.0.0.1 192.0.2.12"
    )


analyze = pytest.mark.skipif(
    "--offline" not in subprocess.run(
        [shutil.which("systemd-analyze") or "true", "--help"],
        capture_output=True, text=True, check=False,
    ).stdout,
    reason="systemd-analyze of this machine reads no unit files",
)  # fmt: skip


def exposure(unit: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )


def copy_unit() -> str:
    """The unit that systemd-run makes of a copy."""
    image = ImageRef("docker.io", "a/b", None, "sha256:" + "0" * 64)
    source = Source("/usr/bin/skopeo", image, [], Path("/s/1"), Path("/s/env"), 10013)
    command = source.copy_command()
    properties = [each.partition("=")[2] for each in command if each.startswith("--property=")]
    return "\n".join(["[Service]", "ExecStart=/bin/true", *properties, ""])


@analyze
@pytest.mark.parametrize("name", ["forward", "copy"])
def test_exposure(tmp_path: Path, name: str) -> None:
    unit = tmp_path / "edge-llm-registry.service"
    unit.write_text({"forward": texts()[SERVICE], "copy": copy_unit()}[name])
    done = exposure(unit)
    assert done.returncode == 0, done.stdout + done.stderr
    # Without what confines it, the same unit is beyond the limit.
    kept = [line for line in unit.read_text().splitlines() if line.startswith(("[", "ExecStart"))]
    unit.write_text("\n".join([*kept, ""]))
    assert exposure(unit).returncode != 0


@analyze
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    """No unknown option, and no dependency that contradicts another."""
    for name, text in texts().items():
        (tmp_path / name).write_text(text.replace(str(PROGRAM), "/dev/null"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / SOCKET), str(tmp_path / SERVICE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    own = [line for line in done.stderr.splitlines() if "edge-llm" in line]
    assert own == []


class Systemd:
    """A systemctl that keeps what it was asked, and which units are active."""

    def __init__(self, folder: Path) -> None:
        self.units = folder / "units"
        self.units.mkdir()
        self.log = folder / "log"
        self.active = folder / "active"
        self.failing = folder / "failing"
        command = folder / "systemctl"
        command.write_text(
            f"""#!/bin/sh
echo "$*" >> {self.log}
case $1 in
start) [ -e {self.failing} ] && {{ echo 'Address already in use' >&2; exit 1; }}
  touch {self.active};;
stop) rm -f {self.active};;
is-active) [ -e {self.active} ] && echo active || {{ echo inactive; exit 3; }};;
reset-failed) exit 1;;
esac
"""
        )
        command.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    made = Systemd(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(port, "UNITS", made.units)
    monkeypatch.setattr(port, "REGISTRY_UID", os.getuid())
    return made


@pytest.fixture
def reads(tmp_path: Path) -> Iterator[Path]:
    made = FakeRegistry(tmp_path / "reads.sock")
    made.start()
    yield made.path
    made.stop()


def test_the_port_is_opened_anew_each_time(systemd: Systemd, reads: Path) -> None:
    open_port(PROGRAM, reads, ["192.0.2.12", "127.0.0.1"], 60)
    assert systemd.asked == ["is-active edge-llm-registry.socket", "daemon-reload",
                             f"start {SOCKET} {SERVICE}"]  # fmt: skip
    assert is_open()
    assert (systemd.units / SERVICE).read_text().count(" 127.0.0.1 ::1 192.0.2.12\n") == 1
    # With the addresses and the time limit of the next run, also where the one before was killed.
    systemd.log.unlink()
    open_port(PROGRAM, reads, ["192.0.2.13"], 61)
    names = f"{SOCKET} {SERVICE}"
    assert systemd.asked == [
        "is-active edge-llm-registry.socket",
        f"stop {names}",
        f"reset-failed {names}",
        "daemon-reload",
        f"start {names}",
    ]
    text = (systemd.units / SERVICE).read_text()
    assert "192.0.2.12" not in text
    assert "RuntimeMaxSec=61s\n" in text


def test_the_port_stays_closed_until_the_registry_answers(
    systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "READY_SECONDS", 0.0)
    with pytest.raises(RegistryError, match=r"^The registry at .* does not answer: "):
        open_port(PROGRAM, tmp_path / "none.sock", [], 60)
    assert not is_open()
    assert list(systemd.units.iterdir()) == []


def test_a_port_that_somebody_has(systemd: Systemd, reads: Path) -> None:
    systemd.failing.touch()
    message = (
        rf"^Port {REGISTRY_PORT} of the registry cannot be opened or closed: systemctl start"
        r" .*Address already in use.* Check who listens on the port \(`ss -ltnp`\)"
    )
    with pytest.raises(RegistryError, match=message):
        open_port(PROGRAM, reads, [], 60)


def test_the_port_is_closed(systemd: Systemd, reads: Path) -> None:
    assert close_port() is False
    open_port(PROGRAM, reads, [], 60)
    assert close_port() is True
    assert not is_open()
    assert close_port() is False


def test_the_units_are_removed(systemd: Systemd, reads: Path) -> None:
    assert remove_units() is False
    open_port(PROGRAM, reads, [], 60)
    assert remove_units() is True
    assert not is_open()
    assert list(systemd.units.iterdir()) == []
    assert systemd.asked[-2] == "daemon-reload"
    assert remove_units() is False


def test_names_are_resolved_where_the_registry_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(name: str, *_: object, **__: object) -> list[object]:
        known = {"kitchen.local": ["192.0.2.12", "fe80::1%eth0"], "192.0.2.11": ["192.0.2.11"]}
        if name not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in known[name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    addresses, unknown = resolve(["kitchen.local", "192.0.2.11", "192.0.2.11", "alias"])
    assert addresses == ["192.0.2.11", "192.0.2.12", "fe80::1"]
    assert unknown == ["alias"]
