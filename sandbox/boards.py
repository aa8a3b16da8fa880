"""Simulated boards: containers with systemd and sshd at fixed addresses, reached by SSH."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from sandbox import cpu, docker
from sandbox.errors import SandboxError
from sandbox.images import Image, content_tag
from sandbox.instance import DEFAULT_HOSTS, HOSTS, LABEL, Instance
from sandbox.steps import Step

_SPEC = f"{LABEL}.spec"
"""Label with a hash of all that decides a container: another hash, another container."""

_SSH_SECONDS = 60.0
# A board gets this long for an orderly shutdown.
_STOP_SECONDS = 20

# systemd and a Docker of its own need nearly all capabilities. `--privileged` would ask for
# CAP_SYS_RESOURCE too, which some machines cannot give.
_LIKE_A_MACHINE = (
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--cgroupns=private",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--stop-signal=SIGRTMIN+3",
    f"--stop-timeout={_STOP_SECONDS}",
)


def make_network(step: Step, instance: Instance) -> str | None:
    """See to it that the instance's network is there."""
    if docker.ours("network", instance.network, instance.name):
        return "already there"
    step.run(
        *("docker", "network", "create", "--driver", "bridge", "--subnet", instance.subnet),
        *("--label", f"{LABEL}={instance.name}", instance.network),
    )
    return instance.subnet


def make_key(step: Step, instance: Instance) -> str | None:
    """See to it that the instance's SSH key pair is there."""
    instance.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if _public_key(instance).exists():
        return "already there"
    # An interrupted ssh-keygen may have left the private half.
    instance.key.unlink(missing_ok=True)
    words = ("-q", "-t", "ed25519", "-N", "", "-C", instance.network)
    step.run("ssh-keygen", *words, "-f", instance.key)
    return None


def _public_key(instance: Instance) -> Path:
    return instance.key.with_suffix(".pub")


def volume(name: str, owner: str) -> str:
    """See to it that a labelled volume is there; returns its name."""
    if docker.ours("volume", name, owner) is None:
        docker.docker("volume", "create", "--label", f"{LABEL}={owner}", name)
    return name


def run_container(
    step: Step,
    instance: Instance,
    name: str,
    image: Image,
    words: list[str],
    command: list[str],
    data: str | None = None,
) -> str | None:
    """See to it that a container runs as described; one made by another description is replaced.

    `words` are options of `docker run`; `data` is a volume that comes and goes with the container.
    """
    spec = content_tag({}, image.reference, *words, "--", *command)
    found = docker.ours("container", name, instance.name)
    if found and docker.labels("container", found).get(_SPEC) == spec:
        if found["State"]["Running"]:
            return "already running"
        # An interrupted `docker run` leaves a container that never started: start does for both.
        step.run("docker", "start", name)
        return "started again"
    if found:
        step.run("docker", "rm", "--force", name)
        if data and docker.ours("volume", data, instance.name):
            step.run("docker", "volume", "rm", data)
    if data:
        volume(data, instance.name)
    step.run(
        *("docker", "run", "--detach", "--name", name, "--network", instance.network),
        *("--label", f"{LABEL}={instance.name}", "--label", f"{_SPEC}={spec}"),
        *words,
        image.reference,
        *command,
    )
    return "replaced: its description changed" if found else None


def cpus_of(name: str, machine: Collection[int]) -> str | None:
    """The machine's CPUs that a board has to itself, as `docker run --cpuset-cpus` takes them.

    The boards that serve share out the machine. Their engines' threads wait for each other by
    spinning: two engines on the same CPUs slow each other down tenfold, which two boards never do.
    None, for all CPUs: a board that serves nothing, or a machine with fewer CPUs than boards.
    """
    if name not in DEFAULT_HOSTS or len(machine) < len(DEFAULT_HOSTS):
        return None
    each = len(machine) // len(DEFAULT_HOSTS)
    first = DEFAULT_HOSTS.index(name) * each
    return ",".join(str(cpu) for cpu in sorted(machine)[first : first + each])


def make_board(step: Step, instance: Instance, name: str, image: Image) -> str | None:
    """See to it that a board runs and lets root in by SSH with the instance's key."""
    host = HOSTS[name]
    cpus = cpus_of(name, os.sched_getaffinity(0))
    hidden = cpu.hidden()
    words = [
        *_LIKE_A_MACHINE,
        *host.options,
        *([f"--cpuset-cpus={cpus}"] if cpus else []),
        f"--hostname={name}",
        f"--ip={instance.address(host.octet)}",
        f"--volume={instance.volume(name)}:/var/lib/docker",
        f"--env=BOARD={host.board}",
        f"--env=TRAITS={' '.join(host.traits)}",
        *([f"--env=HIDDEN_FEATURES={hidden.features}"] if hidden else []),
        f"--env=SSH_KEY={_public_key(instance).read_text().strip()}",
    ]
    note = run_container(
        *(step, instance, instance.container(name), image, words, ["/init"]),
        data=instance.volume(name),
    )
    wait_for_ssh(step, instance, name)
    return note


def wait_for_ssh(step: Step, instance: Instance, name: str) -> None:
    """Read the board's host key, and wait until it lets us in."""
    step.until(lambda: _host_key(instance, name) is not None, f"{name}'s host key", _SSH_SECONDS)
    step.until(lambda: ssh_answers(instance, name), f"SSH on {name}", _SSH_SECONDS)


def _host_key(instance: Instance, name: str) -> str | None:
    """The board's public host key, read from inside: so it is known, not trusted at first sight."""
    try:
        text = docker.docker(
            "exec", instance.container(name), "cat", "/etc/ssh/ssh_host_ed25519_key.pub"
        )
    except SandboxError:
        return None
    return " ".join(text.split()[:2]) if text else None


def write_known_hosts(step: Step, instance: Instance) -> str | None:
    """Write the host keys of all running boards of the instance; by address and name."""
    lines = []
    for name, host in HOSTS.items():
        found = docker.inspect("container", instance.container(name))
        if found and found["State"]["Running"] and (key := _host_key(instance, name)):
            lines.append(f"{instance.address(host.octet)},{name} {key}\n")
    # Replaced in one go: an SSH client may be reading it.
    unfinished = instance.known_hosts.with_suffix(".part")
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.rename(instance.known_hosts)
    return None


def ssh_answers(instance: Instance, name: str) -> bool:
    """Whether root gets in by SSH, checked against the host key that was read from inside."""
    key = _host_key(instance, name)
    if key is None:
        return False
    address = instance.address(HOSTS[name].octet)
    known = instance.state / f"known_hosts.{name}"
    known.write_text(f"{address} {key}\n", encoding="utf-8")
    result = subprocess.run(
        [
            *("ssh", "-F", "none", "-i", str(instance.key), "-o", "BatchMode=yes"),
            *("-o", "ConnectTimeout=3", "-o", f"UserKnownHostsFile={known}"),
            *("-o", "StrictHostKeyChecking=yes", f"root@{address}", "true"),
        ],
        capture_output=True,
        check=False,
    )
    known.unlink()
    return result.returncode == 0
