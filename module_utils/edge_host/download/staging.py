"""The folders with a model's files that are not verified yet.

`.fetch/BUNDLE` is the downloader's: curl and aria2 write there as a user of their own. A file that
is whole is moved to `.received/BUNDLE`, which is root's, before it is hashed: nobody can change it
after that.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import List

from ..constants import API_UID, RECEIVED
from ..files import allocated
from ..foreign import ForeignFolder, UnsafeFileError, give
from .job import BundleFile, DownloadError, DownloadJob


class Staging:
    """The folders of a job: `folder` and `bundle` after `prepare`, and root's."""

    def __init__(self, job: DownloadJob) -> None:
        self._job = job
        self._folders: List[ForeignFolder] = []
        self._received = job.folder / RECEIVED / job.name

    def prepare(self) -> None:
        """Make the folders, and give the downloader what an earlier version has left there.

        Until there was one user for each job, downloads ran as API_UID: they continue. Raises
        DownloadError, UnsafeFileError.
        """
        job = self._job
        user = os.geteuid() if job.user is None else job.user
        self.close()
        try:
            # Whoever downloads makes the models folder, and its parents on the control machine.
            job.folder.mkdir(parents=True, exist_ok=True)
            self._folders = [ForeignFolder.make(job.staging_folder, {API_UID}, user)]
            self._folders.append(self.folder.make_folder(job.name, user))
            self.folder.hand_over(API_UID, user)
            for path in (self._received.parent, self._received):
                path.mkdir(mode=0o700, exist_ok=True)
        except UnsafeFileError:
            raise
        except OSError as error:
            path = error.filename or job.staging_folder
            raise DownloadError(
                f"{path} is not writable: {error.strerror}. Make the models folder writable, and"
                " run site.yml again"
            ) from None

    def close(self) -> None:
        """Close the folders, if they are open."""
        for folder in self._folders:
            folder.close()

    @property
    def folder(self) -> ForeignFolder:
        """The folder with the unfinished downloads of all bundles."""
        return self._folders[0]

    @property
    def bundle(self) -> ForeignFolder:
        """The folder in it with the unfinished files of this bundle."""
        return self._folders[1]

    def received(self, file: BundleFile) -> Path:
        """Return the path of a file in root's folder."""
        return self._received / file.name

    def is_received(self, file: BundleFile) -> bool:
        """Whether a file is there, whole by its size: an earlier run ended before the hash."""
        try:
            return self.received(file).lstat().st_size == file.size
        except FileNotFoundError:
            return False

    def receive(self, file: BundleFile) -> Path:
        """Move a file to root's folder; returns its path there.

        Raises FileNotFoundError, UnsafeFileError.
        """
        path = self.received(file)
        if not self.is_received(file):
            self.bundle.take(file.name, path)
        return path

    def give_to_downloader(self, descriptor: int) -> None:
        """Give a file that root has made in `bundle` to the downloader."""
        if self._job.user is not None:
            give(descriptor, self._job.user, self._job.user, 0o644)

    def size(self) -> int:
        """Return the bytes of disk that both folders of the job take."""
        return allocated(self._job.bundle_folder) + allocated(self._received)

    def remove(self) -> None:
        """Remove both folders of the job, once its files have their final names."""
        self.bundle.close()
        self.folder.remove_folder(self._job.name)
        shutil.rmtree(self._received)
