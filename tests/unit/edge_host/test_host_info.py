"""`read_state` on hosts made of files, a docker command that answers as told, and real sockets."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.host_archive import build
from edge_host.commands import run_together
from edge_host.constants import API_UID, DOWNLOAD_UID, RECORD
from edge_host.folders import secret_access
from edge_host.host_info.ports import read_ports
from edge_host.host_info.state import read_state
from edge_host.host_info.weights import read_record
from tests.waiting import until

from .conftest import FakeHost

PROJECT = Path(__file__).parents[3]


def read(fake: FakeHost, **arguments: Any) -> dict[str, Any]:
    return read_state(str(fake.root), system=str(fake.system), **arguments)


def command(fake: FakeHost, name: str, script: str) -> None:
    """Put a command on the host."""
    path = fake.bin / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_bare_board(fake_host: FakeHost) -> None:
    fake_host.write("sys/firmware/devicetree/base/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    state = read(fake_host)
    board = state["board"]
    assert board["kind"] == "pi"
    assert board["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert board["os"]["version_id"] == "13"
    assert board["l4t"] is None
    assert board["memory_total"] == 8245856 * 1024
    assert board["init"] == "systemd"
    assert board["nvidia_runtime"] is None
    assert board["gpu_groups"] == []
    assert board["root"] is (os.geteuid() == 0)
    assert board["userland_bits"] in (32, 64)
    assert board["arch"] == os.uname().machine
    assert board["cpus"] == len(os.sched_getaffinity(0))
    assert board["name"] == "Raspberry Pi 5"
    assert board["boot"] == {"file": None, "file_words": [], "lines": 0, "words": []}
    assert board["kernel"] == {"release": None, "memory_cgroup": None}
    # The deployment's folder does not exist yet; the disk it would be on does.
    assert board["disk"]["path"] == str(fake_host.base)
    assert 0 < board["disk"]["free"] <= board["disk"]["total"]
    assert state["docker"] == {
        "cli": False,
        "ce": False,
        "packages": [],
        "running": False,
        "version": None,
        "compose": None,
        "runtimes": [],
        "swarm": False,
        "live_restore": False,
        "containers": None,
        "published_registry": False,
        "error": "there is no docker command",
        "own_registries": None,
        "daemon_json": None,
        "daemon_json_error": None,
    }
    assert state["ports"] == {"8000": None, "11434": None}
    assert state["deployment"] == {
        "files": {"docker-compose.yml": None, ".env": None, "engine/engine.env": None},
        "secrets": {},
        "plain_keys": False,
        "containers": {"engine": None, "api": None, "network": None},
        "installed": {},
        "release": None,
        "previous": None,
        "change": None,
        "lock": None,
        "history": [],
        "ollama": {},
        "images": [],
        "engine_log": {
            "layers_offloaded": None,
            "layers_total": None,
            "gpu_buffers": [],
            "platform": None,
            "gpu_said": [],
            "gpu_reason": None,
            "start_seconds": None,
        },
    }
    assert state["models"] == {}


def test_jetson(fake_host: FakeHost) -> None:
    fake_host.write("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081\n")
    fake_host.write("sys/class/dmi/id/product_name", "NVIDIA Jetson Orin NX\n")
    runtime = fake_host.bin / "nvidia-container-runtime"
    runtime.write_text("#!/bin/sh\n")
    runtime.chmod(0o755)
    board = read(fake_host)["board"]
    assert board["kind"] == "jetson"
    assert board["model"] == "NVIDIA Jetson Orin NX"
    assert board["name"] is None  # DMI's word for it, which may be another board's
    assert board["l4t"]["text"] == "36.4.3"
    assert board["nvidia_runtime"] == str(runtime)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"insecure-registries": ["192.0.2.9:5000"]}', ["192.0.2.9:5000"]),
        ('{"insecure-registries": [1]}', []),
        ("{}", []),
        ("{", None),
    ],
)
def test_registries_of_the_project(fake_host: FakeHost, text: str, found: object) -> None:
    fake_host.write("etc/docker/edge-llm.json", text)
    assert read(fake_host)["docker"]["own_registries"] == found


def test_broken_daemon_json_is_told(fake_host: FakeHost) -> None:
    fake_host.write("etc/docker/daemon.json", "{")
    docker = read(fake_host)["docker"]
    assert docker["daemon_json"] is None
    assert docker["daemon_json_error"].startswith("it is not JSON: ")


SECRET_OPTIONS = {
    "proxies": {"http-proxy": "http://user:hunter2@proxy.example:3128"},
    "log-opts": {"splunk-token": "hunter2"},
}


def test_facts_have_no_secret_of_docker(fake_host: FakeHost) -> None:
    """Neither from its configuration nor from a plan of an earlier version, which has all of it."""
    planned = {"live-restore": True, "runtimes": {"nvidia": {"path": "/n"}}}
    options = SECRET_OPTIONS | planned
    fake_host.write("etc/docker/daemon.json", json.dumps(options))
    text = json.dumps(
        {"slots": {"engine": "a", "api": "a"}, "plan": {"docker": {"daemon_json": options}}}
    )
    for number, link in (("0001", "previous"), ("0002", "current")):
        folder = fake_host.root / "releases" / number
        folder.mkdir(parents=True)
        (folder / "release.json").write_text(text)
        (fake_host.root / link).symlink_to(f"releases/{number}")
    state = read(fake_host)
    assert "hunter2" not in json.dumps(state)
    assert state["docker"]["daemon_json"] == planned
    for link in ("release", "previous"):
        assert state["deployment"][link]["plan"]["docker"] == {"daemon_json": planned}


def container(name: str, started: str) -> dict[str, Any]:
    return {
        "Id": f"id-of-{name}",
        "Name": f"/{name}",
        "Image": "sha256:cafe",
        "RestartCount": 0,
        "State": {
            "Status": "running",
            "Pid": 12,
            "StartedAt": started,
            "Health": {"Status": "healthy"},
        },
        "Config": {"Image": "hub:5000/llamacpp:1", "Labels": None},
    }


def test_deployed(fake_host: FakeHost) -> None:
    started = "2026-11-22T17:43:10.000000000Z"
    log = fake_host.base / "engine-log"
    log.write_text(
        "2026-11-22T17:43:11.250000000Z load_tensors: offloaded 29/29 layers to GPU\n"
        "2026-11-22T17:43:11.250000000Z load_tensors:  CUDA0 model buffer size =  1918.35 MiB\n"
        "2026-11-22T17:43:12.500000000Z main: model loaded\n"
    )
    fake_host.docker(
        info=fake_host.answer("info", {"ServerVersion": "26.1.5", "Runtimes": {"runc": {}}}),
        ps=fake_host.answer(
            "ps", {"Names": "edge-llm-door", "Ports": "0.0.0.0:8000->8000/tcp, 8080/tcp"}
        ),
        # One of the two is missing: docker prints the other, and fails.
        inspect=fake_host.answer("inspect", [container("edge-llm-engine-a", started)]) + "; exit 1",
        image=fake_host.answer("image", {"Repository": "a", "Tag": "1", "Digest": "sha256:d"}),
        # The engine writes to its standard error; docker keeps that apart.
        logs=f"/bin/cat {log} >&2",
    )
    fake_host.root.mkdir(parents=True)
    namespace = fake_host.system / "proc/12/ns/net"
    namespace.parent.mkdir(parents=True)
    namespace.symlink_to("net:[4026532190]")
    env = fake_host.root / ".env"
    env.write_text("LLM_PROVIDER=llamacpp\n")
    env.chmod(0o600)
    state = read(fake_host)
    assert state["docker"]["running"] is True
    assert state["docker"]["version"] == "26.1.5"
    assert state["docker"]["containers"] == 1
    assert state["ports"]["8000"] == {
        "addresses": ["0.0.0.0"],
        "process": None,
        "container": "edge-llm-door",
        "unit": None,
    }
    deployment = state["deployment"]
    assert deployment["files"] == {
        "docker-compose.yml": None,
        ".env": {
            "sha256": sha256("LLM_PROVIDER=llamacpp\n"),
            "mode": "0600",
            "uid": os.getuid(),
            "gid": env.stat().st_gid,
        },
        "engine/engine.env": None,
    }
    assert deployment["containers"]["engine"] == {
        "id": "id-of-edge-llm-engine-a",
        "image": "hub:5000/llamacpp:1",
        "status": "running",
        "health": "healthy",
        "started_at": started,
        "namespace": "net:[4026532190]",
    }
    assert deployment["containers"]["api"] is None
    assert deployment["images"] == ["a:1", "a@sha256:d"]
    assert deployment["engine_log"] == {
        "layers_offloaded": 29,
        "layers_total": 29,
        "gpu_buffers": ["CUDA0"],
        "platform": None,
        "gpu_said": [],
        "gpu_reason": None,
        "start_seconds": 2.5,
    }
    calls = fake_host.log.read_text().splitlines()
    assert len(calls) == 5
    assert calls[-1] == (
        f"logs --timestamps --since {started} --until 2026-11-22T17:58:10Z id-of-edge-llm-engine-a"
    )


def test_a_long_log_is_not_read_to_its_end(fake_host: FakeHost) -> None:
    started = "2026-11-22T17:43:10Z"
    fake_host.docker(
        inspect=fake_host.answer("inspect", [container("edge-llm-engine-a", started)]),
        logs="while echo 2026-11-22T17:43:10.5Z request; do :; done",
    )
    # The log has no end.
    assert read(fake_host)["deployment"]["engine_log"]["start_seconds"] is None


def test_a_container_that_never_started_has_no_log(fake_host: FakeHost) -> None:
    never = container("edge-llm-engine-a", "0001-01-01T00:00:00Z")
    fake_host.docker(inspect=fake_host.answer("inspect", [never]))
    assert read(fake_host)["deployment"]["engine_log"]["layers_total"] is None
    assert "logs" not in fake_host.log.read_text()


def test_docker_that_is_dead(fake_host: FakeHost) -> None:
    fake_host.docker(**dict.fromkeys(("info", "ps"), "echo Is it running? >&2; exit 1"))
    state = read(fake_host)
    assert state["docker"]["cli"] is True
    assert state["docker"]["running"] is False
    assert state["docker"]["error"] == "Is it running?"
    assert state["docker"]["containers"] is None
    assert state["deployment"]["containers"] == {"engine": None, "api": None, "network": None}


def test_docker_that_hangs(fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_together, "__defaults__", (0.3,))
    hang = "exec /bin/sleep infinity"
    fake_host.docker(info=hang, ps=hang, inspect=hang, image=hang)
    docker = read(fake_host)["docker"]
    assert docker["running"] is False
    assert docker["error"] == "no answer within 0.3 seconds"


def test_a_command_whose_children_hang(fake_host: FakeHost) -> None:
    """They would hold its output open, and do what nobody waits for any more."""
    pid = fake_host.base / "pid"
    child = f"/bin/sh -c 'echo $$ > {pid}.new; /bin/mv {pid}.new {pid}; exec /bin/sleep infinity'"
    command(fake_host, "nvpmodel", f"{child}; echo no")
    answer = run_together({"power": ["nvpmodel", "-q"]}, timeout=2)["power"]
    assert answer == (None, "", "no answer within 2 seconds")
    status = Path("/proc", pid.read_text().strip(), "status")
    until(
        lambda: status.read_text() if status.exists() else "",
        "the child to end",
        lambda said: not said or "State:\tZ" in said,
        seconds=30,
        ignored=(FileNotFoundError, ProcessLookupError),
    )


def test_only_a_pi_has_a_cmdline_txt(fake_host: FakeHost) -> None:
    fake_host.write("boot/firmware/cmdline.txt", "cgroup_enable=memory\n")
    fake_host.write("proc/cmdline", "quiet cgroup_no_v1=all systemd.unified_cgroup_hierarchy=0\n")
    words = ["cgroup_no_v1=all", "systemd.unified_cgroup_hierarchy=0"]
    boot = {"file": None, "file_words": [], "lines": 0, "words": words}
    assert read(fake_host)["board"]["boot"] == boot


def test_a_command_that_asks(fake_host: FakeHost) -> None:
    command(
        fake_host, "nvpmodel", "echo NV Power Mode: MAXN; echo 0; read -r answer || echo $answer"
    )
    power = read(fake_host)["board"]["power"]
    assert power == {"mode": "MAXN", "id": 0, "modes": {}}


def test_a_command_for_another_machine(fake_host: FakeHost) -> None:
    """It is there, and cannot be started."""
    for name in ("nvidia-smi", "vcgencmd"):
        program = fake_host.bin / name
        program.write_bytes(b"\x7fELF of something else")
        program.chmod(0o755)
    board = read(fake_host)["board"]
    assert board["gpus"] == []
    assert board["throttled"] is None


@pytest.mark.parametrize(
    ("script", "gpus", "synchronised"),
    [
        ("echo NVIDIA RTX A6000, 49140", 1, None),
        ("echo NVIDIA RTX A6000, 49140; exit 9", 0, None),
        ("echo NVIDIA-SMI has failed because it could not communicate with the driver", 0, None),
        ("echo yes", 0, True),
        ("echo no", 0, False),
        ("echo no; exit 1", 0, None),
    ],
)
def test_answers(fake_host: FakeHost, script: str, gpus: int, synchronised: bool | None) -> None:
    command(fake_host, "nvidia-smi", script)
    command(fake_host, "timedatectl", script)
    board = read(fake_host)["board"]
    assert len(board["gpus"]) == gpus
    assert board["time_synchronised"] is synchronised


@pytest.mark.parametrize(
    ("path", "text", "container"),
    [
        ("run/systemd/container", "docker\n", True),
        (".dockerenv", "", True),
        ("run/.containerenv", "", True),
        ("proc/1/environ", "PATH=/bin\0container=lxc\0HOME=/\0", True),
        ("proc/1/environ", "PATH=/bin\0container=\0no_container=lxc\0", False),
        ("etc/hostname", "container\n", False),
    ],
)
def test_container(fake_host: FakeHost, path: str, text: str, container: bool) -> None:
    fake_host.write(path, text)
    assert read(fake_host)["board"]["container"] is container


@pytest.mark.parametrize(
    ("files", "unattended"),
    [
        ({"20auto-upgrades": "1"}, True),
        ({"20auto-upgrades": "1", "99local": "0"}, False),
        ({"20auto-upgrades": "0", "99local.conf": "1"}, True),
        ({"20auto-upgrades.ucf-dist": "1", "20auto-upgrades~": "1", ".20auto": "1"}, False),
        ({"50unattended-upgrades": None}, False),
        ({"20auto-upgrades": "1", "50unattended-upgrades": None}, True),
        ({"20auto-upgrades": "1", "../apt.conf": "0"}, False),
        ({}, False),
    ],
)
def test_unattended_upgrades(
    fake_host: FakeHost, files: dict[str, str | None], unattended: bool
) -> None:
    for name, value in files.items():
        text = (
            "// nothing\n" if value is None else f'APT::Periodic::Unattended-Upgrade "{value}";\n'
        )
        fake_host.write(f"etc/apt/apt.conf.d/{name}", text)
    assert read(fake_host)["board"]["upgrades"]["unattended"] is unattended


def test_packages_of_docker(fake_host: FakeHost) -> None:
    fake_host.write(
        "var/lib/dpkg/status",
        "Package: docker.io\nStatus: hold ok installed\n\n"
        "Package: containerd\nStatus: install ok installed\n",
    )
    state = read(fake_host)
    assert state["docker"]["packages"] == ["containerd", "docker.io"]
    assert state["board"]["upgrades"]["held"] == ["docker.io"]


@pytest.mark.parametrize(
    ("info", "file", "swarm"),
    [
        ({"ServerVersion": "28.5.2", "Swarm": {"LocalNodeState": "active"}}, False, True),
        # One that runs tells, whatever it has left on its disk.
        ({"ServerVersion": "28.5.2", "Swarm": {"LocalNodeState": "inactive"}}, True, False),
        ({}, True, True),
        ({}, False, False),
    ],
)
def test_swarm(fake_host: FakeHost, info: dict[str, Any], file: bool, swarm: bool) -> None:
    fake_host.docker(info=fake_host.answer("info", info))
    if file:
        fake_host.write("var/lib/docker/swarm/docker-state.json", "{}")
    assert read(fake_host)["docker"]["swarm"] is swarm


def test_temperature_of_zones_that_fail(fake_host: FakeHost) -> None:
    fake_host.write("sys/class/thermal/thermal_zone0/temp", "41000\n")  # without a type
    fake_host.write("sys/class/thermal/thermal_zone1/type", "gpu-thermal\n")  # without power
    (fake_host.system / "sys/class/thermal/thermal_zone2/temp").mkdir(parents=True)
    fake_host.write("sys/class/thermal/thermal_zone3/temp", "40500\n")
    assert read(fake_host)["board"]["temperature"] == 41.0


@pytest.mark.parametrize(
    ("meminfo", "swaps", "zram"),
    [
        ("SwapTotal: 0 kB\n", None, 0),
        ("SwapTotal: 1024 kB\n", None, None),
        ("", None, None),
        ("SwapTotal: 9 kB\n", "Filename Type Size Used Priority\n/a\\040b file 2 0 -2\n", 0),
        ("", "no swaps\n", None),
    ],
)
def test_zram(fake_host: FakeHost, meminfo: str, swaps: str | None, zram: int | None) -> None:
    fake_host.write("proc/meminfo", meminfo)
    if swaps is not None:
        fake_host.write("proc/swaps", swaps)
    assert read(fake_host)["board"]["zram_total"] == zram


def test_port_of_a_process() -> None:
    """Against this machine's own /proc: a real socket, held by this process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = read_ports([port], [], {}, {port: "own.socket"}, Path("/"))[str(port)]
    assert taken == {
        "addresses": ["127.0.0.1"],
        "process": f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})",
        "container": None,
        "unit": "own.socket",
    }
    assert read_ports([port], [], {}, {}, Path("/")) == {str(port): None}


