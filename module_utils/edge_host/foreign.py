"""How root works in folders that another user can write.

That user can put a link, a device or another file in place of any name, at any moment. So such a
folder is opened once, and never through a link; names in it are used relative to its descriptor;
and a file is checked, given to somebody, read and hashed by its own descriptor. What is not as it
must be is refused, and left as it is.

On the control machine everything belongs to the user who runs the project, and nothing is given to
anybody: only root can do that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any, FrozenSet, Iterable, List, Optional

_ADVICE = "Find out who made it, remove it, and run this again"
# O_NONBLOCK: a FIFO would have the open wait for a writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISFIFO, "a FIFO"),
)


class UnsafeFileError(OSError):
    """A file or folder is not what root may use; the text is a message without the last stop."""


def open_file(path: Path, owners: Iterable[int], dir_fd: Optional[int] = None) -> int:
    """Open a regular file for reading; returns its descriptor.

    `owners` are the users that it may belong to, beside the caller. Raises FileNotFoundError, and
    UnsafeFileError for a link, another kind of file, another owner, or a file with a second name:
    that one could be in a folder where the file means something else.
    """
    descriptor = _open(path, _FILE_FLAGS, dir_fd)
    try:
        status = os.fstat(descriptor)
        _check_kind(path, status, stat.S_ISREG, "a regular file")
        _check_owner(path, status, owners)
        # A file of the caller's own can have further names: hard links to weights.
        if status.st_uid != os.geteuid():
            _check_single(path, status)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_bytes(path: Path, owners: Iterable[int], limit: int) -> bytes:
    """Return the content of a file that `open_file` opens. Raises as that, and for a larger one."""
    with os.fdopen(open_file(path, owners), "rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise UnsafeFileError(f"{path} is invalid: the file has more than {limit} bytes. {_ADVICE}")
    return content


def open_socket(path: Path, owners: Iterable[int]) -> int:
    """Open a Unix socket as a path, not to talk to it yet; returns the descriptor.

    Connecting to `/proc/self/fd/DESCRIPTOR` reaches the very socket that was checked. Raises as
    `open_file`.
    """
    descriptor = _open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, None)
    try:
        status = os.fstat(descriptor)
        _check_kind(path, status, stat.S_ISSOCK, "a socket")
        _check_owner(path, status, owners)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def give(descriptor: int, owner: int, group: int, mode: int) -> bool:
    """Set owner, group and mode of what a descriptor stands for; returns whether any changes.

    Owner and group only as root. A user who may read it before and after may do so all the time,
    so that a program that runs meanwhile notices nothing; nobody else may at any time.
    """
    status = os.fstat(descriptor)
    found = stat.S_IMODE(status.st_mode)
    changed = found != mode
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (owner, group):
        changed = True
        os.fchmod(descriptor, found & (mode | 0o700))
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
        os.fchown(descriptor, owner, -1)
    # The former owner could set another mode until the last step.
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        os.fchmod(descriptor, mode)
    return changed


def check_not_written(descriptor: int, path: Path) -> None:
    """Raise UnsafeFileError where a process has a file open for writing, or mapped.

    The file must be the caller's own by now, so that nobody can open it again: then its content
    stays as it is. `descriptor` is open for reading only.
    """
    try:
        # The kernel grants a read lease only where nobody has the file open for writing.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise UnsafeFileError(
                f"{path} is in use: a process still has the file open for writing. Find the process"
                " (fuser -v), stop it, and run this again"
            ) from None
        raise UnsafeFileError(
            f"{path} does not fit: its file system does not tell who writes to the file"
            f" ({error.strerror}). Use a folder on a local file system, such as ext4"
        ) from None


class ForeignFolder:
    """A folder that another user may write, open; a context manager that closes it.

    `path` is for messages. `owners` are the users that folder and files may belong to, beside the
    caller.
    """

    def __init__(self, path: Path, owners: Iterable[int], dir_fd: Optional[int] = None) -> None:
        """Open the folder. Raises FileNotFoundError, UnsafeFileError.

        The path up to the last name must lead through folders of root's own, unless `dir_fd` is
        the folder that the last name is in.
        """
        self.path = path
        self.owners: FrozenSet[int] = frozenset(owners)
        self.descriptor = _open(path, _FOLDER_FLAGS, dir_fd)
        try:
            _check_owner(path, os.fstat(self.descriptor), self.owners)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ForeignFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder; repeated calls are harmless."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def hand_over(self, former: int, user: int) -> List[str]:
        """Give to `user` all that belongs to `former` in it, at any depth; returns the paths.

        What belongs to others stays theirs. Raises UnsafeFileError where `former` has a link or
        another thing that is neither file nor folder, or a file with a second name.
        """
        given: List[str] = []
        if former == user or os.geteuid() != 0:
            return given
        for name in sorted(os.listdir(self.descriptor)):  # noqa: PTH208 - of a descriptor
            try:
                status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
            except FileNotFoundError:  # removed meanwhile
                continue
            path = self.path / name
            if stat.S_ISDIR(status.st_mode):
                with ForeignFolder(path, {*self.owners, former, user}, self.descriptor) as folder:
                    given += [str(path)] * _give_from(folder.descriptor, former, user)
                    given += folder.hand_over(former, user)
            elif status.st_uid == former:
                descriptor = open_file(path, {former}, self.descriptor)
                try:
                    given += [str(path)] * _give_from(descriptor, former, user)
                finally:
                    os.close(descriptor)
        return given


def _give_from(descriptor: int, former: int, user: int) -> bool:
    """Give what belongs to `former` to `user`, its mode as it is; returns whether it did."""
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode) & 0o777
    return status.st_uid == former and give(descriptor, user, user, mode)


def _open(path: Path, flags: int, dir_fd: Optional[int]) -> int:
    """Open a path, or its last name in `dir_fd`; a link is an error with a message."""
    place = path if dir_fd is None else Path(path.name)
    try:
        return os.open(place, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise
        status = os.stat(place, dir_fd=dir_fd, follow_symlinks=False)
        wanted = "a folder" if flags & os.O_DIRECTORY else "a regular file"
        raise UnsafeFileError(
            f"{path} is invalid: it is {_describe(status)}, not {wanted}. {_ADVICE}"
        ) from None


def _check_kind(path: Path, status: os.stat_result, check: Any, wanted: str) -> None:
    if not check(status.st_mode):
        raise UnsafeFileError(
            f"{path} is invalid: it is {_describe(status)}, not {wanted}. {_ADVICE}"
        )


def _check_owner(path: Path, status: os.stat_result, owners: Iterable[int]) -> None:
    if status.st_uid not in {*owners, os.geteuid()}:
        raise UnsafeFileError(
            f"{path} is invalid: it belongs to the user {status.st_uid}. {_ADVICE}"
        )


def _check_single(path: Path, status: os.stat_result) -> None:
    if status.st_nlink > 1:
        raise UnsafeFileError(f"{path} is invalid: the file has {status.st_nlink} names. {_ADVICE}")


def _describe(status: os.stat_result) -> str:
    return next((text for check, text in _KINDS if check(status.st_mode)), "a device")
