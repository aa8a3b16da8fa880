"""Certificate and key: what is refused at the start, and what is read again."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509

from llm_provider.errors import ConfigurationError
from llm_provider.server import tls
from llm_provider.server.tls import Certificate

from .certificates import Files, Pair, replace

OTHER = Pair.made()


@pytest.fixture
def pair() -> Pair:
    return Pair.made()


@pytest.fixture
def files(tmp_path: Path, pair: Pair) -> Files:
    return Files.at(tmp_path, pair)


def read(files: Files) -> Certificate:
    return Certificate(files.certificate, files.key)


def served(context: ssl.SSLContext) -> int:
    """The number of the certificate that a client is shown."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there)
    serving = context.wrap_bio(there, back, server_side=True)
    for side in (asking, serving, asking, serving):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    der = asking.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_a_pair_is_read(files: Files, pair: Pair) -> None:
    certificate = read(files)
    assert certificate.expires == pair.ends.timestamp()
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert certificate.context.options & ssl.OP_NO_RENEGOTIATION
    assert served(certificate.context) == pair.number


def test_a_certificate_that_has_ended_is_served(tmp_path: Path) -> None:
    """Clients that do not check it go on; the log and the metric tell."""
    old = Pair.made(-3)
    assert read(Files.at(tmp_path, old)).expires == old.ends.timestamp()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda files: replace(files.key, OTHER.key),
            "The key {key} does not belong to the certificate {certificate}. Write both files of "
            "the same pair.",
        ),
        (
            lambda files: files.certificate.unlink(),
            "The certificate {certificate} cannot be read: [Errno 2] No such file or directory: "
            "'{certificate}'.",
        ),
        (
            lambda files: files.key.unlink(),
            "The key {key} cannot be read: [Errno 2] No such file or directory: '{key}'.",
        ),
        (
            lambda files: replace(files.key, Pair.made(passphrase=b"secret").key),
            "The certificate {certificate} with the key {key} cannot be used: the key has a "
            "passphrase. Both must be PEM, the key without a passphrase.",
        ),
        (
            lambda files: files.write(Pair.made(for_clients=True)),
            "The certificate {certificate} with the key {key} cannot be used: "
            "unsuitable certificate purpose. Both must be PEM, the key without a passphrase.",
        ),
        (
            lambda files: files.certificate.write_bytes(files.certificate.read_bytes()[:200]),
            "The certificate {certificate} with the key {key} cannot be used: ",
        ),
        (
            lambda files: files.key.write_bytes(b""),
            "The certificate {certificate} with the key {key} cannot be used: ",
        ),
    ],
    ids=["other key", "no certificate", "no key", "passphrase", "purpose", "half", "empty"],
)
def test_files_that_cannot_be_used(
    files: Files, spoil: Callable[[Files], object], sentence: str
) -> None:
    spoil(files)
    with pytest.raises(ConfigurationError) as caught:
        read(files)
    names = {"certificate": files.certificate, "key": files.key}
    expected = sentence.format(**names)
    assert str(caught.value)[: len(expected)] == expected
    assert "\n" not in str(caught.value)


def test_a_new_pair_is_for_new_connections(
    files: Files, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    certificate = read(files)
    before = certificate.context
    certificate.look()
    assert certificate.context is before
    new = Pair.made(200)
    files.write(new)
    certificate.look()
    assert (served(before), served(certificate.context)) == (pair.number, new.number)
    assert certificate.expires == new.ends.timestamp()
    (record,) = caplog.records
    assert record.message == "certificate read again"
    assert record.__dict__["expires"] == new.ends.isoformat(timespec="seconds")


def test_the_pair_before_stays_until_the_new_one_is_whole(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Written slowly, one file after the other, it is no error."""
    certificate = read(files)
    before = certificate.context
    new = Pair.made()
    for data in (new.certificate[:100], new.certificate):
        files.certificate.write_bytes(data)
        certificate.look()
        certificate.look()
        assert certificate.context is before
    files.key.write_bytes(new.key)
    certificate.look()
    assert served(certificate.context) == new.number
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_pair_that_stays_wrong_is_told_once(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = read(files)
    before = certificate.context
    for count in (1, 2):
        replace(files.key, Pair.made().key)
        for _ in range(20):
            certificate.look()
        assert certificate.context is before
        assert [record.message for record in caplog.records] == [
            f"the certificate before stays in force: The key {files.key} does not belong to the "
            f"certificate {files.certificate}. Write both files of the same pair."
        ] * count


def test_the_end_is_told_once_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = Pair.made(13.9)
    files = Files.at(tmp_path, soon)
    certificate = read(files)
    for _ in range(3):
        certificate.warn()
    date = soon.ends.isoformat(timespec="seconds")
    told = (
        f"the certificate {files.certificate} expires on {date}; write a new one and its key, or "
        "run site.yml"
    )
    assert [record.message for record in caplog.records] == [told]
    monkeypatch.setattr(tls, "_WARN_AGAIN_SECONDS", 0)
    certificate.warn()
    assert len(caplog.records) == 2
    files.write(Pair.made(-1))
    certificate.look()
    certificate.warn()
    assert " expired on " in caplog.records[-1].message
    caplog.clear()
    files.write(Pair.made(14.1))
    certificate.look()
    certificate.warn()
    assert caplog.records == []
