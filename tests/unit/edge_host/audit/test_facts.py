"""What an audit reads of a host; nothing is judged here."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from edge_host.audit.accounts import parse_group_members, read_client_keys
from edge_host.audit.containers import parse_confinement
from edge_host.audit.facts import AuditError, read_audit
from edge_host.audit.files import read_owner, read_tree
from edge_host.audit.units import parse_exposure, parse_unit_names, read_units
from tests.unit.edge_host.conftest import FakeHost
from tests.unit.plugin_docs import differences, missing

INSPECTED: dict[str, Any] = {
    "Id": "0123",
    "Name": "/edge-llm-engine-a",
    "State": {"Running": True},
    "Config": {
        "Image": "hub:5000/llamacpp:1",
        "User": "10010:10010",
        "Labels": {
            "com.docker.compose.project": "edge-llm",
            "com.docker.compose.service": "engine-a",
        },
        "Healthcheck": {"Test": ["CMD", "true"]},
    },
    "HostConfig": {
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": None,
        "SecurityOpt": ["no-new-privileges:true"],
        "PidsLimit": None,
        "Memory": 1024,
        "Ulimits": [{"Name": "core", "Hard": 0, "Soft": 0}],
        "PidMode": "host",
        "Devices": [{"PathOnHost": "/dev/nvmap"}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "PortBindings": {
            "8000/tcp": [{"HostIp": "", "HostPort": "8000"}],
            "11434/tcp": [{"HostIp": "127.0.0.1", "HostPort": "11434"}],
        },
        "NetworkMode": "edge-llm_default",
    },
    "NetworkSettings": {"Networks": {"edge-llm_default": {}}},
    "Mounts": [
        {"Source": "/srv/m", "Destination": "/models", "RW": False, "Propagation": "rprivate"}
    ],
}


@pytest.fixture
def audited(fake_host: FakeHost) -> FakeHost:
    """A host that has everything that an audit reads."""
    fake_host.write("etc/docker/daemon.json", '{"icc": false}')
    fake_host.write("etc/group", "root:x:0:\ndocker:x:998:anna\n")
    fake_host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    fake_host.write("proc/sys/kernel/core_pattern", "core\n")
    fake_host.write("var/run/docker.sock", "")
    fake_host.docker(
        info=fake_host.answer("info", {"ServerVersion": "26.1.5", "LiveRestoreEnabled": True}),
        ps=fake_host.answer("ps", {"Names": "edge-llm-engine-a"}, {"Names": "nginx"}),
        inspect=fake_host.answer("inspect", [INSPECTED]),
        network=fake_host.answer(
            "network", [{"Name": "edge-llm_default", "Driver": "bridge", "Internal": False}]
        ),
    )
    for name, text in {
        "systemctl": "echo 'edge-llm.service enabled enabled'",
        "systemd-analyze": "echo '→ Overall exposure level for edge-llm.service: 9.6 UNSAFE'",
    }.items():
        (fake_host.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (fake_host.bin / name).chmod(0o755)
    secrets = fake_host.root / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "api_keys").write_text("a plain key\n")
    (secrets / "api_keys.jsonl").write_text('# own key: 1\n{"name": "kitchen", "sha256": "0"}\n')
    release = fake_host.root / "releases/0001"
    release.mkdir(parents=True)
    (release / "release.json").write_text('{"plan": {"api": {"tls": true}}}')
    (fake_host.root / "current").symlink_to("releases/0001")
    return fake_host


def read(host: FakeHost) -> dict[str, Any]:
    return read_audit(str(host.root), str(host.base / "registry"), str(host.system), user=0)


def test_options_of_docker_that_may_be_secret_are_not_read(audited: FakeHost) -> None:
    judged = {"icc": False, "log-driver": "splunk", "log-opts": {"max-size": "10m"}}
    options = judged | {
        "proxies": {"http-proxy": "http://user:hunter2@proxy.example:3128"},
        "log-opts": {"max-size": "10m", "splunk-token": "hunter2"},
    }
    audited.write("etc/docker/daemon.json", json.dumps(options))
    found = read(audited)
    assert "hunter2" not in json.dumps(found)
    assert found["daemon_json"] == judged


def test_everything(audited: FakeHost) -> None:
    found = read(audited)
    assert found["deployed"] is True
    assert found["tls"] is True
    assert found["all_files"] is True
    assert found["roots"] == [str(audited.root)]
    assert found["daemon_json"] == {"icc": False}
    assert found["daemon_json_file"]["kind"] == "file"
    assert found["docker_group"] == ["anna"]
    assert found["docker_group_id"] == 998
    assert found["docker"] == {
        "running": True,
        "version": "26.1.5",
        "error": None,
        "live_restore": True,
    }
    assert found["networks"] == {"edge-llm_default": {"driver": "bridge", "internal": False}}
    assert found["units"] == [{"unit": "edge-llm.service", "exposure": 9.6, "error": None}]
    assert found["core_pattern"] == "core"
    assert found["keys"] == [{"name": "kitchen", "expires": None}]
    assert found["plain_keys"] is True
    assert "a plain key" not in repr(found)
    assert [Path(each["path"]).name for each in found["files"] if each["kind"] == "link"] == [
        "current"
    ]


def test_the_documentation_has_what_is_read(
    audited: FakeHost,
) -> None:
    audited.write("proc/net/tcp", "")
    result = {"audit": read(audited)}
    listener = {"port": 22, "address": "0.0.0.0", "process": None}
    result["audit"]["listeners"] = [listener]
    assert differences("host_audit_info", result) == []
    assert missing("host_audit_info", [result]) == []


def test_a_host_that_has_nothing(fake_host: FakeHost) -> None:
    found = read(fake_host)
    assert differences("host_audit_info", {"audit": found}) == []
    assert found["deployed"] is False
    assert found["files"] == found["containers"] == found["units"] == found["keys"] == []
    assert found["docker"]["error"] == "there is no docker command"


def test_another_user_than_root(fake_host: FakeHost) -> None:
    with pytest.raises(AuditError) as caught:
        read_audit(system=str(fake_host.system), user=1000)
    assert str(caught.value) == (
        "The audit needs root on the host: it reads folders that other users cannot see. Set"
        " ansible_become: true."
    )


def test_nothing_is_changed(audited: FakeHost) -> None:
    def state() -> list[Any]:
        return [(path, path.lstat()) for path in sorted(audited.base.rglob("*"))]

    audited.log.touch()
    before = [(path, status.st_mtime_ns) for path, status in state() if path != audited.log]
    read(audited)
    after = [(path, status.st_mtime_ns) for path, status in state() if path != audited.log]
    assert after == before
    commands = {line.split()[0] for line in audited.log.read_text().splitlines()}
    assert commands == {"info", "ps", "inspect", "network"}


def test_links_are_read_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o750)
    (folder / "link").symlink_to(outside)
    socket_path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(socket_path))
    os.mkfifo(folder / "pipe")
    files, complete = read_tree(folder)
    assert complete
    assert [(Path(each["path"]).name, each["kind"], each["target"]) for each in files] == [
        ("folder", "folder", None),
        ("link", "link", str(outside)),
        ("pipe", "other", None),
        ("socket", "socket", None),
    ]
    assert files[0]["mode"] == "0750"
    (tmp_path / "folder-link").symlink_to(folder)
    linked, _ = read_tree(tmp_path / "folder-link")
    assert [each["kind"] for each in linked] == ["link"]


def test_a_large_folder_is_not_read_to_its_end(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).touch()
    files, complete = read_tree(tmp_path, most=3)
    assert (len(files), complete) == (3, False)
    assert read_tree(tmp_path, most=4)[1] is True


def test_what_is_missing(tmp_path: Path) -> None:
    assert read_owner(tmp_path / "none") is None
    assert read_tree(tmp_path / "none") == ([], True)


def test_a_container() -> None:
    other = {"Name": "/nginx", "Config": {"Labels": {"com.docker.compose.project": "web"}}}
    (found,) = parse_confinement(json.dumps([other, INSPECTED, "text"]))
    assert found == {
        "name": "edge-llm-engine-a",
        "id": "0123",
        "service": "engine-a",
        "image": "hub:5000/llamacpp:1",
        "running": True,
        "user": "10010:10010",
        "privileged": False,
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": [],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 0,
        "memory": 1024,
        "core_limit": 0,
        "namespaces": ["pid"],
        "devices": ["/dev/nvmap"],
        "log_driver": "json-file",
        "log_max_size": "10m",
        "healthcheck": True,
        "mounts": [
            {
                "source": "/srv/m",
                "target": "/models",
                "writable": False,
                "propagation": "rprivate",
            }
        ],
        "published": [
            {"address": "127.0.0.1", "port": 11434},
            {"address": "0.0.0.0", "port": 8000},
        ],
        "network_mode": "edge-llm_default",
        "networks": ["edge-llm_default"],
    }


def test_a_container_of_which_nothing_is_known() -> None:
    """What is absent in docker's output counts as not confined."""
    labels = {"com.docker.compose.project": "edge-llm-registry"}
    (found,) = parse_confinement(json.dumps([{"Config": {"Labels": labels}}]))
    assert (found["read_only"], found["memory"], found["core_limit"]) == (False, 0, None)
    assert (found["user"], found["cap_drop"], found["healthcheck"]) == ("", [], False)


