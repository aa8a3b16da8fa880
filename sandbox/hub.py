"""A small model hub that answers as the Hugging Face hub does.

Its catalogue is a folder, HUB_TREE: OWNER/REPOSITORY/REVISION/FILE. A file's address leads, by a
redirect, to its content's address, and the redirect names size and sha256 before any download.
Runs with the Starlette of Debian 13 (0.46) and later ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route


class Hub:
    """Files of a tree, by name and by content."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._hashes: dict[tuple[Path, int, int], str] = {}

    def sha256(self, path: Path) -> str:
        """sha256 of a file in hex; read again only when the file has changed."""
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[key]

    def find(self, owner: str, repository: str, revision: str, name: str) -> Path:
        """A file by name. Raises HTTPException 404 with the hub's error code."""
        folder = self._tree
        for part, code in (
            (owner, "RepoNotFound"),
            (repository, "RepoNotFound"),
            (revision, "RevisionNotFound"),
        ):
            if part not in _entries(folder):
                _missing(code)
            folder /= part
        path = folder / name
        # A name with `..` in it must not lead out of the revision.
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            _missing("EntryNotFound")
        return path

    def by_content(self, sha256: str) -> Path:
        """A file by the hash of its content. Raises HTTPException 404."""
        for path in sorted(self._tree.glob("*/*/*/**/*")):
            if path.is_file() and self.sha256(path) == sha256:
                return path
        return _missing("EntryNotFound")


def _entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _missing(code: str) -> NoReturn:
    texts: Mapping[str, str] = {
        "RepoNotFound": "Repository not found",
        "RevisionNotFound": "Invalid rev id",
        "EntryNotFound": "Entry not found",
    }
    headers = {"X-Error-Code": code, "X-Error-Message": texts[code]}
    raise HTTPException(404, texts[code], headers)


def application(tree: Path) -> Starlette:
    """The hub over a tree of OWNER/REPOSITORY/REVISION/FILE."""
    hub = Hub(tree)

    # Plain functions: Starlette runs them in threads, so hashing a large file blocks nobody.
    def resolve(request: Request) -> Response:
        words = request.path_params
        path = hub.find(words["owner"], words["repository"], words["revision"], words["file"])
        sha256 = hub.sha256(path)
        return Response(
            status_code=302,
            headers={
                "Location": f"/lfs/{sha256}",
                "Accept-Ranges": "bytes",
                "ETag": f'"{sha256}"',
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(path.stat().st_size),
                "X-Repo-Commit": words["revision"],
            },
        )

    def content(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        path = hub.by_content(sha256)
        return FileResponse(
            path, media_type="application/octet-stream", headers={"ETag": f'"{sha256}"'}
        )

    def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/lfs/{sha256}", content),
            Route("/{owner}/{repository}/resolve/{revision}/{file:path}", resolve),
        ]
    )


def __getattr__(name: str) -> Starlette:
    """`hub:app` for uvicorn, made when it is asked for: an import alone reads no environment."""
    if name == "app":
        return application(Path(os.environ["HUB_TREE"]))
    raise AttributeError(name)
