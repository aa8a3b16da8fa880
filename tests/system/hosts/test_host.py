"""What every provisioned host must be, whatever its provider and model (testinfra, over SSH)."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from edge_fleet.audit.units import MOST_EXPOSED
from edge_host.audit.units import parse_exposure
from edge_host.constants import API_UID, ENGINE_UID, USER_IDS
from tests.system.hosts.conftest import ROOT, trust

PARTS = ("engine", "api", "network")


def inspect(host: Any, container: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(host.check_output(f"docker inspect {container}"))
    return found[0]


@pytest.mark.parametrize(
    ("path", "kind", "owner", "mode"),
    [
        ("", "directory", 0, 0o755),
        ("current/docker-compose.yml", "file", 0, 0o644),
        ("current/.env", "file", 0, 0o600),
        ("current/release.json", "file", 0, 0o600),
        ("releases", "directory", 0, 0o700),
        ("engine", "directory", 0, 0o755),
        ("engine/engine.env", "file", 0, 0o644),
        ("run", "directory", API_UID, 0o700),
        ("lib", "directory", 0, 0o755),
        ("models", "directory", 0, 0o755),
        ("secrets", "directory", (0, API_UID), 0o750),
        ("secrets/api_keys.jsonl", "file", (0, API_UID), 0o640),
        ("secrets/engine_key", "file", (ENGINE_UID, API_UID), 0o440),
    ],
)
def test_files(host: Any, path: str, kind: str, owner: int | tuple[int, int], mode: int) -> None:
    found = host.file(f"{ROOT}/{path}")
    assert found.exists
    assert found.is_directory == (kind == "directory")
    assert (found.uid, found.gid) == (owner if isinstance(owner, tuple) else (owner, owner))
    assert found.mode == mode


def test_only_the_chat_api_reads_the_keys(host: Any) -> None:
    for user in USER_IDS:
        become = f"setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs --"
        for name in ("api_keys.jsonl", "engine_key"):
            read = host.run(f"{become} cat {ROOT}/secrets/{name}")
            assert (read.rc == 0) == bool(read.stdout) == (user == API_UID)
        assert host.run(f"{become} touch {ROOT}/secrets/new {ROOT}/models/new").rc != 0


def test_files_in_the_root_are_those_of_the_current_release(host: Any) -> None:
    for name in ("docker-compose.yml", ".env"):
        assert host.check_output(f"readlink {ROOT}/{name}") == f"current/{name}"
    assert host.check_output(f"readlink {ROOT}/current").startswith("releases/")
    assert host.check_output("systemctl is-enabled edge-llm") == "enabled"
    assert host.check_output("systemctl is-active edge-llm") == "active"


def test_env_says_what_runs(host: Any, plan: dict[str, Any], containers: dict[str, str]) -> None:
    lines = host.file(f"{ROOT}/.env").content_string.splitlines()
    found = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    for name, value in plan["environment"].items():
        assert found[name] == str(value)
    images = {part: inspect(host, name)["Config"]["Image"] for part, name in containers.items()}
    assert images == {
        "engine": found["ENGINE_IMAGE"],
        "api": found["API_IMAGE"],
        "network": found["NETWORK_IMAGE"],
    }


def test_compose_typed_by_hand_works(host: Any, containers: dict[str, str]) -> None:
    listed = host.check_output(f"cd {ROOT} && docker compose ps --format json")
    services = [json.loads(line) for line in listed.splitlines()]
    assert {(each["Service"], each["State"], each["Health"]) for each in services} == {
        (containers["engine"].removeprefix("edge-llm-"), "running", "healthy"),
        (containers["api"].removeprefix("edge-llm-"), "running", "healthy"),
        ("network", "running", ""),
    }
    # `up` by hand finds nothing to do: the same containers go on.
    before = host.check_output("docker ps --no-trunc --format '{{.ID}}'")
    host.check_output(f"cd {ROOT} && docker compose up --detach")
    assert host.check_output("docker ps --no-trunc --format '{{.ID}}'") == before


def test_secrets_are_in_their_files_only(host: Any, key: str, containers: dict[str, str]) -> None:
    names = " ".join(containers.values())
    engine_key = host.file(f"{ROOT}/secrets/engine_key").content_string.strip()
    assert len(engine_key) == 40
    hashes = host.file(f"{ROOT}/secrets/api_keys.jsonl").content_string
    assert hashlib.sha256(key.encode()).hexdigest() in hashes
    # Keys in plain text are there for releases of an earlier version alone.
    line = "CHAT_API_KEYS_FILE: /run/secrets/api_keys$"
    needed = host.run(f"grep -qs '{line}' {ROOT}/releases/*/docker-compose.yml").rc == 0
    assert host.file(f"{ROOT}/secrets/api_keys").exists == needed
    places = [
        host.file(f"{ROOT}/.env").content_string,
        host.file(f"{ROOT}/docker-compose.yml").content_string,
        hashes,
        host.check_output(f"docker inspect {names}"),
        *(host.check_output(f"docker logs {name} 2>&1") for name in containers.values()),
        host.check_output(f"find {ROOT}/releases -type f -exec cat {{}} +"),
        host.check_output("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || true"),
    ]
    image = inspect(host, containers["api"])["Config"]["Image"]
    tls_key = host.file(f"{ROOT}/secrets/tls/key.pem")
    # The last line of a key has its public part alone.
    private = tls_key.content_string.splitlines()[1:3] if tls_key.exists else []
    places.append(host.check_output(f"docker history --no-trunc {image}"))
    for secret in (engine_key, key, *private):
        assert not any(secret in place for place in places)
    # And in all other files: that the engine's key is found shows that the search finds keys.
    assert find_files_with(host, engine_key) == [f"{ROOT}/secrets/engine_key"]
    assert find_files_with(host, key) == ([f"{ROOT}/secrets/api_keys"] if needed else [])


def find_files_with(host: Any, text: str) -> list[str]:
    """Files of the deployment that have a text, apart from weights; `run` has sockets, which come
    and go while grep looks.
    """
    found = host.run(f"grep -rlF --exclude-dir=models --exclude-dir=run -e '{text}' {ROOT}")
    assert found.rc in (0, 1), found.stderr
    return sorted(found.stdout.split())


@pytest.mark.parametrize("part", PARTS)
def test_containers_are_contained(
    host: Any, plan: dict[str, Any], containers: dict[str, str], part: str
) -> None:
    found = inspect(host, containers[part])
    assert found["State"]["Running"] is True
    assert part == "network" or found["State"]["Health"]["Status"] == "healthy"
    user = ENGINE_UID if part == "engine" else API_UID
    assert found["Config"]["User"] == f"{user}:{user}"
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert not found["HostConfig"]["CapAdd"]
    assert found["HostConfig"]["Privileged"] is False
    assert "no-new-privileges:true" in found["HostConfig"]["SecurityOpt"]
    limits = {
        "engine": plan["engine"]["memory_limit"],
        "api": plan["api"]["memory_limit"],
        "network": plan["network"]["memory_limit"],
    }
    # A kernel without the memory cgroup has no limits.
    limited = host.check_output("docker info --format '{{.MemoryLimit}}'") == "true"
    assert found["HostConfig"]["Memory"] == (limits[part] if limited else 0)
    pids = {
        "engine": plan["engine"]["pids_limit"],
        "api": plan["api"]["pids_limit"],
        "network": plan["network"]["pids_limit"],
    }
    assert found["HostConfig"]["PidsLimit"] == pids[part]
    assert found["HostConfig"]["Ulimits"] == [{"Name": "core", "Hard": 0, "Soft": 0}]
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert found["HostConfig"]["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}
    if part == "engine":
        assert "@sha256:" in found["Config"]["Image"]
        assert found["HostConfig"]["Runtime"] == (plan["gpu"]["runtime"] or "runc")
    writing = [mount["Source"] for mount in found["Mounts"] if mount["RW"]]
    assert writing == ([f"{ROOT}/run"] if part == "api" else [])


def test_the_engine_has_no_network(host: Any, containers: dict[str, str]) -> None:
    """It and the chat API share a namespace that has the loopback interface alone."""
    pids = [inspect(host, name)["State"]["Pid"] for name in containers.values()]
    namespaces = {host.check_output(f"readlink /proc/{pid}/ns/net") for pid in pids}
    assert len(namespaces) == 1
    assert namespaces != {host.check_output("readlink /proc/1/ns/net")}
    interfaces = host.check_output(f"tail -n +3 /proc/{pids[0]}/net/dev | cut -d: -f1 | tr -d ' '")
    found = set(interfaces.split())
    # Modules of the kernel give every namespace interfaces for tunnels, which are down.
    assert "lo" in found
    assert not [name for name in found if name.startswith(("eth", "en", "wl", "veth", "br"))]
    assert len(host.check_output(f"cat /proc/{pids[0]}/net/route").splitlines()) == 1
    published = host.check_output("docker ps --format '{{.Names}} {{.Ports}}'")
    assert not [line for line in published.splitlines() if "edge-llm" in line and "->" in line]


def test_engine_listens_on_the_host_only(host: Any, plan: dict[str, Any]) -> None:
    assert host.socket("tcp://127.0.0.1:11434").is_listening
    # Of IPv4 and IPv6 where the host has both.
    assert host.socket("tcp://8000").is_listening
    listening = host.socket.get_listening_sockets()
    assert not [each for each in listening if ":11434" in each and "127.0.0.1" not in each]
    address = urlsplit(plan["url"]).hostname
    assert address is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 11434), timeout=5)


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/api/tags"])
def test_the_engines_port_needs_the_engines_key(host: Any, path: str) -> None:
    """Of every local user, whichever the engine is, and at every path."""
    url = f"http://127.0.0.1:11434{path}"
    assert host.check_output(f"curl -s -o /dev/null -w '%{{http_code}}' {url}") == "401"


def test_systemd_holds_the_ports(host: Any) -> None:
    for unit in ("edge-llm-sockets.socket", "edge-llm-sockets.service"):
        assert host.service(unit).is_running
        assert host.service(unit).is_enabled
    process = host.check_output("systemctl show -p MainPID --value edge-llm-sockets.service")
    status = host.file(f"/proc/{process}/status").content_string
    assert "Uid:\t10010\t10010\t10010\t10010\n" in status
    assert "CapEff:\t0000000000000000\n" in status


@pytest.mark.parametrize("unit", ["edge-llm.service", "edge-llm-sockets.service"])
def test_the_exposure_of_the_units_is_low(host: Any, unit: str) -> None:
    """By systemd's own measure, of the units as it has loaded them."""
    said = host.check_output(f"systemd-analyze security --no-pager {unit}")
    exposure = parse_exposure(said, unit)["exposure"]
    assert exposure is not None, said
    assert exposure <= MOST_EXPOSED


