"""Each job on a host has a user of its own: who can read what, and what a user cannot make root do.

Run as root, these tests are the attacks themselves, in folders of their own: the files that are
aimed at must be as they were.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from edge_host.constants import (
    API_UID,
    CLIENT_KEYS,
    DOWNLOAD_UID,
    ENGINE_KEY,
    ENGINE_UID,
    PLAIN_KEYS,
    REGISTRY_UID,
    USER_IDS,
)
from edge_host.folders import ensure_folders, ensure_registry_folders, find_wrong_access
from edge_host.foreign import UnsafeFileError
from edge_host.release.chat_api import ChatApi
from edge_host.release.client_keys import own_key_headers, remove_plain_keys
from edge_host.release.engine_key import ensure_engine_key, hash_engine_key
from edge_host.release.lock import lock_host
from edge_host.release.store import Release
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
from tests.unit.edge_host.test_modules import ansible

__all__ = ["etc", "root", "shared"]

pytestmark = needs_root

TLS_FOLDER = "tls-0123456789abcdef"


@pytest.fixture
def former(shared: Path) -> Path:
    """A host of an earlier version, where API_UID has the keys, the sockets and the downloads."""
    folder = shared / "edge-llm"
    for name, mode in (("", 0o755), ("releases", 0o700), ("engine", 0o755), ("models", 0o755)):
        (folder / name).mkdir(mode=mode)
    for name, mode in (("run", 0o700), ("secrets", 0o700), (f"secrets/{TLS_FOLDER}", 0o700)):
        (folder / name).mkdir(mode=mode)
        os.chown(folder / name, API_UID, API_UID)
    keys = (ENGINE_KEY, CLIENT_KEYS, PLAIN_KEYS, f"{TLS_FOLDER}/key.pem")
    for name in keys:
        path = folder / "secrets" / name
        path.write_text(f"{name}\n")
        path.chmod(0o600)
        os.chown(path, API_UID, API_UID)
    (folder / "secrets/tls").symlink_to(TLS_FOLDER)
    return folder


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", USER_IDS)
def test_who_reads_the_keys(root: Path, user: int) -> None:
    secrets = root / "secrets"
    api = user == API_UID
    for name in (CLIENT_KEYS, ENGINE_KEY, "tls/key.pem", "tls/certificate.pem"):
        assert can_read(user, secrets / name) is api
    assert (run_as(user, "ls", str(secrets)).returncode == 0) is api
    # Nobody can put anything in the place of a key.
    for command in (["touch", f"{secrets}/new"], ["rm", "-f", f"{secrets}/{ENGINE_KEY}"]):
        assert run_as(user, *command).returncode != 0
    assert run_as(user, "touch", f"{root}/new").returncode != 0
    assert (secrets / ENGINE_KEY).exists()


def test_the_engine_reads_its_key_alone(root: Path, shared: Path) -> None:
    """Where the file is mounted by itself, as in the engine's container; for releases of earlier
    versions it is so for API_UID."""
    mounted = shared / "engine_key"
    mounted.hardlink_to(root / "secrets" / ENGINE_KEY)
    readers = {user: can_read(user, mounted) for user in USER_IDS}
    assert readers == {API_UID: True, ENGINE_UID: True, DOWNLOAD_UID: False, REGISTRY_UID: False}
    mounted.unlink()


def test_an_earlier_version_is_changed_while_it_serves(former: Path) -> None:
    secrets = former / "secrets"
    running = (secrets / ENGINE_KEY).open()
    before = (secrets / ENGINE_KEY).stat().st_ino
    assert str(secrets) in ensure_folders(former, check=True)
    assert state_of(secrets)[:2] == (API_UID, API_UID), "a check run changes nothing"
    changed = ensure_folders(former)
    assert str(secrets) in changed
    assert f"{secrets}/{TLS_FOLDER}/key.pem" in changed
    # The chat API and the engine that run are API_UID's, until they are replaced.
    for name in (ENGINE_KEY, CLIENT_KEYS, PLAIN_KEYS, "tls/key.pem"):
        assert can_read(API_UID, secrets / name)
        assert not can_read(DOWNLOAD_UID, secrets / name)
    assert (secrets / ENGINE_KEY).stat().st_ino == before, "a container has this very file"
    running.close()
    assert state_of(secrets / ENGINE_KEY)[:3] == (ENGINE_UID, API_UID, stat.S_IFREG | 0o440)
    assert state_of(secrets)[:3] == (0, API_UID, stat.S_IFDIR | 0o750)
    assert state_of(former / "run")[:3] == (API_UID, API_UID, stat.S_IFDIR | 0o700)
    key = (secrets / ENGINE_KEY).read_text()
    ensure_engine_key(former)
    assert (secrets / ENGINE_KEY).read_text() == key
    assert ensure_folders(former) == []


def test_unfinished_downloads_of_an_earlier_version_are_removed(former: Path, etc: Path) -> None:
    ensure_folders(former)
    unfinished = former / "models/.fetch"
    (unfinished / "bundle").mkdir(parents=True)
    (unfinished / "bundle/link").symlink_to(etc)
    (former / "models/m.gguf").write_bytes(b"weights")
    assert ensure_folders(former) == [], "root's, of this version"
    os.chown(unfinished, API_UID, API_UID)
    before = states(etc, etc / "shadow")
    assert ensure_folders(former, check=True) == [str(unfinished)]
    assert unfinished.exists(), "a check run changes nothing"
    assert ensure_folders(former) == [str(unfinished)]
    assert not unfinished.exists()
    assert ensure_folders(former) == []
    # A link is left for the audit to report.
    unfinished.symlink_to(etc)
    os.lchown(unfinished, API_UID, API_UID)
    assert ensure_folders(former) == []
    assert states(etc, etc / "shadow") == before
    assert {path.name for path in (former / "models").iterdir()} == {"m.gguf", ".fetch"}


def test_the_modes_of_the_files_of_a_release(root: Path, etc: Path) -> None:
    release = root / "releases/0001"
    release.mkdir()
    files = {release / "docker-compose.yml": 0o644, release / ".env": 0o600}
    files[root / "engine/engine.env"] = 0o644
    for path, mode in files.items():
        path.write_text("text\n")
        path.chmod(mode)
    (root / "current").symlink_to("releases/0001")
    assert find_wrong_access(root) == []
    os.chown(release / ".env", API_UID, API_UID)
    (root / "engine/engine.env").chmod(0o666)
    (root / "releases").chmod(0o755)
    wrong = sorted(map(str, (release / ".env", root / "engine/engine.env", root / "releases")))
    assert find_wrong_access(root) == wrong
    assert ensure_folders(root) == wrong
    assert find_wrong_access(root) == []
    assert {path: state_of(path)[:3] for path in files} == {
        path: (0, 0, stat.S_IFREG | mode) for path, mode in files.items()
    }
    (release / ".env").unlink()
    (release / ".env").symlink_to(etc / "shadow")
    assert "is a symbolic link" in " ".join(find_wrong_access(root))


def test_a_check_run_on_a_new_host_writes_nothing(shared: Path) -> None:
    root = shared / "edge-llm"
    names = ("", "engine", "releases", "run", "secrets")
    paths = [str(root / name) for name in names]
    assert ensure_folders(root, check=True) == paths
    assert list(shared.iterdir()) == []
    assert ensure_folders(root) == paths
    assert ensure_folders(root, check=True) == []


@pytest.mark.parametrize("name", [ENGINE_KEY, CLIENT_KEYS, f"{TLS_FOLDER}/key.pem"])
@pytest.mark.parametrize("target", ["shadow", "nothing"])
def test_a_key_that_is_a_link_is_refused(former: Path, etc: Path, name: str, target: str) -> None:
    path = former / "secrets" / name
    done = run_as(API_UID, "ln", "-sf", str(etc / target), str(path))
    assert done.returncode == 0, done.stderr
    before = states(etc, etc / "shadow")
    with pytest.raises(UnsafeFileError) as caught:
        ensure_folders(former)
    assert str(caught.value) == (
        f"{path} is invalid: it is a symbolic link, not a regular file. Find out who made it,"
        " remove it, and run this again"
    )
    if name == ENGINE_KEY:
        for use in (ensure_engine_key, hash_engine_key):
            with pytest.raises(UnsafeFileError, match="it is a symbolic link"):
                use(former)
    assert states(etc, etc / "shadow") == before
    assert [each.name for each in etc.iterdir()] == ["shadow"]
    assert path.is_symlink()


@pytest.mark.parametrize("name", ["secrets", "run", "releases", "engine"])
def test_a_folder_that_is_a_link_is_refused(former: Path, etc: Path, name: str) -> None:
    shutil.rmtree(former / name)
    (former / name).symlink_to(etc)
    before = states(etc, etc / "shadow")
    with pytest.raises(UnsafeFileError, match=f"{name} is invalid: it is a symbolic link, not a f"):
        ensure_folders(former)
    assert states(etc, etc / "shadow") == before


def test_the_link_of_the_certificates_leads_to_them(former: Path, etc: Path) -> None:
    run_as(API_UID, "ln", "-sfn", str(etc), f"{former}/secrets/tls")
    before = states(etc, etc / "shadow")
    with pytest.raises(UnsafeFileError, match="secrets/tls is invalid: it is a symbolic link to"):
        ensure_folders(former)
    assert states(etc, etc / "shadow") == before


def test_a_key_with_a_second_name_is_refused(former: Path, shared: Path) -> None:
    path = former / "secrets" / ENGINE_KEY
    (shared / "other").hardlink_to(path)
    with pytest.raises(UnsafeFileError, match="engine_key is invalid: the file has 2 names"):
        ensure_folders(former)
    assert state_of(path)[:2] == (API_UID, API_UID)


def test_the_module_refuses_with_the_message(former: Path, etc: Path) -> None:
    (former / "secrets" / ENGINE_KEY).unlink()
    (former / "secrets" / ENGINE_KEY).symlink_to(etc / "shadow")
    result = ansible("host_folders", {"root": str(former)})
    assert result["failed"] is True
    assert result["msg"] == (
        f"{former}/secrets/engine_key is invalid: it is a symbolic link, not a regular file. Find"
        " out who made it, remove it, and run this again."
    )
    (former / "secrets" / ENGINE_KEY).unlink()
    paths = ansible("host_folders", {"root": str(former)})["paths"]
    assert f"{former}/secrets/{TLS_FOLDER}/key.pem" in paths
    again = ansible("host_folders", {"root": str(former)})
    assert (again["changed"], again["paths"]) == (False, [])


def test_what_the_chat_api_is_sent_is_no_file_of_roots(former: Path, etc: Path) -> None:
    """The first line of a file of keys is sent to the chat API: not that of shadow."""
    run_as(API_UID, "ln", "-sf", str(etc / "shadow"), f"{former}/secrets/{PLAIN_KEYS}")
    with pytest.raises(UnsafeFileError, match="api_keys is invalid: it is a symbolic link"):
        own_key_headers(former)
    remove_plain_keys(former)
    assert (etc / "shadow").exists()
    assert not os.path.lexists(former / "secrets" / PLAIN_KEYS)


def test_a_socket_that_is_a_link_is_not_asked(root: Path, shared: Path) -> None:
    release = Release(shared, {"slots": {"engine": "a", "api": "a"}})
    done = run_as(API_UID, "ln", "-s", "/var/run/docker.sock", f"{root}/run/api-a.sock")
    assert done.returncode == 0
    assert ChatApi(root).read_status(release) is None


def test_nobody_else_can_hold_the_lock(root: Path) -> None:
    (root / ".lock").touch(mode=0o644)
    with lock_host(root, "alice@laptop"):
        pass
    for user in USER_IDS:
        done = run_as(user, "flock", "--nonblock", f"{root}/.lock", "true")
        assert done.returncode != 0
        assert "Permission denied" in done.stderr


# --- the registry --------------------------------------------------------------------------------


def test_the_images_of_an_earlier_registry_get_its_user(shared: Path, etc: Path) -> None:
    root = shared / "registry"
    blob = root / "images/docker/blobs/data"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"blob")
    for path in (root / "images", *(root / "images").rglob("*")):
        os.chown(path, API_UID, API_UID)
    assert str(root / "images") in ensure_registry_folders(root, check=True)
    assert state_of(blob)[0] == API_UID
    assert str(blob) in ensure_registry_folders(root)
    assert {state_of(path)[0] for path in (root / "images").rglob("*")} == {REGISTRY_UID}
    assert state_of(root)[:2] == (0, 0)
    assert can_read(API_UID, blob), "the registry that runs goes on until it is replaced"
    assert ensure_registry_folders(root) == []
    # A link in it changes nothing of anybody's.
    os.chown(root / "images", API_UID, API_UID)
    assert run_as(API_UID, "ln", "-s", str(etc), f"{root}/images/link").returncode == 0
    before = states(etc, etc / "shadow")
    with pytest.raises(UnsafeFileError, match="link is invalid: it is a symbolic link, not a"):
        ensure_registry_folders(root)
    assert states(etc, etc / "shadow") == before
