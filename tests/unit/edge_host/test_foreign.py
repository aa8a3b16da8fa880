"""Root in folders that another user can write: what that user may put there, and what root does."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_host.constants import API_UID, DOWNLOAD_UID
from edge_host.foreign import (
    ForeignFolder,
    UnsafeFileError,
    check_not_written,
    give,
    open_file,
    open_socket,
    read_bytes,
)
from tests.unit.edge_host.as_user import needs_root, run_as, shared, state_of

__all__ = ["shared"]

USER = DOWNLOAD_UID if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[ForeignFolder]:
    tmp_path.chmod(0o755)
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", USER, USER)
    with ForeignFolder(tmp_path / "theirs", {USER}) as folder:
        yield folder


def put(folder: ForeignFolder, name: str, content: bytes = b"content") -> Path:
    """A file of the other user."""
    path = folder.path / name
    path.write_bytes(content)
    os.chown(path, USER, USER)
    return path


def outside(tmp_path: Path) -> Path:
    """A file of root's, at which the other user aims."""
    path = tmp_path / "shadow"
    path.write_text("root:secret")
    path.chmod(0o640)
    return path


# --- what is opened ------------------------------------------------------------------------------


def make_link(path: Path) -> None:
    path.symlink_to("../shadow")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("../nothing")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_link, "a symbolic link"),
        (make_dangling_link, "a symbolic link"),
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a FIFO"),
        (make_socket, "a socket"),
    ],
)
def test_only_a_regular_file_is_opened(
    opened: ForeignFolder, tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    """Without a wait either: nobody writes to the FIFO."""
    aim = outside(tmp_path)
    before = state_of(aim)
    path = opened.path / "m.gguf"
    make(path)
    message = f"{path} is invalid: it is {kind}, not a regular file. Find out who made it, remove"
    for use in (
        lambda: open_file(path, {USER}),
        lambda: open_file(path, {USER}, opened.descriptor),
        lambda: read_bytes(path, {USER}, 100),
    ):
        with pytest.raises(UnsafeFileError, match="is invalid") as caught:
            use()
        assert str(caught.value).startswith(message)
    assert state_of(aim) == before
    assert os.path.lexists(path), "it stays where it was"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["shadow", "theirs"]


def test_a_missing_file(opened: ForeignFolder) -> None:
    with pytest.raises(FileNotFoundError):
        open_file(opened.path / "m.gguf", {USER}, opened.descriptor)


@needs_root
def test_a_file_of_a_third_user(opened: ForeignFolder) -> None:
    path = put(opened, "m.gguf")
    os.chown(path, 12345, 12345)
    with pytest.raises(UnsafeFileError, match=r"m\.gguf is invalid: it belongs to the user 12345"):
        open_file(path, {USER})


@needs_root
def test_a_file_with_a_second_name(opened: ForeignFolder, tmp_path: Path) -> None:
    path = put(opened, "m.gguf")
    (tmp_path / "other").hardlink_to(path)
    with pytest.raises(UnsafeFileError, match=r"m\.gguf is invalid: the file has 2 names"):
        open_file(path, {USER})
    assert path.stat().st_uid == USER


def test_a_file_that_is_too_large(opened: ForeignFolder) -> None:
    path = put(opened, "key", b"12345")
    assert read_bytes(path, {USER}, 5) == b"12345"
    with pytest.raises(UnsafeFileError, match=r"key is invalid: the file has more than 4 bytes"):
        read_bytes(path, {USER}, 4)


@pytest.mark.parametrize("target", ["..", "../shadow", "nothing"])
def test_a_folder_that_is_a_link(opened: ForeignFolder, tmp_path: Path, target: str) -> None:
    aims = outside(tmp_path), tmp_path
    before = [state_of(each) for each in aims]
    (opened.path / "bundle").symlink_to(target)
    for dir_fd in (None, opened.descriptor):
        with pytest.raises(UnsafeFileError, match="bundle is invalid: it is a symbolic link"):
            ForeignFolder(opened.path / "bundle", {USER}, dir_fd)
    assert [state_of(each) for each in aims] == before


@needs_root
def test_a_folder_of_a_third_user(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(UnsafeFileError, match="theirs is invalid: it belongs to the user 12345"):
        ForeignFolder(tmp_path / "theirs", {API_UID})
    assert (tmp_path / "theirs").stat().st_uid == 12345


def test_only_the_socket_of_the_chat_api_is_connected_to(tmp_path: Path) -> None:
    path, link = tmp_path / "api-a.sock", tmp_path / "link"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        server.listen()
        descriptor = open_socket(path, {os.geteuid()})
        client.connect(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
    link.symlink_to(path)
    with pytest.raises(UnsafeFileError, match="it is a symbolic link, not a socket"):
        open_socket(link, {os.geteuid()})


# --- what changes its owner ----------------------------------------------------------------------


@needs_root
def test_nothing_of_a_former_user_is_left_behind(opened: ForeignFolder, tmp_path: Path) -> None:
    (opened.path / "bundle").mkdir(mode=0o750)
    for path in (put(opened, "m.json"), put(opened, "bundle/m.gguf"), opened.path / "bundle"):
        os.chown(path, API_UID, API_UID)
    kept = put(opened, "bundle/kept")
    # Files of root's stay so: weights, and links that root has made.
    weights = outside(tmp_path)
    (opened.path / "weights").hardlink_to(weights)
    (opened.path / "bundle/link").symlink_to(weights)
    before = state_of(weights)
    given = opened.hand_over(API_UID, DOWNLOAD_UID)
    assert given == [str(opened.path / name) for name in ("bundle", "bundle/m.gguf", "m.json")]
    for name in ("m.json", "bundle/m.gguf", "bundle", "bundle/kept"):
        assert state_of(opened.path / name)[:2] == (DOWNLOAD_UID, DOWNLOAD_UID)
    assert stat.S_IMODE((opened.path / "bundle").stat().st_mode) == 0o750
    assert state_of(weights) == before
    assert kept.exists()
    assert opened.hand_over(API_UID, DOWNLOAD_UID) == []


@needs_root
def test_links_of_a_former_user_are_refused(opened: ForeignFolder, tmp_path: Path) -> None:
    aim = outside(tmp_path)
    before = state_of(aim)
    (opened.path / "m.gguf").symlink_to(aim)
    os.lchown(opened.path / "m.gguf", API_UID, API_UID)
    with pytest.raises(UnsafeFileError, match="it is a symbolic link, not a regular file"):
        opened.hand_over(API_UID, DOWNLOAD_UID)
    assert state_of(aim) == before


@needs_root
def test_a_reader_before_and_after_can_read_all_the_time(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each step of the change of owner, group and mode, as the containers that run."""
    path = shared / "key"
    path.write_text("key")
    path.chmod(0o600)
    os.chown(path, API_UID, API_UID)
    seen = []

    def look() -> None:
        seen.append(run_as(API_UID, "cat", str(path)).stdout)
        assert run_as(DOWNLOAD_UID, "cat", str(path)).stdout == ""

    for name in ("fchmod", "fchown"):
        real = getattr(os, name)

        def watched(*given: int, real: Callable[..., None] = real) -> None:
            real(*given)
            look()

        monkeypatch.setattr(os, name, watched)
    with path.open() as file:
        assert give(file.fileno(), 0, API_UID, 0o640) is True
        assert seen == ["key"] * len(seen)
        assert len(seen) >= 3
        assert give(file.fileno(), 0, API_UID, 0o640) is False
    assert state_of(path)[:3] == (0, API_UID, stat.S_IFREG | 0o640)


# --- who writes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["open", "mapped"])
def test_a_file_that_is_still_being_written(tmp_path: Path, way: str) -> None:
    """By a process that does not end with the download."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"weights")
    code = {
        "open": "import sys; f = open(sys.argv[1], 'r+b'); print(); sys.stdin.read()",
        "mapped": (
            "import mmap, os, sys; d = os.open(sys.argv[1], os.O_RDWR); m = mmap.mmap(d, 0);"
            " os.close(d); print(); sys.stdin.read()"
        ),
    }[way]
    with subprocess.Popen(
        ["python3", "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with path.open("rb") as file, pytest.raises(UnsafeFileError) as caught:
            check_not_written(file.fileno(), path)
        writer.communicate()
    assert str(caught.value).startswith(f"{path} is in use: a process still has the file open for")
    with path.open("rb") as file:
        check_not_written(file.fileno(), path)


def test_a_file_system_that_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    path = tmp_path / "m.gguf"
    path.touch()
    monkeypatch.setattr("fcntl.fcntl", refuse)
    with path.open("rb") as file, pytest.raises(UnsafeFileError, match="does not tell who writes"):
        check_not_written(file.fileno(), path)
