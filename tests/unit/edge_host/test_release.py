"""Releases in a folder, with a dictionary as Docker; tests/integration/rollback uses a real one."""

from __future__ import annotations

import fcntl
import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import DOOR, ENGINE_KEY, NETWORK, SECRETS
from edge_host.host_info.deployment import read_history, read_journal, read_lock
from edge_host.release import memory_check, recovery, request, result, store, verification
from edge_host.release.docker_api import Docker
from edge_host.release.engine_key import ensure_engine_key, hash_engine_key
from edge_host.release.errors import HostLockedError, ReleaseError
from edge_host.release.host import Host
from edge_host.release.lock import lock_host
from edge_host.release.request import ReleaseRequest, request_rollback
from edge_host.release.stage import stage_release
from edge_host.release.store import Release
from edge_host.release_record import hash_text
from tests.unit.edge_host.conftest import FakeSockets

COMPOSE = """\
services:
  network:
    image: ${NETWORK_IMAGE}
  engine-@ENGINE_SLOT@:
    container_name: edge-llm-engine-@ENGINE_SLOT@
    environment:
      LLAMA_ARG_ALIAS: "edge-llm-engine-a"
      LLAMA_ARG_PORT: ${ENGINE_PORT}
  api-@API_SLOT@:
    container_name: edge-llm-api-@API_SLOT@
    environment:
      CHAT_API_SOCKET: /run/edge-llm/api-@API_SLOT@.sock
      OF_SOMEBODY: api-b.sock
"""
EARLIER_COMPOSE = (
    COMPOSE.replace("network:", "door:")
    .replace("NETWORK_", "DOOR_")
    .replace("      LLAMA_ARG_PORT: ${ENGINE_PORT}\n", "")
)
ENGINE = """\
LLM_PROVIDER=llamacpp
LLM_BASE_URL=http://127.0.0.1:@ENGINE_PORT@
LLM_MODEL=engine-b
"""

EARLIER_ENGINE = ENGINE.replace("127.0.0.1:@ENGINE_PORT@", "engine-@ENGINE_SLOT@:8080")

ALIASES = "LLM_MODEL_ALIASES=gpt-api-b,edge-llm-engine-a\n"


def env(context: int = 4096, api: str = "api:1") -> str:
    return f"CTX_SIZE={context}\nAPI_IMAGE={api}\n{ALIASES}"


def model(path: str, sha256: str) -> dict[str, Any]:
    return {
        "name": "smoke",
        "files": [{"path": path, "size": 5, "sha256": sha256}],
        "digest": f"of {sha256}",
    }


def metadata(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "provider": "llamacpp",
        "model": model("smoke.gguf", "a" * 64),
        "engine": {"image": "engine@sha256:1"},
        "memory": {"total": 900 * 1024**2, "system": 800 * 1024**2},
        "network": {"memory_limit": 16 * 1024**2},
    }
    return {
        "plan": plan | changes,
        "by": "alice@laptop",
        "start_timeout": 600,
        "drain_timeout": 120,
        "swap": "auto",
    }


class Dictionary(Docker):
    """Containers by name, and images; `docker compose config` depends on the .env."""

    def __init__(self) -> None:
        self.containers: dict[str, str] = {}
        self.created: dict[str, str] = {}
        self.images = {"api:1", "api:2", "engine@sha256:1"}
        self.pulled: list[str] = []

    def is_running(self, name: str) -> bool:
        return self.containers.get(name) == "running"

    def inspect(self, name: str) -> dict[str, Any] | None:
        known = name in self.containers
        return {"State": {}, "Config": {"Image": self.created.get(name)}} if known else None

    def list_containers(self) -> dict[str, str]:
        return {name: name.removeprefix("edge-llm-") for name in self.containers}

    def remove(self, name: str) -> None:
        self.containers.pop(name, None)

    def shares_namespace(self, name: str, owner: str) -> bool:
        return self.is_running(name) and self.is_running(owner)

    def remove_network(self, name: str) -> None:
        self.containers.pop(name, None)

    def has_image(self, reference: str) -> bool:
        return reference in self.images

    def run_command(
        self, *words: str, timeout: float | None = 60
    ) -> subprocess.CompletedProcess[str]:
        if words[0] == "pull":
            self.pulled.append(words[-1])
            return subprocess.CompletedProcess(words, 1, "", "no such host")
        assert words[-3:] == ("config", "--format", "json")
        text = Path(words[words.index("--env-file") + 1]).read_text()
        values = dict(line.split("=", 1) for line in text.splitlines())
        services = {"engine-a": values["CTX_SIZE"], "api-a": values["API_IMAGE"]}
        return subprocess.CompletedProcess(words, 0, json.dumps({"services": services}), "")