def test_engine_has_the_context_and_slots_of_the_plan(host: Any, plan: dict[str, Any]) -> None:
    environment = plan["environment"]
    header = f'"Authorization: Bearer $(cat {ROOT}/secrets/engine_key)"'
    if plan["provider"] == "llamacpp":
        props = json.loads(host.check_output(f"curl -s -H {header} http://127.0.0.1:11434/props"))
        assert props["default_generation_settings"]["n_ctx"] == environment["CTX_SIZE"]
        assert props["total_slots"] == environment["PARALLEL"]
        assert props["model_path"] == environment["MODEL_PATH"]
    elif plan["provider"] == "ollama":
        loaded = json.loads(
            host.check_output(f"curl -s -H {header} http://127.0.0.1:11434/api/ps")
        )["models"]
        assert [model["name"] for model in loaded] == [f"{plan['model']['name']}:latest"]
        assert loaded[0]["context_length"] == environment["CTX_SIZE"]
    else:
        # Of its slots vLLM tells nobody.
        url = "http://127.0.0.1:11434/v1/models"
        (model,) = json.loads(host.check_output(f"curl -s -H {header} {url}"))["data"]
        assert (plan["provider"], model["max_model_len"]) == ("vllm", environment["CTX_SIZE"])


def test_weights_are_verified_and_there_once(host: Any, plan: dict[str, Any]) -> None:
    record = json.loads(host.file(f"{ROOT}/models/.verified.json").content_string)
    for file in plan["model"]["files"]:
        path = f"{ROOT}/models/{file['path']}"
        weights = host.file(path)
        assert weights.sha256sum == file["sha256"]
        assert (weights.uid, weights.mode) == (0, 0o644)
        assert record[file["path"]]["sha256"] == file["sha256"]
        if plan["provider"] == "ollama":
            blob = f"{ROOT}/models/ollama/blobs/sha256-{file['sha256']}"
            inode = host.check_output(f"stat -c %i {path}")
            assert host.check_output(f"stat -c %i {blob}") == inode
        if file["size"] < 100_000:  # a size that others have, too
            continue
        copies = f"find / -xdev -type f -size {file['size']}c -printf '%i\\n' | sort -u | wc -l"
        assert host.check_output(copies) == "1"


