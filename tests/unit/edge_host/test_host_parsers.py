"""Tables of captured texts against the pure parsers of what a host tells about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_host.engine_log import parse_engine_log, parse_time
from edge_host.host_info.board import board_kind, parse_model, parse_os_release
from edge_host.host_info.docker import (
    parse_containers,
    parse_daemon_json,
    parse_docker_info,
    parse_images,
    parse_published,
)
from edge_host.host_info.hardware import parse_meminfo
from edge_host.host_info.jetson import parse_l4t
from edge_host.host_info.network import parse_fib_trie, parse_if_inet6, read_addresses
from edge_host.host_info.ports import parse_container_id, parse_listeners, parse_socket_units
from edge_host.host_info.system import (
    parse_accounts,
    parse_desktop,
    parse_packages,
    parse_unattended,
)
from edge_host.host_info.weights import parse_manifest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (
            "# R32 (release), REVISION: 7.6, GCID: 38171779, BOARD: t210ref, EABI: aarch64, "
            "DATE: Tue Nov  5 07:46:14 UTC 2024\n",
            (32, 7, 6, "32.7.6"),
        ),
        (  # a revision without a patch number
            "# R32 (release), REVISION: 5, GCID: 25531747, BOARD: t186ref, EABI: aarch64, "
            "DATE: Sat Nov 07 23:21:05 UTC 2020\n",
            (32, 5, 0, "32.5.0"),
        ),
        (
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
            "DATE: Tue Aug  1 19:57:35 UTC 2023\n",
            (35, 4, 1, "35.4.1"),
        ),
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
            "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
            "TARGET_USERSPACE_LIB_DIR=nvidia\n"
            "TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n",
            (36, 4, 3, "36.4.3"),
        ),
        (
            "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, "
            "DATE: Fri Aug 22 00:55:42 UTC 2025\n# KERNEL_VARIANT: oot\nINSTALL_TYPE=\n",
            (38, 2, 0, "38.2.0"),
        ),
    ],
)
def test_l4t(text: str, release: tuple[int, int, int, str]) -> None:
    assert parse_l4t(text) == dict(zip(("major", "minor", "patch", "text"), release, strict=True))


@pytest.mark.parametrize("text", ["", "\n", "R36", "not a release line", "# R (release), REVISION"])
def test_l4t_of_something_else(text: str) -> None:
    assert parse_l4t(text) is None


DEBIAN_13 = """\
PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
VERSION="13 (trixie)"
VERSION_CODENAME=trixie
DEBIAN_VERSION_FULL=13.1
ID=debian
HOME_URL="https://www.debian.org/"
"""
RASPBERRY_PI_OS_32 = """\
PRETTY_NAME="Raspbian GNU/Linux 12 (bookworm)"
NAME="Raspbian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=raspbian
ID_LIKE=debian
"""
UBUNTU_2204 = """\
PRETTY_NAME="Ubuntu 22.04.5 LTS"
NAME="Ubuntu"
VERSION_ID="22.04"
VERSION="22.04.5 LTS (Jammy Jellyfish)"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=jammy
"""


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (DEBIAN_13, ("debian", "13", "Debian GNU/Linux 13 (trixie)")),
        (
            RASPBERRY_PI_OS_32,
            ("raspbian", "12", "Raspbian GNU/Linux 12 (bookworm)"),
        ),
        (UBUNTU_2204, ("ubuntu", "22.04", "Ubuntu 22.04.5 LTS")),
        # Debian's testing has no version.
        (
            'PRETTY_NAME="Debian GNU/Linux forky/sid"\nID=debian\nVERSION_CODENAME=forky\n',
            ("debian", None, "Debian GNU/Linux forky/sid"),
        ),
        ("# ID=comment\nID='single'\nVERSION_ID=\"torn\n\x00junk", ("single", "torn", None)),
        ("", (None, None, None)),
    ],
)
def test_os_release(text: str, fields: tuple[str | None, ...]) -> None:
    assert parse_os_release(text) == dict(
        zip(("id", "version_id", "pretty_name"), fields, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        (
            "MemTotal:        8245856 kB\nMemFree:         4041404 kB\n"
            "MemAvailable:    6985556 kB\nBuffers:           59380 kB\n",
            (8443756544, 7153209344),
        ),
        ("MemTotal:        8245856 kB\n", (8443756544, None)),
        ("", (None, None)),
        ("MemTotal: many kB\n", (None, None)),
    ],
)
def test_meminfo(text: str, memory: tuple[int | None, int | None]) -> None:
    assert parse_meminfo(text) == memory


L4T = parse_l4t("# R36 (release), REVISION: 4.3")


@pytest.mark.parametrize(
    ("text", "l4t", "model", "kind"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0\0", None, "Raspberry Pi 5 Model B Rev 1.0", "pi"),
        (
            "Raspberry Pi Compute Module 4 Rev 1.1\0",
            None,
            "Raspberry Pi Compute Module 4 Rev 1.1",
            "pi",
        ),
        (
            "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
            L4T,
            "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
            "jetson",
        ),
        ("NVIDIA Orin Nano Developer Kit\0", None, "NVIDIA Orin Nano Developer Kit", "jetson"),
        ("Some Carrier Board\0", L4T, "Some Carrier Board", "jetson"),
        ("", L4T, None, "jetson"),
        ("Standard PC (Q35 + ICH9, 2009)\n", None, "Standard PC (Q35 + ICH9, 2009)", "generic"),
        ("\0", None, None, "generic"),
    ],
)
def test_board(text: str, l4t: dict[str, Any] | None, model: str | None, kind: str) -> None:
    assert parse_model(text) == model
    assert board_kind(model, l4t) == kind


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 27045 1
   1: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 27046 1
   2: 0B28C6C6:1F40 0128C6C6:D3A2 01 00000000:00000000 00:00000000 00000000     0        0 27047 1
garbage
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue ...
   0: 00000000000000000000000000000000:1F40 00000000000000000000000000000000:0000 0A \
00000000:00000000 00:00000000 00000000     0        0 27048 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A \
00000000:00000000 00:00000000 00000000     0        0 27049 1 0000000000000000 100 0 0 10 0
"""


