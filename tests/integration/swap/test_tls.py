"""What clients notice of HTTPS: renewed certificates and changed keys cost no request.

The board serves HTTPS during these tests, and HTTP before and after them.
"""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from edge_fleet.certificates import Certificate, parse_certificate, parse_pair
from tests.certificates import NOW, issue, load_key
from tests.integration.load import (
    Board,
    board_named,
    known_answers,
    loaded,
    wait_for_requests,
)
from tests.playing import client_file, message, play

HOST = "jetson-01"
_TLS = {"llm_tls": True}
_ANSWER = known_answers()["smollm2-135m"]


def control_file(name: str) -> Path:
    """A file for HTTPS on the control machine."""
    return client_file(HOST).parent / "tls" / name


def served(board: Board) -> Certificate:
    """The certificate that a new connection gets, if the client trusts it."""
    address = urlsplit(board.url)
    context = ssl.create_default_context(cafile=board.ca)
    with (
        socket.create_connection((address.hostname, address.port), 30) as connection,
        context.wrap_socket(connection, server_hostname=address.hostname) as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return parse_certificate(ssl.DER_cert_to_PEM_cert(found))


def run_site(**variables: object) -> str:
    done = play("site.yml", HOST, **_TLS, **variables)
    assert done.returncode == 0, done.stdout
    return message(done)


@pytest.fixture(scope="module")
def secure() -> Iterator[Board]:
    before = board_named(HOST)
    assert before.url.startswith("http://")
    with loaded(before) as load:
        wait_for_requests(load)
    assert load.wrong == []
    run_site()
    yield board_named(HOST)
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout
    assert board_named(HOST).url == before.url
    assert board_named(HOST).asked() == _ANSWER


def test_turning_it_on_replaces_the_chat_api_alone(secure: Board) -> None:
    assert secure.url.startswith("https://")
    assert secure.history()[-1]["parts"] == ["api"]
    assert secure.asked() == _ANSWER
    address = urlsplit(secure.url).hostname
    assert f"IP:{address}" in served(secure).names
    assert f"DNS:{HOST}" in served(secure).names
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"{secure.url}/health", timeout=30)
    plain = httpx.get(f"http://{urlsplit(secure.url).netloc}/health", timeout=30)
    assert plain.status_code == 400
    assert "https" in plain.text.lower()
    again = play("site.yml", HOST, **_TLS)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout


def test_files_are_for_the_chat_api_alone(secure: Board) -> None:
    listed = secure.run("sh", "-c", "stat -L -c '%u %g %a %n' /opt/edge-llm/secrets/tls/*")
    assert sorted(listed.splitlines()) == [
        "0 10010 640 /opt/edge-llm/secrets/tls/certificate.pem",
        "0 10010 640 /opt/edge-llm/secrets/tls/key.pem",
    ]


def test_a_certificate_is_renewed_without_a_failed_request(secure: Board) -> None:
    """First one near its end is put in place, then site.yml finds it there."""
    containers, file = secure.containers(), control_file(f"hosts/{HOST}.pem")
    pair = parse_pair(file.read_text(), file.read_text())
    authority = control_file("authority.pem").read_text()
    begin = NOW - timedelta(days=700)
    names = pair.certificate.names
    with loaded(secure) as load:
        wait_for_requests(load)
        file.write_text(issue(authority, names, begin, 825, load_key(pair.key)))
        check = play("site.yml", HOST, "--check", **_TLS)
        assert check.returncode == 0, check.stdout
        assert f"it expires on {begin + timedelta(days=825):%Y-%m-%d}." in message(check)
        for _ in range(3):
            former = served(secure)
            run_site()
            assert served(secure).parsed != former.parsed
            wait_for_requests(load)
            file.write_text(issue(authority, names, begin, 825, load_key(pair.key)))
    assert load.wrong == []
    run_site()
    found = served(secure)
    assert found.public_key == pair.certificate.public_key, "a renewal keeps the private key"
    assert found.not_after > NOW + timedelta(days=800)
    assert secure.containers() == containers
    assert secure.asked() == _ANSWER


def test_a_private_key_is_replaced_without_a_failed_request(secure: Board) -> None:
    containers, former = secure.containers(), served(secure)
    with loaded(secure) as load:
        wait_for_requests(load)
        for _ in range(2):
            control_file(f"hosts/{HOST}.pem").unlink()
            run_site()
            wait_for_requests(load)
    assert load.wrong == []
    assert served(secure).public_key != former.public_key
    assert secure.containers() == containers


def test_the_api_key_is_rotated_without_a_failed_request(secure: Board) -> None:
    """Old and new are valid at once; then clients have moved, and the old one goes."""
    new = secrets.token_hex(20)
    moved = Board(secure.url, new, HOST, secure.ca)
    containers = secure.containers()
    with loaded(secure) as load:
        wait_for_requests(load)
        run_site(llm_api_key=new, llm_api_keys=[secure.key])
        assert board_named(HOST).key == new
        wait_for_requests(load)
        with loaded(moved) as other:
            wait_for_requests(other)
    with loaded(moved) as later:
        run_site(llm_api_key=new)
        wait_for_requests(later)
    assert [*load.wrong, *other.wrong, *later.wrong] == []
    with pytest.raises(AssertionError, match="invalid_api_key"):
        secure.asked()
    assert secure.containers() == containers
    run_site()
    assert secure.asked() == _ANSWER


def test_another_authority_takes_no_restart(secure: Board, tmp_path: Path) -> None:
    """The verification trusts the new one alone."""
    containers, former = secure.containers(), control_file("ca.pem").read_text()
    for name in ("authority.pem", "ca.pem", "ca-bundle.pem"):
        control_file(name).unlink()
    run_site()
    fresh = board_named(HOST)
    assert served(fresh).issued_by(parse_certificate(control_file("ca.pem").read_text()))
    (tmp_path / "former.pem").write_text(former)
    with pytest.raises(ssl.SSLCertVerificationError):
        served(Board(secure.url, secure.key, HOST, str(tmp_path / "former.pem")))
    assert secure.containers() == containers


def test_a_rollback_restores_the_scheme(secure: Board) -> None:
    number = secure.current()["number"]
    plain = next(
        each for each in reversed(range(1, number)) if "CHAT_API_TLS" not in compose(secure, each)
    )
    done = play("playbooks/rollback.yml", HOST, rollback_release=plain, **_TLS)
    assert done.returncode == 0, done.stdout
    assert board_named(HOST).url.startswith("http://")
    assert board_named(HOST).asked() == _ANSWER
    done = play("playbooks/rollback.yml", HOST, rollback_release=number, **_TLS)
    assert done.returncode == 0, done.stdout
    assert board_named(HOST).url == secure.url
    assert board_named(HOST).asked() == _ANSWER


def compose(board: Board, number: int) -> str:
    """The compose file of a release; one that was removed counts as having TLS."""
    path = f"/opt/edge-llm/releases/{number:04d}/docker-compose.yml"
    return board.run("sh", "-c", f"cat {path} 2>/dev/null || echo CHAT_API_TLS")
