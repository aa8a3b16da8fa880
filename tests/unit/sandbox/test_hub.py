"""The hub answers as the Hugging Face hub does: a client of the one works with the other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from sandbox.hub import application

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = "/acme/tiny/resolve/1/tiny.gguf"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree" / "acme" / "tiny" / "1"
    (folder / "sub").mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(CONTENT)
    (folder / "sub" / "other.gguf").write_bytes(b"other")
    (tmp_path / "tree" / "secret").write_text("not in any repository")
    return tmp_path / "tree"


@pytest.fixture
def hub(tree: Path) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application(tree))
    return httpx.AsyncClient(transport=transport, base_url="http://hub")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_file_is_named_by_size_and_hash_before_any_download(
    hub: httpx.AsyncClient, method: str
) -> None:
    answer = await hub.request(method, FILE)
    assert answer.status_code == 302
    assert answer.headers["X-Linked-Etag"] == f'"{SHA256}"'
    assert answer.headers["X-Linked-Size"] == str(len(CONTENT))
    assert answer.headers["X-Repo-Commit"] == "1"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Location"] == f"/lfs/{SHA256}"


async def test_the_redirect_leads_to_the_content(hub: httpx.AsyncClient) -> None:
    answer = await hub.get(FILE, follow_redirects=True)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["ETag"] == f'"{SHA256}"'


async def test_a_file_in_a_folder_is_found(hub: httpx.AsyncClient) -> None:
    answer = await hub.get("/acme/tiny/resolve/1/sub/other.gguf", follow_redirects=True)
    assert answer.content == b"other"


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-99", 0, 99), ("bytes=100-", 100, len(CONTENT) - 1), ("bytes=-7", -7, None)],
)
async def test_a_broken_download_goes_on_where_it_was(
    hub: httpx.AsyncClient, asked: str, first: int, last: int | None
) -> None:
    answer = await hub.get(f"/lfs/{SHA256}", headers={"Range": asked})
    begin = first % len(CONTENT)
    end = len(CONTENT) - 1 if last is None else last
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end}/{len(CONTENT)}"
    assert answer.content == CONTENT[begin : end + 1]


async def test_a_range_beyond_the_end_is_refused_with_the_size(hub: httpx.AsyncClient) -> None:
    answer = await hub.get(f"/lfs/{SHA256}", headers={"Range": f"bytes={len(CONTENT)}-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"].endswith(f"*/{len(CONTENT)}")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nobody/tiny/resolve/1/tiny.gguf", "RepoNotFound"),
        ("/acme/huge/resolve/1/tiny.gguf", "RepoNotFound"),
        ("/acme/tiny/resolve/2/tiny.gguf", "RevisionNotFound"),
        ("/acme/tiny/resolve/1/huge.gguf", "EntryNotFound"),
        ("/acme/tiny/resolve/1/sub", "EntryNotFound"),
        ("/acme/tiny/resolve/1/%2e%2e/%2e%2e/%2e%2e/secret", "EntryNotFound"),
        ("/acme/%2e%2e/resolve/tiny/1/tiny.gguf", "RepoNotFound"),
        ("/lfs/" + "0" * 64, "EntryNotFound"),
    ],
)
async def test_what_is_not_there_is_404_with_the_hubs_code(
    hub: httpx.AsyncClient, path: str, code: str
) -> None:
    answer = await hub.get(path)
    assert answer.status_code == 404
    assert answer.headers["X-Error-Code"] == code


async def test_a_changed_file_has_a_new_hash(hub: httpx.AsyncClient, tree: Path) -> None:
    assert (await hub.head(FILE)).headers["X-Linked-Etag"] == f'"{SHA256}"'
    (tree / "acme/tiny/1/tiny.gguf").write_bytes(b"new")
    assert (await hub.head(FILE)).headers[
        "X-Linked-Etag"
    ] == f'"{hashlib.sha256(b"new").hexdigest()}"'