@pytest.mark.parametrize(
    ("text", "listeners"),
    [
        (TCP, [(11434, "127.0.0.1", 27045), (8000, "0.0.0.0", 27046)]),
        (TCP6, [(8000, "::", 27048), (22, "::1", 27049)]),
        ("", []),
    ],
)
def test_listeners(text: str, listeners: list[tuple[int, str, int]]) -> None:
    assert parse_listeners(text) == listeners


@pytest.mark.parametrize(
    ("ports", "published"),
    [
        (  # Docker 28
            "0.0.0.0:8000->8000/tcp, [::]:8000->8000/tcp",
            [("api", "0.0.0.0", 8000), ("api", "::", 8000)],
        ),
        (  # Docker 20.10
            "0.0.0.0:8000->8000/tcp, :::8000->8000/tcp",
            [("api", "0.0.0.0", 8000), ("api", "::", 8000)],
        ),
        ("127.0.0.1:11434->8080/tcp", [("api", "127.0.0.1", 11434)]),
        (
            "0.0.0.0:8000-8001->8000-8001/tcp, 9000/tcp",
            [("api", "0.0.0.0", 8000), ("api", "0.0.0.0", 8001)],
        ),
        ("0.0.0.0:8000->8000/udp", []),
        ("0.0.0.0:many->8000/tcp, ->/tcp, a-b->c/tcp", []),
        ("8080/tcp", []),
        ("", []),
    ],
)
def test_published(ports: str, published: list[tuple[str, str, int]]) -> None:
    assert parse_published(json.dumps({"Names": "api", "Ports": ports})) == published


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"0::/system.slice/docker-{'a' * 64}.scope\n", "a" * 64),
        (f"1:cpu:/docker/{'b' * 64}\n", "b" * 64),
        (f"1:cpu:/docker/{'b' * 64}/docker/{'c' * 64}\n0::/\n", "c" * 64),
        (f"0::/user.slice/nodocker-{'a' * 64}.scope\n", None),
        ("0::/system.slice/docker.service\n", None),
        ("", None),
    ],
)
def test_container_of_a_process(text: str, found: str | None) -> None:
    assert parse_container_id(text) == found


