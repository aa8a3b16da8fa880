"""The chat API's certificate and key on the host: replaced together, or not at all."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_host import certificate
from edge_host.certificate import install_certificate, wait_until_served
from tests.certificates import authority, issue
from tests.unit.edge_host.test_modules import ansible


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "api_keys").write_text("key\n")
    return folder


def served(secrets: Path) -> tuple[str, str]:
    """The pair, as the chat API opens it."""
    return (secrets / "tls/certificate.pem").read_text(), (secrets / "tls/key.pem").read_text()


def names(secrets: Path) -> list[str]:
    return sorted(path.name for path in secrets.iterdir())


def test_a_pair_is_installed_once(secrets: Path) -> None:
    assert install_certificate(secrets, "C1", "K1") is True
    assert served(secrets) == ("C1", "K1")
    for path in (secrets / "tls").iterdir():
        assert path.stat().st_mode & 0o777 == 0o640
    assert (secrets / "tls").resolve().stat().st_mode & 0o777 == 0o750
    # The container has the folder at another path, so the link must be relative.
    assert not (secrets / "tls").readlink().is_absolute()
    before = names(secrets)
    assert install_certificate(secrets, "C1", "K1") is False
    assert names(secrets) == before


@pytest.mark.parametrize("pair", [("C2", "K1"), ("C1", "K2"), ("C2", "K2")])
def test_another_pair_replaces_it_whole(secrets: Path, pair: tuple[str, str]) -> None:
    install_certificate(secrets, "C1", "K1")
    assert install_certificate(secrets, *pair) is True
    assert served(secrets) == pair
    assert len(names(secrets)) == 3, "the former pair is removed"
    assert (secrets / "api_keys").read_text() == "key\n"


def test_a_reader_finds_a_whole_pair_after_every_write(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a power cut may follow."""
    install_certificate(secrets, "C1", "K1")
    seen: list[tuple[str, str]] = []

    def watched(real: Callable[..., None]) -> Callable[..., None]:
        def call(*given: object, **named: object) -> None:
            real(*given, **named)
            seen.append(served(secrets))

        return call

    for name in ("write_atomically", "sync_folder"):
        monkeypatch.setattr(certificate, name, watched(getattr(certificate, name)))
    install_certificate(secrets, "C2", "K2")
    assert seen == [("C1", "K1"), ("C1", "K1"), ("C2", "K2")]


@pytest.mark.parametrize("damage", ["edited", "mode", "removed", "link"])
def test_what_a_person_has_changed_is_restored(secrets: Path, damage: str) -> None:
    install_certificate(secrets, "C1", "K1")
    key = secrets / "tls/key.pem"
    if damage == "edited":
        key.write_text("other")
    elif damage == "mode":
        key.chmod(0o644)
    elif damage == "removed":
        key.unlink()
    else:
        (secrets / "tls").unlink()
        (secrets / "tls").mkdir()
    assert install_certificate(secrets, "C1", "K1") is True
    assert served(secrets) == ("C1", "K1")
    assert (secrets / "tls/key.pem").stat().st_mode & 0o777 == 0o640


def test_an_interrupted_installation_is_completed(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_certificate(secrets, "C1", "K1")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        patch.setattr(certificate, "_remove_others", _fail)
        install_certificate(secrets, "C2", "K2")
    (secrets / ".tls.new").symlink_to("nowhere")
    assert install_certificate(secrets, "C3", "K3") is True
    assert served(secrets) == ("C3", "K3")
    assert len(names(secrets)) == 3


def test_links_lead_nowhere_else(secrets: Path, tmp_path: Path) -> None:
    """On hosts of earlier versions, the containers' user could make them in its folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (elsewhere / "kept").touch()
    install_certificate(secrets, "C1", "K1")
    folder = (secrets / "tls").resolve()
    shutil.rmtree(folder)
    for link in (folder, secrets / "tls-0"):
        link.symlink_to(elsewhere)
    assert install_certificate(secrets, "C1", "K1") is True
    assert served(secrets) == ("C1", "K1")
    assert names(secrets) == ["api_keys", "tls", folder.name]
    assert not folder.is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]


def _fail(*_: object) -> None:
    raise OSError("power cut")


def test_a_check_run_writes_nothing(secrets: Path) -> None:
    assert install_certificate(secrets, "C1", "K1", check=True) is True
    assert names(secrets) == ["api_keys"]
    assert install_certificate(secrets / "missing", "C1", "K1", check=True) is True


@contextlib.contextmanager
def serving(pair: Path | None) -> Iterator[tuple[int, list[bool]]]:
    """A port that has TLS with a certificate and key, or none; and a note for each connection."""
    seen: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if pair is not None:
            context.load_cert_chain(pair)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                seen.append(True)
                if pair is not None and len(seen) == 3:
                    # Read again, as the chat API does: for connections from now on.
                    context.load_cert_chain(pair.with_name("next.pem"))
                with contextlib.suppress(OSError), connection:
                    if pair is None:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    else:
                        context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], seen
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Path, Path]:
    """Two files with a certificate and its key each."""
    issued = issue(authority(), ("DNS:pi-01",)), issue(authority(), ("DNS:pi-01",))
    files = tmp_path / "first.pem", tmp_path / "next.pem"
    for file, text in zip(files, issued, strict=True):
        file.write_text(text)
    return files


def test_a_certificate_that_is_served_later_is_waited_for(pairs: tuple[Path, Path]) -> None:
    first, following = (file.read_text() for file in pairs)
    with serving(pairs[0]) as (port, seen):
        assert wait_until_served(first, port, 30) is True
        assert len(seen) == 1
        assert wait_until_served(following, port, 30) is True
        assert len(seen) == 3
        assert wait_until_served(first, port, 0) is False


def test_a_port_without_tls_is_not_waited_for(pairs: tuple[Path, Path]) -> None:
    certificate = pairs[0].read_text()
    with serving(None) as (port, seen):
        assert wait_until_served(certificate, port, 3600) is False
        assert len(seen) <= 1
    assert wait_until_served(certificate, port, 3600) is False, "nothing listens any more"


def test_the_module_shows_no_key(secrets: Path) -> None:
    pair = {"certificate": "C1", "key": "K1-of-a-host"}
    arguments = {"root": str(secrets.parent), "timeout": 0, **pair}
    first = ansible("host_certificate", arguments, "--diff")
    assert first["changed"] is True
    assert first["folder"] == f"{secrets}/tls"
    assert first["served"] is False
    assert "K1-of-a-host" not in str(first)
    assert ansible("host_certificate", arguments)["changed"] is False
    assert served(secrets) == ("C1", "K1-of-a-host")


def test_the_module_names_a_missing_folder(tmp_path: Path) -> None:
    arguments = {"root": str(tmp_path), "certificate": "C1", "key": "K1"}
    result = ansible("host_certificate", arguments)
    assert result["failed"] is True
    assert result["msg"].startswith("The certificate cannot be written: [Errno 2]")
