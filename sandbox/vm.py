"""A board that is a virtual machine: its own kernel, and a disk that a power cut really cuts.

`python -m sandbox vm` makes its disk and what it needs of the sandbox. QEMU runs it, with the
processor's own virtualisation where that works and in software where not; user networking brings it
to this machine's loopback and to the sandbox's registry and hub, and needs no rights.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sandbox import engine, fleet, images
from sandbox.errors import SandboxError
from sandbox.images import content_tag
from sandbox.instance import CACHE, LOGS, Instance
from sandbox.steps import Runner, Step

NAME = "vm-01"
MEMORY_MIB = 3072
_DISK_BYTES = 8 * 1024**3
_SUITE = "trixie"
_ARCHIVE = "http://deb.debian.org/debian"
# What a board has before this project comes; Docker too, for in software emulation its installation
# takes minutes, and the simulated boards show it.
_PACKAGES = (
    "ca-certificates,curl,dbus,docker-cli,docker-compose,docker.io,iproute2,iptables,kmod,"
    "linux-image-cloud-amd64,openssh-server,procps,python3,systemd,systemd-sysv,udev"
)
_FILES = {
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/hostname": f"{NAME}\n",
    "etc/hosts": f"127.0.0.1 localhost {NAME}\n",
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/machine-id": "",
    "etc/systemd/network/80-dhcp.network": "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\n",
    # What nobody asked to be on the disk stays in memory, and is lost: by default the kernel writes
    # it after half a minute, and what a board loses is a matter of luck.
    "etc/sysctl.d/90-slow-disk.conf": (
        "vm.dirty_expire_centisecs = 360000\nvm.dirty_background_ratio = 50\nvm.dirty_ratio = 80\n"
    ),
    # A small initrd, since software emulation unpacks it slowly.
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=gzip\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
}
_SERVICES = ("systemd-networkd.service", "ssh.service")
# They work in the background when a board has run for a while.
_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer")
_KERNEL_WORDS = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off panic=-1"
_KVM_SECONDS = 20.0
BOOT_SECONDS = 240.0


@dataclass(frozen=True)
class Disk:
    """The virtual board's disk as it is made once, with its kernel and the keys to it."""

    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def key(self) -> Path:
        """Private SSH key that lets in as root."""
        return self.folder / "id_ed25519"

    @property
    def host_key(self) -> str:
        """The board's public host key: known, since it was made here."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])


def disk() -> Disk:
    """The disk; its folder's name has a hash of all that it is made of."""
    files = {name: text.encode() for name, text in _FILES.items()}
    words = (_SUITE, _ARCHIVE, _PACKAGES, str(_DISK_BYTES), *_SERVICES, "--", *_MASKED)
    return Disk(CACHE / f"vm-{content_tag(files, *words)}")


def make() -> None:
    """Make what is not there yet: packages, the test instance's services, the disk."""
    if os.geteuid() != 0:
        raise SandboxError("The virtual board's disk has files of many users: make it as root.")
    CACHE.mkdir(parents=True, exist_ok=True)
    runner = Runner(LOGS)
    runner.add("vm-tools", "Packages of this machine for QEMU", _install_tools)
    runner.add("vm-disk", "Disk of a virtual board", _make_disk, ["vm-tools"])
    runner.execute()
    # The registry and the hub that the tests' boards use; no board.
    fleet.up(Instance("test"), [])


def _install_tools(step: Step) -> str | None:
    wanted = {
        "qemu-system-x86_64": "qemu-system-x86",
        "qemu-img": "qemu-utils",
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "ssh": "openssh-client",
        "ssh-keygen": "openssh-client",
    }
    packages = {package for command, package in wanted.items() if not engine.which(command)}
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        packages.add("debian-archive-keyring")
    return engine.install(step, sorted(packages))