def test_port_of_a_process_in_a_container(tmp_path: Path) -> None:
    """Nobody publishes it: the chat API has the sockets that systemd had."""
    process = tmp_path / "proc/7"
    (process / "fd").mkdir(parents=True)
    (process / "fd/3").symlink_to("socket:[99]")
    (process / "comm").write_text("python\n")
    (process / "cgroup").write_text(f"0::/system.slice/docker-{'a' * 64}.scope\n")
    (tmp_path / "proc/net").mkdir()
    line = f"0: 0100007F:{8000:04X} 00000000:0000 0A 0:0 0:0 0 0 0 99"
    (tmp_path / "proc/net/tcp").write_text(f"{line}\n")
    names = {"a" * 64: "edge-llm-api-a"}
    assert read_ports([8000], [], names, {}, tmp_path)["8000"] == {
        "addresses": ["127.0.0.1"],
        "process": "python (pid 7)",
        "container": "edge-llm-api-a",
        "unit": None,
    }
    assert (read_ports([8000], [], {}, {}, tmp_path)["8000"] or {})["container"] is None


def own(path: Path) -> None:
    """Give a secret to those who may read it; only root can."""
    owner, group, _ = secret_access(path.name)
    os.chown(path, owner, group)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("name", ["api_keys", "engine_key"])