def test_a_key_is_demanded(plan: dict[str, Any]) -> None:
    verify = trust(plan)
    assert httpx.get(f"{plan['url']}/health", timeout=10, verify=verify).status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        for path in ("/v1/models", "/ready"):
            answer = httpx.get(f"{plan['url']}{path}", headers=headers, timeout=10, verify=verify)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"


def test_the_engines_metrics_need_a_key(client: httpx.Client, plan: dict[str, Any]) -> None:
    path = "/metrics/engine"
    without = httpx.get(f"{plan['url']}{path}", timeout=10, verify=trust(plan))
    assert without.status_code == 401
    assert without.json()["error"]["code"] == "invalid_api_key"
    answer = client.get(path)
    if plan["provider"] == "ollama":
        # It has none.
        assert answer.status_code == 501
        assert answer.json()["error"]["code"] == "not_supported_by_engine"
        return
    assert answer.status_code == 200, answer.text
    prefix = {"llamacpp": "llamacpp:", "vllm": "vllm:"}[plan["provider"]]
    assert [line for line in answer.text.splitlines() if line.startswith(prefix)]


def test_chat_gives_the_known_answer(
    client: httpx.Client, plan: dict[str, Any], question: dict[str, Any]
) -> None:
    answer = client.post("/v1/chat/completions", json=question)
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    expected = plan["model"]["proof"]["answer"]
    assert choice["message"]["content"].strip() == expected if expected else choice["message"]


