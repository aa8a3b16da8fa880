"""Boards that are virtual machines: their own kernel, and a disk that a power cut really cuts.

`python -m sandbox vm` makes the disk of one of this machine's architecture, `python -m sandbox
arm64` those of a Raspberry Pi and of a Jetson by their device trees, which software emulates. QEMU
runs them, with the processor's own virtualisation where that works and in software where not; user
networking brings them to this machine's loopback and to the sandbox's registry and hub, and needs
no rights.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from sandbox import engine, fleet, images, ollama, services
from sandbox.errors import SandboxError
from sandbox.images import content_tag
from sandbox.instance import CACHE, LOGS, Instance
from sandbox.steps import Runner, Step

MEMORY_MIB = 3072
_DISK_BYTES = 8 * 1024**3
_SUITE = "trixie"
_ARCHIVE = "http://deb.debian.org/debian"
# What a board has before this project comes; Docker too, for in software emulation its installation
# takes minutes, and the simulated boards show it.
_PACKAGES = (
    "ca-certificates,curl,dbus,docker-cli,docker-compose,docker.io,iproute2,iptables,kmod,"
    "linux-image-cloud-ARCHITECTURE,openssh-server,procps,python3,systemd,systemd-sysv,udev"
)
_FILES = {
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/hostname": "NAME\n",
    "etc/hosts": "127.0.0.1 localhost NAME\n",
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
_KERNEL_WORDS = "root=/dev/vda rw console=CONSOLE net.ifnames=0 mitigations=off panic=-1"
_KVM_SECONDS = 20.0
BOOT_SECONDS = 240.0
CMDLINE = "boot/firmware/cmdline.txt"


@dataclass(frozen=True)
class Kind:
    """What a virtual board is: its name, Debian's word for its architecture, what stands on its
    disk beside the system, and the name that its device tree says, if it has one.

    One with a cmdline.txt starts with the words that stand there, as a Raspberry Pi does.
    """

    name: str
    architecture: str
    files: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None

    @property
    def packages(self) -> str:
        return _PACKAGES.replace("ARCHITECTURE", self.architecture)

    @property
    def all_files(self) -> dict[str, str]:
        """Path on the disk -> text."""
        named = {path: text.replace("NAME", self.name) for path, text in _FILES.items()}
        return named | dict(self.files)

    @property
    def console(self) -> str:
        return "ttyAMA0" if self.architecture == "arm64" else "ttyS0"

    @property
    def kernel_words(self) -> str:
        return _KERNEL_WORDS.replace("CONSOLE", self.console)


_BOARDS = Path(__file__).resolve().parent / "board" / "boards"


def _board_file(name: str) -> str:
    return (_BOARDS / name).read_text(encoding="utf-8")


VM = Kind("vm-01", "amd64")
PI = Kind(
    "vm-pi",
    "arm64",
    # As Raspberry Pi's firmware does, the board starts with its memory cgroup off.
    {CMDLINE: f"{_KERNEL_WORDS.replace('CONSOLE', 'ttyAMA0')} cgroup_disable=memory\n"},
    _board_file("pi/model").strip(),
)
JETSON = Kind(
    "vm-jetson",
    "arm64",
    {
        "etc/nv_tegra_release": _board_file("jetson/nv_tegra_release"),
        "usr/bin/nvidia-container-runtime": _board_file("jetson/nvidia-container-runtime"),
    },
    _board_file("jetson/model").strip(),
)


@dataclass(frozen=True)
class Disk:
    """A virtual board's disk as it is made once, with its kernel and the keys to it."""

    kind: Kind
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
    def device_tree(self) -> Path:
        return self.folder / "board.dtb"

    @property
    def key(self) -> Path:
        """Private SSH key that lets in as root."""
        return self.folder / "id_ed25519"

    @property
    def host_key(self) -> str:
        """The board's public host key: known, since it was made here."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])


def disk(kind: Kind = VM) -> Disk:
    """The disk; its folder's name has a hash of all that it is made of."""
    files = {name: text.encode() for name, text in kind.all_files.items()}
    words = (_SUITE, _ARCHIVE, kind.packages, str(_DISK_BYTES), *_SERVICES, "--", *_MASKED)
    model = [kind.model] if kind.model else []
    return Disk(kind, CACHE / f"{kind.name}-{content_tag(files, *words, *model)}")


def make() -> None:
    """Make what is not there yet: packages, the test instance's services, the disk."""
    _make([VM])


