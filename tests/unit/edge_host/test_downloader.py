"""The user that downloads: what it can write, and what it cannot make root do with it.

Run as root, these tests are the attacks themselves, in folders of their own.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edge_host.constants import (
    API_UID,
    DOWNLOAD_UID,
    ENGINE_UID,
    REGISTRY_UID,
    USER_IDS,
)
from edge_host.download import swarm
from edge_host.download.installation import install_files
from edge_host.download.job import DownloadJob, parse_job
from edge_host.download.runner import run_job
from edge_host.download.session import DownloadSession
from edge_host.foreign import UnsafeFileError
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
def models(root: Path) -> Path:
    (root / "models").mkdir(mode=0o755)
    return root / "models"


@pytest.fixture
def session(models: Path, tmp_path: Path) -> DownloadSession:
    """A download that has begun."""
    made = DownloadSession(job(models), tmp_path)
    made.staging.prepare()
    return made


def download(session: DownloadSession, content: bytes = CONTENT) -> Path:
    """What curl does, as the user that downloads."""
    path = session.job.bundle_folder / "m.gguf"
    done = run_as(DOWNLOAD_UID, "sh", "-c", f"printf '{content.decode()}' > {path}")
    assert done.returncode == 0, done.stderr
    return path


def test_the_downloader_has_its_folder_alone(session: DownloadSession, models: Path) -> None:
    download(session)
    assert run_as(DOWNLOAD_UID, "touch", f"{models}/new").returncode != 0
    assert run_as(DOWNLOAD_UID, "ls", f"{models}/.received").returncode != 0
    for user in (API_UID, ENGINE_UID, REGISTRY_UID):
        assert run_as(user, "ls", f"{models}/.fetch").returncode != 0
    install_files(session)
    weights = models / "m.gguf"
    assert state_of(weights) == (0, 0, stat.S_IFREG | 0o644, CONTENT)
    assert can_read(ENGINE_UID, weights)
    for user in USER_IDS:
        assert run_as(user, "sh", "-c", f"echo x >> {weights}").returncode != 0
        # Who can open a file can lock it; the record's lock is root's.
        assert run_as(user, "flock", "-n", f"{models}/.verified.json.lock", "true").returncode != 0
    assert read_models(models)["m.gguf"]["recorded_sha256"] == SHA256
    assert read_unfinished(models) == {}
    assert sorted(each.name for each in models.iterdir()) == [
        *(".fetch", ".received", ".verified.json", ".verified.json.lock", "m.gguf")
    ]


@pytest.mark.parametrize("user", [DOWNLOAD_UID, API_UID])
@pytest.mark.parametrize("link", [".fetch/m.gguf-1", ".fetch"])
def test_a_folder_of_downloads_that_is_a_link(
    models: Path, etc: Path, tmp_path: Path, link: str, user: int
) -> None:
    """`.fetch/BUNDLE -> /etc` gave /etc to the downloader."""
    (models / ".fetch").mkdir()
    os.chown(models / ".fetch", user, user)
    if link == ".fetch":
        (models / ".fetch").rmdir()
        (models / ".fetch").symlink_to(etc)
    else:
        assert run_as(user, "ln", "-s", str(etc), f"{models}/{link}").returncode == 0
    before = states(etc, etc / "shadow")
    with pytest.raises(UnsafeFileError) as caught:
        DownloadSession(job(models), tmp_path).staging.prepare()
    assert str(caught.value) == (
        f"{models}/{link} is invalid: it is a symbolic link, not a folder. Find out who made it,"
        " remove it, and run this again"
    )
    assert states(etc, etc / "shadow") == before
    assert read_unfinished(models) == {}


@pytest.mark.parametrize("target", ["shadow", "nothing"])
def test_a_downloaded_file_that_is_a_link(
    session: DownloadSession, models: Path, etc: Path, target: str
) -> None:
    path = session.job.bundle_folder / "m.gguf"
    assert run_as(DOWNLOAD_UID, "ln", "-s", str(etc / target), str(path)).returncode == 0
    before = states(etc, etc / "shadow")
    with pytest.raises(UnsafeFileError, match="it is a symbolic link, not a regular file"):
        install_files(session)
    assert states(etc, etc / "shadow") == before
    assert not os.path.lexists(models / "m.gguf")
    assert path.is_symlink()


def test_a_dangling_link_among_weights(
    models: Path, etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy for the other hosts made a file of the downloader's in a folder of root's."""
    (models / "m.gguf").write_bytes(CONTENT)
    update_store(str(models), files=[ENTRY])
    session = DownloadSession(job(models, mode="peers"), tmp_path)
    session.staging.prepare()
    link = session.job.bundle_folder / "m.gguf"
    assert run_as(DOWNLOAD_UID, "ln", "-s", f"{etc}/made", str(link)).returncode == 0
    before = states(etc, etc / "shadow")
    swarm._copy_installed_files(session)
    assert states(etc, etc / "shadow") == before
    assert not (etc / "made").exists()
    # And where it comes between the look and the copy.
    link.unlink()
    monkeypatch.setattr(session.staging.bundle, "exists", lambda _: False)
    assert run_as(DOWNLOAD_UID, "ln", "-s", f"{etc}/made", str(link)).returncode == 0
    with pytest.raises(FileExistsError):
        swarm._copy_installed_files(session)
    assert not (etc / "made").exists()


