"""Releases in a folder, with a dictionary as Docker; tests/integration/rollback uses a real one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import DOOR
from edge_host.host_info.deployment import read_history, read_journal, read_lock
from edge_host.release import probe, recovery, result, stage, store
from edge_host.release.docker_api import Docker
from edge_host.release.errors import Busy, Failure
from edge_host.release.store import Host

COMPOSE = """\
services:
  engine-@ENGINE_SLOT@:
    container_name: edge-llm-engine-@ENGINE_SLOT@
    environment:
      LLAMA_ARG_ALIAS: "edge-llm-engine-a"
  api-@API_SLOT@:
    container_name: edge-llm-api-@API_SLOT@
    environment:
      CHAT_API_SOCKET: /run/edge-llm/api-@API_SLOT@.sock
      OF_SOMEBODY: api-b.sock
"""
ENGINE = """\
LLM_PROVIDER=llamacpp
LLM_BASE_URL=http://engine-@ENGINE_SLOT@:8080
LLM_MODEL=engine-b
"""


ALIASES = "LLM_MODEL_ALIASES=gpt-api-b,edge-llm-engine-a\n"


def env(context: int = 4096, api: str = "api:1") -> str:
    return f"CTX_SIZE={context}\nAPI_IMAGE={api}\n{ALIASES}"


def model(path: str, sha256: str) -> dict[str, Any]:
    return {
        "name": "smoke",
        "files": [{"path": path, "size": 5, "sha256": sha256}],
        "digest": f"of {sha256}",
    }


def about(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "provider": "llamacpp",
        "model": model("smoke.gguf", "a" * 64),
        "engine": {"image": "engine@sha256:1"},
        "memory": {"total": 900 * 1024**2, "system": 800 * 1024**2},
    }
    return {
        "plan": plan | changes,
        "by": "alice@laptop",
        "start_timeout": 600,
        "drain_timeout": 120,
        "swap": "auto",
    }


class Dictionary(Docker):
    """Containers by name, and images; `docker compose config` tells of services by the .env."""

    def __init__(self) -> None:
        self.containers: dict[str, str] = {}
        self.images = {"api:1", "api:2", "engine@sha256:1"}
        self.pulled: list[str] = []

    def running(self, name: str) -> bool:
        return self.containers.get(name) == "running"

    def container(self, name: str) -> dict[str, Any] | None:
        return {"State": {}} if name in self.containers else None

    def ours(self) -> dict[str, str]:
        return {name: name.removeprefix("edge-llm-") for name in self.containers}

    def remove(self, name: str) -> None:
        self.containers.pop(name, None)

    def has_image(self, reference: str) -> bool:
        return reference in self.images

    def command(self, *words: str, timeout: float | None = 60) -> subprocess.CompletedProcess[str]:
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
def host(tmp_path: Path, docker: Dictionary, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(stage, "_available", lambda: 10 * 1024**3)
    for name in ("engine", "run", "models"):
        (tmp_path / name).mkdir()
    models = tmp_path / "models"
    (models / "smoke.gguf").write_bytes(b"12345")
    status = (models / "smoke.gguf").stat()
    record = {"size": 5, "mtime_ns": status.st_mtime_ns, "sha256": "a" * 64}
    (models / ".verified.json").write_text(json.dumps({"smoke.gguf": record}))
    return Host(str(tmp_path), docker)


def committed(host: Host, **given: Any) -> store.Release:
    made = stage.stage(host, COMPOSE, env(**given), ENGINE, about())
    host.commit(made)
    return made


def test_a_first_release_takes_slot_a_and_is_complete(host: Host) -> None:
    made = stage.stage(host, COMPOSE, env(), ENGINE, about())
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
    assert (made.folder / ".env").read_text() == env() + "DOOR_IMAGE=api:1\n"
    for name, digest in made.record["written"].items():
        assert digest == stage.sha256((made.folder / name).read_text())
    assert made.record["rendered"][".env"] == stage.sha256(env())
    assert host.current() is None  # nothing is committed by being there
    assert str(made) == "release 1 (llamacpp with smoke)"


def test_what_changes_takes_the_other_slot_and_what_does_not_stays(host: Host) -> None:
    committed(host)
    engine = committed(host, context=2048)
    assert engine.record["slots"] == {"engine": "b", "api": "a"}
    assert "edge-llm-engine-b" in (engine.folder / "docker-compose.yml").read_text()
    assert "http://engine-b:8080" in engine.engine_file
    assert (engine.service("engine"), engine.container("api")) == ("engine-b", "edge-llm-api-a")
    both = committed(host, context=4096, api="api:2")
    assert both.record["slots"] == {"engine": "a", "api": "b"}
    none = committed(host, context=4096, api="api:2")
    assert none.record["slots"] == both.record["slots"]


def test_other_weights_are_another_engine(host: Host) -> None:
    committed(host)
    relocked = about()
    relocked["plan"]["model"] = model("smoke.gguf", "b" * 64)
    record = json.loads((host.root / "models/.verified.json").read_text())
    record["smoke.gguf"]["sha256"] = "b" * 64
    (host.root / "models/.verified.json").write_text(json.dumps(record))
    made = stage.stage(host, COMPOSE, env(), ENGINE, relocked)
    assert made.record["slots"] == {"engine": "b", "api": "a"}


def test_the_door_that_runs_stays_with_its_image(host: Host, docker: Dictionary) -> None:
    committed(host)
    docker.containers[DOOR] = "running"
    made = committed(host, api="api:2")
    assert "DOOR_IMAGE=api:1\n" in (made.folder / ".env").read_text()
    docker.containers[DOOR] = "exited"
    made = committed(host, api="api:2")
    assert "DOOR_IMAGE=api:2\n" in (made.folder / ".env").read_text()


def test_links_lead_to_the_current_release(host: Host) -> None:
    committed(host)
    (host.root / ".env").unlink()
    (host.root / ".env").write_text("by hand")
    second = committed(host, context=2048)
    root = host.root
    assert (root / "current").readlink() == Path("releases/0002")
    assert (root / "previous").readlink() == Path("releases/0001")
    for name in ("docker-compose.yml", ".env"):
        assert (root / name).read_text() == (second.folder / name).read_text()
    host.commit(second)  # once more changes nothing
    assert (root / "previous").readlink() == Path("releases/0001")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": model("smoke.gguf", "b" * 64)},
         "the weights smoke.gguf are not on the host, verified"),
        ({"model": model("other.gguf", "a" * 64)},
         "the weights other.gguf are not on the host, verified"),
        ({"provider": "ollama"}, "Ollama does not know smoke on the host"),
        ({"engine": {"image": "engine@sha256:2"}},
         "The engine's image engine@sha256:2 could not be pulled: no such host"),
        ({"memory": {"total": 99 * 1024**3, "system": 0}},
         "smoke needs 101376 MiB, and the host has 10240 MiB free; stop what else uses memory"),
    ],
)  # fmt: skip
def test_what_cannot_be_staged_leaves_no_release(
    host: Host, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Failure) as error:
        stage.stage(host, COMPOSE, env(), ENGINE, about(**change))
    assert str(error.value).startswith(sentence)
    assert host.release(1) is None
    # The next one takes another number, and what was left goes.
    committed(host)
    host.prune()
    assert [path.name for path in (host.root / "releases").iterdir()] == ["0002"]


def test_memory_of_the_engine_that_stops_counts(host: Host) -> None:
    """One that does not fit beside the old one may fit in its place."""
    committed(host)
    more = about(memory={"total": 10 * 1024**3 + 50 * 1024**2, "system": 0})
    stage.stage(host, COMPOSE, env(context=2048), ENGINE, more)
    too_much = about(memory={"total": 10 * 1024**3 + 150 * 1024**2, "system": 0})
    with pytest.raises(Failure, match="10240 MiB free and 100 MiB in the engine that would stop"):
        stage.stage(host, COMPOSE, env(context=2048), ENGINE, too_much)


@pytest.mark.parametrize(
    ("swap", "available", "beside"),
    [
        ("auto", 10 * 1024**3, True),
        ("auto", 100 * 1024**2, False),
        ("beside", 0, True),
        ("one-by-one", 10 * 1024**3, False),
    ],
)
def test_two_engines_load_at_once_where_there_is_room(
    host: Host, monkeypatch: pytest.MonkeyPatch, swap: str, available: int, beside: bool
) -> None:
    made = stage.stage(host, COMPOSE, env(), ENGINE, about() | {"swap": swap})
    monkeypatch.setattr(stage, "_available", lambda: available)
    assert stage.fits_beside(made) is beside


def test_old_releases_go_but_never_the_two_that_matter(host: Host) -> None:
    committed(host)
    committed(host)
    for _ in range(7):
        stage.stage(host, COMPOSE, env(), ENGINE, about())  # of which none came to anything
    host.prune()
    assert host.numbers() == [1, 2, 5, 6, 7, 8, 9]


def test_the_lock_is_one_s_at_a_time_and_dies_with_its_holder(host: Host) -> None:
    with host.locked("alice@laptop"):
        held = read_lock(host.root)
        assert held is not None
        assert held["by"] == "alice@laptop"
        with (
            pytest.raises(Busy, match="alice@laptop has been changing the host since 20"),
            Host(str(host.root)).locked("bob@desk", seconds=0.2),
        ):
            pytest.fail("two at once")
    assert read_lock(host.root) is None
    # What a dead holder has left written counts for nothing.
    (host.root / ".lock").write_text('{"by": "a dead one"}')
    assert read_lock(host.root) is None
    with host.locked("bob@desk"):
        pass


def test_a_lock_without_a_name_is_still_one(host: Host) -> None:
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
def test_a_journal_counts_however_little_of_it_is_left(
    host: Host, text: str | None, found: dict[str, Any] | None
) -> None:
    if text is not None:
        (host.root / "change.json").write_text(text)
    assert read_journal(host.root) == found


def test_a_line_of_history_that_a_cut_has_torn_is_left_out(host: Host) -> None:
    (host.root / "releases").mkdir()
    host.note(to=1, outcome="committed")
    with (host.root / "releases/history.jsonl").open("a") as file:
        file.write('{"at": "2026-11')
    assert [each["to"] for each in read_history(host.root)] == [1]
    host.note(to=2, outcome="committed")
    assert [each["to"] for each in read_history(host.root)] == [1, 2]


def test_nothing_is_recovered_where_nothing_was_begun(host: Host, docker: Dictionary) -> None:
    assert recovery.recover(host) is None
    made = committed(host)
    docker.containers = {made.container(part): "running" for part in ("engine", "api")}
    docker.containers[DOOR] = "running"
    assert recovery.recover(host) is None


def test_a_first_change_that_was_cut_short_leaves_nothing(host: Host, docker: Dictionary) -> None:
    (host.root / "releases").mkdir()
    (host.root / "change.json").write_text('{"from": null, "to": 1}\nbegin\nload\n')
    docker.containers = {"edge-llm-engine-a": "running", DOOR: "running"}
    told = recovery.recover(host)
    assert told is not None
    assert (told["outcome"], told["to"]) == ("removed", None)
    assert told["reason"] == "the change to release 1 was cut short at: load"
    assert docker.containers == {}
    assert not (host.root / "change.json").exists()
    assert recovery.recover(host) is None


def test_a_cut_between_the_two_links_keeps_the_way_back(
    host: Host, docker: Dictionary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`previous` is changed first, and would lead to the current release itself."""
    monkeypatch.setattr(recovery, "restore", lambda *_: None)
    first, second = committed(host), committed(host, context=2048)
    third = stage.stage(host, COMPOSE, env(), ENGINE, about())
    journal = {"from": second.number, "to": third.number, "previous": first.number}
    (host.root / "change.json").write_text(json.dumps(journal) + "\ncommit\n")
    host.link("previous", f"releases/{second.folder.name}")
    told = recovery.recover(host)
    assert told is not None
    assert (told["outcome"], told["to"]) == ("restored", 2)
    assert host.previous() == first