def test_images() -> None:
    rows = [
        {"Repository": "hub:5000/llamacpp", "Tag": "1", "Digest": "sha256:aa"},
        {"Repository": "hub:5000/ollama", "Tag": "<none>", "Digest": "sha256:bb"},
        {"Repository": "edge-llm-api", "Tag": "2", "Digest": "<none>"},
        {"Repository": "<none>", "Tag": "<none>", "Digest": "<none>"},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    assert parse_images(text) == [
        "edge-llm-api:2",
        "hub:5000/llamacpp:1",
        "hub:5000/llamacpp@sha256:aa",
        "hub:5000/ollama@sha256:bb",
    ]
    assert parse_images("") == []


def test_docker_info_of_a_live_engine() -> None:
    text = (FIXTURES / "docker-info-20.10.json").read_text()
    assert parse_docker_info(text) == {
        "running": True,
        "version": "20.10.24+dfsg1",
        "compose": None,
        "runtimes": ["io.containerd.runc.v2", "io.containerd.runtime.v1.linux", "runc"],
        "swarm": False,
        "live_restore": False,
        "limits": {"memory": True, "pids_limit": True},
        "error": None,
    }


def test_docker_info_of_a_dead_engine() -> None:
    text = (FIXTURES / "docker-info-dead.json").read_text()
    complaint = "Cannot connect to the Docker daemon at unix:///run/none.sock."
    dead: dict[str, Any] = {
        "running": False,
        "version": None,
        "compose": None,
        "runtimes": [],
        "swarm": False,
        "live_restore": False,
        "limits": {"memory": False, "pids_limit": False},
    }
    assert parse_docker_info(text, complaint + "\n") == {**dead, "error": complaint}
    # Docker before 23 says it in the answer.
    text = json.dumps({"ServerErrors": [complaint], "ClientInfo": {"Plugins": []}})
    assert parse_docker_info(text) == {**dead, "error": complaint}


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "Segmentation fault"])
def test_docker_info_of_no_use(text: str) -> None:
    assert parse_docker_info(text, "no answer within 10 seconds\n") == {
        "running": False,
        "version": None,
        "compose": None,
        "runtimes": [],
        "swarm": False,
        "live_restore": False,
        "limits": {"memory": False, "pids_limit": False},
        "error": "no answer within 10 seconds",
    }


@pytest.mark.parametrize(
    ("plugin", "compose"),
    [
        ({"Name": "compose", "Version": "v2.26.1"}, "2.26.1"),
        ({"Name": "compose", "Version": "2.26.1-4"}, "2.26.1-4"),
        ({"Name": "compose", "Version": "v2.26.1", "Err": "exec format error"}, None),
        ({"Name": "buildx", "Version": "v0.13.1"}, None),
    ],
)
def test_compose_plugin(plugin: dict[str, str], compose: str | None) -> None:
    text = json.dumps({"ServerVersion": "26.1.5", "ClientInfo": {"Plugins": [plugin]}})
    assert parse_docker_info(text)["compose"] == compose


def test_docker_info_tells_which_limits_the_kernel_has() -> None:
    text = json.dumps({"ServerVersion": "28.5.2", "MemoryLimit": False, "PidsLimit": True})
    assert parse_docker_info(text)["limits"] == {"memory": False, "pids_limit": True}


@pytest.mark.parametrize(("told", "found"), [(True, True), (False, False), (None, False)])
def test_docker_info_tells_of_live_restore(told: bool | None, found: bool) -> None:
    text = json.dumps({"ServerVersion": "28.5.2", "LiveRestoreEnabled": told})
    assert parse_docker_info(text)["live_restore"] is found


@pytest.mark.parametrize(
    ("told", "swarm"),
    [
        ({"LocalNodeState": "inactive"}, False),
        ({"LocalNodeState": "active"}, True),
        # Locked or pending: the engine would not start with options that a swarm does not allow.
        ({"LocalNodeState": "locked"}, True),
        ({"LocalNodeState": ""}, False),
        ({}, False),
        (None, False),
    ],
)
def test_docker_info_tells_of_a_swarm(told: dict[str, Any] | None, swarm: bool) -> None:
    text = json.dumps({"ServerVersion": "28.5.2", "Swarm": told})
    assert parse_docker_info(text)["swarm"] is swarm