def test_a_secret_of_another_owner_is_not_as_expected(fake_host: FakeHost, name: str) -> None:
    path = fake_host.root / "secrets" / name
    path.parent.mkdir(parents=True)
    path.write_text("key\n")
    path.chmod(secret_access(name).mode)
    for owner, group, answer in (
        (*secret_access(name)[:2], True),
        (DOWNLOAD_UID, API_UID, False),
        (secret_access(name).owner, DOWNLOAD_UID, False),
    ):
        os.chown(path, owner, group)
        state = read(fake_host, secrets={name: ""})
        assert state["deployment"]["secrets"] == {name: answer}


@pytest.mark.parametrize(
    ("content", "mode", "expected", "answer"),
    [
        ("key\n", 0o640, sha256("key\n"), True),
        ("key\n", 0o600, sha256("key\n"), False),
        ("key\n", 0o644, sha256("key\n"), False),
        ("old\n", 0o640, sha256("key\n"), False),
        ("any\n", 0o640, "", True),
        ("", 0o640, "", False),
        (None, 0, "", False),
        (None, 0, sha256("key\n"), False),
    ],
)
def test_secrets(
    fake_host: FakeHost,
    content: str | None,
    mode: int,
    expected: str,
    answer: bool,
) -> None:
    path = fake_host.root / "secrets/api_keys"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
        own(path)
    state = read(fake_host, secrets={"api_keys": expected})
    assert state["deployment"]["secrets"] == {"api_keys": answer}
    assert "key\n" not in json.dumps(state)