@pytest.fixture
def docker() -> Dictionary:
    return Dictionary()


@pytest.fixture
def host(
    tmp_path: Path, docker: Dictionary, monkeypatch: pytest.MonkeyPatch, sockets: FakeSockets
) -> Host:
    monkeypatch.setattr(memory_check, "read_available_memory", lambda: 10 * 1024**3)
    for name in ("engine", "run", "models"):
        (tmp_path / name).mkdir()
    models = tmp_path / "models"
    (models / "smoke.gguf").write_bytes(b"12345")
    status = (models / "smoke.gguf").stat()
    record = {"size": 5, "mtime_ns": status.st_mtime_ns, "sha256": "a" * 64}
    (models / ".verified.json").write_text(json.dumps({"smoke.gguf": record}))
    return Host(str(tmp_path), docker)


def requested(
    data: dict[str, Any] | None = None, earlier: bool = False, **given: Any
) -> ReleaseRequest:
    """A request with metadata, and with `given` for the .env; of an earlier version's release."""
    compose, engine = (EARLIER_COMPOSE, EARLIER_ENGINE) if earlier else (COMPOSE, ENGINE)
    files = {"docker-compose.yml": compose, ".env": env(**given), "engine.env": engine}
    return ReleaseRequest(files, data or metadata())


def committed(host: Host, **given: Any) -> Release:
    made = stage_release(host, requested(**given))
    host.releases.commit(made)
    return made


def test_a_first_release_takes_slot_a_and_is_complete(host: Host) -> None:
    made = stage_release(host, requested())
    assert made.folder == host.root / "releases" / "0001"
    assert made.record["slots"] == {"engine": "a", "api": "a"}
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.folder.iterdir()}
    assert files == {
        "source": 0o700,
        "docker-compose.yml": 0o644,
        ".env": 0o600,
        "engine.env": 0o644,
        "release.json": 0o600,
    }
    added = "ENGINE_PORT=11434\nNETWORK_IMAGE=api:1\n"
    assert (made.folder / ".env").read_text() == env() + added
    for name, digest in made.record["written"].items():
        assert digest == hash_text((made.folder / name).read_text())
    assert made.record["rendered"][".env"] == hash_text(env())
    assert host.releases.current() is None  # nothing is committed by being there
    assert str(made) == "release 1 (llamacpp with smoke)"


def test_a_part_that_changes_takes_the_other_slot(host: Host) -> None:
    committed(host)
    engine = committed(host, context=2048)
    assert engine.record["slots"] == {"engine": "b", "api": "a"}
    assert "edge-llm-engine-b" in (engine.folder / "docker-compose.yml").read_text()
    assert "http://127.0.0.1:11435\n" in engine.engine_file
    assert "ENGINE_PORT=11435\n" in (engine.folder / ".env").read_text()
    assert (engine.service("engine"), engine.container("api")) == ("engine-b", "edge-llm-api-a")
    both = committed(host, context=4096, api="api:2")
    assert both.record["slots"] == {"engine": "a", "api": "b"}
    none = committed(host, context=4096, api="api:2")
    assert none.record["slots"] == both.record["slots"]


def test_a_container_that_was_changed_by_hand_takes_the_other_slot(host: Host) -> None:
    committed(host)
    made = stage_release(host, requested(), ["api"])
    assert made.record["slots"] == {"engine": "a", "api": "b"}


def test_other_weights_need_another_engine(host: Host) -> None:
    committed(host)
    relocked = metadata()
    relocked["plan"]["model"] = model("smoke.gguf", "b" * 64)
    record = json.loads((host.root / "models/.verified.json").read_text())
    record["smoke.gguf"]["sha256"] = "b" * 64
    (host.root / "models/.verified.json").write_text(json.dumps(record))
    made = stage_release(host, requested(relocked))
    assert made.record["slots"] == {"engine": "b", "api": "a"}