def make_arm64() -> None:
    """Make what the emulated boards need: packages, disks, and images in the registry."""
    instance = Instance("test")
    table = images.arm64()
    _make([PI, JETSON])
    runner = Runner(LOGS)
    cross = partial(ollama.fetch_toolchain, binary=ollama.BINARY_ARM64)
    runner.add("go", f"Go {ollama.GO}", cross)
    title = f"Ollama {ollama.VERSION} from its source, for arm64"
    runner.add("ollama-arm64", title, ollama.build_arm64, ["go"])
    bootstrap = partial(images.bootstrap, image=table["base"])
    runner.add("bootstrap-arm64", "Debian 13 for arm64, by emulation", bootstrap)
    for name, image in table.items():
        parent = {"base": "bootstrap-arm64", "ollama": "image-llamacpp"}.get(name, "image-base")
        needs = [parent, *(["ollama-arm64"] if name == "ollama" else [])]
        runner.add(f"image-{name}", f"Image {image.name}", partial(images.make, image=image), needs)
        if name != "base":
            publish = partial(services.publish, instance=instance, image=image)
            runner.add(f"push-{name}", f"Push {image.name}", publish, [f"image-{name}"])
    published = {name: image for name, image in table.items() if name != "base"}
    path = instance.state / "images-arm64.json"
    write = partial(services.write_images, instance=instance, images=published, path=path)
    runner.add("references", "Image references", write, [f"push-{name}" for name in published])
    runner.execute()


def _make(kinds: list[Kind]) -> None:
    if os.geteuid() != 0:
        raise SandboxError("A virtual board's disk has files of many users: make it as root.")
    CACHE.mkdir(parents=True, exist_ok=True)
    runner = Runner(LOGS)
    tools = partial(_install_tools, arm64=kinds[0].architecture == "arm64")
    runner.add("vm-tools", "Packages of this machine for QEMU", tools)
    runner.add(
        "vm-disk", "Disk of a virtual board", partial(_make_disks, kinds=kinds), ["vm-tools"]
    )
    runner.execute()
    # The registry and the hub that the tests' boards use; no board.
    fleet.up(Instance("test"), [])