def test_a_cut_behind_the_commit_stays_with_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "restore", lambda *_: None)
    first, second = committed(host), committed(host, context=2048)
    journal = {"from": first.number, "to": second.number}
    (host.root / "change.json").write_text(json.dumps(journal) + "\nclean\n")
    told = recovery.recover(host)
    assert told is not None
    assert (told["outcome"], told["to"]) == ("committed", 2)
    assert host.previous() == first


def test_a_former_release_is_what_it_was(host: Host) -> None:
    first = committed(host)
    committed(host, context=2048, api="api:2")
    asked = result.former(host)
    assert (asked["compose"], asked["env"], asked["engine"]) == (COMPOSE, env(), ENGINE)
    assert asked["about"]["as"] == 1
    again = stage.stage(
        host, asked["compose"], asked["env"], asked["engine"], asked["about"] | {"by": "bob"}
    )
    assert again.record["rendered"] == first.record["rendered"]
    for number, sentence in (
        (4711, "release 4711 was asked, and is not on the host; there are: 1, 2, 3"),
        (2, "release 2 was asked, and the host runs it"),
    ):
        with pytest.raises(Failure, match=sentence):
            result.former(host, number)


def in_former_style(made: store.Release) -> None:
    """Have a release as this project wrote it before it kept what was rendered."""
    shutil.rmtree(made.folder / "source")