def test_chat_streams_the_known_answer(
    client: httpx.Client, plan: dict[str, Any], question: dict[str, Any]
) -> None:
    pieces: list[str] = []
    with client.stream("POST", "/v1/chat/completions", json=question | {"stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    for event in events[:-1]:
        for choice in json.loads(event)["choices"]:
            pieces.append(choice["delta"].get("content") or "")
    assert len([piece for piece in pieces if piece]) > 1
    expected = plan["model"]["proof"]["answer"]
    assert "".join(pieces).strip() == expected if expected else pieces


def check(plan: dict[str, Any], key: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the proof as a person would."""
    return subprocess.run(
        [
            sys.executable, "-m", "llm_provider", "check", "--json", "--key-file=-",
            f"--url={plan['url']}",
            *([f"--ca-file={plan['ca_file']}"] if plan["ca_file"] else []),
            f"--prompt={plan['model']['proof']['prompt'] or 'Hello'}",
            *more,
        ],
        input=key, capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": "src"},
    )  # fmt: skip


def test_the_proof_holds(plan: dict[str, Any], key: str) -> None:
    done = check(
        plan,
        key,
        f"--provider={plan['provider']}",
        f"--model={plan['model']['name']}",
        f"--context-size={plan['environment']['CTX_SIZE']}",
        f"--parallel={plan['environment']['PARALLEL']}",
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("wrong", "failed"),
    [
        ("--answer=Something else.", {"chat", "stream"}),
        ("--model=another", {"ready", "models", "chat", "stream", "identity"}),
        ("--provider=OTHER", {"ready"}),
        ("--context-size=8192", {"context"}),
        ("--parallel=5", {"context"}),
    ],
)
def test_the_proof_can_fail(plan: dict[str, Any], key: str, wrong: str, failed: set[str]) -> None:
    other = next(each for each in ("vllm", "ollama") if each != plan["provider"])
    # An engine that will never be the expected one is not waited for long; a busy board is.
    seconds = 5 if "ready" in failed else 60
    done = check(plan, key, wrong.replace("OTHER", other), f"--timeout={seconds}")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert {each["name"] for each in report["checks"] if not each["ok"]} == failed
    assert report["ok"] is False


def test_the_proof_fails_without_the_key(plan: dict[str, Any]) -> None:
    done = check(plan, "not-the-key", "--timeout=5")
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
