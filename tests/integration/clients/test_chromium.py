"""A page in Chromium that asks the chat API from another origin."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients.asking import KEY, STORY, TOO_LONG, works_on
from tests.integration.engines.conftest import House
from tests.integration.engines.running import settings_of
from tests.integration.engines.serving import ChatApi, Served
from tests.waiting import until

PAGE = (Path(__file__).parent / "page.html").read_bytes()
SECONDS = 120


class Pages:
    """An origin of its own with PAGE, which reports here what it got."""

    def __init__(self) -> None:
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()
        reports = self.reports

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(PAGE, "text/html; charset=utf-8")

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                reports.put(json.loads(self.rfile.read(size)))
                self._answer(b"", "text/plain")

            def _answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    made = Pages()
    yield made
    made.close()


@pytest.fixture(scope="module")
def opened(house: House, engine: str, pages: Pages) -> ChatApi:
    """A chat API that the pages' origin may ask, before the engine with the model smoke."""
    return before(house, house.served(engine, "smoke"), pages)


def before(house: House, served: Served, pages: Pages) -> ChatApi:
    """A further chat API before an engine, which the pages' origin may ask."""
    api = house.api(settings_of(served.engine) | {"CHAT_API_CORS_ORIGINS": pages.origin})
    api.start()
    until(api.ready, "the chat API to be ready")
    return api


@contextmanager
def browsing(
    pages: Pages, folder: Path, api: str, what: str, text: str, key: str
) -> Iterator[None]:
    """Have Chromium at the page."""
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is missing: install it (Debian: apt-get install chromium)."
    asked = json.dumps({"api": api, "key": key, "what": what, "text": text})
    words = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    # Root has no sandbox; the page is this test's own.
    words += ["--no-sandbox", "--disable-background-networking", f"--user-data-dir={folder}"]
    words += ["--remote-debugging-port=0"]
    with (folder / "log").open("wb") as log:
        url = f"{pages.origin}/#{asked.encode().hex()}"
        running = subprocess.Popen([chromium, *words, url], stdout=log, stderr=log)
        try:
            yield
        finally:
            running.terminate()
            try:
                running.wait(timeout=30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def ask(
    pages: Pages, folder: Path, api: str, what: str, text: str = "Hello", key: str = KEY
) -> dict[str, Any]:
    """What the page reports."""
    with browsing(pages, folder, api, what, text, key):
        return report(pages, folder)


def report(pages: Pages, folder: Path) -> dict[str, Any]:
    try:
        return pages.reports.get(timeout=SECONDS)
    except queue.Empty:
        text = (folder / "log").read_text(errors="replace")
        raise AssertionError(f"The page has not reported within {SECONDS} s: {text}") from None


def test_chat(opened: ChatApi, smoke: Served, pages: Pages, tmp_path: Path) -> None:
    found = ask(pages, tmp_path, opened.base_url, "chat")
    assert found["status"] == 200
    assert found["body"]["choices"][0]["message"]["content"] == smoke.answer
    assert found["request"], "the page may read X-Request-Id"


def test_a_stream(opened: ChatApi, smoke: Served, pages: Pages, tmp_path: Path) -> None:
    found = ask(pages, tmp_path, opened.base_url, "stream")
    assert len(found["pieces"]) > 2
    assert "".join(found["pieces"]) == smoke.answer


@pytest.mark.parametrize(
    ("key", "text", "status", "code"),
    [
        ("another-key", "Hello", 401, "invalid_api_key"),
        (KEY, TOO_LONG, 400, "context_length_exceeded"),
    ],
    ids=["key", "size"],
)
def test_an_error_can_be_read(
    opened: ChatApi, pages: Pages, tmp_path: Path, key: str, text: str, status: int, code: str
) -> None:
    found = ask(pages, tmp_path, opened.base_url, "chat", text, key)
    assert (found["status"], found["body"]["error"]["code"]) == (status, code)


def test_another_origin_may_not_ask(smoke: Served, pages: Pages, tmp_path: Path) -> None:
    """Chromium itself refuses: this chat API allows no origin."""
    assert ask(pages, tmp_path, smoke.api.base_url, "chat") == {"failed": "TypeError"}


def test_leaving_a_stream_stops_the_engine(
    house: House, smollm2: Served, pages: Pages, tmp_path: Path
) -> None:
    """The page aborts at the first text, and stays open."""
    works_on(smollm2, 0)
    api = before(house, smollm2, pages)
    try:
        with browsing(pages, tmp_path, api.base_url, "leave", STORY, KEY):
            assert report(pages, tmp_path) == {"failed": "AbortError"}
            works_on(smollm2, 0)
    finally:
        api.stop()
