"""The units under a systemd of their own, in namespaces of their own: root's, as a user's manager.

It has neither this machine's ports, nor its /run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.host_archive import build
from edge_host.constants import API_UID, SOCKETS_UNIT
from edge_host.unit_files.sockets import SERVICE_UNIT, build_service, build_socket

SYSTEMD = Path("/lib/systemd/systemd")
SYSTEM_PYTHON = "/usr/bin/python3"
SECONDS = 120
# What a real system has, and a mount namespace does not: nodes for what a unit may not see, and a
# socket for messages that every user may write to.
SCRIPT = """\
set -e
# Not below /run/user, which the service does not see.
ip link set lo up
ip address add 192.0.2.10/32 dev lo
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/systemd/system
for nodes in /run/systemd/inaccessible /run/own/systemd/inaccessible; do
    mkdir -p $nodes/dir
    cd $nodes
    touch reg; mkfifo fifo; mknod chr c 0 0; mknod blk b 0 0
    {python} -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
    chmod 000 *
done
export XDG_RUNTIME_DIR=/run/own XDG_CONFIG_HOME={folder}/config
{systemd} --user --log-target=null --unit=basic.target </dev/null >/dev/null 2>&1 &
for _ in $(seq 100); do test -S /run/own/systemd/private && break; sleep 0.1; done
chmod 777 /run/own/systemd/notify
exec {python} {folder}/steps.py
"""
STEPS = """\
import json, os, signal, socket, subprocess, sys, time

FOLDER, SOCKET_UNIT, SERVICE_UNIT, NEW = {arguments!r}
DOOR = FOLDER + "/root/run/door.sock"

def systemctl(*words):
    done = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True)
    return done.stdout.strip()

def take():
    for _ in range(100):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        try:
            connection.connect(DOOR)
            said, files, *_ = socket.recv_fds(connection, 5, 9)
            if files:
                return connection, [socket.socket(fileno=each) for each in files]
        except OSError:
            pass
        connection.close()
        time.sleep(0.1)
    sys.exit("nobody hands sockets on: " + systemctl("status", SOCKET_UNIT, SERVICE_UNIT))

def names(sockets):
    return [list(each.getsockname()[:2]) for each in sockets]

def identities(sockets):
    return [os.fstat(each.fileno()).st_ino for each in sockets]

told = {{"start": systemctl("start", SOCKET_UNIT, SERVICE_UNIT)}}
peer, first = take()
told["names"] = names(first)
pid = int(systemctl("show", "--property=MainPID", "--value", SERVICE_UNIT))
told["status"] = open(f"/proc/{{pid}}/status").read()
waiting = [socket.create_connection((host, 8000)) for host in ("127.0.0.1", "::1")]
for each in waiting:
    each.sendall(b"early")
os.kill(pid, signal.SIGKILL)
told["end"] = peer.recv(1).decode()
peer, second = take()
told["kept after a kill"] = identities(first) == identities(second)
systemctl("restart", SERVICE_UNIT)
peer, third = take()
told["kept after a restart"] = identities(first) == identities(third)
told["taken"] = []
for _ in waiting:
    taken, _ = third[0].accept()
    taken.settimeout(20)
    told["taken"].append(taken.recv(9).decode())
# As when llm_listen_address changes, while a chat API still has the former sockets.
os.replace(FOLDER + "/new.socket", NEW)
systemctl("daemon-reload")
systemctl("restart", SOCKET_UNIT)
peer, fourth = take()
told["new names"] = names(fourth)
told["kept after a change"] = identities(first) == identities(fourth)
told["active"] = systemctl("is-active", SOCKET_UNIT, SERVICE_UNIT).split()
systemctl("stop", SOCKET_UNIT)
told["stopped"] = systemctl("is-active", SOCKET_UNIT, SERVICE_UNIT).split()
print(json.dumps(told))
"""

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not SYSTEMD.exists() or shutil.which("unshare") is None,
    reason="needs root and systemd",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Outside of /tmp and /var/tmp, which the service has for itself."""
    with tempfile.TemporaryDirectory(dir="/srv") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_the_units_hold_the_ports(folder: Path) -> None:
    root, config = folder / "root", folder / "config/systemd/user"
    for each in (root / "lib", root / "run", config):
        each.mkdir(parents=True)
    os.chown(root / "run", API_UID, API_UID)
    (root / "run").chmod(0o700)
    name, content = build()
    (root / "lib" / name).write_bytes(content)
    python = SYSTEM_PYTHON if Path(SYSTEM_PYTHON).exists() else sys.executable
    (config / "basic.target").write_text("[Unit]\n")
    (config / SOCKETS_UNIT).write_text(build_socket(""))
    (config / SERVICE_UNIT).write_text(build_service(root, python, root / "lib" / name))
    (folder / "new.socket").write_text(build_socket("192.0.2.10"))
    words = str(folder), SOCKETS_UNIT, SERVICE_UNIT, str(config / SOCKETS_UNIT)
    (folder / "steps.py").write_text(STEPS.format(arguments=words))
    script = SCRIPT.format(python=python, systemd=SYSTEMD, folder=folder)
    namespaces = ("--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc")
    done = subprocess.run(
        ["unshare", *namespaces, "bash", "-c", script],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if "Operation not permitted" in done.stderr:
        pytest.skip(f"namespaces cannot be made here: {done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["names"] == [["::", 8000], ["127.0.0.1", 11434]]
    assert f"Uid:\t{API_UID}\t{API_UID}\t" in told["status"]
    assert "CapEff:\t0000000000000000\n" in told["status"]
    assert "NoNewPrivs:\t1\n" in told["status"]
    assert told["end"] == ""
    assert told["kept after a kill"]
    assert told["kept after a restart"]
    assert told["taken"] == ["early", "early"]
    assert told["new names"] == [["192.0.2.10", 8000], ["127.0.0.1", 11434]]
    assert not told["kept after a change"]
    assert told["active"] == ["active", "active"]
    assert told["stopped"] == ["inactive", "inactive"]