@pytest.mark.parametrize("style", ["with its source", "of an earlier version"])
@pytest.mark.parametrize("slots", [{"engine": "a", "api": "a"}, {"engine": "b", "api": "b"}])
def test_a_rollback_keeps_the_names_of_clients(
    host: Host, slots: dict[str, str], style: str
) -> None:
    """Aliases and model names may look like a slot of this project's."""
    if slots["engine"] == "a":
        committed(host, context=1024)
    committed(host, context=512, api="api:2")
    made = committed(host)
    assert made.record["slots"] == slots
    committed(host, context=2048, api="api:2")
    if style == "of an earlier version":
        in_former_style(made)
    asked = result.former(host, made.number)
    assert (asked["compose"], asked["env"], asked["engine"]) == (COMPOSE, env(), ENGINE)
    about = asked["about"] | {"by": "bob"}
    again = stage.stage(host, asked["compose"], asked["env"], asked["engine"], about)
    assert again.record["rendered"] == made.record["rendered"]
    text = (again.folder / "docker-compose.yml").read_text()
    assert 'LLAMA_ARG_ALIAS: "edge-llm-engine-a"\n' in text
    assert "OF_SOMEBODY: api-b.sock\n" in text
    assert "LLM_MODEL=engine-b\n" in again.engine_file
    assert ALIASES in (again.folder / ".env").read_text()
    assert "@" not in text + again.engine_file


