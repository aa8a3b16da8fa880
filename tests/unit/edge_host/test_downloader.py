"""The user that downloads, and those before it: what they cannot write or make root do.

Run as root, these tests are the attacks themselves, in folders of their own.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import (
    API_UID,
    DOWNLOAD_UID,
    ENGINE_UID,
    USER_IDS,
)
from edge_host.download.job import DownloadError, DownloadJob, parse_job
from edge_host.download.runner import run_job
from edge_host.download.session import DownloadSession
from edge_host.host_info.weights import read_models, read_unfinished
from edge_host.weights.request import StoreError
from edge_host.weights.store import update_store
from tests.unit.edge_host.as_user import (
    can_read,
    etc,
    needs_root,
    root,
    run_as,
    shared,
    state_of,
    states,
)

__all__ = ["etc", "root", "shared"]

pytestmark = needs_root

CONTENT = b"weights of a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = {"name": "m.gguf", "path": "m.gguf", "size": len(CONTENT), "sha256": SHA256}
ENTRY = {"file": "m.gguf", "size": len(CONTENT), "sha256": SHA256}

# --- downloads -----------------------------------------------------------------------------------


def job(models: Path, **changes: Any) -> DownloadJob:
    given = {"name": "m.gguf-1", "folder": models, "files": [FILE], "mode": "source"}
    return parse_job({**given, "user": DOWNLOAD_UID, **changes})


@pytest.fixture
def models(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("edge_host.disk.DISK_RESERVE", 0)
    (root / "models").mkdir(mode=0o755)
    return root / "models"


class Source:
    """A source of the file, which continues where a client has it from.

    `on_get` is called in each answer, once half of the content is sent.
    """

    def __init__(self) -> None:
        self.ranges: list[str] = []
        self.on_get: Callable[[], None] = lambda: None
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(0)

            def do_GET(self) -> None:
                asked = self.headers.get("Range", "")
                source.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
                self._answer(start)
                half = (len(CONTENT) - start) // 2
                self.wfile.write(CONTENT[start:][:half])
                source.on_get()
                self.wfile.write(CONTENT[start:][half:])

            def _answer(self, start: int) -> None:
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(CONTENT) - start))
                end = f"{len(CONTENT) - 1}/{len(CONTENT)}"
                self.send_header("Content-Range", f"bytes {start}-{end}")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/m.gguf"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def session(models: Path, tmp_path: Path, source: Source) -> DownloadSession:
    """A download from the source."""
    return DownloadSession(job(models, files=[{**FILE, "url": source.url}]), tmp_path)


def leave_behind(user: int, models: Path, content: bytes) -> Path:
    """An unfinished download, as an earlier version had `user` write it; returns its folder."""
    bundle = models / ".fetch/m.gguf-1"
    bundle.mkdir(parents=True)
    (bundle / "m.gguf").write_bytes(content)
    for path in (bundle.parent, bundle, bundle / "m.gguf"):
        os.chown(path, user, user)
    return bundle


def test_nobody_but_root_writes_to_the_models(
    session: DownloadSession, models: Path, source: Source
) -> None:
    """While a file arrives, and after."""
    unfinished = models / ".fetch/m.gguf-1/m.gguf"
    failed: list[bool] = []

    def attack() -> None:
        for user in USER_IDS:
            for command in (
                f"echo x >> {unfinished}",
                f"rm -f {unfinished}",
                f"ln -s /etc {unfinished.parent}/link",
                f"mv {unfinished.parent} {models}/.fetch/x",
                f"touch {models}/.fetch/new",
                f"touch {models}/new",
            ):
                failed.append(run_as(user, "sh", "-c", command).returncode != 0)

    source.on_get = attack
    run_job(session)
    assert failed == [True] * 24
    weights = models / "m.gguf"
    assert state_of(weights) == (0, 0, stat.S_IFREG | 0o644, CONTENT)
    assert can_read(ENGINE_UID, weights)
    for user in USER_IDS:
        assert run_as(user, "sh", "-c", f"echo x >> {weights}").returncode != 0
        # Who can open a file can lock it; the record's lock is root's.
        assert run_as(user, "flock", "-n", f"{models}/.verified.json.lock", "true").returncode != 0
    assert read_models(models)["m.gguf"]["recorded_sha256"] == SHA256
    assert read_unfinished(models) == {}
    assert source.ranges == [""]
    assert sorted(each.name for each in models.iterdir()) == [
        *(".fetch", ".verified.json", ".verified.json.lock", "m.gguf")
    ]


def test_a_download_of_this_version_continues(
    session: DownloadSession, models: Path, source: Source
) -> None:
    leave_behind(0, models, CONTENT[:7])
    assert read_unfinished(models)["m.gguf-1"] > 0
    run_job(session)
    assert source.ranges == ["bytes=7-"]
    assert state_of(models / "m.gguf") == (0, 0, stat.S_IFREG | 0o644, CONTENT)
    assert update_store(str(models), files=[ENTRY])["hashed"] == []


@pytest.mark.parametrize("user", [DOWNLOAD_UID, API_UID])
def test_a_download_that_another_user_wrote_begins_anew(
    session: DownloadSession, models: Path, source: Source, user: int
) -> None:
    """Even one that is whole: a process of that user may still have the file open."""
    bundle = leave_behind(user, models, CONTENT)
    with (bundle / "m.gguf").open("r+b") as still_open:
        run_job(session)
        still_open.write(b"changed")
    assert source.ranges == [""]
    assert state_of(models / "m.gguf") == (0, 0, stat.S_IFREG | 0o644, CONTENT)
    assert state_of(models / ".fetch")[:3] == (0, 0, stat.S_IFDIR | 0o755)


@pytest.mark.parametrize("user", [DOWNLOAD_UID, API_UID])
@pytest.mark.parametrize("link", [".fetch/m.gguf-1/m.gguf", ".fetch/m.gguf-1", ".fetch"])
def test_links_of_another_user_are_not_followed(
    session: DownloadSession, models: Path, etc: Path, link: str, user: int
) -> None:
    """`.fetch/BUNDLE -> /etc` gave /etc to the downloader."""
    bundle = leave_behind(user, models, CONTENT)
    path = models / link
    if path == bundle.parent:
        bundle.parent.rename(models / "elsewhere")
        path.symlink_to(etc)
        os.lchown(path, user, user)
    else:
        target = etc / "shadow" if path.suffix else etc
        done = run_as(user, "sh", "-c", f"rm -r {path} && ln -s {target} {path}")
        assert done.returncode == 0, done.stderr
    before = states(etc, etc / "shadow")
    run_job(session)
    assert states(etc, etc / "shadow") == before
    assert sorted(each.name for each in etc.iterdir()) == ["shadow"]
    assert state_of(models / "m.gguf") == (0, 0, stat.S_IFREG | 0o644, CONTENT)


def test_a_file_of_another_user_in_a_folder_of_roots(
    session: DownloadSession, models: Path
) -> None:
    path = leave_behind(0, models, CONTENT[:7]) / "m.gguf"
    os.chown(path, DOWNLOAD_UID, DOWNLOAD_UID)
    with pytest.raises(DownloadError) as caught:
        run_job(session)
    assert str(caught.value) == (
        f"{path} is invalid: it is no regular file of this user with one name. Remove it, and run"
        " site.yml again"
    )
    assert state_of(path)[3] == CONTENT[:7]


def test_folders_become_readable_for_who_serves_them(
    session: DownloadSession, models: Path, source: Source
) -> None:
    """An uninstallation closes them."""
    bundle = leave_behind(0, models, CONTENT[:7])
    for path in (bundle, bundle.parent):
        path.chmod(0o700)
    readable: list[bool] = []
    source.on_get = lambda: readable.append(can_read(DOWNLOAD_UID, bundle / "m.gguf"))
    run_job(session)
    assert readable == [True]


def test_the_downloader_runs_as_its_user(session: DownloadSession) -> None:
    process = session.start_downloader("sh", "-c", "id -u; id -g; id -G", stdout=-1)
    out, _ = process.communicate()
    assert out.split() == [str(DOWNLOAD_UID).encode()] * 3


def test_the_store_of_ollama_is_the_engines_to_read(models: Path) -> None:
    (models / "m.gguf").write_bytes(CONTENT)
    entry = {**ENTRY, "name": "m", "family": "llama", "quantization": "Q4_1", "parameters": "1M"}
    update_store(str(models), files=[ENTRY], ollama=[entry])
    paths = [path for path in (models / "ollama").rglob("*") if path.is_file()]
    assert len(paths) == 3  # weights, config, manifest
    for path in paths:
        assert can_read(ENGINE_UID, path)
        assert state_of(path)[:2] == (0, 0)
        assert run_as(ENGINE_UID, "sh", "-c", f"echo x >> {path}").returncode != 0


# --- weights -------------------------------------------------------------------------------------


def test_weights_of_a_person_are_hashed_again_and_become_roots(models: Path) -> None:
    """Their owner could change them, and set the time of the change that is recorded."""
    path = models / "m.gguf"
    path.write_bytes(CONTENT)
    assert update_store(str(models), files=[ENTRY])["hashed"] == ["m.gguf"]
    assert update_store(str(models), files=[ENTRY])["hashed"] == []
    os.chown(path, 1000, 1000)
    assert read_models(models)["m.gguf"]["recorded_sha256"] is None
    check = update_store(str(models), files=[ENTRY], check=True)
    assert f"set owner 0 of {path} (was 1000)" in check["actions"]
    assert state_of(path)[0] == 1000
    result = update_store(str(models), files=[ENTRY])
    assert result["hashed"] == ["m.gguf"]
    assert f"set owner 0 of {path} (was 1000)" in result["actions"]
    assert state_of(path) == (0, 0, stat.S_IFREG | 0o644, CONTENT)
    assert update_store(str(models), files=[ENTRY])["changed"] is False


def test_weights_that_a_person_still_writes_are_refused(models: Path) -> None:
    path = models / "m.gguf"
    path.write_bytes(CONTENT)
    os.chown(path, 1000, 1000)
    with path.open("r+b"), pytest.raises(StoreError, match=r"m\.gguf is in use: a process still"):
        update_store(str(models), files=[ENTRY])


def test_a_folder_of_weights_becomes_roots(models: Path) -> None:
    os.chown(models, 1000, 1000)
    (models / "m.gguf").write_bytes(CONTENT)
    actions = update_store(str(models), files=[ENTRY])["actions"]
    assert f"set owner 0 of folder {models} (was 1000)" in actions
    assert state_of(models)[:2] == (0, 0)
