"""What the chat API's process does not load, and that it works without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_provider.providers.llamacpp import LlamaCpp
from llm_provider.server.application import create_app
from llm_provider.server.lean_imports import lean_imports
from tests import certificates

from ..fake import MODEL, FakeEngine
from .processes import SOURCE, served

REPORT = """
import json, os, ssl, sys
from pathlib import Path
from llm_provider.server.lean_imports import lean_imports
before = dict(os.environ)
with lean_imports():
    import llm_provider.server.application, llm_provider.server.uvicorn_server
import aiohttp.connector, fastapi
def answer() -> dict[str, str]: return {}
fastapi.FastAPI().get("/")(answer)
print(json.dumps({
    "environment": dict(os.environ) == before,
    "modules": sorted(name for name, module in sys.modules.items() if module is not None),
    "maps": Path("/proc/self/maps").read_text(),
    "aiohttp": aiohttp.connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509_ca"],
    "default": ssl.create_default_context().cert_store_stats()["x509_ca"],
}))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a process whose system has one certificate authority."""
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    file.write_text(certificates.authority())
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SOURCE),
        "SSL_CERT_FILE": str(file),
        "SSL_CERT_DIR": str(file.parent / "none"),
    }
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        env=environ, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_the_chat_api_never_uses_is_not_loaded(report: dict[str, Any]) -> None:
    assert not [name for name in report["modules"] if name.startswith("_sysconfigdata")]
    assert "pydantic.v1" not in report["modules"]
    assert "libstdc++" not in report["maps"]


def test_aiohttp_reads_no_certificate_authorities_and_others_do(report: dict[str, Any]) -> None:
    assert (report["aiohttp"], report["default"]) == (0, 1)


def test_the_process_is_as_before_after_the_imports(report: dict[str, Any]) -> None:
    assert report["environment"]


def test_the_environment_is_as_before_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setenv("SSL_CERT_FILE", "/mine")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with pytest.raises(ImportError, match="gone"), lean_imports():
        assert os.environ["SSL_CERT_FILE"] == os.environ["SSL_CERT_DIR"] == os.devnull
        raise ImportError("gone")
    assert os.environ["SSL_CERT_FILE"] == "/mine"
    assert "SSL_CERT_DIR" not in os.environ


async def test_a_process_answers_like_an_application_with_all_imports(
    engine: FakeEngine, keys: Path
) -> None:
    """Without docstrings and assertions, as in the image (src/Dockerfile)."""
    async with (
        served(engine, keys, PYTHONOPTIMIZE="2") as api,
        LlamaCpp(model=MODEL, base_url=engine.url) as provider,
    ):
        answer = await api.client.get("/openapi.json")
        environ = {"CHAT_API_KEYS_FILE": str(keys), "LLM_BASE_URL": engine.url}
        app = create_app(environ, provider=provider)
        assert answer.json() == json.loads(json.dumps(app.openapi()))
