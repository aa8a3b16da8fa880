"""The process that downloads: one at a time, whoever asks for it at the same time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edge_host.download import process
from edge_host.download.job import JOB, LOCK, START_LOCK, STATUS, DownloadError
from tests.playing import ROOT
from tests.waiting import until

# It begins late, so that others look in the meantime, and works until it is stopped.
_PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, {path!r})
from edge_host.download import process

def work(session):
    runtime = Path(sys.argv[2])
    with (runtime / "begun").open("a") as file:
        file.write(session.job.operator + "\\n")
    session.report("fetching")
    while not (runtime / "end").exists():
        session.raise_if_stopped()
        time.sleep(0.02)
    session.report("done")

process.run_job = work
time.sleep(0.5)
sys.exit(process.run(Path(sys.argv[2])))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(_PROGRAM.format(path=str(ROOT / "module_utils")))
    return path


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "runtime"
    yield folder
    if folder.exists():
        (folder / "end").touch()
        until(lambda: process.is_running(folder), "the end of the process", lambda runs: not runs)


def written_status(runtime: Path) -> dict[str, Any]:
    """The status of the process, once it has written one; it begins after its start."""
    return until(lambda: process.wait(runtime, 0), "its status", lambda status: "pid" in status)


def job(folder: Path, mode: str = "source", operator: str = "alice@laptop") -> dict[str, Any]:
    file = {"name": "m.gguf", "path": "m.gguf", "size": 100, "sha256": "a" * 64}
    return {
        **{"name": "m.gguf-1", "folder": str(folder), "files": [file]},
        **{"mode": mode, "operator": operator},
    }


def test_of_several_that_start_at_once_one_does(
    tmp_path: Path, program: Path, runtime: Path
) -> None:
    def start(operator: str) -> bool:
        return process.start(job(tmp_path, operator=operator), runtime, program, unit=False)

    with ThreadPoolExecutor() as pool:
        started = list(pool.map(start, ["alice", "bob", "carol", "dave"]))
    assert sorted(started) == [False, False, False, True]
    until(lambda: (runtime / "begun").exists(), "the work")
    winner = ["alice", "bob", "carol", "dave"][started.index(True)]
    assert (runtime / "begun").read_text() == f"{winner}\n"
    assert process.wait(runtime, 0)["by"] == winner
    (runtime / "end").touch()
    assert process.wait(runtime, 60)["state"] == "done"


def test_those_who_look_are_not_taken_for_the_process(
    tmp_path: Path, program: Path, runtime: Path
) -> None:
    runtime.mkdir()
    with (runtime / LOCK).open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not process.is_running(runtime)
        (runtime / "end").touch()
        with ThreadPoolExecutor() as pool:
            started = pool.submit(process.start, job(tmp_path), runtime, program, unit=False)
            until((runtime / JOB).exists, "the job")
            fcntl.flock(looking, fcntl.LOCK_UN)
            assert started.result() is True


def test_a_process_that_another_operator_starts_is_not_gone(
    tmp_path: Path, program: Path, runtime: Path
) -> None:
    """One whose download has ended waits for its end while the next one starts it again."""
    with ThreadPoolExecutor() as pool:
        started = pool.submit(process.start, job(tmp_path), runtime, program, unit=False)
        until((runtime / JOB).exists, "the job")
        assert process.wait(runtime, 0)["state"] == "begun"
        assert started.result() is True
    (runtime / "end").touch()
    assert process.wait(runtime, 60)["state"] == "done"


def test_a_download_in_another_mode_is_refused(
    tmp_path: Path, program: Path, runtime: Path
) -> None:
    assert process.start(job(tmp_path), runtime, program, unit=False)
    with pytest.raises(DownloadError) as caught:
        process.start(job(tmp_path, "share"), runtime, program, unit=False)
    assert str(caught.value) == (
        "m.gguf-1 is in use: alice@laptop runs another download of it (mode source). Run this again"
        " when that has ended"
    )


def test_a_process_that_does_not_begin_is_reported(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_TIMEOUT", 0.5)
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    with pytest.raises(
        DownloadError, match=r"did not begin within \d s\. .*journalctl -u edge-llm"
    ):
        process.start(job(tmp_path), runtime, broken, unit=False)
    # It may hold a token.
    assert not (runtime / JOB).exists()


def test_a_stop_spares_the_successor_of_an_earlier_process(runtime: Path) -> None:
    """Another program has its number, and the next process is only about to be started."""
    runtime.mkdir()
    with (
        subprocess.Popen(["sleep", "60"]) as other,
        (runtime / START_LOCK).open("w") as starting,
    ):
        (runtime / STATUS).write_text(json.dumps({"state": "done", "pid": other.pid}))
        fcntl.flock(starting, fcntl.LOCK_EX)
        assert process.stop(runtime, 0.5)
        assert other.poll() is None
        other.kill()


def test_a_process_that_has_just_begun_is_stopped(
    tmp_path: Path, program: Path, runtime: Path
) -> None:
    assert process.start(job(tmp_path), runtime, program, unit=False)
    assert process.stop(runtime) is True
    assert process.wait(runtime, 0)["state"] == "stopped"
    assert process.stop(runtime) is False


def planned(folder: Path, at: float, mode: str = "peers") -> dict[str, Any]:
    """A job of a distribution that was planned then."""
    made = {"authority": "A", "certificate": "C", "key": "K", "planned_at": at}
    return job(folder, mode, operator=f"{mode} at {at}") | {"credentials": made}


def test_a_newer_plan_replaces_an_older_one(tmp_path: Path, program: Path, runtime: Path) -> None:
    """The other hosts have its certificates; whoever waits for the older one waits for it, too."""
    assert process.start(job(tmp_path), runtime, program, unit=False)
    first = written_status(runtime)["pid"]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(process.wait, runtime, 60)
        assert process.start(planned(tmp_path, 2.0), runtime, program, unit=False)
        status = until(
            lambda: process.wait(runtime, 0),
            "the process of the newer plan",
            lambda status: status.get("pid") not in (None, first),
        )
        assert (status["by"], status["distribution"]) == ("peers at 2.0", 2.0)
        (runtime / "end").touch()
        assert waiting.result()["state"] == "done"


@pytest.mark.parametrize("mode", ["peers", "source"])
def test_an_older_plan_joins_a_newer_one(
    tmp_path: Path, program: Path, runtime: Path, mode: str
) -> None:
    assert process.start(planned(tmp_path, 2.0), runtime, program, unit=False)
    for other in (planned(tmp_path, 1.0, mode), planned(tmp_path, 2.0, mode), job(tmp_path, mode)):
        assert not process.start(other, runtime, program, unit=False)
    assert written_status(runtime)["by"] == "peers at 2.0"


def test_a_status_of_another_type_is_an_old_one(
    tmp_path: Path, program: Path, runtime: Path
) -> None:
    assert process.start(planned(tmp_path, 2.0), runtime, program, unit=False)
    written_status(runtime)
    status = json.loads((runtime / STATUS).read_text())
    (runtime / STATUS).write_text(json.dumps(status | {"distribution": "9" * 99}))
    assert process.start(planned(tmp_path, 1.0), runtime, program, unit=False)


# --- the folder of the process -------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the folder in memory that is everybody's."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(process, "SHARED_MEMORY", str(folder))
    monkeypatch.setattr("edge_host.download.process.os.geteuid", os.getuid)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return folder / str(os.getuid())


def test_the_folder_in_memory_is_made(shared: Path) -> None:
    for _ in range(2):
        process.create_runtime_folder(shared / process.UNIT / "m-1")
        assert shared.stat().st_mode & 0o777 == 0o700
        assert (shared / process.UNIT / "m-1").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["link", "file", "open", "foreign", "link below"])
def test_a_folder_in_memory_that_another_user_made(
    tmp_path: Path, shared: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not used, whatever it is: the job with its secrets would be readable there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    bad = shared
    if kind == "link":
        shared.symlink_to(elsewhere)
    elif kind == "file":
        shared.touch()
    elif kind == "link below":
        shared.mkdir(mode=0o700)
        bad = shared / process.UNIT
        bad.symlink_to(elsewhere)
    else:
        shared.mkdir(mode=0o755 if kind == "open" else 0o700)
        if kind == "foreign":
            monkeypatch.setattr("edge_host.download.process.os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(DownloadError) as caught:
        process.create_runtime_folder(shared / process.UNIT / "m-1")
    assert str(caught.value) == (
        f"{bad} is invalid: it is no folder of this user alone. Remove it, or set XDG_RUNTIME_DIR"
        " to a folder in memory that belongs to this user"
    )
    assert list(elsewhere.iterdir()) == []


_SYSTEMD_RUN = """#!/bin/sh
echo "$*" >> {folder}/calls
[ $(wc -l < {folder}/calls) -gt {busy} ] && exit 0
echo "Failed to start transient service unit: {words}" >&2
exit 1
"""
_LOADED = "Unit edge-llm-fetch-x.service was already loaded or has a fragment file."


def start_unit(folder: Path, busy: int, words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often systemd-run was called until it could start the program."""
    script = folder / "systemd-run"
    script.write_text(_SYSTEMD_RUN.format(folder=folder, busy=busy, words=words))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    process._start_unit("edge-llm-fetch-x", ["true"], folder, folder)
    return len((folder / "calls").read_text().splitlines())


def test_the_start_waits_for_the_end_of_an_earlier_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start_unit(tmp_path, 2, _LOADED, monkeypatch) == 3


def test_a_refusal_of_systemd_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match=r"systemd-run said: .*Access denied\. Check systemd"):
        start_unit(tmp_path, 2, "Access denied", monkeypatch)
    monkeypatch.setattr(process, "START_TIMEOUT", 0.2)
    with pytest.raises(DownloadError, match="was already loaded"):
        start_unit(tmp_path, 1000, _LOADED, monkeypatch)


def test_a_unit_that_takes_the_job_is_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator who started it was interrupted before it had its lock."""
    with (tmp_path / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert start_unit(tmp_path, 1000, _LOADED, monkeypatch) == 1
