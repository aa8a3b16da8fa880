"""RETURN of the modules, compared with results of the functions that the modules call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import DOOR as SOCKET_HOLDER
from edge_host.constants import RECORD, RELEASE
from edge_host.download import actions
from edge_host.download.job import parse_job
from edge_host.download.session import DownloadSession
from edge_host.host_info.deployment import read_history
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
    (fake.bin / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA RTX A6000, 49140\n")
    (fake.bin / "nvidia-smi").chmod(0o755)
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
    (fake.root / "releases/history.jsonl").write_text('{"to": 1}\n')
    return fake


def facts(fake: FakeHost, **arguments: Any) -> dict[str, Any]:
    state = read_state(str(fake.root), system=str(fake.system), **arguments)
    return {"changed": False, "state": state}


def test_host_info(full_host: FakeHost) -> None:
    with lock_host(full_host.root, "bob"):
        full = facts(full_host, secrets={"api_keys": ""})
    assert full["state"]["deployment"]["lock"]["by"] == "bob"
    assert differences("host_info", full) == []
    assert missing("host_info", [full]) == []


def test_host_info_of_a_host_that_has_nothing(fake_host: FakeHost) -> None:
    for path in ("etc/os-release", "proc/meminfo"):
        (fake_host.system / path).unlink()
    assert differences("host_info", facts(fake_host)) == []


def options(folder: Path, action: str) -> dict[str, Any]:
    """Options of model_fetch, with the defaults of the module."""
    file = {"name": "m.gguf", "path": "m.gguf", "size": 5, "sha256": "0" * 64, "place": "a/b/c/d"}
    return {
        "action": action,
        "work": {"name": "m", "how": "source", "files": [{**file, "folder": str(folder)}]},
        "folder": str(folder),
        "program": "",
        "user": None,
        "unit": False,
        "seconds": 0.0,
        **dict.fromkeys(("torrent", "token", "proxy", "authorities"), ""),
        "by": "alice",
    }


def test_model_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of a download as the program tells them, and the question to the source."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setattr(actions, "runtime_folder", lambda *_: runtime)
    asked = options(tmp_path, "ask")
    job = parse_job({**asked["work"], "folder": str(tmp_path)})
    results = [
        actions.run_action(asked, False),
        actions.run_action(options(tmp_path, "stop"), False),
    ]
    assert "problem" in results[0]
    session = DownloadSession(job, runtime)
    for state, more in (
        ("fetching", {"file": "m.gguf"}),
        ("receiving", {"peers": 2}),
        ("failed", {"reason": "the disk is full"}),
        ("done", {"torrent": ""}),
    ):
        session.report(state, 5, **more)
        results.append(actions.run_action(options(tmp_path, "wait"), False))
    results.append(actions.run_action(options(tmp_path, "start"), True))
    for each in results:
        assert differences("model_fetch", each) == []
    assert missing("model_fetch", results) == []


def test_release(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of a change that was committed, from the host's history."""
    committed(host)
    to = stage_release(host, requested(metadata() | {"as": 1}, context=8192))
    monkeypatch.setattr(switch.Change, "_switch", lambda _: None)
    (host.root / "change.json").write_text("{}\n")
    switch.Change(host, to).run("rollback")
    change = find_result(read_history(host.root), to.number)
    # What the module returns, once it has not failed.
    answer = {"changed": True, "told": change, "diff": []}
    assert change["outcome"] == "committed"
    assert differences("release", answer) == []
    assert missing("release", [answer]) == []