def test_where_there_is_no_former_release_that_is_said(host: Host) -> None:
    with pytest.raises(Failure, match="the release before was asked, and is not on the host"):
        result.former(host)


@pytest.mark.parametrize(
    ("status", "asked"),
    [("running", "2026-11-29T04:25:48.176813465Z"), ("restarting", ""), ("exited", "")],
)
def test_what_an_engine_ended_with_is_asked(status: str, asked: str) -> None:
    """As Docker 26 tells of one whose program ends with status 1."""
    state = {
        "Status": status,
        "Running": status != "exited",
        "Restarting": status == "restarting",
        "StartedAt": "2026-11-29T04:25:48.176813465Z",
    }
    assert probe.started_again(state) == asked


def test_who_holds_the_memory_of_a_gpu_is_named(tmp_path: Path) -> None:
    for pid, link in (("12", "/dev/nvmap"), ("13", "/dev/null")):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "comm").write_text("gnome-shell\n")
        (tmp_path / pid / "fd/3").symlink_to(link)
    assert stage.gpu_holders(tmp_path) == ["gnome-shell (pid 12)"]


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    store.write_text(file, "old\n", 0o644)
    store.write_text(file, "new\n", 0o600)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new\n", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_there_and_untouched_is_not_staged_again(host: Host) -> None:
    asked: dict[str, Any] = {"action": "deploy", "compose": COMPOSE, "env": env(), "engine": ENGINE}
    asked |= {"about": about()}
    key = stage.key_hash(host)
    assert result.same(None, asked, key) is None
    made = committed(host)
    assert result.same(made, asked, key) == made
    assert result.same(made, asked, stage.sha256("another")) is None
    assert result.same(made, asked | {"env": env(context=1)}, key) is None
    assert result.same(made, asked | {"action": "rollback"}, key) is None
    relocked = about(model=model("smoke.gguf", "b" * 64))
    assert result.same(made, asked | {"about": relocked}, key) is None
    with (made.folder / ".env").open("a") as file:
        file.write("BY_HAND=1\n")
    assert result.same(made, asked, key) is None


def test_an_engine_key_is_made_once_and_again_where_it_is_lost(host: Host) -> None:
    path = host.root / stage.ENGINE_KEY
    path.parent.mkdir(exist_ok=True)
    first = committed(host)
    found = set()
    for lost in ("", None, "\n"):
        if lost is None:
            path.unlink()
        else:
            path.write_text(lost)
        stage.make_engine_key(host, os.getuid())
        key = path.read_text()
        path.chmod(0o644)
        stage.make_engine_key(host, os.getuid())
        assert path.read_text() == key
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(key.strip()) == 40
        found.add(key)
    assert len(found) == 3
    # An engine that runs knows the former one.
    second = committed(host)
    assert second.record["slots"] != first.record["slots"]
    assert second.record["slots"]["api"] == first.record["slots"]["api"]


def test_the_difference_is_in_what_was_rendered(host: Host) -> None:
    asked = {"compose": COMPOSE, "env": env(context=2048)}
    assert [each["before"] for each in result.difference(None, asked)] == ["", ""]
    committed(host)
    made = committed(host, context=1024)  # in slot b
    (found,) = result.difference(made, asked)
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
def test_what_became_of_a_change(lines: list[dict[str, Any]], expected: str) -> None:
    told = result.outcome(lines, 7)
    assert (told["outcome"], told["to"]) == (expected, 7)


def test_a_failure_says_why_and_what_serves_now(host: Host) -> None:
    before = committed(host)
    to = stage.stage(host, COMPOSE, env(context=1), ENGINE, about())
    told = {"outcome": "restored", "reason": "it died", "log": "a line\nanother"}
    assert result.sentence(told, before, to) == (
        "release 2 (llamacpp with smoke) was not kept: it died.\nIts engine said last:\na line\n"
        "another\nrelease 1 (llamacpp with smoke) serves again, proven."
    )
    assert result.sentence(told, None, to).endswith("and nothing runs now.")
    failed = told | {"outcome": "failed", "restore_reason": "that died too", "restore_log": "x"}
    text = result.sentence(failed, before, to)
    assert "release 1 (llamacpp with smoke) could not be put back either: that died too.\n" in text
    assert "`systemctl restart edge-llm`" in text