def test_members_of_a_group() -> None:
    groups = "sudo:x:27:pi\ndocker:x:998:anna,root, ben\nbroken\n"
    users = "root:x:0:0::/root:/bin/sh\npi:x:1000:998::/home/pi:/bin/sh\nbroken\n"
    assert parse_group_members(groups, users, "docker") == ["anna", "ben", "pi"]
    assert parse_group_members(groups, users, "none") == []


def test_keys_by_name(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/api_keys.jsonl").write_text(
        '# a comment\n{"name": "a", "sha256": "0", "expires": "2027-01-01T00:00:00Z"}\n{"broken\n'
    )
    assert read_client_keys(tmp_path) == [{"name": "a", "expires": "2027-01-01T00:00:00Z"}]


# Of systemd 252 (Debian 12): the end of the output for a unit, and both lists.
SECURITY = """\
  NAME                                                        DESCRIPTION               EXPOSURE
✗ PrivateNetwork=                                             Service has access          0.5

→ Overall exposure level for edge-llm.service: 9.6 UNSAFE 😨
"""


def test_units() -> None:
    listed = (
        "edge-llm.service         enabled enabled\n"
        "edge-llm-x@.service      static  -\n"
        "● edge-llm-change-3.service loaded failed failed\n"
        "edge-llm-fetch-a-12.service loaded active running x\n"
        "other.service loaded active running x\n"
    )
    assert parse_unit_names(listed) == [
        "edge-llm-change-3.service",
        "edge-llm-fetch-a-12.service",
        "edge-llm.service",
    ]
    unit = "edge-llm.service"
    assert parse_exposure(SECURITY, unit) == {"unit": unit, "exposure": 9.6, "error": None}
    assert parse_exposure("", unit) == {"unit": unit, "exposure": None, "error": "no output"}
    unknown = "Unknown operation security.\n"
    assert parse_exposure(unknown, unit)["error"] == "Unknown operation security."


def test_units_without_the_command(audited: FakeHost) -> None:
    (audited.bin / "systemd-analyze").unlink()
    assert read_units() == [
        {
            "unit": "edge-llm.service",
            "exposure": None,
            "error": "there is no systemd-analyze command",
        }
    ]