@pytest.mark.parametrize(
    ("text", "unattended"),
    [
        ('APT::Periodic::Unattended-Upgrade "1";\n', True),
        ('apt::periodic::unattended-upgrade "7";\n', True),
        ('APT::Periodic::Unattended-Upgrade "0";\n', False),
        ('APT::Periodic::Unattended-Upgrade "";\n', False),
        ('APT::Periodic {\n  Update-Package-Lists "1";\n  Unattended-Upgrade "1";\n};\n', True),
        ('APT { Periodic { Unattended-Upgrade "1"; }; };\n', True),
        ('// APT::Periodic::Unattended-Upgrade "1";\n', None),
        ('# APT::Periodic::Unattended-Upgrade "1";\n', None),
        ('/* APT::Periodic::Unattended-Upgrade "1";\n */', None),
        (
            'Acquire::http::Proxy "http://a:1"; APT::Periodic::Unattended-Upgrade "1"; // on\n',
            True,
        ),
        ('Unattended-Upgrade::Allowed-Origins { "a:b"; };\n', None),
        ('Unattended-Upgrade::Mail "root";\n', None),
        ("", None),
    ],
)
def test_unattended(text: str, unattended: bool | None) -> None:
    assert parse_unattended(text) is unattended


STATUS = """\
Package: io-doc
Status: hold ok installed

Package: docker-ce
Status: hold ok installed
Version: 5:27.5.1-1~ubuntu.22.04~jammy

Package: io
Status: deinstall ok config-files
Conffiles:
 /etc/default/docker 58b0ba0c3ff7e3f9ad8a8ff8aa2e5e0b

Package: containerd.io
Essential: no
Status: install ok installed

Package: docker-compose

Package: containerd
Status: hold ok config-files
"""


@pytest.mark.parametrize(
    ("text", "installed", "held"),
    [
        (STATUS, ["containerd.io", "docker-ce"], ["containerd", "docker-ce"]),
        ("Package: containerd\nStatus: hold ok installed\n", ["containerd"], ["containerd"]),
        ("", [], []),
    ],
)
def test_packages(text: str, installed: list[str], held: list[str]) -> None:
    assert parse_packages(text) == {"installed": installed, "held": held}


@pytest.mark.parametrize(
    ("names", "desktop"),
    [
        (["systemd", "Xorg", "gnome-shell", "gnome-session-b"], "gnome-shell"),
        (["lightdm", "Xorg", "lxsession", "openbox"], "lxsession"),
        (["kwin_wayland", "Xwayland", "plasmashell"], "plasmashell"),
        (["kwin_x11"], "kwin_x11"),
        (["labwc", "wf-panel-pi", "Xwayland", "lxsession-xdg-a"], "labwc"),
        *([[name], name] for name in ("wayfire", "xfce4-session", "sway", "weston", "Xorg")),
        (["systemd", "sshd", "dockerd", "", "gnome-keyring-d"], None),
        ([], None),
    ],
)
def test_desktop(names: list[str], desktop: str | None) -> None:
    assert parse_desktop(names) == desktop


@pytest.mark.parametrize(
    ("text", "settings", "error"),
    [
        (None, None, None),
        ("", {}, None),
        ('{"runtimes": {}}', {"runtimes": {}}, None),
        ("[]", None, "it holds a list, not a JSON object"),
    ],
)
def test_daemon_json(text: str | None, settings: dict[str, Any] | None, error: str | None) -> None:
    assert parse_daemon_json(text) == (settings, error)


def test_daemon_json_that_is_not_json() -> None:
    settings, error = parse_daemon_json('{"a": 1,}')
    assert settings is None
    assert error is not None
    assert error.startswith("it is not JSON: ")