def _install_tools(step: Step, arm64: bool = False) -> str | None:
    wanted = {
        "qemu-system-x86_64": "qemu-system-x86",
        "qemu-img": "qemu-utils",
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "ssh": "openssh-client",
        "ssh-keygen": "openssh-client",
    }
    if arm64:
        wanted |= {
            "qemu-system-aarch64": "qemu-system-arm",
            "qemu-aarch64-static": "qemu-user-static",
            "update-binfmts": "binfmt-support",
            "arch-test": "arch-test",
            "fdtput": "device-tree-compiler",
            "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
            "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
        }
    packages = {package for command, package in wanted.items() if not engine.which(command)}
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        packages.add("debian-archive-keyring")
    note = engine.install(step, sorted(packages))
    if arm64 and not Path(_BINFMT, "qemu-aarch64").exists():
        # Programs of the other architecture are emulated from now on, also in containers.
        if not Path(_BINFMT, "register").exists():
            step.run("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
        step.run("update-binfmts", "--enable", "qemu-aarch64")
    return note


_BINFMT = "/proc/sys/fs/binfmt_misc"


def _make_disks(step: Step, kinds: list[Kind]) -> str | None:
    """Make disks of one architecture with mmdebstrap, once, and mke2fs, which takes a file system
    without mounting one."""
    missing = [kind for kind in kinds if not disk(kind).folder.exists()]
    if not missing:
        return "already there"
    temporary = CACHE / "vm-tmp"
    if temporary.exists():
        images.remove_tree(temporary)
    temporary.mkdir(parents=True)
    tree = temporary / "root"
    kind = kinds[0]
    words = ["mmdebstrap", "--variant=minbase", "--format=directory", f"--include={kind.packages}"]
    words.append(f"--architectures={kind.architecture}")
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
    for kind in missing:
        made = disk(kind)
        unfinished = Disk(kind, made.folder.with_suffix(".part"))
        if unfinished.folder.exists():
            images.remove_tree(unfinished.folder)
        unfinished.folder.mkdir()
        _furnish(step, tree, unfinished)
        step.run("truncate", f"--size={_DISK_BYTES}", unfinished.image)
        step.run("mke2fs", "-q", "-t", "ext4", "-d", tree, unfinished.image)
        for path in kind.files:
            (tree / path).unlink()
        unfinished.folder.rename(made.folder)
    images.remove_tree(temporary)
    return None


def _furnish(step: Step, tree: Path, made: Disk) -> None:
    """Put files, keys and links into the tree, and take the kernel out of it."""
    for name, text in made.kind.all_files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        if name.startswith("usr/bin/"):
            (tree / name).chmod(0o755)
    comment = made.kind.name
    step.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", made.key)
    host_key = tree / "etc/ssh/ssh_host_ed25519_key"
    host_key.unlink(missing_ok=True)
    step.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", host_key)
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
    if made.kind.model:
        # The machine's own device tree, with the board's name in it.
        words = ["qemu-system-aarch64", *_ARM64, "-smp", "2", "-m", str(MEMORY_MIB)]
        words[words.index("-M") + 1] += f",dumpdtb={made.device_tree}"
        step.run(*words, "-display", "none")
        step.run("fdtput", "-t", "s", made.device_tree, "/", "model", made.kind.model)


def accelerator(made: Disk) -> tuple[str, ...]:
    """QEMU's words for the processor: KVM where a kernel comes up with it, software where not."""
    if made.kind.architecture == "arm64":
        return ("qemu-system-aarch64", *_ARM64)
    kvm = ("qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return _SOFTWARE
    started = subprocess.Popen(
        [
            *(*kvm, "-m", "512", "-nodefaults"),
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
_SOFTWARE = (
    *("qemu-system-x86_64", "-M", "q35"),
    *("-accel", "tcg,thread=multi", "-cpu", "max,-cx16,-svm,-la57"),
)
_ARM64 = ("-M", "virt,gic-version=3", "-accel", "tcg,thread=multi", "-cpu", "cortex-a76")


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
    _off: bool = True

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
        self._off = False
        ports = ((self.ssh_port, 22), (self.api_port, 8000))
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in ports)
        # A cut ends QEMU and not this machine. What the guest's kernel has handed to its disk is in
        # this machine's cache by then and stays (`writeback`); what the guest keeps in its own
        # memory is lost, and so are those clusters of the qcow2 file that are new and that no flush
        # of the guest's has asked for. A disk with a cache of its own loses just that.
        kind = "raw" if disk.suffix == ".raw" else "qcow2"
        drive = f"file={disk},if=virtio,format={kind},cache=writeback"
        words = self._kernel_words(disk)
        tree = ["-dtb", str(self.made.device_tree)] if self.made.kind.model else []
        self._process = subprocess.Popen(
            [
                # With this process goes the machine: nobody else would end it.
                *("setpriv", "--pdeathsig", "KILL", "--", "nice", "-n", "10"),
                *(*self.accelerator, "-smp", "2", *tree),
                *("-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none"),
                *("-serial", f"file:{self.console}", "-drive", drive),
                *("-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net"),
                *("-device", "virtio-rng-pci", "-kernel", str(self.made.kernel)),
                *("-initrd", str(self.made.initrd), "-append", words),
                # One that reads its words off its disk is started again with what stands there.
                *(["-no-reboot"] if self._reads_words else []),
            ],
            stdin=subprocess.DEVNULL,
        )
        if self._reads_words:
            threading.Thread(target=self._follow, args=(self._process, disk), daemon=True).start()

    @property
    def _reads_words(self) -> bool:
        return CMDLINE in self.made.kind.files

    def _kernel_words(self, disk: Path) -> str:
        """What the kernel is started with: of a Raspberry Pi, what stands in its cmdline.txt."""
        if not self._reads_words:
            return self.made.kind.kernel_words
        read = ["debugfs", "-R", f"cat /{CMDLINE}", str(disk)]
        done = subprocess.run(read, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def _follow(self, process: subprocess.Popen[bytes], disk: Path) -> None:
        """Start the board again where it has ended by itself: it was rebooted."""
        process.wait()
        if self._process is process and not self._off:
            self.switch_on(disk)

    def running(self) -> subprocess.Popen[bytes]:
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
            self.running()
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
        self._off = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def switch_off(self) -> None:
        """Have it end in an orderly way, all that it holds on its disk. Raises SandboxError."""
        self._off = True
        self.run("poweroff", check=False)
        try:
            self.running().wait(BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            self.cut()
            raise SandboxError("The virtual board did not switch itself off.") from None
        self._process = None

    @contextmanager
    def still(self) -> Iterator[None]:
        """Hold QEMU: its disk's file is what a cut at this moment would leave."""
        process = self.running()
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
