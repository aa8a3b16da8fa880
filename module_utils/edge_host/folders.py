"""The folders of a deployment and of a registry: their owners, and who may read what is in them."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path
from typing import List, NamedTuple

from .constants import (
    API_UID,
    DEPLOYED_FILES,
    ENGINE_KEY,
    ENGINE_UID,
    MODELS,
    REGISTRY_UID,
    RELEASES,
    SECRETS,
    WORKSHOP,
)
from .foreign import ForeignFolder, UnsafeFileError, give, open_file


class Access(NamedTuple):
    """Owner, group and mode of a file or folder."""

    owner: int
    group: int
    mode: int


_FOLDERS = {
    "": Access(0, 0, 0o755),
    RELEASES: Access(0, 0, 0o700),
    "engine": Access(0, 0, 0o755),
    # Sockets, which its processes make.
    "run": Access(API_UID, API_UID, 0o700),
    # Root's, so that no name in it is anybody else's choice. Only the chat API gets in.
    SECRETS: Access(0, API_UID, 0o750),
}
# The engine has this one file of the folder mounted. The engines of earlier releases, to which a
# host can go back, run as API_UID.
_SECRETS = {ENGINE_KEY: Access(ENGINE_UID, API_UID, 0o440)}
_SECRET = Access(0, API_UID, 0o640)
_FILE_MODES = dict(zip(DEPLOYED_FILES, (0o644, 0o600, 0o644)))  # noqa: B905 - of Python 3.10
"""Of what the links of a deployment lead to: the files of the current release."""
_CURRENT = re.compile(rf"{RELEASES}/[0-9]{{4,}}")
_TLS = "tls"
_TLS_FOLDER = re.compile(r"tls-[0-9a-f]{16}")


def secret_access(name: str) -> Access:
    """Return who may read a file of the folder secrets; its owner is the caller, if not root."""
    return _as_caller(_SECRETS.get(name, _SECRET))


def file_mode(name: str) -> int:
    """Return the mode of a release's file, by its name below the folder of the deployment."""
    return _FILE_MODES[name]


def secret_folder_access() -> Access:
    """Return who may read a folder in the folder secrets."""
    return _as_caller(_FOLDERS[SECRETS])


def _as_caller(access: Access) -> Access:
    """Return the access that a caller who is not root can give; tests are such callers."""
    if os.geteuid() == 0:
        return access
    return Access(os.geteuid(), os.getegid(), access.mode)


def ensure_folders(root: Path, check: bool = False) -> List[str]:
    """Make the folders of a deployment, and give them, the keys and the release to their owners.

    Containers that run may read their files before, meanwhile and after: on a host of an earlier
    version, where all was API_UID's, nothing stops. Returns the paths that change; with `check`
    nothing does. Raises OSError, and UnsafeFileError where API_UID has put something else in the
    place of a key or of a release: that is left as it is.
    """
    # Root's own folder, which a person may have put on another disk.
    root = Path(os.path.realpath(root))
    changed: List[str] = []
    for name, access in _FOLDERS.items():
        path = root / name if name else root
        if not os.path.lexists(path):
            changed.append(str(path))
            if check:
                continue
            path.mkdir(parents=not name, mode=0o700)
        # The folder itself is at a place of root's choice, whoever has made it.
        owners = {API_UID} if name else {path.stat().st_uid}
        with ForeignFolder(path, owners) as folder:
            if _set(folder.descriptor, access, check):
                changed.append(str(path))
            if name == SECRETS:
                changed += _ensure_secrets(folder, check)
    changed += _ensure_release(root, check)
    changed += _remove_former_downloads(root, check)
    return sorted(set(changed))


def find_wrong_access(root: Path) -> List[str]:
    """Return the paths that `ensure_folders` would change, or why it would fail; reads only.

    Nothing is wrong where there is no folder of a deployment yet.
    """
    try:
        return ensure_folders(root, check=True) if root.exists() else []
    except OSError as error:
        return [str(error)]