def test_containers() -> None:
    item = {
        "Id": "4f2a",
        "Name": "/edge-llm-engine-a",
        "State": {
            "Status": "running",
            "Pid": 4711,
            "StartedAt": "2026-11-22T17:43:10.123456789Z",
            "Health": {"Status": "healthy"},
        },
        "Config": {"Image": "hub:5000/llamacpp@sha256:aa", "User": "10011:10011"},
        "HostConfig": {
            "Privileged": False,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": None,
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 2147483648,
            "PidsLimit": None,
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
        },
    }
    assert parse_containers(json.dumps([item])) == {
        "edge-llm-engine-a": {
            "id": "4f2a",
            "image": "hub:5000/llamacpp@sha256:aa",
            "status": "running",
            "health": "healthy",
            "started_at": "2026-11-22T17:43:10.123456789Z",
            "pid": 4711,
            "settings": {
                "user": "10011:10011",
                "privileged": False,
                "read_only": True,
                "cap_drop": ["ALL"],
                "cap_add": [],
                "security_opt": ["no-new-privileges:true"],
                "memory": 2147483648,
                "pids_limit": 0,
                "restart": "unless-stopped",
            },
        },
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]\n",
        "[]\nError: No such container: edge-llm-api-a\n",
        "null",
        '[{"Name": "/a"}]',
        "[1]",
    ],
)
def test_no_containers(text: str) -> None:
    assert parse_containers(text) == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T00:00:00Z", 86400.0),
        ("2026-11-22T17:43:10.250000000Z", 1795369390.25),
        ("0001-01-01T00:00:00Z", -62135596800.0),
        ("2026-11-22 17:43", None),
        ("2026-13-22T17:43:10Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_time(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds


def stamped(*messages: str) -> list[str]:
    """The messages as `docker logs --timestamps` gives them, one a second from 00:00:01 on."""
    return [
        f"1970-01-02T00:00:{second:02}.500000000Z {message}\n"
        for second, message in enumerate(messages, 1)
    ]


CUDA = stamped(
    "load_tensors: loading model tensors, this can take a while... (mmap = true)",
    "load_tensors: offloading 28 repeating layers to GPU",
    "load_tensors: offloading output layer to GPU",
    "load_tensors: offloaded 29/29 layers to GPU",
    "load_tensors:   CPU_Mapped model buffer size =   308.23 MiB",
    "load_tensors:        CUDA0 model buffer size =  1918.35 MiB",
    "llama_context:  CUDA_Host  output buffer size =     1.96 MiB",
    "llama_kv_cache:      CUDA0 KV buffer size =   448.00 MiB",
    "main: HTTP server is listening, hostname: 0.0.0.0, port: 8080, http threads: 7",
    "main: model loaded",
    "main: server is listening on http://0.0.0.0:8080 - starting the main loop",
)
PARTIAL = stamped(
    "0.00.899.519 I load_tensors: offloaded 4/41 layers to GPU",
    "0.00.899.520 I load_tensors:   CPU_Mapped model buffer size = 12398.48 MiB",
    "0.00.899.521 I load_tensors:        CUDA0 model buffer size =   550.95 MiB",
    "0.00.899.522 I load_tensors:        CUDA1 model buffer size =   551.00 MiB",
)
# What a build without a GPU can say.
CPU_ONLY = stamped(
    "load_tensors: offloaded 27/27 layers to GPU",
    "load_tensors:   CPU_Mapped model buffer size =   308.23 MiB",
    "load_tensors:   CPU_REPACK model buffer size =   100.00 MiB",
    "load_tensors:    CUDA_Host model buffer size =   100.00 MiB",
    "load_tensors: RPC0[192.168.1.89:39823] model buffer size =   512.00 MiB",
    "load_tensors:     NewChip0 model buffer size =   512.00 MiB",
)
OLLAMA = stamped(
    'time=2026-09-20T04:26:02.365Z level=INFO source=routes.go:2008 msg="Listening on [::]:8080 '
    '(version 0.34.0)"',
    'time=2026-09-20T04:26:08.365Z level=INFO source=llama_server.go:1295 msg="waiting for '
    'llama-server to start responding"',
    "load_tensors: offloaded 31/31 layers to GPU",
    "load_tensors:        CUDA0 model buffer size =    85.09 MiB",
    "srv  llama_server: model loaded",
    'time=2026-09-20T04:26:58.365Z level=INFO source=llama_server.go:1362 msg="llama-server '
    'started in 6.02 seconds"',
)
# Before 2025.
OLD = stamped(
    "llm_load_tensors: offloaded 62/62 layers to GPU",
    "llm_load_tensors:        CPU buffer size =   499.50 MiB",
    "llm_load_tensors:      CUDA0 buffer size = 17284.05 MiB",
    "llm_load_tensors:  CUDA_Host buffer size =   100.00 MiB",
    "llm_load_tensors:      CUDA3 compute buffer size =   100.00 MiB",
    "llama_kv_cache_init:      CUDA1 KV buffer size =   448.00 MiB",
    "llama_new_context_with_model:      CUDA2 compute buffer size =   304.00 MiB",
)
VLLM = stamped(
    "INFO 09-15 04:01:56 [__init__.py:216] Automatically detected platform cuda.",
    "(APIServer pid=1) INFO:     Started server process [1]",
    "(APIServer pid=1) INFO:     Waiting for application startup.",
    "(APIServer pid=1) INFO:     Application startup complete.",
)


@pytest.mark.parametrize(
    ("lines", "offloaded", "total", "buffers", "platform", "seconds"),
    [
        (CUDA, 29, 29, ["CUDA0"], None, 10.5),
        (PARTIAL, 4, 41, ["CUDA0", "CUDA1"], None, None),
        (OLD, 62, 62, ["CUDA0"], None, None),
        (CPU_ONLY, 27, 27, [], None, None),
        (OLLAMA, 31, 31, ["CUDA0"], None, 7.52),
        (VLLM, None, None, [], "cuda", 4.5),
        (["garbage\n", "\n", "\x00 main: model loaded\n"], None, None, [], None, None),
        ([], None, None, [], None, None),
    ],
)
def test_engine_log(
    lines: list[str],
    offloaded: int | None,
    total: int | None,
    buffers: list[str],
    platform: str | None,
    seconds: float | None,
) -> None:
    assert parse_engine_log(lines, 86400.0) == {
        "layers_offloaded": offloaded,
        "layers_total": total,
        "gpu_buffers": buffers,
        "platform": platform,
        "gpu_said": [],
        "gpu_reason": None,
        "start_seconds": seconds,
    }


@pytest.mark.parametrize(
    ("name", "started", "said", "seconds"),
    [
        (
            "engine-log-llamacpp-11669.txt",
            "2026-11-22T18:06:12.840854975Z",
            ["warning: no usable GPU found, --gpu-layers option will be ignored"],
            1.81,
        ),
        # Asked 29 seconds after it listened, which is not its start.
        ("engine-log-ollama-0.34.txt", "2026-11-22T18:04:57.170566911Z", [], 1.03),
    ],
)
def test_real_logs_of_builds_without_a_gpu(
    name: str, started: str, said: list[str], seconds: float
) -> None:
    lines = (FIXTURES / name).read_text().splitlines(keepends=True)
    assert parse_engine_log(lines, parse_time(started)) == {
        "layers_offloaded": None,
        "layers_total": None,
        "gpu_buffers": [],
        "platform": None,
        "gpu_said": said,
        "gpu_reason": "build" if said else None,
        "start_seconds": seconds,
    }


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"config": {"digest": "sha256:aa"}, "layers": []}']
)
def test_manifest_of_no_use(text: str) -> None:
    assert parse_manifest(text) is None