def test_a_secret_in_a_folder_that_a_link_names(fake_host: FakeHost) -> None:
    folder = fake_host.root / "secrets/tls-1"
    folder.mkdir(parents=True)
    (folder / "key.pem").write_text("key\n")
    (folder / "key.pem").chmod(0o640)
    own(folder / "key.pem")
    (folder.parent / "tls").symlink_to("tls-1")
    state = read(fake_host, secrets={"tls/key.pem": sha256("key\n"), "tls/other.pem": ""})
    assert state["deployment"]["secrets"] == {"tls/key.pem": True, "tls/other.pem": False}


@pytest.mark.parametrize("name", ["../x", "/etc/shadow", "a/../b", "..", ""])
def test_secret_names_that_climb_out(fake_host: FakeHost, name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^The name of a file in secrets is invalid: '.*'\. Use a name"
    ):
        read(fake_host, secrets={name: "0" * 64})


def test_relative_root() -> None:
    with pytest.raises(
        ValueError, match=r"^root is invalid: 'opt'\. Use an absolute path such as /opt"
    ):
        read_state("opt")


def test_models(fake_host: FakeHost) -> None:
    folder = fake_host.root / "models"
    (folder / "ollama").mkdir(parents=True)
    sizes = {"kept.gguf": 3, "touched.gguf": 3, "grown.gguf": 3, "new.gguf.partial": 2}
    for name, size in sizes.items():
        (folder / name).write_bytes(b"x" * size)
    (folder / "second-name.gguf").hardlink_to(folder / "kept.gguf")
    (folder / "link.gguf").symlink_to("kept.gguf")
    record = {
        name: {"size": 3, "mtime_ns": (folder / name).stat().st_mtime_ns, "sha256": f"of {name}"}
        for name in ("kept.gguf", "touched.gguf", "grown.gguf")
    }
    record["kept.gguf.bad"] = {"size": 3}
    (folder / RECORD).write_text(json.dumps(record))
    (folder / "grown.gguf").write_bytes(b"xxxx")
    os.utime(folder / "touched.gguf", ns=(1, 1))
    models = read(fake_host)["models"]
    status = (folder / "kept.gguf").stat()
    assert models.pop("kept.gguf") == {
        "size": 3,
        "mtime_ns": status.st_mtime_ns,
        "recorded_sha256": "of kept.gguf",
        "bundle": None,
    }
    assert sorted(models) == [
        "grown.gguf",
        "new.gguf.partial",
        "second-name.gguf",
        "touched.gguf",
    ]
    assert {entry["recorded_sha256"] for entry in models.values()} == {None}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a.gguf": 1}', '{"a.gguf": {"size": "3"}}'])
def test_a_torn_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    assert read_record(tmp_path) == {}


def test_over_a_bare_connection(fake_host: FakeHost, tmp_path: Path) -> None:
    """As it is run over plain ssh: from its archive, isolated, without site packages."""
    name, content = build()
    program = tmp_path / name
    program.write_bytes(content)
    arguments = {"root": str(fake_host.root), "system": str(fake_host.system), "ports": [8000]}
    command = [sys.executable, "-IS", str(program), "state"]
    done = subprocess.run(
        [*command, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    state = json.loads(done.stdout)
    assert sorted(state) == [
        "addresses", "board", "deployment", "docker", "models", "ports", "unfinished"
    ]  # fmt: skip
    assert state["ports"] == {"8000": None}
    done = subprocess.run(
        [*command, '{"prots": [8000]}'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "prots" in done.stderr