def _make_disk(step: Step) -> str | None:
    """Make the disk with mmdebstrap and mke2fs, which takes a file system without mounting one."""
    made = disk()
    if made.folder.exists():
        return "already there"
    unfinished = Disk(made.folder.with_suffix(".part"))
    temporary = CACHE / "vm-tmp"
    for folder in (unfinished.folder, temporary):
        if folder.exists():
            images.remove_tree(folder)
        folder.mkdir(parents=True)
    tree = temporary / "root"
    words = ["mmdebstrap", "--variant=minbase", "--format=directory", f"--include={_PACKAGES}"]
    # Before the kernel comes, which makes its initrd as these say.
    for name in sorted(name for name in _FILES if "initramfs" in name):
        text = _FILES[name].replace("\n", "\\n")
        words.append(
            f"--essential-hook=mkdir -p $1/{Path(name).parent} && printf '{text}' > $1/{name}"
        )
    step.run(
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *words,
        *(_SUITE, tree, f"deb {_ARCHIVE} {_SUITE} main", f"deb {_ARCHIVE} {_SUITE}-updates main"),
        env={"TMPDIR": str(temporary)},
    )
    _furnish(step, tree, unfinished)
    step.run("truncate", f"--size={_DISK_BYTES}", unfinished.image)
    step.run("mke2fs", "-q", "-t", "ext4", "-d", tree, unfinished.image)
    images.remove_tree(temporary)
    unfinished.folder.rename(made.folder)
    return None