def test_accounts_with_the_numbers_of_the_projects_users() -> None:
    users = "alice:x:10011:1000:Alice,,,:/home/alice:/bin/bash\nbob:x:1001:10012::/:/bin/sh\n"
    groups = "media:x:10012:alice,bob\nroot:x:0:\nhalf\nodd:x:\u0661:\n"
    assert parse_accounts(users) == [{"kind": "user", "name": "alice", "id": 10011}]
    assert parse_accounts(groups, "group") == [{"kind": "group", "name": "media", "id": 10012}]
    assert parse_accounts("") == []


FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.10
           /32 host LOCAL
Local:
        |-- 192.0.2.10
           /32 host LOCAL
"""


def test_addresses() -> None:
    assert parse_fib_trie(FIB_TRIE) == ["127.0.0.1", "192.0.2.10"]
    assert parse_if_inet6(
        "20010db8000000000000000000000010 02 40 00 80     eth0\n"
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    ) == ["2001:db8::10", "::1"]
    assert parse_fib_trie("") == parse_if_inet6("no such table") == []
    assert "127.0.0.1" in read_addresses(Path("/"))


def test_socket_units() -> None:
    """Of systemd 245 and later; before, IPv6 addresses are as here, too."""
    text = """\
127.0.0.1:11434             edge-llm-sockets.socket      edge-llm-sockets.service
/run/systemd/journal/stdout systemd-journald.socket      systemd-journald.service
[::]:8000                   edge-llm-sockets.socket      edge-llm-sockets.service
kobject-uevent 1            systemd-udevd-kernel.socket  systemd-udevd.service
[2001:db8::1]:9090          cockpit.socket               cockpit.service
192.0.2.10:2222             ssh.socket                   ssh.service
/run/8000                   app.socket                   app.service
/run/app:11434              app.socket                   app.service
@app:11434                  app.socket                   app.service
@8000                       app.socket                   app.service
vsock:2:8000                sshd-vsock.socket            sshd-vsock.service
vsock::11434                sshd-vsock.socket            sshd-vsock.service
"""
    assert parse_socket_units(text) == {
        11434: "edge-llm-sockets.socket",
        8000: "edge-llm-sockets.socket",
        9090: "cockpit.socket",
        2222: "ssh.socket",
    }
    assert parse_socket_units("Failed to connect to bus: Host is down") == {}