def test_a_running_container_that_others_depend_on_keeps_its_image(
    host: Host, docker: Dictionary
) -> None:
    committed(host)
    docker.containers[NETWORK], docker.created[NETWORK] = "running", "api:1"
    made = committed(host, api="api:2")
    assert "NETWORK_IMAGE=api:1\n" in (made.folder / ".env").read_text()
    docker.containers[NETWORK] = "exited"
    made = committed(host, api="api:2")
    assert "NETWORK_IMAGE=api:2\n" in (made.folder / ".env").read_text()


def test_a_release_of_an_earlier_version_gets_the_lines_that_it_reads(
    host: Host, docker: Dictionary
) -> None:
    docker.containers[DOOR], docker.created[DOOR] = "running", "api:0"
    made = stage_release(host, requested(earlier=True))
    assert (made.folder / ".env").read_text() == env() + "DOOR_IMAGE=api:0\n"
    del docker.containers[DOOR]
    made = stage_release(host, requested(earlier=True))
    assert (made.folder / ".env").read_text() == env() + "DOOR_IMAGE=api:1\n"


def test_links_point_to_the_current_release(host: Host) -> None:
    committed(host)
    (host.root / ".env").unlink()
    (host.root / ".env").write_text("by hand")
    second = committed(host, context=2048)
    root = host.root
    assert (root / "current").readlink() == Path("releases/0002")
    assert (root / "previous").readlink() == Path("releases/0001")
    for name in ("docker-compose.yml", ".env"):
        assert (root / name).read_text() == (second.folder / name).read_text()
    host.releases.commit(second)  # once more changes nothing
    assert (root / "previous").readlink() == Path("releases/0001")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": model("smoke.gguf", "b" * 64)},
         "the weights smoke.gguf are missing on the host, or are not verified. Run site.yml"),
        ({"model": model("other.gguf", "a" * 64)},
         "the weights other.gguf are missing on the host, or are not verified. Run site.yml"),
        ({"provider": "ollama"},
         "the model smoke is missing in Ollama's store on the host. Run site.yml"),
        ({"engine": {"image": "engine@sha256:2"}},
         "the engine's image engine@sha256:2 could not be pulled: no such host. Check the"
         " registry"),
        ({"memory": {"total": 99 * 1024**3, "system": 0}},
         "smoke does not fit the host's memory: its engine needs 101,376 MiB, and 10,240 MiB are"
         " free. "),
    ],
)  # fmt: skip
def test_a_failed_staging_leaves_no_release(
    host: Host, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ReleaseError) as error:
        stage_release(host, requested(metadata(**change)))
    assert str(error.value).startswith(sentence)
    assert host.releases.get(1) is None
    # The next one takes another number, and what was left goes.
    committed(host)
    host.releases.prune()
    assert [path.name for path in (host.root / "releases").iterdir()] == ["0002"]


def test_memory_of_the_replaced_engine_counts_as_free(host: Host) -> None:
    """One that does not fit beside the old one may fit in its place."""
    committed(host)
    more = metadata(memory={"total": 10 * 1024**3 + 50 * 1024**2, "system": 0})
    stage_release(host, requested(more, context=2048))
    too_much = metadata(memory={"total": 10 * 1024**3 + 150 * 1024**2, "system": 0})
    with pytest.raises(
        ReleaseError, match="10,240 MiB are free, beside 100 MiB of the engine that it replaces"
    ):
        stage_release(host, requested(too_much, context=2048))


@pytest.mark.parametrize(
    ("swap", "available", "beside"),
    [
        ("auto", 10 * 1024**3, True),
        ("auto", 100 * 1024**2, False),
        ("beside", 0, True),
        ("one-by-one", 10 * 1024**3, False),
    ],
)
def test_two_engines_are_loaded_where_memory_allows(
    host: Host, monkeypatch: pytest.MonkeyPatch, swap: str, available: int, beside: bool
) -> None:
    made = stage_release(host, requested(metadata() | {"swap": swap}))
    monkeypatch.setattr(memory_check, "read_available_memory", lambda: available)
    assert memory_check.fits_beside(made) is beside


