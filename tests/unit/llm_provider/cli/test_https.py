"""The command against a chat API with HTTPS: whose certificates it accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_provider.cli.exit_status import NOT_REACHABLE, OK, USAGE
from tests.certificates import authority, certificate_text, issue

from ..scripted import ANSWER, KEY, MODEL, Scripted, serving
from .running import run


@dataclass(frozen=True)
class Service:
    """A chat API with HTTPS, and files of certificate authorities."""

    scripted: Scripted
    ca: str
    other: str


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("certificates")
    ours = authority()
    texts = {
        "pair": issue(ours, ["IP:127.0.0.1"]),
        "ca": certificate_text(ours),
        "other": certificate_text(authority()),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    with serving(Scripted(), folder / "pair") as scripted:
        yield Service(scripted, str(folder / "ca"), str(folder / "other"))


@pytest.fixture
def api(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    service.scripted.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{service.scripted.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    return service


async def test_every_verb_takes_a_ca_file(api: Service, capsys: pytest.CaptureFixture[str]) -> None:
    trust = f"--ca-file={api.ca}"
    assert await run("check", trust, "--json") == OK
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["answer"]) == (True, ANSWER)
    assert await run("models", trust) == OK
    assert MODEL in capsys.readouterr().out.splitlines()
    assert await run("chat", trust, "--", "Hello") == OK
    assert capsys.readouterr().out.strip() == ANSWER
    assert await run("bench", trust, "--requests=1", "--parallel=1", "--json") == OK
    assert json.loads(capsys.readouterr().out)["ok"] is True


async def test_a_certificate_of_another_authority_is_refused(
    api: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no key is sent."""
    assert await run("check", f"--ca-file={api.other}", "--json") == NOT_REACHABLE
    (seen, *_) = [one["seen"] for one in json.loads(capsys.readouterr().out)["checks"]]
    assert "its TLS certificate was refused: " in seen
    assert await run("chat", "Hello") == NOT_REACHABLE
    assert "its TLS certificate was refused: " in capsys.readouterr().err
    assert api.scripted.asked == []


async def test_the_environment_names_a_ca_file(
    api: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `make env` sets it."""
    monkeypatch.setenv("SSL_CERT_FILE", api.ca)
    assert await run("chat", "--", "Hello") == OK
    assert capsys.readouterr().out.strip() == ANSWER


async def test_a_ca_file_that_cannot_be_used(
    api: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.pem"
    for verb in ("check", "models"):
        assert await run(verb, f"--ca-file={missing}") == USAGE
        assert f"The CA file '{missing}' cannot be used: No such file" in capsys.readouterr().err