def test_a_copy_of_installed_weights_is_the_downloaders(models: Path, tmp_path: Path) -> None:
    (models / "m.gguf").write_bytes(CONTENT)
    update_store(str(models), files=[ENTRY])
    session = DownloadSession(job(models, mode="peers"), tmp_path)
    session.staging.prepare()
    swarm._copy_installed_files(session)
    found = state_of(session.job.bundle_folder / "m.gguf")
    assert found == (DOWNLOAD_UID, DOWNLOAD_UID, stat.S_IFREG | 0o644, CONTENT)
    assert state_of(models / "m.gguf")[:2] == (0, 0)


def test_a_torrent_that_is_a_link_is_not_sent(session: DownloadSession, etc: Path) -> None:
    """Root's answer to the control machine had the content of what it led to."""
    (session.job.folder / "m.gguf").write_bytes(CONTENT)
    update_store(str(session.job.folder), files=[ENTRY])
    torrent = session.job.torrent_file
    assert run_as(DOWNLOAD_UID, "ln", "-s", f"{etc}/shadow", str(torrent)).returncode == 0
    sharing = DownloadSession(session.job._replace(share=True), etc)
    sharing.staging.prepare()
    with pytest.raises(UnsafeFileError, match=r"m\.gguf-1\.torrent is invalid: it is a symbolic"):
        install_files(sharing)


def test_weights_that_the_downloader_still_writes_are_not_installed(
    session: DownloadSession, models: Path
) -> None:
    """It could change them after the hash; once it is gone, nothing is downloaded again."""
    with download(session).open("r+b"):
        with pytest.raises(UnsafeFileError, match=r"m\.gguf is in use: a process still has the"):
            install_files(session)
        assert not (models / "m.gguf").exists()
    assert session.staging.is_received(session.job.files[0])
    assert read_unfinished(models)["m.gguf-1"] > 0
    install_files(session)
    assert (models / "m.gguf").read_bytes() == CONTENT


def test_a_download_of_an_earlier_version_continues(models: Path, tmp_path: Path) -> None:
    bundle = models / ".fetch/m.gguf-1"
    bundle.mkdir(parents=True)
    (bundle / "m.gguf").write_bytes(CONTENT[:5])
    (models / ".fetch/m.gguf-1.aria2").touch()
    for path in (bundle.parent, *bundle.parent.rglob("*")):
        os.chown(path, API_UID, API_UID)
    session = DownloadSession(job(models), tmp_path)
    session.staging.prepare()
    assert {state_of(path)[0] for path in bundle.parent.rglob("*")} == {DOWNLOAD_UID}
    assert state_of(bundle.parent)[:3] == (DOWNLOAD_UID, DOWNLOAD_UID, stat.S_IFDIR | 0o700)
    assert session.staging.bundle.size("m.gguf") == 5
    rest = CONTENT[5:].decode()
    done = run_as(DOWNLOAD_UID, "sh", "-c", f"printf '{rest}' >> {bundle}/m.gguf")
    assert done.returncode == 0, done.stderr
    install_files(session)
    assert (models / "m.gguf").read_bytes() == CONTENT


def test_the_downloader_runs_as_its_user(session: DownloadSession) -> None:
    process = session.start_downloader("sh", "-c", "id -u; id -g; id -G", stdout=-1)
    out, _ = process.communicate()
    assert out.split() == [str(DOWNLOAD_UID).encode()] * 3


class _Source(BaseHTTPRequestHandler):
    """A source of the file, which continues where a client has it from."""

    ranges: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if asked:
            end = f"{len(CONTENT) - 1}/{len(CONTENT)}"
            self.send_header("Content-Range", f"bytes {start}-{end}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(CONTENT[start:])

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("there", [0, 7], ids=["new", "of an earlier version"])
def test_a_whole_download(models: Path, tmp_path: Path, there: int) -> None:
    """curl as its user, from the first byte, or from where the former user's one ended."""
    bundle = models / ".fetch/m.gguf-1"
    if there:
        bundle.mkdir(parents=True)
        (bundle / "m.gguf").write_bytes(CONTENT[:there])
        for path in (bundle.parent, bundle, bundle / "m.gguf"):
            os.chown(path, API_UID, API_UID)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Source) as source:
        threading.Thread(target=source.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{source.server_address[1]}/m.gguf"
        session = DownloadSession(job(models, files=[{**FILE, "url": url}]), tmp_path)
        run_job(session)
        source.shutdown()
    assert _Source.ranges[-1] == (f"bytes={there}-" if there else "")
    assert state_of(models / "m.gguf") == (0, 0, stat.S_IFREG | 0o644, CONTENT)
    assert not bundle.exists()
    assert update_store(str(models), files=[ENTRY])["hashed"] == []


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