def _furnish(step: Step, tree: Path, made: Disk) -> None:
    """Put files, keys and links into the tree, and take the kernel out of it."""
    for name, text in _FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    step.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", made.key)
    host_key = tree / "etc/ssh/ssh_host_ed25519_key"
    host_key.unlink(missing_ok=True)
    step.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", host_key)
    shutil.copy(host_key.with_suffix(".pub"), made.folder / "host_key.pub")
    (tree / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(made.key.with_suffix(".pub"), tree / "root/.ssh/authorized_keys")
    units = tree / "etc/systemd/system"
    (units / "multi-user.target.wants").mkdir(parents=True, exist_ok=True)
    for service in _SERVICES:
        link = units / "multi-user.target.wants" / service
        if not link.is_symlink():
            link.symlink_to(f"/usr/lib/systemd/system/{service}")
    for timer in _MASKED:
        (units / timer).unlink(missing_ok=True)
        (units / timer).symlink_to("/dev/null")
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    (initrd,) = (tree / "boot").glob("initrd.img-*")
    shutil.copy(kernel, made.kernel)
    shutil.copy(initrd, made.initrd)


def accelerator(made: Disk) -> tuple[str, ...]:
    """QEMU's words for the processor: KVM where a kernel comes up with it, software where not."""
    kvm = ("-accel", "kvm", "-cpu", "host")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return _SOFTWARE
    started = subprocess.Popen(
        [
            *("qemu-system-x86_64", *kvm, "-M", "q35", "-m", "512", "-nodefaults"),
            *("-display", "none", "-serial", "stdio", "-no-reboot"),
            *("-kernel", str(made.kernel), "-initrd", str(made.initrd)),
            *("-append", "console=ttyS0 panic=-1 rdinit=/bin/true"),
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = started.communicate(timeout=_KVM_SECONDS)
    except subprocess.TimeoutExpired:
        started.kill()
        said, _ = started.communicate()
    # The first process ends at once, and the kernel says so.
    return kvm if b"Attempted to kill init" in said else _SOFTWARE


# Without cx16: QEMU 7.2 mixes up the flags of cmpxchg16b, and the kernel trips over that. Without
# the others the kernel has less to do.
_SOFTWARE = ("-accel", "tcg,thread=multi", "-cpu", "max,-cx16,-svm,-la57")


def free_port() -> int:
    """A port of this machine's loopback that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def overlay(base: Path, path: Path) -> Path:
    """Make a disk that is as `base` and keeps for itself what is written; `base` stays as it is."""
    kind = "raw" if base.suffix == ".raw" else "qcow2"
    path.unlink(missing_ok=True)
    subprocess.run(
        [
            *("qemu-img", "create", "-q", "-f", "qcow2", "-F", kind),
            *("-b", str(base.resolve()), str(path)),
        ],
        check=True,
    )
    return path


@dataclass
class Machine:
    """A virtual board, on or off."""

    made: Disk
    folder: Path
    accelerator: tuple[str, ...]
    ssh_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def console(self) -> Path:
        """What the board has written to its serial console since it was switched on."""
        return self.folder / "console.log"

    def write_down(self) -> None:
        """Write what an inventory needs to know."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.known_hosts.write_text(f"[127.0.0.1]:{self.ssh_port} {self.made.host_key}\n")
        known = {
            "ssh_port": self.ssh_port,
            "api_port": self.api_port,
            "key": str(self.made.key),
            "known_hosts": str(self.known_hosts),
        }
        (self.folder / "machine.json").write_text(json.dumps(known, indent=2) + "\n")

    def switch_on(self, disk: Path) -> None:
        """Start QEMU with a disk."""
        ports = ((self.ssh_port, 22), (self.api_port, 8000))
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in ports)
        # A cut ends QEMU and not this machine. What the guest's kernel has handed to its disk is in
        # this machine's cache by then and stays (`writeback`); what the guest keeps in its own
        # memory is lost, and so are those clusters of the qcow2 file that are new and that no flush
        # of the guest's has asked for. A disk with a cache of its own loses just that.
        drive = f"file={disk},if=virtio,format=qcow2,cache=writeback"
        self._process = subprocess.Popen(
            [
                # With this process goes the machine: nobody else would end it.
                *("setpriv", "--pdeathsig", "KILL", "--", "nice", "-n", "10"),
                *("qemu-system-x86_64", *self.accelerator, "-M", "q35", "-smp", "2"),
                *("-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none"),
                *("-serial", f"file:{self.console}", "-drive", drive),
                *("-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net"),
                *("-device", "virtio-rng-pci", "-kernel", str(self.made.kernel)),
                *("-initrd", str(self.made.initrd), "-append", _KERNEL_WORDS),
            ],
            stdin=subprocess.DEVNULL,
        )

    def _running(self) -> subprocess.Popen[bytes]:
        """QEMU. Raises SandboxError where it does not run."""
        if self._process is None:
            raise SandboxError("The virtual board is off.")
        if self._process.poll() is not None:
            raise SandboxError(f"QEMU ended with status {self._process.returncode}.")
        return self._process

    def until(self, ready: Callable[[], bool], what: str, seconds: float = BOOT_SECONDS) -> None:
        """Ask until `ready` says yes. Raises SandboxError after `seconds`, or with QEMU's end."""
        end = time.monotonic() + seconds
        while not ready():
            self._running()
            if time.monotonic() > end:
                raise SandboxError(
                    f"Waited {seconds:.0f} s for {what}, and it did not come; the virtual board's"
                    f" console is in {self.console}."
                )
            time.sleep(1)

    def wait_for_ssh(self) -> None:
        """Wait until root gets in by SSH. Raises SandboxError."""
        self.until(lambda: self.run("true", check=False, timeout=60).returncode == 0, "SSH")

    def wait_for_docker(self) -> None:
        """Wait until root gets in by SSH and Docker answers there. Raises SandboxError."""
        self.wait_for_ssh()
        answers = "timeout 20 docker version >/dev/null"
        self.until(lambda: self.run(answers, check=False).returncode == 0, "Docker")

    def cut(self) -> None:
        """Take its power away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def switch_off(self) -> None:
        """Have it end in an orderly way, all that it holds on its disk. Raises SandboxError."""
        self.run("poweroff", check=False)
        try:
            self._running().wait(BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            self.cut()
            raise SandboxError("The virtual board did not switch itself off.") from None
        self._process = None

    @contextmanager
    def still(self) -> Iterator[None]:
        """Hold QEMU: its disk's file is what a cut at this moment would leave."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def ssh(self, *words: str) -> list[str]:
        """The command that runs a command on the board as root."""
        return [
            *("ssh", "-F", "none", "-i", str(self.made.key), "-p", str(self.ssh_port)),
            *("-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "ServerAliveInterval=15", "-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("root@127.0.0.1", *words),
        ]

    def run(
        self, *words: str, check: bool = True, timeout: float = 300, stdin: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the board to its end. Raises SandboxError where it fails and `check`."""
        try:
            done = subprocess.run(
                self.ssh(*words), stdin=stdin or subprocess.DEVNULL, capture_output=True,
                text=True, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            if check:
                raise SandboxError(f"`{words[0]}` took the board over {timeout:.0f} s.") from error
            return subprocess.CompletedProcess(error.cmd, 255, "", "")
        if check and done.returncode != 0:
            raise SandboxError(
                f"`{words[0]}` failed on the virtual board: {done.stderr.strip() or done.stdout}"
            )
        return done