def test_old_releases_are_pruned_but_not_current_and_previous(host: Host) -> None:
    committed(host)
    committed(host)
    for _ in range(7):
        stage_release(host, requested())  # none of them is committed
    host.releases.prune()
    assert host.releases.list_numbers() == [1, 2, 5, 6, 7, 8, 9]


def test_the_lock_has_one_holder_and_ends_with_it(host: Host) -> None:
    with lock_host(host.root, "alice@laptop"):
        held = read_lock(host.root)
        assert held is not None
        assert held["by"] == "alice@laptop"
        with (
            pytest.raises(
                HostLockedError, match="locked: alice@laptop has been changing it since 20"
            ),
            lock_host(host.root, "bob@desk", timeout=0.2),
        ):
            pytest.fail("two at once")
    assert read_lock(host.root) is None
    # What a dead holder has left written counts for nothing.
    (host.root / ".lock").write_text('{"by": "a dead one"}')
    assert read_lock(host.root) is None
    with lock_host(host.root, "bob@desk"):
        pass


def test_a_lock_without_a_name_counts(host: Host) -> None:
    with (host.root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_lock(host.root) == {"by": "somebody", "since": None, "pid": None}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, None),
        ("", {"step": None}),
        ('{"from": 1, "to": 2}\n', {"from": 1, "to": 2, "step": None}),
        ('{"from": 1, "to": 2}\nbegin\nhold\n', {"from": 1, "to": 2, "step": "hold"}),
        ('{"from": 1, "t', {"step": None}),
    ],
)
def test_an_incomplete_journal_counts(
    host: Host, text: str | None, found: dict[str, Any] | None
) -> None:
    if text is not None:
        (host.root / "change.json").write_text(text)
    assert read_journal(host.root) == found


def test_an_incomplete_line_of_the_history_is_skipped(host: Host) -> None:
    (host.root / "releases").mkdir()
    host.releases.append_history({"to": 1, "outcome": "committed"})
    with (host.root / "releases/history.jsonl").open("a") as file:
        file.write('{"at": "2026-11')
    assert [each["to"] for each in read_history(host.root)] == [1]
    host.releases.append_history({"to": 2, "outcome": "committed"})
    assert [each["to"] for each in read_history(host.root)] == [1, 2]


def test_without_a_journal_nothing_is_recovered(host: Host, docker: Dictionary) -> None:
    assert recovery.recover(host) is None
    made = committed(host)
    docker.containers = {made.container(part): "running" for part in ("engine", "api")}
    docker.containers[NETWORK] = "running"
    assert recovery.recover(host) is None


def test_an_interrupted_first_change_leaves_nothing(host: Host, docker: Dictionary) -> None:
    (host.root / "releases").mkdir()
    (host.root / "change.json").write_text('{"from": null, "to": 1}\nbegin\nload\n')
    docker.containers = {"edge-llm-engine-a": "running", NETWORK: "running"}
    entry = recovery.recover(host)
    assert entry is not None
    assert (entry["outcome"], entry["to"]) == ("removed", None)
    assert entry["reason"] == "the change to release 1 was interrupted at: load"
    assert docker.containers == {}
    assert not (host.root / "change.json").exists()
    assert recovery.recover(host) is None


