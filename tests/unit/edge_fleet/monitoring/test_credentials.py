"""The certificate of Prometheus, Alertmanager and Grafana: used by TLS itself."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_fleet.certificates import parse_pair
from edge_fleet.monitoring.credentials import LIFETIME, RENEWED_BEFORE, monitoring_pair

NOW = datetime.now(UTC)


def contexts(folder: Path, server: str, client: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """The two sides of a connection in memory, each with its pair as authority, too."""
    sides = []
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    for name, text in (("server", server), ("client", client)):
        path = folder / f"{name}.pem"
        path.write_text(text)
        purpose = ssl.PROTOCOL_TLS_SERVER if name == "server" else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(purpose)
        context.load_cert_chain(path)
        context.load_verify_locations(path)
        context.verify_mode = ssl.CERT_REQUIRED
        ways = (incoming, outgoing) if name == "server" else (outgoing, incoming)
        sides.append(
            context.wrap_bio(
                *ways,
                server_side=name == "server",
                server_hostname=None if name == "server" else "localhost",
            )
        )
    return sides[0], sides[1]


def connect(server: ssl.SSLObject, client: ssl.SSLObject) -> None:
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    server.getpeercert()
    client.getpeercert()


def test_who_has_the_pair_is_known(tmp_path: Path) -> None:
    pair = monitoring_pair(None, NOW)
    server, client = contexts(tmp_path, pair, pair)
    connect(server, client)
    assert server.getpeercert() == client.getpeercert()


def test_who_has_another_pair_is_not(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(*contexts(tmp_path, monitoring_pair(None, NOW), monitoring_pair(None, NOW)))


def test_a_pair_is_kept_until_its_last_year() -> None:
    pair = monitoring_pair("", NOW)
    ends = NOW + LIFETIME - RENEWED_BEFORE
    assert monitoring_pair(pair, ends - timedelta(days=1)) == pair
    renewed = monitoring_pair(pair, ends + timedelta(days=1))
    assert parse_pair(renewed, renewed).certificate.not_after > ends + LIFETIME - timedelta(days=1)


def test_a_broken_file_is_replaced() -> None:
    assert monitoring_pair("half a file", NOW).startswith("-----BEGIN PRIVATE KEY-----")
