"""RETURN of the modules, compared with results of the functions that the modules call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import DOOR as SOCKET_HOLDER
from edge_host.constants import RECORD, RELEASE
from edge_host.download import fetch
from edge_host.download.job import parse_job
from edge_host.download.session import DownloadSession
from edge_host.download.source_check import read_source_info
from edge_host.host_info.deployment import describe_change, read_history
from edge_host.host_info.state import read_state
from edge_host.release import switch
from edge_host.release.host import Host
from edge_host.release.lock import lock_host
from edge_host.release.result import find_result
from edge_host.release.stage import stage_release
from tests.unit.edge_host.conftest import FakeHost
from tests.unit.edge_host.test_release import committed, docker, host, metadata, requested
from tests.unit.plugin_docs import differences, missing

__all__ = ["docker", "host"]  # fixtures
STARTED = "2026-11-22T17:43:10.000000000Z"


def container(name: str) -> dict[str, Any]:
    return {
        "Id": name,
        "Name": f"/{name}",
        "State": {"Status": "running", "StartedAt": STARTED, "Health": {"Status": "healthy"}},
        "Config": {"Image": "hub:5000/llamacpp:1"},
    }


@pytest.fixture
def full_host(fake_host: FakeHost) -> FakeHost:
    """A host that has everything: a Jetson with a release, weights and a change that was cut."""
    fake = fake_host
    fake.write("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081\n")
    fake.write("etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n")
    fake.write("etc/docker/daemon.json", "{}")
    (fake.bin / "nvidia-smi").write_text(
        "#!/bin/sh\ncase $1 in\n"
        "*power.draw*) echo NVIDIA RTX A6000, 40.0, 99, 8000, 60, 900, 0x8;;\n"
        "*) echo NVIDIA RTX A6000, 49140;;\nesac\n"
    )
    rails = fake.system / "sys/class/hwmon/hwmon1"
    rails.mkdir(parents=True)
    for name, content in (
        ("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", 5000), ("curr1_input", 1000),
    ):  # fmt: skip
        (rails / name).write_text(f"{content}\n")
    (fake.root / "secrets/tls").mkdir(parents=True)
    (fake.root / "secrets/tls/certificate.pem").write_text("PEM")
    (fake.bin / "nvidia-smi").chmod(0o755)
    (fake.bin / "getent").write_text("#!/bin/sh\necho alice:x:10011:10011::/home/alice:/bin/sh\n")
    (fake.bin / "getent").chmod(0o755)
    fake.docker(
        info=fake.answer("info", {"ServerVersion": "26.1.5", "Runtimes": {"runc": {}}}),
        ps=fake.answer("ps", {"Names": SOCKET_HOLDER, "Ports": "0.0.0.0:8000->8000/tcp"}),
        inspect=fake.answer(
            "inspect",
            [container(name) for name in (SOCKET_HOLDER, "edge-llm-engine-a", "edge-llm-api-a")],
        ),
        image=fake.answer("image", {"Repository": "a", "Tag": "1", "Digest": "sha256:d"}),
        logs=f"echo '{STARTED} load_tensors: offloaded 29/29 layers to GPU'",
    )
    models = fake.root / "models"
    for folder in (models / ".fetch/m", models / "ollama", fake.root / "releases/0001"):
        folder.mkdir(parents=True)
    (models / "m.gguf").write_bytes(b"x")
    library = models / "ollama/manifests/registry.ollama.ai/library/m"
    library.mkdir(parents=True)
    (models / "ollama/blobs").mkdir()
    (models / "ollama/blobs/sha256-c").write_text("{}")
    (models / "ollama/blobs/sha256-w").hardlink_to(models / "m.gguf")
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:w"}
    manifest = {"config": {"digest": "sha256:c"}, "layers": [layer]}
    (library / "latest").write_text(json.dumps(manifest))
    record = {"size": 1, "mtime_ns": (models / "m.gguf").stat().st_mtime_ns, "sha256": "w"}
    (models / RECORD).write_text(json.dumps({"m.gguf": {**record, "bundle": "m"}}))
    (fake.root / "releases/0001" / RELEASE).write_text(
        json.dumps({"number": 1, "slots": {"engine": "a", "api": "a"}})
    )
    for link in ("current", "previous"):
        (fake.root / link).symlink_to("releases/0001")
    (fake.root / ".env").write_text("A=1\n")
    begun = {"from": 1, "to": 2, "by": "alice", "since": "2026-11-22T17:43:10Z"}
    (fake.root / "change.json").write_text(f"{json.dumps(begun)}\nhold\n")
    entry: dict[str, Any] = {
        "to": 1,
        "as": None,
        "by": "alice",
        "parts": [],
        "beside": True,
        "pause": 0.1,
    }
    (fake.root / "releases/history.jsonl").write_text(f"{json.dumps(entry)}\n")
    return fake


def facts(fake: FakeHost, **arguments: Any) -> dict[str, Any]:
    state = read_state(str(fake.root), system=str(fake.system), **arguments)
    return {"changed": False, "state": state}


def test_host_info(full_host: FakeHost) -> None:
    with lock_host(full_host.root, "bob"):
        program = full_host.root / "lib/edge_host-0.pyz"
        full = facts(full_host, secrets={"api_keys": ""}, program=str(program), status=True)
    assert full["state"]["deployment"]["lock"]["by"] == "bob"
    assert full["state"]["deployment"]["history"] == [
        {
            **{"to": 1, "rolled_back_to": None, "operator": "alice", "changed_parts": []},
            **{"side_by_side": True, "pause_seconds": 0.1},
        }
    ]
    assert differences("host_info", full) == []
    assert missing("host_info", [full]) == []


def test_host_info_of_a_host_that_has_nothing(fake_host: FakeHost) -> None:
    for path in ("etc/os-release", "proc/meminfo"):
        (fake_host.system / path).unlink()
    assert differences("host_info", facts(fake_host)) == []


def options(folder: Path, state: str) -> dict[str, Any]:
    """Options of model_fetch, with the defaults of the module."""
    file = {"name": "m.gguf", "path": "m.gguf", "size": 5, "sha256": "0" * 64, "place": "a/b/c/d"}
    return {
        "state": state,
        "job": {"name": "m", "mode": "source", "files": [{**file, "folder": str(folder)}]},
        "folder": str(folder),
        "program": "",
        "user": None,
        "unit": False,
        "timeout": 0.0,
        **dict.fromkeys(("token", "proxy", "ca_certificates"), ""),
        "credentials": {},
        "operator": "alice",
    }


def test_model_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of a download as the program writes them, and a check run."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setattr(fetch, "runtime_folder", lambda *_: runtime)
    finished = options(tmp_path, "finished")
    job = parse_job({**finished["job"], "folder": str(tmp_path)})
    results = [fetch.fetch_model(options(tmp_path, "stopped"), False)]
    session = DownloadSession(job, runtime)
    for state, more in (
        ("fetching", {"file": "m.gguf"}),
        ("receiving", {"file": "m.gguf"}),
        ("failed", {"reason": "the disk is full"}),
        ("done", {}),
    ):
        session.report(state, 5, **more)
        results.append(fetch.fetch_model(finished, False))
    results.append(fetch.fetch_model(options(tmp_path, "started"), True))
    for each in results:
        assert differences("model_fetch", each) == []
    assert missing("model_fetch", results) == []


def test_model_source_info(tmp_path: Path) -> None:
    """Of a folder without the file, with it, and of a folder that cannot be read."""
    asked = options(tmp_path, "started")
    results = [read_source_info(asked)]
    assert results[-1]["problem"].startswith(f"{tmp_path}/d is missing")
    (tmp_path / "d").write_bytes(b"12345")
    results.append(read_source_info(asked))
    assert results[-1] == {"changed": False, "problem": None}
    asked["job"]["files"][0]["folder"] = f"/{'long' * 100}"
    results.append(read_source_info(asked))
    assert results[-1]["problem"].startswith("the source could not be checked: [Errno ")
    for each in results:
        assert differences("model_source_info", each) == []
    assert missing("model_source_info", results) == []


def test_a_download_of_another_version_is_described() -> None:
    """Its program writes the status with these names."""
    written = {"state": "fetching", "how": "source", "by": "alice", "left": 3, "from": ["hub"]}
    assert fetch.describe_download(written) == {
        "state": "fetching",
        "mode": "source",
        "operator": "alice",
        "seconds_left": 3,
        "sources": ["hub"],
    }


def test_release(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of a change that was committed, from the host's history."""
    committed(host)
    to = stage_release(host, requested(metadata() | {"as": 1}, context=8192))
    monkeypatch.setattr(switch.Change, "_switch", lambda _: None)
    (host.root / "change.json").write_text("{}\n")
    switch.Change(host, to).run("rollback")
    change = find_result(read_history(host.root), to.number)
    # What the module returns, once it has not failed.
    answer = {"changed": True, "result": describe_change(change), "diff": []}
    assert change["outcome"] == "committed"
    assert differences("release", answer) == []
    assert missing("release", [answer]) == []