def test_an_interruption_between_the_two_links_keeps_the_previous_release(
    host: Host, docker: Dictionary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`previous` is changed first, and would lead to the current release itself."""
    monkeypatch.setattr(recovery, "activate_or_end_hold", lambda *_: None)
    first, second = committed(host), committed(host, context=2048)
    third = stage_release(host, requested())
    journal = {"from": second.number, "to": third.number, "previous": first.number}
    (host.root / "change.json").write_text(json.dumps(journal) + "\ncommit\n")
    host.releases.set_link("previous", f"releases/{second.folder.name}")
    entry = recovery.recover(host)
    assert entry is not None
    assert (entry["outcome"], entry["to"]) == ("restored", 2)
    assert host.releases.previous() == first


def test_an_interruption_after_the_commit_keeps_the_new_release(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "activate_or_end_hold", lambda *_: None)
    first, second = committed(host), committed(host, context=2048)
    journal = {"from": first.number, "to": second.number}
    (host.root / "change.json").write_text(json.dumps(journal) + "\nclean\n")
    entry = recovery.recover(host)
    assert entry is not None
    assert (entry["outcome"], entry["to"]) == ("committed", 2)
    assert host.releases.previous() == first


def test_a_rollback_repeats_an_earlier_release(host: Host) -> None:
    first = committed(host)
    committed(host, context=2048, api="api:2")
    asked = request_rollback(host.releases, "bob")
    assert asked.files == requested().files
    assert (asked.metadata["as"], asked.metadata["by"]) == (1, "bob")
    again = stage_release(host, asked)
    assert (again.rolled_back_to, again.operator) == (1, "bob")
    assert again.record["rendered"] == first.record["rendered"]
    for number, sentence in (
        (4711, "release 4711 is missing on the host: it has the releases 1, 2, 3. "),
        (2, "release 2 is the current one already. Choose another"),
    ):
        with pytest.raises(ReleaseError, match=sentence):
            request_rollback(host.releases, "bob", number)


def test_a_rollback_past_a_chat_api_without_tasks_is_refused(host: Host) -> None:
    """It follows the engine file before it is replaced, and would refuse this one."""
    embedding = model("smoke.gguf", "a" * 64) | {"task": "embedding"}
    served = committed(host, data=metadata(model=embedding))
    committed(host, context=2048, api="api:2")
    with pytest.raises(
        ReleaseError,
        match=r"release 1 serves smoke, which is for embedding, and the chat API of the current "
        r"release 2 .* Run site\.yml with llm_model smoke first",
    ):
        request_rollback(host.releases, "bob")
    chat = metadata(model=model("smoke.gguf", "a" * 64) | {"task": "chat"})
    committed(host, data=chat, context=1024)
    assert request_rollback(host.releases, "bob", served.number).metadata["as"] == served.number


def remove_source(made: Release) -> None:
    """Have a release as this project wrote it before it kept what was rendered."""
    shutil.rmtree(made.folder / "source")


@pytest.mark.parametrize("style", ["with its source", "of an earlier version"])
@pytest.mark.parametrize("slots", [{"engine": "a", "api": "a"}, {"engine": "b", "api": "b"}])
def test_a_rollback_keeps_the_names_of_clients(
    host: Host, slots: dict[str, str], style: str
) -> None:
    """Aliases and model names may look like a slot of this project's."""
    earlier = style == "of an earlier version"
    if slots["engine"] == "a":
        committed(host, earlier=earlier, context=1024)
    committed(host, earlier=earlier, context=512, api="api:2")
    made = committed(host, earlier=earlier)
    assert made.record["slots"] == slots
    committed(host, earlier=earlier, context=2048, api="api:2")
    if earlier:
        remove_source(made)
    asked = request_rollback(host.releases, "bob", made.number)
    assert asked.files == requested(earlier=earlier).files
    again = stage_release(host, asked)
    assert again.record["rendered"] == made.record["rendered"]
    text = (again.folder / "docker-compose.yml").read_text()
    assert 'LLAMA_ARG_ALIAS: "edge-llm-engine-a"\n' in text
    assert "OF_SOMEBODY: api-b.sock\n" in text
    assert "LLM_MODEL=engine-b\n" in again.engine_file
    assert ALIASES in (again.folder / ".env").read_text()
    assert "@" not in text + again.engine_file


def test_a_rollback_without_a_previous_release_is_refused(host: Host) -> None:
    with pytest.raises(
        ReleaseError, match="the previous release is missing on the host: it has no release"
    ):
        request_rollback(host.releases, "bob")


@pytest.mark.parametrize(
    ("status", "until"),
    [("running", "2026-11-29T04:25:48.176813465Z"), ("restarting", ""), ("exited", "")],
)
def test_the_log_of_an_engine_that_ended_is_read_up_to_its_restart(status: str, until: str) -> None:
    """As Docker 26 reports a container whose program ends with status 1."""
    state = {
        "Status": status,
        "Running": status != "exited",
        "Restarting": status == "restarting",
        "StartedAt": "2026-11-29T04:25:48.176813465Z",
    }
    assert verification.find_restart_time(state) == until


def test_processes_that_hold_memory_of_the_gpu_are_found(tmp_path: Path) -> None:
    for pid, link in (("12", "/dev/nvmap"), ("13", "/dev/null")):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "comm").write_text("gnome-shell\n")
        (tmp_path / pid / "fd/3").symlink_to(link)
    assert memory_check.find_gpu_processes(tmp_path) == ["gnome-shell (pid 12)"]