def ensure_registry_folders(root: Path, check: bool = False) -> List[str]:
    """Make the folders of a registry, and give its images to its user; returns what changes.

    A registry of an earlier version ran as API_UID, and goes on reading. With `check` only the
    folders themselves are looked at. Raises OSError, UnsafeFileError.
    """
    root = Path(os.path.realpath(root))
    changed: List[str] = []
    for path, access in (
        (root, Access(0, 0, 0o755)),
        (root / "images", Access(REGISTRY_UID, REGISTRY_UID, 0o755)),
    ):
        if not os.path.lexists(path):
            changed.append(str(path))
            if check:
                continue
            path.mkdir(parents=path == root, mode=0o700)
        with ForeignFolder(path, {API_UID, REGISTRY_UID}) as folder:
            if _set(folder.descriptor, access, check):
                changed.append(str(path))
            if path != root and not check:
                changed += folder.hand_over(API_UID, REGISTRY_UID)
    return sorted(set(changed))


def _remove_former_downloads(root: Path, check: bool) -> List[str]:
    """Remove unfinished downloads of earlier versions, which had API_UID write them.

    They are downloaded again, so that nothing is left which another user can write.
    """
    path = root / Path(MODELS).name / WORKSHOP
    try:
        status = path.lstat()
    except FileNotFoundError:
        return []
    if status.st_uid != API_UID or not stat.S_ISDIR(status.st_mode):
        return []
    if not check:
        # It works by descriptors (avoids_symlink_attacks): no link in it is followed.
        shutil.rmtree(path)
    return [str(path)]


def _ensure_release(root: Path, check: bool) -> List[str]:
    """Give the files of the current release to root, with their modes; returns what changes."""
    try:
        # Path.readlink is of Python 3.9.
        current = os.readlink(root / "current")  # noqa: PTH115
    except OSError:  # no release yet
        return []
    if not _CURRENT.fullmatch(current):  # it leads to no release of this folder
        return []
    changed: List[str] = []
    for name, mode in _FILE_MODES.items():
        folder, _, file = f"{'' if '/' in name else f'{current}/'}{name}".rpartition("/")
        try:
            with ForeignFolder(root / folder, {API_UID}) as opened:
                path = opened.path / file
                descriptor = open_file(path, {API_UID}, opened.descriptor)
                try:
                    if _set(descriptor, Access(0, 0, mode), check):
                        changed.append(str(path))
                finally:
                    os.close(descriptor)
        except FileNotFoundError:  # the release is to be staged anew
            continue
    return changed


def _ensure_secrets(folder: ForeignFolder, check: bool) -> List[str]:
    """Give the keys, and the folders of certificates, to their owners; returns what changes."""
    changed: List[str] = []
    owners = {API_UID, ENGINE_UID}
    for name in sorted(os.listdir(folder.descriptor)):  # noqa: PTH208 - of a descriptor
        path = folder.path / name
        status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        if name == _TLS and stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=folder.descriptor)
            if not _TLS_FOLDER.fullmatch(target):
                raise UnsafeFileError(
                    f"{path} is invalid: it is a symbolic link to {target!r}. Find out who made it,"
                    " remove it, and run this again"
                )
        elif stat.S_ISDIR(status.st_mode):
            with ForeignFolder(path, owners, folder.descriptor) as certificates:
                if _set(certificates.descriptor, _FOLDERS[SECRETS], check):
                    changed.append(str(path))
                changed += _ensure_secrets(certificates, check)
        else:
            descriptor = open_file(path, owners, folder.descriptor)
            try:
                if _set(descriptor, _SECRETS.get(name, _SECRET), check):
                    changed.append(str(path))
            finally:
                os.close(descriptor)
    return changed


def _set(descriptor: int, access: Access, check: bool) -> bool:
    """Set the access of an open file or folder; returns whether that changes it."""
    access = _as_caller(access)
    status = os.fstat(descriptor)
    if check:
        return access != (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    return give(descriptor, *access)
