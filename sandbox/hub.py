"""A small model hub that answers as the Hugging Face hub does.

Its catalogue is a folder, HUB_TREE: OWNER/REPOSITORY/REVISION/FILE. A file's address leads, by a
redirect, to its content's address, and the redirect names size and sha256 before any download.
Runs with the Starlette of Debian 13 (0.46) and later ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, NoReturn

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


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


PLAIN = (".json", ".txt")
"""Files that the hub keeps as they are: they have no address of their content's."""
TOKEN = "hf_the-sandbox-has-but-this-one"  # noqa: S105 - it opens nothing
CDN_PORT = 8081
"""Where content is asked for as from another server, which must not see a token."""


class Faults:
    """What can go wrong at a source: `/faults/NAME/...` answers as `/...` does, but for that.

    A name may end in a number, as in `cut-1000000`. For tests; each is one thing that was met, but
    for `held-1000000`, which gives hardly more than that to whoever has less: so that a download
    can be killed there however fast or slow the machines are.
    """

    STATUS: ClassVar[Mapping[str, int]] = {
        "missing": 404,
        "unauthorized": 401,
        "forbidden": 403,
        "broken": 500,
    }

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def resolve(self, request: Request) -> Response:
        """A file's address, with the fault."""
        fault = request.path_params["fault"]
        if status := self.STATUS.get(fault):
            return PlainTextResponse(fault, status)
        if fault == "html":
            return HTMLResponse("<!DOCTYPE html><title>Sign in</title>")
        if fault == "gated":
            given = request.headers.get("Authorization")
            if given != f"Bearer {TOKEN}":
                return PlainTextResponse("gated", 403 if given else 401)
        answer = resolved(self._hub, request)
        if fault == "size":
            answer.headers["X-Linked-Size"] = str(int(answer.headers["X-Linked-Size"]) + 1)
        place = answer.headers.get("Location")
        host = request.url.hostname
        if fault == "gated":
            answer.headers["Location"] = f"https://{host}:{CDN_PORT}{place}"
        elif fault == "plain-http":
            answer.headers["Location"] = f"http://{host}{place}"
        elif fault != "size":
            answer.headers["Location"] = f"/faults/{fault}{place}"
        return answer

    def content(self, request: Request) -> Response:
        """A file's content, with the fault."""
        fault = request.path_params["fault"]
        if fault == "late-html":
            return HTMLResponse("<!DOCTYPE html><title>Sign in</title>")
        path = self._hub.by_content(request.path_params["sha256"])
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(asked[1]) if asked and fault != "no-ranges" else 0
        headers = {"Content-Length": str(size - start), "ETag": f'"{self._hub.sha256(path)}"'}
        if fault != "no-ranges":
            headers["Accept-Ranges"] = "bytes"
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        return StreamingResponse(
            self._pieces(path, start, fault),
            206 if start else 200,
            headers,
            media_type="application/octet-stream",
        )

    def _pieces(self, path: Path, start: int, fault: str) -> Iterator[bytes]:
        name, _, number = fault.rpartition("-")
        end = path.stat().st_size
        if name == "cut":
            end = min(end, start + int(number))
        elif fault == "truncated":
            end = end // 2
        hold = int(number) if name == "held" and start < int(number) else end
        begun, sent = time.monotonic(), 0
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                if start >= hold:
                    # A trickle: without it the client would give this source up.
                    time.sleep(0.1)
                piece = file.read(min(1 << 16, end - start, hold - start if start < hold else 2))
                if fault == "wrong-hash" and start == 0:
                    # The last byte of a piece in the midst of nowhere: the header stays as it is.
                    piece = piece[:-1] + bytes([piece[-1] ^ 1])
                yield piece
                start, sent = start + len(piece), sent + len(piece)
                if name == "slow":
                    time.sleep(max(0.0, sent / int(number) - (time.monotonic() - begun)))
        if start < path.stat().st_size:
            raise ConnectionAbortedError("as the fault says")


class Counted:
    """Counts what is given of every content to whom: `/counters` tells, by SHA-256 and address.

    `tokens` are requests that showed one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._counters: dict[str, dict[str, Counter[str]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == "/counters":
            await JSONResponse(self._counters)(scope, receive, send)
            return
        _, lfs, sha256 = scope["path"].rpartition("/lfs/")
        if not lfs:
            await self._app(scope, receive, send)
            return
        client, _ = scope["client"]
        counter = self._counters.setdefault(sha256, {}).setdefault(client, Counter())
        counter["tokens"] += any(name == b"authorization" for name, _ in scope["headers"])
        gone = asyncio.Event()

        async def leaving() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        async def nothing() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def counting(message: Message) -> None:
            if gone.is_set():
                # What a client that has left is sent would count as given.
                raise ConnectionAbortedError("the client has left")
            if message["type"] == "http.response.body":
                counter["bytes"] += len(message.get("body", b""))
            await send(message)

        watching = asyncio.create_task(leaving())
        try:
            await self._app(scope, nothing, counting)
        finally:
            watching.cancel()


def resolved(hub: Hub, request: Request) -> Response:
    """Where a file's content is, and what that is; or the content itself, where it is plain."""
    words = request.path_params
    path = hub.find(words["owner"], words["repository"], words["revision"], words["file"])
    sha256 = hub.sha256(path)
    commit = {"X-Repo-Commit": words["revision"]}
    if path.suffix in PLAIN:
        # Their tag is Git's name for the content.
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content)  # noqa: S324
        return FileResponse(path, headers={"ETag": f'"{blob.hexdigest()}"', **commit})
    return Response(
        status_code=302,
        headers={
            "Location": f"/lfs/{sha256}",
            "Accept-Ranges": "bytes",
            "ETag": f'"{sha256}"',
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(path.stat().st_size),
            **commit,
        },
    )


def application(tree: Path) -> ASGIApp:
    """The hub over a tree of OWNER/REPOSITORY/REVISION/FILE."""
    hub = Hub(tree)
    faults = Faults(hub)

    # Plain functions: Starlette runs them in threads, so hashing a large file blocks nobody.
    def resolve(request: Request) -> Response:
        return resolved(hub, request)

    def content(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        path = hub.by_content(sha256)
        return FileResponse(
            path, media_type="application/octet-stream", headers={"ETag": f'"{sha256}"'}
        )

    def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    file = "/{owner}/{repository}/resolve/{revision}/{file:path}"
    return Counted(
        Starlette(
            routes=[
                Route("/health", health),
                Route("/lfs/{sha256}", content),
                Route("/faults/{fault}/lfs/{sha256}", faults.content),
                Route("/faults/{fault}" + file, faults.resolve),
                Route(file, resolve),
            ]
        )
    )


async def serve(tree: Path, certificates: Path) -> None:
    """Serve the hub: at 80, encrypted at 443, and its content, encrypted, at CDN_PORT as well."""
    app = application(tree)
    host = "0.0.0.0"  # noqa: S104 - the sandbox's own network
    configs = [
        uvicorn.Config(app, host, 80, server_header=False),
        *(
            uvicorn.Config(
                app,
                host,
                port,
                server_header=False,
                ssl_certfile=certificates / "hub.pem",
                ssl_keyfile=certificates / "hub.key",
            )
            for port in (443, CDN_PORT)
        ),
    ]
    servers = map(uvicorn.Server, configs)
    await asyncio.gather(*(server.serve() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve(Path(os.environ["HUB_TREE"]), Path(os.environ["HUB_CERTIFICATES"])))