def test_a_file_is_replaced_in_one_step_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    store.replace_file(file, "old\n", 0o644)
    store.replace_file(file, "new\n", 0o600)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new\n", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_a_release_in_place_is_recognised(host: Host) -> None:
    key = hash_engine_key(host.root)
    made = committed(host)
    assert request.is_in_place(made, requested(), key)
    assert not request.is_in_place(made, requested(), hash_text("another"))
    assert not request.is_in_place(made, requested(context=1), key)
    relocked = metadata(model=model("smoke.gguf", "b" * 64))
    assert not request.is_in_place(made, requested(relocked), key)
    with (made.folder / ".env").open("a") as file:
        file.write("BY_HAND=1\n")
    assert not request.is_in_place(made, requested(), key)


def test_the_engine_key_is_made_once_and_again_where_it_is_lost(host: Host) -> None:
    path = host.root / SECRETS / ENGINE_KEY
    path.parent.mkdir(exist_ok=True)
    first = committed(host)
    found = set()
    for lost in ("", None, "\n"):
        if lost is None:
            path.unlink()
        else:
            path.write_text(lost)
        ensure_engine_key(host.root)
        key = path.read_text()
        ensure_engine_key(host.root)
        assert path.read_text() == key
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        assert len(key.strip()) == 40
        found.add(key)
    assert len(found) == 3
    # An engine that runs knows the former one.
    second = committed(host)
    assert second.record["slots"] != first.record["slots"]
    assert second.record["slots"]["api"] == first.record["slots"]["api"]


def test_the_diff_compares_rendered_files(host: Host) -> None:
    asked = requested(context=2048)
    assert [each["before"] for each in request.diff_files(None, asked)] == ["", ""]
    committed(host)
    made = committed(host, context=1024)  # in slot b
    (found,) = request.diff_files(made, asked)
    assert (found["after_header"], found["before"]) == (".env", env(context=1024))


DEPLOYED = {"action": "deploy", "to": 7, "outcome": "committed"}
RECOVERED = {"action": "recover", "to": 6, "outcome": "restored", "reason": "was cut short"}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([DEPLOYED], "committed"),
        ([DEPLOYED | {"outcome": "restored"}], "restored"),
        ([DEPLOYED | {"outcome": "failed"}], "failed"),
        ([DEPLOYED | {"outcome": "failed"}, RECOVERED], "restored"),
        ([RECOVERED], "restored"),
        ([RECOVERED | {"to": 7}], "committed"),
        ([], "failed"),
    ],
)
def test_the_result_of_a_change(lines: list[dict[str, Any]], expected: str) -> None:
    entry = result.find_result(lines, 7)
    assert (entry["outcome"], entry["to"]) == (expected, 7)


def test_a_failure_names_the_reason_and_what_serves_now(host: Host) -> None:
    before = committed(host)
    to = stage_release(host, requested(context=1))
    entry = {"outcome": "restored", "reason": "it died", "log": "a line\nanother"}
    assert result.describe_failure(entry, before, to) == (
        "release 2 (llamacpp with smoke) failed: it died.\nThe last lines of its log:\na line\n"
        "another\nrelease 1 (llamacpp with smoke) serves again and was verified."
    )
    assert result.describe_failure(entry, None, to).endswith(
        "No release served before, and none serves now."
    )
    failed = entry | {"outcome": "failed", "restore_reason": "that died too", "restore_log": "x"}
    text = result.describe_failure(failed, before, to)
    assert "The rollback to release 1 (llamacpp with smoke) failed, too: that died too.\n" in text
    assert "`systemctl restart edge-llm`" in text
