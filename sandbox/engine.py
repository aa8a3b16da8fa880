"""A Docker engine on this machine: one that answers, or Debian's, installed and started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox import docker
from sandbox.errors import SandboxError
from sandbox.instance import STATE
from sandbox.steps import Step

_RECORD = STATE / "dockerd.json"
_LOG = STATE / "dockerd.log"
_PACKAGES = STATE / "packages.json"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Machine:
    """What decides whether an engine can be brought here."""

    system: str
    """ID and ID_LIKE of /etc/os-release, as one string of words."""
    root: bool

    @classmethod
    def here(cls) -> Machine:
        return cls(_system_words(Path("/etc/os-release")), os.geteuid() == 0)

    @property
    def installs(self) -> bool:
        """Whether packages can be installed: as root, on Debian, Ubuntu or a child of theirs."""
        return self.root and bool({"debian", "ubuntu"} & set(self.system.split()))

    def refusal(self, packages: Sequence[str]) -> str:
        """The sentence for a machine where packages cannot be installed."""
        names = " ".join(packages)
        who = "not root" if not self.root else f"{self.system or 'an unknown system'}"
        return (
            f"The sandbox needs {names}, and this is {who}: install {names} "
            "(on Debian or Ubuntu: `sudo apt-get install` of that), then type the same command "
            "again."
        )


def _system_words(os_release: Path) -> str:
    if not os_release.exists():
        return ""
    fields = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    return " ".join(fields.get(key, "").strip("\"'") for key in ("ID", "ID_LIKE")).strip()


def install_tools(step: Step, debian: bool, ollama: bool) -> str | None:
    """Install Debian packages for the commands that are not here. Raises SandboxError.

    `debian` and `ollama` ask besides for what making Debian's base image and building Ollama take.
    """
    wanted = {"ssh": "openssh-client", "ssh-keygen": "openssh-client"}
    # This machine brings weights to boards, where it is told to, and asks registries for digests.
    wanted |= {"curl": "curl", "skopeo": "skopeo"}
    if not docker.answers():
        if (where := os.environ.get("DOCKER_HOST")) is not None:
            raise SandboxError(
                f"DOCKER_HOST is {where}, and no Docker engine answers there: "
                "start it, or unset DOCKER_HOST."
            )
        wanted |= {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables"}
    files = {}
    if debian:
        wanted |= {"mmdebstrap": "mmdebstrap"}
        files["/usr/share/keyrings/debian-archive-keyring.gpg"] = "debian-archive-keyring"
    if ollama:
        wanted |= {"gcc": "gcc"}
        files["/usr/include/stdlib.h"] = "libc6-dev"
    packages = {package for command, package in wanted.items() if not which(command)}
    packages |= {package for path, package in files.items() if not Path(path).exists()}
    note = install(step, sorted(packages))
    if not which("docker"):
        # From Debian 13 on, the command is a package of its own, which docker.io only recommends.
        install(step, ["docker-cli"])
    return note


def install(step: Step, packages: Sequence[str]) -> str | None:
    if not packages:
        return "already there"
    machine = Machine.here()
    if not machine.installs:
        raise SandboxError(machine.refusal(packages))
    apt = {"DEBIAN_FRONTEND": "noninteractive"}
    # Where another apt-get is at work, wait for its end.
    wait = ("-o", "DPkg::Lock::Timeout=300")
    # An interrupted installation would make the next one refuse; otherwise this does nothing.
    step.run("dpkg", "--configure", "-a", env=apt)
    step.run("apt-get", "update", *wait, env=apt)
    step.run("apt-get", "install", "-y", "--no-install-recommends", *wait, *packages, env=apt)
    _PACKAGES.write_text(json.dumps(sorted({*installed(), *packages})))
    return " ".join(packages)


def installed() -> list[str]:
    """Debian packages that the sandbox asked for and this machine did not have."""
    if not _PACKAGES.exists():
        return []
    packages: list[str] = json.loads(_PACKAGES.read_text())
    return packages


def which(command: str) -> str | None:
    # A user's PATH often lacks /sbin, where dockerd and iptables may be.
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def start(step: Step) -> str | None:
    """See to it that an engine answers. Raises SandboxError."""
    if docker.answers():
        return f"engine {docker.docker('version', '--format', '{{.Server.Version}}')} answers"
    if os.geteuid() != 0:
        raise SandboxError(
            "No Docker engine answers this user: start it, or add this user to the group docker."
        )
    if Path("/run/systemd/system").exists():
        step.run("systemctl", "start", "docker")
        step.until(docker.answers, "the Docker engine", _START_SECONDS)
        return "started by systemd"
    launch()
    step.until(docker.answers, f"the Docker engine (its log: {_LOG})", _START_SECONDS)
    return "started by hand"


def launch() -> None:
    """Start dockerd as a background process that outlives this one, and record it."""
    STATE.mkdir(exist_ok=True)
    dockerd = which("dockerd")
    if dockerd is None:
        raise SandboxError("There is no dockerd on this machine: install docker.io.")
    with _LOG.open("ab") as log:
        process = subprocess.Popen(
            [dockerd],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
    _RECORD.write_text(json.dumps({"pid": process.pid, "born": _born(process.pid)}))


def launched() -> bool:
    """Whether the sandbox once started dockerd by hand on this machine."""
    return _RECORD.exists()


def _running_pid() -> int | None:
    """Process id of the dockerd that `launch` started, where it still runs."""
    if not launched():
        return None
    record = json.loads(_RECORD.read_text())
    pid = int(record["pid"])
    # The number may belong to another process by now; its start time tells.
    return pid if _born(pid) == record["born"] else None


def _born(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc(5), stat field 22)."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    return stat.read_text().rpartition(")")[2].split()[19]


def stop() -> str:
    """Stop the engine where the sandbox started it and nothing runs in it; says what it did."""
    pid = _running_pid()
    if pid is None:
        return "The Docker engine was not started by the sandbox: it stays."
    if docker.lines("container", "ls", "-q"):
        return "The Docker engine runs other containers: it stays."
    os.kill(pid, signal.SIGTERM)
    for _ in range(300):
        if _born(pid) is None or _is_zombie(pid):
            _RECORD.unlink()
            return "The Docker engine that the sandbox started is stopped."
        time.sleep(0.1)
    raise SandboxError(f"dockerd (process {pid}) did not stop within 30 s; see {_LOG}.")


def _is_zombie(pid: int) -> bool:
    # Where PID 1 does not reap, an ended process keeps its entry.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
